"""What can be changed while a dream runs, from wherever: one table of names, ranges and values.

The page, the keyboard, OSC, MIDI and presets all say `set(name, value)` or `act(name)`; values
ramp to where they are sent, signals move them about, and the stage asks `at(now)` for every
frame.
"""

from __future__ import annotations

import math
import random
import re
import time
import types
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from threading import RLock
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from streamdream import models
from streamdream.errors import Error, OptionError, near
from streamdream.keys import Span
from streamdream.live.options import LiveOptions
from streamdream.objectives.named import named_in
from streamdream.options import Look
from streamdream.reactions import driven
from streamdream.schedule import Moment
from streamdream.settings import made, preset_names, read_preset
from streamdream.style.named import shipped

# Of a block its last one, and none for classifying.
MAIN_LAYERS = r"(block|relu|fire)\d+(_\d+)?|(inception|mixed)\d[a-e]|(layer|stage)\d\.\d+"

WAITING = 64  # actions that nobody fetched yet; more are dropped

SWITCHED = {
    **dict.fromkeys(("1", "true", "on", "yes"), True),
    **dict.fromkeys(("0", "false", "off", "no"), False),
}

Signals = Callable[[], Mapping[str, float]]
"""The signals of this moment, each 0 to 1."""


@dataclass(frozen=True)
class Control:
    """One option that can be changed live, as every kind of control shows it.

    `kind` is number, whole (number), switch (true or false), choice (of `choices`) or names
    (several of `choices`). `low` to `high` is a slider's span, `least` to `most` what is
    allowed, None without a bound.
    """

    name: str
    kind: Literal["number", "whole", "switch", "choice", "names"]
    group: str
    help: str
    default: Any
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Action:
    """Something to do: `toggles` says that it is a state that is switched on and off."""

    name: str
    help: str
    key: str
    toggles: bool = False


ACTIONS = {
    action.name: action
    for action in (
        Action("pause", "pause the camera; the dream goes on", "space", True),
        Action("freeze", "freeze everything", "z", True),
        Action("blackout", "fade to black and back", "b", True),
        Action("record", "begin or end a recording", "r", True),
        Action("snapshot", "save the picture as PNG", "c"),
        Action("next-preset", "go on to the next preset", "n"),
        Action("previous-preset", "go back to the preset before", "p"),
        Action("random-preset", "go to a random preset", "x"),
        Action("reset", "forget the dream and begin anew", "backspace"),
        Action("tap", "tap the beat; twice or more sets the tempo", "t"),
        Action("learn", "bind the option changed last to the MIDI knob moved next", "l", True),
        Action("view", "dream, source, half and half", "v"),
        Action("status", "show how it goes", "s", True),
        Action("identify", "number the monitors", "i", True),
        Action("test-pattern", "show a test pattern", "g", True),
        Action("fullscreen", "fill the monitor, or go back to a window", "f", True),
        Action("help", "show the keys", "h", True),
        Action("quit", "quit", "escape"),
    )
}


@dataclass
class _Ramp:
    """A number on its way; times are monotonic, in seconds."""

    start: float
    goal: float
    began: float
    length: float

    def at(self, now: float) -> float:
        part = 1.0 if self.length <= 0 else min(1.0, max(0.0, (now - self.began) / self.length))
        return self.start + (self.goal - self.start) * part

    def over(self, now: float) -> bool:
        return now - self.began >= self.length


