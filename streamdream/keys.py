"""How keys of a schedule are read from what was typed; see `schedule` for what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from streamdream.errors import near
from streamdream.formulas import Formula, Mistake
from streamdream.models import parted

WORDS = ("hold", "linear", "cubic", "ease", "ease-in", "ease-out")
POSITIONS = "positions are 90 (frames), 3s or 50%"

Weights = Mapping[str, float]
"""A value: the weights of layers by name, or one number under the name ""."""


@dataclass(frozen=True)
class Span:
    """What numbers an option takes: `low` to `high`, `whole` ones only; `words` say so."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    words: str = ""

    @staticmethod
    def of(field: FieldInfo) -> Span:
        """From the type and the bounds of a field."""
        low, high, words = -math.inf, math.inf, []
        for bound in field.metadata:
            if isinstance(bound, Ge):
                low = float(str(bound.ge))
                words.append(f"at least {low:g}")
            elif isinstance(bound, Gt):
                low = math.nextafter(float(str(bound.gt)), math.inf)
                words.append(f"more than {bound.gt}")
            elif isinstance(bound, Le):
                high = float(str(bound.le))
                words.append(f"at most {high:g}")
            elif isinstance(bound, Lt):
                high = math.nextafter(float(str(bound.lt)), -math.inf)
                words.append(f"less than {bound.lt}")
        return Span(low, high, field.annotation is int, " and ".join(words))

    def fit(self, value: float) -> float:
        """The nearest number that the option takes; what is no number becomes the lowest."""
        if math.isnan(value):
            value = max(self.low, min(0.0, self.high)) if math.isinf(self.low) else self.low
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole and math.isfinite(value) else value


@dataclass(frozen=True)
class Key:
    """A value at a position: `amount` in `unit`, which is s, % or (for frames) nothing.

    `word` tells how it is reached; `typed` is the position as it was typed, `place` where in
    the text, counted from 0; `value_place` is the value's.
    """

    amount: Fraction
    unit: str
    value: Formula | Weights
    word: str
    typed: str
    place: int
    value_place: int


def is_schedule(text: object) -> bool:
    """Whether a value is one with positions, as `0: 1, 3s: 2` or a table of such."""
    if isinstance(text, Mapping):
        return True
    return isinstance(text, str) and re.match(r"\s*\.?\d[^\s:/]*\s*:.", text) is not None


def keyed(text: str, layers: bool = False) -> Iterator[tuple[Key, str]]:
    """The keys of a text, each with the text of its value; raises Mistake.

    A comma ends a key where a position follows: the others are within a formula's brackets,
    or between `layers`.
    """
    joined: list[tuple[int, str]] = []
    for begin, end in _pieces(text):
        piece = text[begin:end]
        if not piece.strip():
            raise Mistake("", begin, "there is an empty key", "a key is POSITION: VALUE")
        if joined and layers and _colon(piece) is None:
            joined[-1] = joined[-1][0], text[joined[-1][0] : end]
        else:
            joined.append((begin, piece))
    before = None
    for begin, piece in joined:
        start = begin + len(piece) - len(piece.lstrip())
        colon = _colon(piece)
        if colon is None:
            raise Mistake(piece.strip(), start, "has no colon", "a key is POSITION: VALUE")
        amount, unit = _position(piece[:colon].strip(), start)
        value, word = piece[colon + 1 :], "linear"
        tail = re.search(r"\s([a-z-]+)\s*$", value)
        if tail and tail[1] in WORDS:
            value, word = value[: tail.start()], tail[1]
        place = begin + colon + 1 + len(value) - len(value.lstrip())
        if not value.strip():
            raise Mistake(piece.strip(), start, "has no value", "a key is POSITION: VALUE")
        key = Key(amount, unit, {}, word, piece[:colon].strip(), start, place)
        if before and (amount == 0 or (unit == before.unit and amount <= before.amount)):
            raise disorder(key, before)
        yield key, value.strip()
        before = key


def read_keys(text: str, span: Span | None) -> tuple[Key, ...]:
    """The keys of a schedule of numbers in `span`, or (without) of layers; raises Mistake."""
    return tuple(_keys(text, span))


def _keys(text: str, span: Span | None) -> Iterator[Key]:
    if span is not None and _colon(text) is None and len(list(_pieces(text))) == 1:
        yield Key(Fraction(0), "", _number(text, 0, span), "linear", "0", 0, 0)
        return
    for key, value in keyed(text, layers=span is None):
        found = _layers(value, key.value_place) if span is None else None
        yield replace(key, value=found or _number(value, key.value_place, span or Span()))


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """Where the pieces between commas begin and end; those within brackets do not count."""
    begin = depth = 0
    for i, letter in enumerate(text):
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter == "," and depth == 0:
            yield begin, i
            begin = i + 1
    yield begin, len(text)


def _colon(piece: str) -> int | None:
    """The first colon outside of brackets."""
    depth = 0
    for i, letter in enumerate(piece):
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter == ":" and depth == 0:
            return i
    return None


def _position(typed: str, place: int) -> tuple[Fraction, str]:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}) ?([fs%]?)", typed)
    if not found:
        raise Mistake(typed, place, "is not a position", POSITIONS)
    amount, unit = Fraction(found[1]), found[2].replace("f", "")
    if unit == "" and amount.denominator != 1:
        raise Mistake(typed, place, "is not a whole frame", POSITIONS)
    if unit == "%" and amount > 100:
        raise Mistake(typed, place, "is beyond the end", "100% is the last frame")
    return amount, unit


def _number(text: str, place: int, span: Span) -> Formula:
    try:
        formula = Formula.read(text, place)
    except Mistake as fault:
        raise _wrong_word(text, place) or fault from None
    if formula.names:
        return formula
    value = formula.at(0.0, 0, 0.0)
    if math.isnan(value):
        raise Mistake(text, place, "has no value")
    if not span.low <= value <= span.high:
        raise Mistake(text, place, "is out of range", f"it is {span.words}")
    return formula


def _wrong_word(text: str, place: int) -> Mistake | None:
    """What is wrong with a number and a word behind it."""
    found = re.fullmatch(r"(.*\S)\s+([A-Za-z][\w-]*)", text)
    if not found:
        return None
    try:
        Formula.read(found[1], place)
    except Mistake:
        return None
    at = place + found.start(2)
    if found[2] in WORDS:
        return Mistake(found[2], at, "is for keys", "write POSITION: VALUE " + found[2])
    return Mistake(found[2], at, "is no way to get there", near(found[2], WORDS, "ways"))


def _layers(text: str, place: int) -> Weights:
    found: dict[str, float] = {}
    for begin, end in _pieces(text):
        typed = text[begin:end].strip()
        at = place + begin + len(text[begin:end]) - len(text[begin:end].lstrip())
        if not typed:
            raise Mistake("", at, "there is a layer missing")
        try:
            name, weight = parted(typed)
        except ValueError as fault:
            raise Mistake(typed, at, str(fault)) from None
        if name in found:
            raise Mistake(typed, at, "is named twice")
        found[name] = weight
    if not any(found.values()):
        raise Mistake(text, place, "weighs nothing")
    return found


def disorder(key: Key, before: Key) -> Mistake:
    """A key does not come after the one before."""
    return Mistake(key.typed, key.place, f'does not come after "{before.typed}"')
