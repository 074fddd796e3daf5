"""Sound as signals: a microphone, or a file played in real time, over and over.

What is heard in it `hearing` tells.
"""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from streamdream.errors import Error, SourceError, words
from streamdream.hearing import PLAYED, Analysis, Samples, decoded
from streamdream.live.outputs import LEAVE, LONGEST, SHORTEST, STEADY, Tell
from streamdream.live.signals import Signals

BLOCK = 512  # samples asked of a device at a time
SILENT = 2.0  # seconds after which a device that gives nothing is gone
BEHIND = 0.5  # seconds after which a file is played on from where it is


class Sound:
    """Listens in a thread of its own, for ever; what is heard goes to `signals`."""

    def __init__(self, device: str, signals: Signals, tell: Tell) -> None:
        """Listen to a device ("auto", a part of its name, its number) or to a sound file.

        `tell` is called from the thread. Raises SourceError if a file is not there or holds no
        sound, or what listens to devices is not installed. A device may come later.
        """
        self.trouble = ""  # why nothing is heard, empty if something is
        self._device, self._signals, self._tell = device, signals, tell
        self._stopping = Event()
        self._path = _file(device)
        if self._path is None:
            _sounddevice()
        else:
            with closing(decoded(self._path)) as found:
                next(found)
        self._thread = Thread(target=self._work, name="streamdream-sound", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a device that hangs is left alone after a while."""
        self._stopping.set()
        self._thread.join(LEAVE)

    def _work(self) -> None:
        pause = SHORTEST
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except Exception as fault:  # devices and files fail in many ways
                pause = SHORTEST if time.monotonic() - began > STEADY else pause
                self._failed(fault)
                self._stopping.wait(pause)
                pause = min(LONGEST, pause * 2)

    def _listen(self) -> None:
        heard = self._recorded() if self._path is None else self._played(self._path)
        analysis: Analysis | None = None
        with closing(heard):
            for rate, samples in heard:
                analysis = analysis or Analysis(rate)
                self._signals.heard(analysis.hear(samples))
                if self.trouble:
                    self.trouble = ""
                    self._tell(f"sound {self._device}: goes on")

    def _failed(self, fault: Exception) -> None:
        why = fault.reason if isinstance(fault, Error) else words(fault)
        if not self.trouble:
            self._tell(f"sound {self._device}: {why}; tried again for as long as it takes")
        self.trouble = why

    def _played(self, path: Path) -> Generator[tuple[float, Samples], None, None]:
        """The samples of a file as time goes on, from front to end and again."""
        due = time.monotonic()
        while not self._stopping.is_set():
            with closing(decoded(path)) as pieces:
                for samples in pieces:
                    late = time.monotonic() - due
                    due = due + late if late > BEHIND else due
                    for i in range(0, len(samples), BLOCK):
                        block = samples[i : i + BLOCK]
                        due += len(block) / PLAYED
                        if self._stopping.wait(max(0.0, due - time.monotonic())):
                            return
                        yield PLAYED, block

    def _recorded(self) -> Generator[tuple[float, Samples], None, None]:
        """The samples of a device as they come; ends with SourceError when none do."""
        sounddevice = _sounddevice()
        waiting: deque[Samples] = deque(maxlen=256)
        came = Event()

        def take(given: Any, _frames: int, _time: Any, _status: Any) -> None:
            waiting.append(given.mean(axis=1))
            came.set()

        with suppress(Exception):  # only so are devices seen that were plugged in since
            sounddevice._terminate()
        sounddevice._initialize()
        number, rate, channels = _chosen(sounddevice, self._device)
        stream = sounddevice.InputStream(
            samplerate=rate, blocksize=BLOCK, device=number, channels=channels,
            dtype="float32", callback=take,
        )  # fmt: skip
        try:
            stream.start()
            while not self._stopping.is_set():
                if not came.wait(SILENT):
                    raise SourceError(self._device, "gives no sound any more")
                came.clear()
                while waiting:
                    yield rate, waiting.popleft()
        finally:
            stream.abort()  # to stop would wait for a device that may be gone
            stream.close()


def _file(device: str) -> Path | None:
    """The path of a sound file, None for a device; raises SourceError if it is not there."""
    path = Path(device)
    if path.is_file():
        return path.absolute()
    if path.suffix or len(path.parts) > 1:
        raise SourceError(f"--sound {device}", "no such file")
    return None


def _sounddevice() -> Any:
    try:
        sounddevice: Any = importlib.import_module("sounddevice")
    except ImportError:
        cure = "pip install 'streamdream[sound]'"
        raise SourceError("--sound", "a microphone needs sounddevice", cure) from None
    except OSError:
        cure = "apt install libportaudio2 (Linux), or pip install --force-reinstall sounddevice"
        raise SourceError("--sound", "PortAudio is missing", cure) from None
    except Exception as fault:  # PortAudio starts with the import
        raise SourceError("--sound", words(fault)) from None
    return sounddevice


def _chosen(sounddevice: Any, device: str) -> tuple[int, float, int]:
    """Number, rate and channels of a device that listens; raises SourceError if there is none."""
    known = [d for d in sounddevice.query_devices() if d["max_input_channels"] > 0]
    if device == "auto":
        first = sounddevice.default.device[0]
        found = [d for d in known if d["index"] == first] or known
    elif device.isdecimal():
        found = [d for d in known if d["index"] == int(device)]
    else:
        found = [d for d in known if device.casefold() in d["name"].casefold()]
    if not found:
        names = ", ".join(f"{d['index']} {d['name']}" for d in known)
        raise SourceError(device, f"no such microphone; there are: {names or 'none'}")
    chosen = found[0]
    return chosen["index"], chosen["default_samplerate"], min(2, chosen["max_input_channels"])