class Controls:
    """The values of all live options, by name as it is typed ("step-size"). For many threads."""

    def __init__(
        self, options: LiveOptions, preset: str | None = None, signals: Signals = dict
    ) -> None:
        """Begin with these options, which belong to a preset if one is named."""
        options = options.clocked(options.clock)
        self._began = time.monotonic()
        self._start = _without(options, preset)
        self._goal = options
        self._ramps: dict[str, _Ramp] = {}
        self._actions: deque[tuple[str, object]] = deque(maxlen=WAITING)
        self._lock = RLock()
        self._signals = signals
        self._reactions = options.reactions
        self._random = random.Random(options.seed)
        self.preset = preset
        self.touched = "strength"  # the option that was changed last, for learning knobs
        self.presets = preset_names()
        # What opens files: nobody may name others from outside.
        self._files = {"style": _styles(options), "guide": _files(options, "guide")}
        self.table: dict[str, Control] = table(options, self._files)

    def set(self, name: str, value: object, seconds: float | None = None) -> None:
        """Send an option to a value, in `seconds` (None: as --ramp says).

        Raises OptionError (or ModelError) for a name or value that cannot be.
        """
        self.set_all({name: value}, seconds)

    def set_all(self, values: Mapping[str, object], seconds: float | None = None) -> None:
        """Send several options to values, all of them or none; raises as `set` does."""
        found: dict[str, object] = {}
        for name, value in values.items():
            control = self._known(name)
            found[_field(control.name)] = _plain(control, value)
        with self._lock:
            self._send(found, seconds)
            for name in found:
                self.touched = _typed(name)

    def nudge(self, name: str, part: float) -> None:
        """Move a number by a part of its slider, or a choice by one in that direction."""
        control = self._known(name)
        with self._lock:
            goal = self._scheduled(time.monotonic())
            now = getattr(goal, _field(name))
            if control.kind in ("choice", "names"):
                names = goal.chosen_layers if name == "layers" else now
                first = names[0].partition("[")[0] if control.kind == "names" and names else ""
                current = models.parted(first)[0] if control.kind == "names" else _text(now)
                place = control.choices.index(current) if current in control.choices else -1
                step = 1 if part > 0 else -1
                self.set(name, control.choices[(place + step) % len(control.choices)])
            elif control.kind == "switch":
                self.set(name, part > 0)
            elif control.low is not None and control.high is not None:
                move = (control.high - control.low) * part
                if control.kind == "whole":
                    move = max(1, round(abs(move))) * (1 if part > 0 else -1)
                low, high = min(control.low, now), max(control.high, now)
                self.set(name, min(max(now + move, low), high))

    def slide(self, name: str, place: float) -> None:
        """Put a slider at a `place` from 0 to 1, as a MIDI controller does."""
        control = self._known(name)
        if math.isnan(place):
            raise OptionError(name, "that is not a number")
        place = min(1.0, max(0.0, place))
        if control.kind == "switch":
            self.set(name, place >= 0.5)
        elif control.low is not None and control.high is not None:
            value = control.low + (control.high - control.low) * place
            self.set(name, round(value) if control.kind == "whole" else value)
        else:
            last = len(control.choices) - 1
            self.set(name, control.choices[round(place * last)])

    def take_preset(self, name: str, seconds: float | None = None) -> None:
        """Cross-fade to a preset in `seconds` (None: as --fade says); raises OptionError.

        What the preset does not name goes back to where the run began.
        """
        values = read_preset(name, Look)
        with self._lock:
            begun = {k: v for k, v in self._start.given(True).items() if _is_look(k)}
            if "layers" in values or "classes" in values:
                # Without a model they are the default one's; classes stand for layers.
                begun |= {"layers": ()}
                begun["model"] = Look.model_fields["model"].get_default()
            elif "model" in values:
                begun["layers"] = ()
            self._send({**begun, **values}, self._goal.fade if seconds is None else seconds)
            self.preset = name

    def act(self, name: str, value: object = None) -> None:
        """Ask for an action; a `value` of true or false switches what toggles on or off.

        Raises OptionError for one that is not known.
        """
        if name not in ACTIONS:
            raise OptionError(name, "no such action", near(name, tuple(ACTIONS), "actions"))
        steps = {"next-preset": 1, "previous-preset": -1}
        if name in steps or name == "random-preset":
            with self._lock:
                self.take_preset(self._other_preset(steps.get(name)))
        elif name == "view":
            self.nudge("view", 1)
        else:
            moment = time.monotonic() if name == "tap" else value  # fetched up to a frame later
            self._actions.append((name, moment))

    def actions(self) -> list[tuple[str, object]]:
        """The actions asked for since the last call: for the stage alone."""
        found = []
        while self._actions:
            found.append(self._actions.popleft())
        return found

    def at(self, now: float | None = None) -> LiveOptions:
        """The options in force at a moment (monotonic seconds)."""
        now = time.monotonic() if now is None else now
        with self._lock:
            moved: dict[str, object] = {k: ramp.at(now) for k, ramp in self._ramps.items()}
            self._ramps = {k: ramp for k, ramp in self._ramps.items() if not ramp.over(now)}
            goal = self._scheduled(now)
            reactions = self._reactions
        sent = goal.model_copy(update=moved) if moved else goal
        return driven(sent, reactions, self._signals()) if reactions else sent

    def values(self) -> dict[str, Any]:
        """Where every control is sent to (or a schedule is), by name; for pages and feedback."""
        goal = self._scheduled(time.monotonic())
        found = goal.model_dump(mode="json", include={_field(name) for name in self.table})
        return {_typed(name): value for name, value in found.items()}

    def _known(self, name: str) -> Control:
        control = self.table.get(name.replace("_", "-"))
        if control is None:
            cure = near(name, tuple(self.table), "controls")
            raise OptionError(name, "cannot be changed while it runs", cure)
        return control

    def _send(self, values: Mapping[str, object], seconds: float | None) -> None:
        now = time.monotonic()
        if "model" in values and "layers" not in values:
            values = {**values, "layers": ()}  # layers belong to a model
        if "model" in values and values["model"] != self._goal.model:
            # So do weights, and what would have to be fetched is no choice in the middle of a show.
            self._check_model(str(values["model"]))
            own = values["model"] == self._start.model
            values = {**values, "weights": self._start.weights if own else None}
            if not models.classes_of(models.card(str(values["model"]))):
                values = {"classes": (), **values}
        goal = made(LiveOptions, self._goal.given(True), values)
        for name in self._files:
            self._check_files(goal, name)
        goal = goal.clocked(goal.clock)
        length = goal.ramp if seconds is None else seconds
        shown = self.at_without_signals(now)
        for name in values:
            new, old = getattr(goal, name), getattr(shown, name)
            moving = name in goal.schedules
            if (
                not moving
                and isinstance(new, float)
                and isinstance(old, int | float)
                and new != old
            ):
                self._ramps[name] = _Ramp(float(old), new, now, length)
            else:
                self._ramps.pop(name, None)
        if goal.model != self._goal.model:
            self.table = table(goal, self._files)
        self._goal = goal

    def _check_model(self, name: str) -> None:
        """Raise OptionError for a model that is not here, ModelError for one that is not known."""
        known = self.table["model"].choices
        if name in known or name in models.present(self._goal.store):
            return
        if name.startswith(models.TIMM):
            raise OptionError(f"model {name}", "cannot be chosen here", "begin the run with it")
        models.card(name)
        cure = f"fetch it with: streamdream models {name} --fetch"
        raise OptionError(f"model {name}", "its weights are not here", cure)

    def _check_files(self, goal: LiveOptions, name: str) -> None:
        """Raise OptionError for a style or guide that was not named at the start."""
        choices = self._files[name]
        known = {models.parted(text)[0] for choice in choices for text in choice.split(",")}
        for text in named_in(goal, name):
            if text not in known:
                cure = _named(choices, name)
                raise OptionError(f"{name} {text[:80]}", "cannot be chosen here", cure)

    def at_without_signals(self, now: float) -> LiveOptions:
        """The same as `at`, as if there were no signals."""
        with self._lock:
            moved = {k: ramp.at(now) for k, ramp in self._ramps.items()}
            goal = self._scheduled(now)
            return goal.model_copy(update=moved) if moved else goal

    @property
    def goal(self) -> LiveOptions:
        """Where everything is sent to, schedules as such."""
        return self._goal

    def look(self, now: float) -> tuple[object, ...]:
        """What makes a dream another one that has to grow anew.

        What signals and schedules move about is the same look all the time, or it would never
        be grown.
        """
        meant = self.at_without_signals(now)
        looks = {name: getattr(meant, name) for name in ("model", "octaves", "step_size")}
        looks["layers"] = meant.chosen_layers
        for name in ("objective", "channels", "classes", "guide"):
            looks[name] = getattr(meant, name)
        schedules = {n: moving.text for n, moving in self._goal.schedules.items() if n in looks}
        return tuple((looks | schedules).items())

    def _scheduled(self, now: float) -> LiveOptions:
        """The options with schedules at their values; their time counts from the beginning."""
        goal = self._goal
        if not goal.schedules:
            return goal
        passed = Fraction(max(0.0, now - self._began)).limit_denominator(1_000_000)
        return goal.at(Moment(passed, int(passed * (goal.clock.rate or 1))))

    def _other_preset(self, step: int | None) -> str:
        names = [name for name in self.presets if name != self.preset]
        if step is None:
            return self._random.choice(names)
        if self.preset not in self.presets:
            return self.presets[0 if step > 0 else -1]
        return self.presets[(self.presets.index(self.preset) + step) % len(self.presets)]


