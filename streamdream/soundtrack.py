"""What options can follow in a sound file, at every time of a result.

The file is heard once, block by block; only a few numbers per hop of its windows are kept. As
all of it is known, nothing lags behind, and the gain knows what is still to come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import ceil

import numpy as np
from jaxtyping import Float

from streamdream import hearing
from streamdream.errors import SourceError, words
from streamdream.hearing import BANDS, PLAYED, Pitches, Samples, cleaned, pieces, sound_of
from streamdream.inputs import Input
from streamdream.reactions import HEARD, RELEASE

Row = Float[np.ndarray, "hops"]
Rows = Float[np.ndarray, "rows hops"]

BLOCK = 256  # windows that are looked at together
QUIETER = 12.0  # dB: as much quiet passages are amplified, so that they stay quiet ones
FAINT = 0.01  # less is nothing
JOINED = Fraction(1, 50)  # seconds; smaller gaps and overlaps are rounding
ROUNDED = Fraction(1, 500)  # seconds that frames may last longer than Matroska says
LEAP = 3600  # seconds; a larger gap is no silence but a clock that leapt


class Soundtrack:
    """The values of reactions.HEARD, 0 to 1, at all times of a result. For many threads."""

    def __init__(self, values: Rows, begins: Fraction, hop: Fraction) -> None:
        """From `values` (5, hops), the first at the time `begins`, one every `hop` seconds."""
        self._values, self._begins, self._hop = values, begins, hop

    @staticmethod
    def of(given: Input, zero: Fraction = Fraction(0)) -> Soundtrack:
        """Hear a file, all of it; its time `zero` (seconds) is 0 in the result.

        So a part of a video follows its sound as it does in the whole. Raises SourceError.
        """
        pitches = Pitches(PLAYED)
        loud: list[Rows] = []
        flux: list[Row] = []
        listener = _Listener(pitches)
        first: Fraction | None = None
        waiting = np.zeros(pitches.size, np.float32)  # before the first sample there was silence
        for begins, samples in _timeline(given):
            first = begins if first is None else first
            waiting = np.concatenate((waiting, cleaned(samples)))
            while len(waiting) >= (enough := pitches.size + (BLOCK - 1) * pitches.hop):
                listener.hear(waiting[:enough], loud, flux)
                waiting = waiting[BLOCK * pitches.hop :]
        if first is None:
            raise SourceError(given.label, "holds no sound that can be played")
        rest = -(len(waiting) - pitches.size) % pitches.hop  # windows are heard to the end
        listener.hear(np.pad(waiting, (0, rest)), loud, flux)
        hop = Fraction(pitches.hop, PLAYED)
        values = _values(np.concatenate(loud, axis=1), np.concatenate(flux), float(hop))
        # A window tells of its middle, where it weighs most.
        return Soundtrack(values, first - zero - Fraction(pitches.size, 2 * PLAYED), hop)

    def at(self, time: Fraction, length: Fraction = Fraction(0)) -> Mapping[str, float]:
        """The most that each value is from `time`, in seconds, for `length`, as a frame lasts.

        Before and after the sound they are 0.
        """
        begin = ceil((time - self._begins) / self._hop)
        end = ceil((time + length + ROUNDED - self._begins) / self._hop)
        begin = begin if end > begin else end - 1
        heard = self._values[:, max(0, begin) : max(0, end)]
        most = heard.max(axis=1) if heard.shape[1] else np.zeros(len(HEARD))
        return dict(zip(HEARD, most.tolist(), strict=True))


class _Listener:
    """Finds how loud windows are, and how much is louder than in the one before."""

    def __init__(self, pitches: Pitches) -> None:
        self._pitches = pitches
        self._before: Row | None = None
        self._loudest = hearing.QUIET

    def hear(self, samples: Samples, loud: list[Rows], flux: list[Row]) -> None:
        pitches = self._pitches
        windows = np.lib.stride_tricks.sliding_window_view(samples, pitches.size)[:: pitches.hop]
        power = pitches.power(windows)
        bands, thirds = pitches.loudness(power), pitches.thirds(power)
        seconds = pitches.hop / PLAYED
        loudest = _falling(np.append(self._loudest, bands[:, 0]), hearing.SOFTER * seconds)[1:]
        lowest = np.maximum(loudest, hearing.QUIET)[:, None] - hearing.DEPTH
        before = thirds[:1] if self._before is None else self._before[None]
        before = np.concatenate((before, thirds[:-1]))
        rise = np.maximum(thirds, lowest) - np.maximum(before, lowest)
        flux.append((np.maximum(rise, 0).mean(axis=1) / hearing.DEPTH).astype(np.float32))
        loud.append(bands.T.astype(np.float32))
        self._before, self._loudest = thirds[-1], float(loudest[-1])


def _timeline(given: Input) -> Iterator[tuple[Fraction, Samples]]:
    """The samples of a file without gaps, each piece with the time of its first.

    Where nothing is told to sound they are 0; where times leap back, what follows is joined on
    as the pictures are. Raises SourceError.
    """
    import av
    from av.error import FFmpegError

    first: Fraction | None = None
    offset, done = Fraction(0), 0
    try:
        with av.open(
            given.name, format=given.kind, options=dict(given.options), metadata_errors="replace"
        ) as opened:
            stream = sound_of(opened)
            for told, heard in [] if stream is None else pieces(opened, stream):
                samples = heard
                now = Fraction(done, PLAYED) + (first or 0)
                begins = now if told is None else told + offset
                first = begins if first is None else first
                now = begins if done == 0 else now
                if not -Fraction(1, 2) < begins - now < LEAP:
                    offset += now - begins
                elif begins - now > JOINED:
                    for gap in _silence(round((begins - now) * PLAYED)):
                        yield now, gap
                        done += len(gap)
                        now += Fraction(len(gap), PLAYED)
                elif now - begins > JOINED:
                    samples = heard[round((now - begins) * PLAYED) :]
                yield now, samples
                done += len(samples)
    except (OSError, FFmpegError, ValueError) as fault:
        if done == 0:
            raise SourceError(given.label, f"cannot be heard ({words(fault)})") from None


def _silence(samples: int) -> Iterator[Samples]:
    while samples > 0:
        yield np.zeros(min(samples, PLAYED), np.float32)
        samples -= PLAYED


def _values(loud: Rows, flux: Row, seconds: float) -> Rows:
    """The values of HEARD (5, hops), from loudness in dB (4, hops) and flux."""
    fall = seconds / RELEASE
    found = np.zeros((len(HEARD), len(flux)), np.float32)
    level = loud[0].astype(np.float64)
    # The loudest around, before and after, falls as live gain does; in the whole it cannot
    # fall far.
    most = np.maximum(
        _around(level, hearing.SOFTER * seconds), max(float(level.max()) - QUIETER, hearing.QUIET)
    )
    enough = np.clip((most - hearing.FLOOR) / (hearing.QUIET - hearing.FLOOR), 0, 1)
    for row, name in enumerate(BANDS):
        band = loud[row].astype(np.float64)
        top = most
        if name != "level":
            top = np.maximum(_around(band, hearing.SOFTER * seconds), most - hearing.BELOW)
        goal = enough * np.clip((band - top) / hearing.SPAN + 1, 0, 1) * (level > hearing.FLOOR)
        found[row] = _fading(goal, fall)
    pulse = _onsets(flux, round(hearing.REFRACTORY / seconds), round(hearing.PAST / seconds / 2))
    found[-1] = _fading(pulse * (level > hearing.FLOOR), fall)
    found[found < FAINT] = 0
    return found


def _falling(values: Row, fall: float) -> Row:
    """Values that leap up and come down by at most `fall` from one to the next."""
    slope = fall * np.arange(len(values))
    return np.maximum.accumulate(values + slope) - slope


def _around(values: Row, fall: float) -> Row:
    return np.maximum(_falling(values, fall), _falling(values[::-1], fall)[::-1])


def _fading(values: Row, fall: float) -> Row:
    """Values of 0 to 1 that leap up and fade by exp(-`fall`) from one to the next."""
    return np.exp(_falling(np.log(values + 1e-9), fall))


def _onsets(flux: Row, apart: int, usual: int) -> Row:
    """1 where something begins, else 0: what rises most within `apart` hops, and suddenly.

    Sudden is what rises more than in the middle of `usual` hops before and after.
    """
    around = np.pad(flux, usual)
    view = np.lib.stride_tricks.sliding_window_view
    middle = np.concatenate([
        np.median(view(around[i : i + BLOCK + 2 * usual], 2 * usual + 1), axis=1)
        for i in range(0, len(flux), BLOCK)
    ])  # fmt: skip
    padded = np.pad(flux, apart, constant_values=-1.0)
    before = view(padded[:-apart], apart + 1)[:, :-1].max(axis=1)
    after = view(padded[apart:], apart + 1)[:, 1:].max(axis=1)
    sudden = flux > hearing.ABOVE * middle + hearing.LEAST
    return (sudden & (flux > before) & (flux >= after)).astype(np.float64)
