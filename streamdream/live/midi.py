"""A MIDI controller: knobs move options, keys do actions, a clock beats time.

Which knob is which option is learned and kept in a TOML file. A knob takes an option over only
when it passes the option's value, so that nothing jumps.
"""

from __future__ import annotations

import os
import re
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, RLock, Thread
from typing import Any, Literal

from streamdream.errors import Error, OptionError, near, words
from streamdream.live.controls import ACTIONS, Control, Controls
from streamdream.live.osc import PATIENCE, Seldom, place_of
from streamdream.live.outputs import LEAVE, Tell
from streamdream.live.signals import Signals

LOOK = 2.0  # seconds between two looks at what is plugged in
NO_MIDI = 60.0  # the same where the system has no MIDI, and its library says so every time
WAITING = 1000  # messages that nobody had time for; more are dropped
NEAR = 1.5 / 127  # of a slider: how near a knob takes it over
PRESSED, RELEASED = 64, 32  # values of a controller that is a button
NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
THROUGH = "midi through"  # a port of Linux that nothing is plugged into


@dataclass(frozen=True)
class Key:
    """A knob or a key: `channel` 1 to 16, `number` 0 to 127."""

    kind: Literal["controller", "note"]
    channel: int
    number: int

    def __str__(self) -> str:
        """As people say it."""
        return f"{self.kind} {self.number} of channel {self.channel}"


@dataclass
class _Knob:
    """What is known of a knob: its last value, and whether it is pressed, if it is a button."""

    value: int | None = None
    pressed: bool = False


@dataclass
class Desk:
    """What messages of a controller mean; `bindings` from keys to options and actions."""

    controls: Controls
    bindings: dict[Key, str] = field(default_factory=dict)
    signals: Signals | None = None
    learning: str | None = None
    _knobs: dict[Key, _Knob] = field(default_factory=dict)

    def take(self, message: Any, at: float | None = None) -> Key | None:
        """Do what a mido message says that came `at` a moment; the key it bound, if it did.

        Raises Error for what cannot be.
        """
        if self.signals is not None and message.type == "clock":
            self.signals.clock(at)
        elif self.signals is not None and message.type == "start":
            self.signals.downbeat()
        elif message.type == "control_change":
            return self._take(
                Key("controller", message.channel + 1, message.control), message.value
            )
        elif message.type == "note_on" and message.velocity > 0:
            return self._take(Key("note", message.channel + 1, message.note), message.velocity)
        return None

    def _take(self, key: Key, value: int) -> Key | None:
        if self.learning is not None:
            name, self.learning = self.learning, None
            kept = {k: other for k, other in self.bindings.items() if other != name}
            self.bindings = {**kept, key: name}
            self._knobs[key] = _Knob(value, pressed=value >= PRESSED)
            return key
        name = self.bindings.get(key)
        if name in ACTIONS and name not in self.controls.table:
            if key.kind == "note" or self._pressed(key, value):
                self.controls.act(name)
        elif name in self.controls.table:
            if key.kind == "note":
                self._hit(name, value)
            else:
                self._turn(key, name, value)
        return None

    def _pressed(self, key: Key, value: int) -> bool:
        knob = self._knobs.setdefault(key, _Knob())
        before = knob.pressed
        knob.pressed = value >= (RELEASED if before else PRESSED)
        return knob.pressed and not before

    def _hit(self, name: str, velocity: int) -> None:
        kind = self.controls.table[name].kind
        if kind == "switch":
            self.controls.set(name, not self.controls.values()[name])
        elif kind in ("choice", "names"):
            self.controls.nudge(name, 1)
        else:
            self.controls.slide(name, velocity / 127)

    def _turn(self, key: Key, name: str, value: int) -> None:
        knob = self._knobs.setdefault(key, _Knob())
        before, knob.value = knob.value, value
        place, control = value / 127, self.controls.table[name]
        now = place_of(control, self.controls.values()[name])
        if now is not None and control.kind != "switch":
            past = place if before is None else before / 127
            low, high = min(place, past), max(place, past)
            near = _nearness(control)
            if not low - near <= now <= high + near:
                return
        self.controls.slide(name, place)


def _nearness(control: Control) -> float:
    """Half a step of a choice or a whole number, which have few places on a slider."""
    steps = float(max(1, len(control.choices) - 1))
    if control.kind == "whole" and control.low is not None and control.high is not None:
        steps = control.high - control.low
    return NEAR if control.kind == "number" else max(NEAR, 0.5 / steps)