def _without(options: LiveOptions, preset: str | None) -> LiveOptions:
    """The options without what a preset brought; what was typed over it stays."""
    if preset is None:
        return options
    given = read_preset(preset, Look)
    taken = made(LiveOptions, given)
    now, then = (_as_typed(one) for one in (options, taken))
    brought = [name for name in given if now[name] == then[name]]
    fields = LiveOptions.model_fields
    return options.model_copy(update={name: fields[name].get_default() for name in brought})


def _as_typed(options: LiveOptions) -> dict[str, object]:
    """The values, of schedules the text."""
    texts = {name: moving.text for name, moving in options.schedules.items()}
    return {**options.model_dump(), **texts}


def _field(name: str) -> str:
    return name.replace("-", "_")


def _typed(name: str) -> str:
    return name.replace("_", "-")


def _is_look(name: str) -> bool:
    return name in Look.model_fields and isinstance(
        LiveOptions.model_fields[name].json_schema_extra, dict
    )


def _plain(control: Control, value: object) -> object:
    """A value as it came from outside, refused early if it is of a wrong kind or too long."""
    if isinstance(value, str) and len(value) > 1000:
        raise OptionError(control.name, "that is too long")
    if control.kind == "names" and isinstance(value, list | tuple) and len(value) > 64:
        raise OptionError(control.name, "those are too many")
    if isinstance(value, float) and math.isnan(value):
        raise OptionError(control.name, "that is not a number")
    if control.name in ("style", "guide") and value not in control.choices:
        shown, cure = str(value)[:80], _named(control.choices, control.name)
        raise OptionError(f"{control.name} {shown}", "cannot be chosen here", cure)
    if control.kind == "switch":
        word = value.strip().lower() if isinstance(value, str) else value
        if isinstance(word, str) and word in SWITCHED:
            return SWITCHED[word]
        if not isinstance(word, int | float):
            raise OptionError(control.name, "is true or false")
        return bool(word)
    if control.kind == "whole" and isinstance(value, float) and abs(value) < 1e18:
        return round(value)
    return value


