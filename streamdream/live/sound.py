"""Sound as signals: a microphone, or a file played in real time, over and over.

What is heard is told in five numbers, loud places and quiet ones alike: an automatic gain
takes the loudest of the last seconds for 1.
"""

from __future__ import annotations

import importlib
import math
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np
from jaxtyping import Float

from streamdream.errors import Error, SourceError, words
from streamdream.live.outputs import LEAVE, LONGEST, SHORTEST, STEADY, Tell
from streamdream.live.signals import HEARD, RELEASE, Follower, Signals

Samples = Float[np.ndarray, "samples"]
Power = Float[np.ndarray, "bins"]  # of each pitch

WINDOW = 0.0232  # seconds, about: 1024 samples at 44.1 kHz
BANDS = {"level": (20, 20000), "bass": (20, 250), "mid": (250, 2000), "treble": (2000, 10000)}  # Hz
FLOOR = -60.0  # dB of full scale; less is silence
QUIET = FLOOR + 15  # dB; what is never louder is not amplified up to 1
SPAN = 25.0  # dB between 0 and 1
BELOW = 18.0  # dB under the loudest of all: as much a band is amplified, or it shows leakage
LOUDER = 0.5  # seconds, time constant of the gain going down
SOFTER = 2.0  # dB a second of the gain going up: ten times as soft in ten seconds

REFRACTORY = 0.1  # seconds between two onsets, at least
PAST = 0.7  # seconds whose flux an onset has to exceed
THIRDS, DEPTH = 31, 40.0  # of octaves; dB under the loudest that are listened to
ABOVE, LEAST = 3.0, 0.04  # how much: times its median, and plus so much of DEPTH everywhere
KNOWN = 8  # windows before which nothing is known to be usual
SMALLEST = 1e-12  # whose logarithm can be taken

PLAYED = 48000  # Hz, of files
BLOCK = 512  # samples asked of a device at a time
SILENT = 2.0  # seconds after which a device that gives nothing is gone
BEHIND = 0.5  # seconds after which a file is played on from where it is


class Analysis:
    """What is heard in a stream of samples."""

    def __init__(self, rate: float) -> None:
        """For samples of this rate, in Hz."""
        self._size = max(64, 2 ** round(np.log2(rate * WINDOW)))
        self._hop = self._size // 2
        self._seconds = self._hop / rate  # from one window to the next
        self._waiting: Samples = np.zeros(0, np.float32)
        window = np.hanning(self._size + 1)[:-1]
        self._window = window.astype(np.float32)
        self._scale = 2.0 / (self._size * float(np.sum(window**2)))  # to mean squares
        pitch = np.fft.rfftfreq(self._size, 1 / rate)
        self._bins = {n: (pitch >= low) & (pitch < high) for n, (low, high) in BANDS.items()}
        self._loudest = dict.fromkeys(BANDS, FLOOR)
        self._followers = {name: Follower() for name in BANDS}
        low, high = BANDS["level"]
        pitches = np.geomspace(low, high, THIRDS)
        edges = np.unique(np.searchsorted(pitch, pitches[pitches < rate / 2]))
        self._edges = edges[(edges > 0) & (edges < len(pitch))]
        self._before: Samples | None = None
        self._flux: deque[float] = deque(maxlen=max(KNOWN, round(PAST / self._seconds)))
        self._since = REFRACTORY  # seconds since the last onset
        self._pulse = 0.0
        self.onsets: int = 0

    def hear(self, samples: Samples) -> dict[str, float]:
        """Take mono samples of -1 to 1, any number of them; the values of HEARD after the last."""
        clean = np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -8, 8)
        self._waiting = np.concatenate((self._waiting, clean.astype(np.float32)))
        start = 0
        while start + self._size <= len(self._waiting):
            self._take(self._waiting[start : start + self._size])
            start += self._hop
        self._waiting = self._waiting[start:]
        return self.values

    @property
    def values(self) -> dict[str, float]:
        """The values of HEARD, each 0 to 1."""
        found = {name: follower.value for name, follower in self._followers.items()}
        return {name: found.get(name, self._pulse) for name in HEARD}

    def _take(self, window: Samples) -> None:
        spectrum = np.fft.rfft((window - window.mean()) * self._window)
        power = (spectrum.real**2 + spectrum.imag**2) * self._scale
        loud = {
            name: 10 * float(np.log10(power[bins].sum() + SMALLEST))
            for name, bins in self._bins.items()
        }
        for name in BANDS:
            self._loudest[name] = self._gain(self._loudest[name], loud[name])
            goal = self._place(name, loud)
            self._followers[name].step(min(1.0, max(0.0, goal)), self._seconds)
        self._listen(power)

    def _gain(self, past: float, loud: float) -> float:
        if loud > past:
            return past + (loud - past) * (1 - math.exp(-self._seconds / LOUDER))
        return max(past - SOFTER * self._seconds, FLOOR)

    def _place(self, name: str, loud: dict[str, float]) -> float:
        """Where in the last seconds' loudness a band is, of 1; near the floor less."""
        most = max(self._loudest["level"], loud["level"])
        enough = min(1.0, max(0.0, (most - FLOOR) / (QUIET - FLOOR)))
        top = max(self._loudest["level"], QUIET)
        if name != "level":
            top = max(self._loudest[name], top - BELOW)
        return enough * ((loud[name] - top) / SPAN + 1)

    def _listen(self, power: Power) -> None:
        """Find onsets: what is louder than before, in how many thirds of octaves, by how much."""
        loudest = max(self._loudest["level"], QUIET)
        thirds = 10 * np.log10(np.add.reduceat(power, self._edges) + SMALLEST)
        now = np.maximum((thirds - loudest) / DEPTH + 1, 0)
        before, self._before = self._before, now
        flux = 0.0 if before is None else float(np.maximum(now - before, 0).mean())
        self._since += self._seconds
        self._pulse *= float(np.exp(-self._seconds / RELEASE))
        known = len(self._flux) >= KNOWN
        usual = median(self._flux) if known else 0.0
        self._flux.append(flux)
        sudden = known and flux > ABOVE * usual + LEAST
        if sudden and self._since >= REFRACTORY and power.sum() > 10 ** (FLOOR / 10):
            self._since, self._pulse = 0.0, 1.0
            self.onsets += 1


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
            with closing(_decoded(self._path)) as found:
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
            with closing(_decoded(path)) as pieces:
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


def _decoded(path: Path) -> Generator[Samples, None, None]:
    """The samples of a file, mono at PLAYED, once; raises SourceError if there are none."""
    import av
    from av.audio.frame import AudioFrame
    from av.error import FFmpegError

    name, empty = str(path), True
    try:
        with av.open(name, metadata_errors="replace") as opened:
            if not opened.streams.audio:
                raise SourceError(path, "holds no sound")
            resampler = av.AudioResampler("flt", "mono", PLAYED)
            for packet in opened.demux(opened.streams.audio[0]):
                frames: list[Any] = []
                with suppress(FFmpegError):  # damage is passed over
                    frames = list(packet.decode())
                for frame in frames:
                    assert isinstance(frame, AudioFrame)
                    for part in resampler.resample(frame):
                        empty = False
                        yield part.to_ndarray()[0]
    except (OSError, FFmpegError) as fault:
        raise SourceError(path, f"cannot be played ({words(fault)})") from None
    if empty:
        raise SourceError(path, "holds no sound")
