"""Sound as numbers: how loud it is at which pitches, and where something begins.

What is heard is told in five numbers, loud places and quiet ones alike: an automatic gain takes
the loudest around for 1. `Analysis` hears what comes, as time goes on; `soundtrack` what is in a
file, from both sides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float

from streamdream.errors import SourceError, words
from streamdream.reactions import HEARD, RELEASE, Follower

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Samples = Float[np.ndarray, "samples"]
Windows = Float[np.ndarray, "windows samples"]
Power = Float[np.ndarray, "windows bins"]  # of each pitch
Bands = Float[np.ndarray, "windows bands"]
Thirds = Float[np.ndarray, "windows thirds"]

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


class Pitches:
    """What is in short windows of samples, by pitch.

    `size` samples are a window, and `hop` from one to the next.
    """

    def __init__(self, rate: float) -> None:
        """For samples of this rate, in Hz."""
        self.size = max(64, 2 ** round(np.log2(rate * WINDOW)))
        self.hop = self.size // 2
        window = np.hanning(self.size + 1)[:-1]
        self._window = window.astype(np.float32)
        self._scale = 2.0 / (self.size * float(np.sum(window**2)))  # to mean squares
        pitch = np.fft.rfftfreq(self.size, 1 / rate)
        self._bins = [(pitch >= low) & (pitch < high) for low, high in BANDS.values()]
        low, high = BANDS["level"]
        pitches = np.geomspace(low, high, THIRDS)
        edges = np.unique(np.searchsorted(pitch, pitches[pitches < rate / 2]))
        self._edges = edges[(edges > 0) & (edges < len(pitch))]

    def power(self, windows: Windows) -> Power:
        """The power at each pitch, of windows of -1 to 1; a row's sum is its mean square."""
        mean = windows.mean(axis=1, keepdims=True)
        spectrum = np.fft.rfft((windows - mean) * self._window)
        return (spectrum.real**2 + spectrum.imag**2) * self._scale

    def loudness(self, power: Power) -> Bands:
        """How loud each of BANDS is, in dB of full scale."""
        loud = [power[:, bins].sum(axis=1) for bins in self._bins]
        return 10 * np.log10(np.stack(loud, axis=1) + SMALLEST)

    def thirds(self, power: Power) -> Thirds:
        """How loud each third of an octave is, in dB of full scale."""
        return 10 * np.log10(np.add.reduceat(power, self._edges, axis=1) + SMALLEST)


def cleaned(samples: Samples) -> Samples:
    """Samples without what is no number or out of all bounds."""
    clean = np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -8, 8)
    return clean.astype(np.float32)


class Analysis:
    """What is heard in a stream of samples."""

    def __init__(self, rate: float) -> None:
        """For samples of this rate, in Hz."""
        self._pitches = Pitches(rate)
        self._seconds = self._pitches.hop / rate  # from one window to the next
        self._waiting: Samples = np.zeros(0, np.float32)
        self._loudest = dict.fromkeys(BANDS, FLOOR)
        self._followers = {name: Follower() for name in BANDS}
        self._before: Samples | None = None
        self._flux: deque[float] = deque(maxlen=max(KNOWN, round(PAST / self._seconds)))
        self._since = REFRACTORY  # seconds since the last onset
        self._pulse = 0.0
        self.onsets: int = 0

    def hear(self, samples: Samples) -> dict[str, float]:
        """Take mono samples of -1 to 1, any number of them; the values of HEARD after the last."""
        self._waiting = np.concatenate((self._waiting, cleaned(samples)))
        start, size = 0, self._pitches.size
        while start + size <= len(self._waiting):
            self._take(self._waiting[None, start : start + size])
            start += self._pitches.hop
        self._waiting = self._waiting[start:]
        return self.values

    @property
    def values(self) -> dict[str, float]:
        """The values of HEARD, each 0 to 1."""
        found = {name: follower.value for name, follower in self._followers.items()}
        return {name: found.get(name, self._pulse) for name in HEARD}

    def _take(self, window: Windows) -> None:
        power = self._pitches.power(window)
        loud = dict(zip(BANDS, self._pitches.loudness(power)[0].tolist(), strict=True))
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
        thirds = self._pitches.thirds(power)[0]
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


def pieces(
    opened: InputContainer, stream: AudioStream
) -> Iterator[tuple[Fraction | None, Samples]]:
    """The sound of a stream, mono at PLAYED, with the times (seconds) that pieces begin at.

    Damage is passed over; raises what libav's bindings raise where nothing can be read on.
    """
    import av
    from av.audio.frame import AudioFrame
    from av.error import FFmpegError

    resampler = av.AudioResampler("flt", "mono", PLAYED)
    form: tuple[str, str, int] | None = None
    for packet in opened.demux(stream):
        frames: list[Any] = []
        with suppress(FFmpegError, ValueError):
            frames = list(packet.decode())
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            now = frame.format.name, frame.layout.name, frame.sample_rate
            if form not in (None, now):  # broadcasts change between stereo and 5.1
                resampler = av.AudioResampler("flt", "mono", PLAYED)
            form = now
            for part in resampler.resample(frame):
                base = part.time_base
                told = part.pts is not None and base is not None
                time = cast(int, part.pts) * Fraction(base) if told and base else None
                yield time, part.to_ndarray()[0]


def sound_of(opened: InputContainer) -> AudioStream | None:
    """The audio stream to listen to: the one marked so, or the first; None if there is none."""
    from av.stream import Disposition

    known = [s for s in opened.streams.audio if getattr(s.codec_context, "sample_rate", 0)]
    marked = [s for s in known if s.disposition & Disposition.default]
    return next(iter(marked or known), None)


def decoded(path: Path) -> Generator[Samples, None, None]:
    """The samples of a file, mono at PLAYED, once; raises SourceError if there are none."""
    import av
    from av.error import FFmpegError

    empty = True
    try:
        with av.open(str(path), metadata_errors="replace") as opened:
            stream = sound_of(opened)
            if stream is not None:
                for _, samples in pieces(opened, stream):
                    empty = False
                    yield samples
    except (OSError, FFmpegError) as fault:
        raise SourceError(path, f"cannot be played ({words(fault)})") from None
    if empty:
        raise SourceError(path, "holds no sound")