def table(
    options: LiveOptions, files: Mapping[str, tuple[str, ...]] | None = None
) -> dict[str, Control]:
    """All that can be changed while it runs, by name as it is typed; `files` to choose from."""
    found = {}
    files = files or {"style": (), "guide": ()}
    for name, field in LiveOptions.model_fields.items():
        if name in files and len(files[name]) < 2:
            continue  # none
        if name == "classes" and not models.classes_of(models.card(options.model)):
            continue
        if isinstance(field.json_schema_extra, dict) and "slides" in field.json_schema_extra:
            control = _control(name, field, options, files)
            found[control.name] = control
    return found


def _styles(options: LiveOptions) -> tuple[str, ...]:
    """The styles to choose from: none, those that the run began with, those that ship."""
    return tuple(dict.fromkeys([*_files(options, "style"), *shipped()]))


def _files(options: LiveOptions, name: str) -> tuple[str, ...]:
    """What an option that names files began with: nothing, all together, each alone."""
    together = [_text(getattr(options, name))] if name not in options.schedules else []
    return tuple(dict.fromkeys(["", *together, *named_in(options, name)]))


def _named(choices: tuple[str, ...], name: str) -> str:
    return near("", [choice for choice in choices if choice], f"{name}s")


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _control(
    name: str, field: FieldInfo, options: LiveOptions, files: Mapping[str, tuple[str, ...]]
) -> Control:
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    slider: Any = extra["slides"]
    group = next((str(p.group[0].name) for p in field.metadata if getattr(p, "group", None)), "")
    default = field.get_default()
    kind: Literal["number", "whole", "switch", "choice", "names"] = "number"
    choices: tuple[str, ...] = ()
    inner = _without_none(field.annotation)
    if name in files:
        kind, choices, default = "choice", files[name], ""
    elif name == "classes":
        kind, choices = "names", models.classes_of(models.card(options.model))
    elif name == "layers":
        kind, choices = "names", _main_layers(options.model)
    elif name == "model":
        there = models.present(options.store)
        kind, choices = "choice", tuple(dict.fromkeys([*there, options.model]))
    elif get_origin(inner) is Literal:
        kind, choices = "choice", tuple(str(choice) for choice in get_args(inner))
    elif inner is bool:
        kind = "switch"
    elif inner is int:
        kind = "whole"
    span = Span.of(field)
    least, most = (end if math.isfinite(end) else None for end in (span.low, span.high))
    low, high = slider if slider else (None, None)
    text = (field.description or "").strip()
    default = list(default) if isinstance(default, tuple) else default
    return Control(_typed(name), kind, group, text, default, low, high, least, most, choices)


def _main_layers(model: str) -> tuple[str, ...]:
    """The layers to choose from: of a block its last one, not those for classifying."""
    card = models.card(model)
    found = tuple(n for n in card.layers if re.fullmatch(MAIN_LAYERS, n))
    return found or tuple(dict.fromkeys([*card.walk, *card.default_layers])) or card.layers


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


__all__ = ["ACTIONS", "Action", "Control", "Controls", "Error", "Signals"]
