"""Values that move with time: `0: 0.2, 3s: 1, 50%: 0.4 ease`, or a formula of the time.

A position is a frame (90, or 90f), a time (3s) or a part of the length (50%): frames count from
the first one that is dreamed, 0% is the first, 100% the last. Before the first key the value is
its own, after the last key that one's. A word after a value says how it is reached:

    hold     the value before stays, and this one comes at once
    linear   evenly; this is the default
    ease     slow, fast, slow; ease-in and ease-out only begin or end slowly
    cubic    smoothly through all keys, never beyond them: Fritsch and Butland, "A method for
             constructing local monotone piecewise cubic interpolants" (1984); it rests at the
             first key and at the last
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from streamdream.errors import OptionError
from streamdream.formulas import Formula, Mistake
from streamdream.keys import Key, Span, Weights, disorder, read_keys

USUAL_RATE = Fraction(25)  # frames a second that formulas are tried at where none is known
SHOWN = 120  # characters of a text in an error's line
TRIED = 2000  # moments at which formulas are tried, where there is an end
TRIED_LIVE = 100  # where there is none: a control is set while pictures wait


@dataclass(frozen=True)
class Moment:
    """A moment of a stream: `time` in seconds, and the `index` of the frame shown then.

    The index is counted from 0, the first frame that is dreamed; a moment between two frames
    has one in between.
    """

    time: Fraction
    index: int | Fraction


@dataclass(frozen=True)
class Clock:
    """What makes frames, seconds and percent comparable.

    `rate` frames a second, and how many `frames` there are; None where that is not known.
    """

    rate: Fraction | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Schedule:
    """An option's values over time; `text` is how it was typed. Safe to use in many threads.

    Numbers keep within `span`: one that a formula gives beyond is the nearest there, and where
    it has none (which `clocked` looks for) the lowest. Without a span values are layers, of
    which one set fades over into the next.
    """

    option: str
    text: str
    keys: tuple[Key, ...]
    span: Span | None
    clock: Clock = Clock()

    @staticmethod
    def read(option: str, text: str, span: Span | None) -> Schedule:
        """From what was typed for `option` ("step-size"); raises OptionError at a mistake."""
        text = " ".join(text.split())
        try:
            keys = read_keys(text, span)
        except Mistake as fault:
            raise told(f"--{option} {text}", fault) from None
        return Schedule(option, text, keys, span)

    def clocked(self, clock: Clock) -> Schedule:
        """The same by this clock.

        Raises OptionError where it does not say enough, where keys are out of order once they
        can be compared, and where a formula has no value at one of many moments tried.
        """
        found = replace(self, clock=clock)
        try:
            found._check()
        except Mistake as fault:
            raise told(f"--{self.option} {self.text}", fault) from None
        return found

    @property
    def start(self) -> float | tuple[str, ...]:
        """The first key's value, at its beginning."""
        return self._shaped(self._value(self.keys[0], Moment(Fraction(0), 0)))

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers in it."""
        found = [key.value for key in self.keys if not isinstance(key.value, Formula)]
        return tuple(dict.fromkeys(name for weights in found for name in weights))

    def at(self, moment: Moment) -> float | tuple[str, ...]:
        """The value at a moment: a number, or layers with their weights."""
        try:
            return self._shaped(self._weights(moment))
        except Mistake as fault:
            raise told(f"--{self.option} {self.text}", fault) from None

    def _weights(self, moment: Moment) -> Weights:
        place, part = self._place(moment)
        before = self._value(self.keys[place], moment)
        if part == 0:
            return before
        after = self._value(self.keys[place + 1], moment)
        word = self.keys[place + 1].word
        if word == "cubic":
            return self._cubic(place, part, moment)
        moved = {"ease": part * part * (3 - 2 * part), "ease-in": part * part}
        moved |= {"ease-out": part * (2 - part), "linear": part}
        return _blend((before, 1 - moved[word]), (after, moved[word]))

    def _place(self, moment: Moment) -> tuple[int, float]:
        """The key that has come last, and how far the way to the next one is gone, of 1."""
        begun = [i for i, key in enumerate(self.keys) if self._begun(key, moment)]
        if not begun or begun[-1] + 1 == len(self.keys):
            return (begun[-1] if begun else 0), 0.0
        before, after = self.keys[begun[-1]], self.keys[begun[-1] + 1]
        if after.word == "hold":
            return begun[-1], 0.0
        if _in_frames(before, after):
            first, last = self._frame(before), self._frame(after)
            return begun[-1], float((moment.index - first) / (last - first))
        if before.unit != "s" and moment.index == self._frame(before):
            return begun[-1], 0.0
        first, last = self._seconds(before), self._seconds(after)
        gone = float((moment.time - first) / (last - first)) if last > first else 0.0
        return begun[-1], min(1.0, max(0.0, gone))

    def _begun(self, key: Key, moment: Moment) -> bool:
        if key.amount == 0:
            return True
        if key.unit == "s":
            return moment.time >= key.amount
        return moment.index >= self._frame(key)

    def _frame(self, key: Key) -> Fraction:
        if key.unit != "%" or key.amount == 0:
            return key.amount
        if self.clock.frames is None:
            cure = "write it in seconds or frames"
            raise Mistake(key.typed, key.place, "needs a length, and it is not known", cure)
        return key.amount / 100 * (self.clock.frames - 1)

    def _seconds(self, key: Key) -> Fraction:
        if key.unit == "s" or key.amount == 0:
            return key.amount
        rate = self.clock.rate or (USUAL_RATE if self.clock.frames == 1 else None)
        if rate is None:
            reason = "needs a number of frames a second, and it is not known"
            raise Mistake(key.typed, key.place, reason, "write all positions in the same unit")
        return self._frame(key) / rate

    def _cubic(self, place: int, part: float, moment: Moment) -> Weights:
        seconds = not _in_frames(*self.keys)
        where = [float((self._seconds if seconds else self._frame)(key)) for key in self.keys]
        values = {i: self._value(self.keys[i], moment) for i in self._near(place)}
        names = dict.fromkeys(name for value in values.values() for name in value)
        length = where[place + 1] - where[place]
        u, v = part, 1 - part
        found = {}
        for name in names:
            here = {i: value.get(name, 0.0) for i, value in values.items()}
            first, last = (self._slope(i, where, here) * length for i in (place, place + 1))
            ends = here[place] * (1 + 2 * u) * v * v + here[place + 1] * (1 + 2 * v) * u * u
            found[name] = ends + first * u * v * v - last * u * u * v
        return found

    def _near(self, place: int) -> range:
        """The keys that a way from this one on depends on."""
        if self.keys[place + 1].word != "cubic":
            return range(place, place + 2)
        return range(max(0, place - 1), min(len(self.keys), place + 3))

    def _slope(self, i: int, where: list[float], values: dict[int, float]) -> float:
        """How steep a cubic goes through the key `i`."""
        if i == 0 or i + 1 == len(self.keys):
            return 0.0
        left, right = where[i] - where[i - 1], where[i + 1] - where[i]
        if left <= 0 or right <= 0 or "hold" in (self.keys[i].word, self.keys[i + 1].word):
            return 0.0
        before, after = (values[i] - values[i - 1]) / left, (values[i + 1] - values[i]) / right
        if not before * after > 0:
            return 0.0
        share = (1 + right / (left + right)) / 3
        return before * after / (share * after + (1 - share) * before)

    def _value(self, key: Key, moment: Moment) -> Weights:
        if not isinstance(key.value, Formula):
            return key.value
        last = (self.clock.frames or 1) - 1
        progress = float(min(1, moment.index / last)) if last else 0.0
        return {"": key.value.at(float(moment.time), float(moment.index), progress)}

    def _shaped(self, value: Weights) -> float | tuple[str, ...]:
        if self.span is not None:
            return self.span.fit(value[""])
        rounded = {name: f"{weight:.6g}" for name, weight in value.items() if abs(weight) > 5e-7}
        if not rounded:  # on the way from above 0 to below
            rounded = {next(iter(value)): "1e-06"}
        return tuple(n if weight == "1" else f"{n}*{weight}" for n, weight in rounded.items())

    def _check(self) -> None:
        for before, key in pairwise(self.keys):
            measure = self._frame if _in_frames(before, key) else self._seconds
            if measure(key) < measure(before):
                raise disorder(key, before)
        formulas = [key for key in self.keys if isinstance(key.value, Formula) and key.value.names]
        for key in formulas:
            if self.clock.frames is None and "p" in key.value.names:  # type: ignore[union-attr]
                reason = "has p, which needs a length, and it is not known"
                raise Mistake(_typed(key), key.value_place, reason, "use t, in seconds")
        for moment in self._moments() if formulas else ():
            place, part = self._place(moment)
            for i in self._near(place) if part else (place,):
                key = self.keys[i]
                if math.isnan(self._value(key, moment).get("", 0.0)):
                    reason = f"has no value at {float(moment.time):g} s"
                    raise Mistake(_typed(key), key.value_place, reason)

    def _moments(self) -> Iterator[Moment]:
        """Moments to try formulas at: all frames, or some of them in many."""
        rate, count = self.clock.rate or USUAL_RATE, self.clock.frames
        if count is None:  # for ever: the beginning closely, and the first days
            indices = [*range(TRIED_LIVE), *(TRIED_LIVE << i for i in range(1, 16))]
        else:
            indices = sorted({i * (count - 1) // TRIED for i in range(TRIED + 1)})
        for index in indices:
            yield Moment(index / rate, index)


def _blend(*parts: tuple[Weights, float]) -> Weights:
    """A sum of values, each so many times."""
    found: dict[str, float] = {}
    for value, share in parts:
        for name, weight in value.items():
            found[name] = found.get(name, 0.0) + weight * share
    return found


def _in_frames(*keys: Key) -> bool:
    """Whether positions are compared by frames; 0 is the same in all units."""
    return all(key.unit != "s" or key.amount == 0 for key in keys)


def _typed(key: Key) -> str:
    return key.value.text if isinstance(key.value, Formula) else ""


def told(subject: str, fault: Mistake) -> OptionError:
    """The error for a mistake in what was typed; `subject` is the option and that text."""
    place = f"at character {fault.place + 1}"
    reason = f"{fault.reason} {place}"
    if fault.piece:
        reason = f'"{_short(fault.piece)}" {place} {fault.reason}'
    return OptionError(_short(subject), reason, fault.cure)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