class Midi:
    """Listens to a controller in a thread of its own, which may come and go."""

    def __init__(
        self,
        controls: Controls,
        name: str,
        file: Path,
        tell: Tell,
        signals: Signals | None = None,
    ) -> None:
        """Listen to a port whose name has `name` in it, or with "auto" to the first.

        What was learned is in `file`; one that is broken is told and set aside. A clock beats
        time for `signals`. `tell` is called from the thread. Raises OptionError if what
        listens is not installed.
        """
        _mido()
        self._name, self._file, self._tell = name, file, tell
        self.port: str | None = None  # what is listened to
        self._said = ""
        self._wrong = Seldom("MIDI", tell, PATIENCE)
        self._lock = RLock()
        self._desk = Desk(controls, {}, signals)
        try:
            self._desk.bindings = read(file)
        except OptionError as fault:
            aside = file.with_name(f"{file.name}.broken")
            kept = ""
            with suppress(OSError):
                file.replace(aside)
                kept = f"it is now {aside.name}, "
            tell(f"{fault}; {kept}nothing is learned")
        self._stopping = Event()
        self._came: Queue[tuple[float, Any]] = Queue(WAITING)
        self._thread = Thread(target=self._work, name="streamdream-midi", daemon=True)
        self._thread.start()

    def learn(self, control: str | None) -> None:
        """Let the next knob or key be this option or action from now on; None gives up.

        Raises OptionError if there is no such option or action.
        """
        known = (*self._desk.controls.table, *ACTIONS)
        if control is not None and control not in known:
            raise OptionError(control, "cannot be learned", near(control, known, "controls"))
        with self._lock:
            self._desk.learning = control

    @property
    def learning(self) -> str | None:
        """What waits for a knob or a key."""
        return self._desk.learning

    @property
    def bindings(self) -> Mapping[Key, str]:
        """The options and actions of all knobs and keys."""
        return dict(self._desk.bindings)

    def close(self) -> None:
        """Stop listening; a port that hangs is left alone after a while."""
        self._stopping.set()
        with suppress(Full):  # this only wakes the thread
            self._came.put_nowait((0.0, None))
        self._thread.join(LEAVE)

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
                pause = LOOK
            except Exception as fault:  # drivers fail in many ways
                why = words(fault)
                self._say(f"MIDI: {why.rstrip('.')}; looked for again and again")
                pause = LOOK if isinstance(fault, OSError) else NO_MIDI
            self._stopping.wait(pause)

    def _listen(self) -> None:
        """Listen while the controller is there; returns when it is not."""
        mido = _mido()
        found = self._found(mido.get_input_names())
        if found is None:
            self._say(f"MIDI: no controller {self._name}; looked for again and again")
            return
        port = mido.open_input(found, callback=self._come)
        try:
            self.port = found
            self._say(f"MIDI: listens to {found}")
            looked = time.monotonic()
            while not self._stopping.is_set():
                with suppress(Empty):
                    at, message = self._came.get(timeout=LOOK)
                    self._take(message, at)
                self._wrong.pass_on()
                if time.monotonic() - looked >= LOOK:
                    looked = time.monotonic()
                    if found not in mido.get_input_names():
                        return
        finally:
            self.port = None
            port.close()

    def _found(self, names: Iterable[str]) -> str | None:
        wanted = self._name.casefold()
        for name in names:
            here = name.casefold()
            if wanted in here if wanted != "auto" else THROUGH not in here:
                return name
        return None

    def _come(self, message: Any) -> None:
        with suppress(Full):
            self._came.put_nowait((time.monotonic(), message))

    def _take(self, message: Any, at: float) -> None:
        if message is None:
            return
        try:
            with self._lock:
                key = self._desk.take(message, at)
                bindings = dict(self._desk.bindings)
            if key is not None:
                write(self._file, bindings)
                self._tell(f"MIDI: {key} is {bindings[key]}")
        except Exception as fault:  # the next knob may be better
            self._wrong.add(str(fault) if isinstance(fault, Error) else words(fault))

    def _say(self, line: str) -> None:
        """Tell a line, unless it was the last."""
        if line != self._said:
            self._tell(line)
        self._said = line


def mapping_file() -> Path:
    """Where a person's settings are, on this kind of system."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "streamdream" / "midi.toml"


def read(file: Path) -> dict[Key, str]:
    """What was learned; nothing if there is no such file. Raises OptionError if it is broken."""
    try:
        values = tomllib.loads(file.read_text("utf-8"))
        found = {}
        for entry in values.get("binding", []):
            kind: Any = "note" if "note" in entry else "controller"
            key = Key(kind, entry["channel"], entry[kind])
            if not (1 <= key.channel <= 16 and 0 <= key.number <= 127):
                raise ValueError(f"there is no {key}")
            if not NAME.fullmatch(entry["control"]):
                raise ValueError(f"{key} has no option's name")
            found[key] = entry["control"]
        return found
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise OptionError(file, words(fault)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise OptionError(file, f"not a table of knobs and keys ({words(fault)})") from None


def write(file: Path, bindings: Mapping[Key, str]) -> None:
    """Keep what was learned, wholly or not at all. Raises OptionError."""
    lines = ["# What streamdream learned: knobs and keys, and the options and actions they are."]
    for key, name in bindings.items():
        lines += ["", "[[binding]]", f"channel = {key.channel}"]
        lines += [f"{key.kind} = {key.number}", f'control = "{name}"']
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as fault:
        raise OptionError(file, f"what was learned cannot be kept ({words(fault)})") from None


def _mido() -> Any:
    try:
        import mido
        import rtmidi  # noqa: F401
    except ImportError:
        cure = "pip install 'streamdream[midi]'"
        raise OptionError("--midi", "needs mido and python-rtmidi", cure) from None
    return mido
