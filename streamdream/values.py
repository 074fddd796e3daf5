"""How the values of options are written, and how fields say what may be done with them.

Like `options`, this imports neither torch nor OpenCV.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from cyclopts import Parameter, Token
from pydantic import AfterValidator, BeforeValidator, PlainSerializer


def _as_written(_type: Any, tokens: tuple[Token, ...]) -> str:
    return tokens[0].value


UNITS = {
    "": 1, "i": 1, "k": 1000, "ki": 1024, "K": 1000, "Ki": 1024,
    "M": 10**6, "Mi": 2**20, "G": 10**9, "Gi": 2**30,
}  # fmt: skip

AS_WRITTEN: Any = {
    "converter": _as_written,
    "n_tokens": 1,
    "negative": (),
    "accepts_keys": False,
}


def _layers(value: object) -> object:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
        return value
    # Commas within brackets do not end a name: block9[3,17].
    names = (name.strip() for text in texts for name in re.split(r",(?![^\[]*\])", text))
    return tuple(dict.fromkeys(name for name in names if name))  # each once


def _time(value: object) -> object:
    """Seconds from "83.5", "1:23.5" or "0:01:23.5"."""
    if isinstance(value, Fraction):
        return value
    value = str(value)  # a number of a TOML file as it was written, not as a binary fraction
    if not re.fullmatch(r"(\d{1,7}:){0,2}\d{1,7}(\.\d{1,12})?", value.strip()):
        raise ValueError("a time is seconds, as 83.5, or 1:23.5, or 0:01:23.5")
    seconds = Fraction(0)
    for part in value.strip().split(":"):
        seconds = seconds * 60 + Fraction(part)
    return seconds


def _size(value: str) -> str:
    found = re.fullmatch(r"(\d+)[xX\u00d7](\d+)", value.strip())
    if not found:
        raise ValueError("a size is WIDTHxHEIGHT in pixels, as 640x360")
    if not all(16 <= int(side) <= 16384 for side in found.groups()):
        raise ValueError("width and height go from 16 to 16384")
    return f"{int(found[1])}x{int(found[2])}"


def _rate(value: object) -> str:
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?|\d{1,9}/0*[1-9]\d{0,8}", text):
        raise ValueError("a rate is a number, as 24 or 30000/1001")
    rate = Fraction(text)
    if not Fraction(1, 1000) <= rate <= 1000:
        raise ValueError("a rate goes from 0.001 to 1000")
    return str(rate.limit_denominator(100_000))


def _bytes(value: str) -> str:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kKMG]?i?)B?", value.strip())
    if not found or not 1000 <= Fraction(found[1]) * UNITS[found[2]] <= 10**12:
        raise ValueError("a size is a number with kB, MB or MiB, as 8MB, from 1 kB to 1000 GB")
    return value.strip()


Layers = Annotated[
    tuple[str, ...], BeforeValidator(_layers), PlainSerializer(",".join, when_used="json")
]
Time = Annotated[
    Fraction, BeforeValidator(_time), PlainSerializer(lambda t: str(float(t)), when_used="json")
]
Size = Annotated[str, AfterValidator(_size)]
Bytes = Annotated[str, AfterValidator(_bytes)]
Rate = Annotated[str, BeforeValidator(_rate)]


HIDDEN = Parameter(parse=False)  # an option that has one value only in a kind of run


def slides(*slider: float) -> dict[str, Any]:
    """Marks a field that can be changed while a dream runs; sliders go from ... to."""
    return {"slides": slider}


def moves(*slider: float) -> dict[str, Any]:
    """Marks a number that a schedule can move; with a slider also one that can be changed live.

    On the command line it needs AS_WRITTEN, which lets a schedule's text through.
    """
    return {"moves": True, **(slides(*slider) if slider else {})}


def count_of(size: str) -> int:
    """How many bytes a size is, as it is written."""
    found = re.fullmatch(r"([\d.]+)\s*([kKMG]?i?)B?", size)
    assert found is not None
    return int(Fraction(found[1]) * UNITS[found[2]])


def sides(size: str | None) -> tuple[int, int] | None:
    """A size (h, w) from how it is written, None for none."""
    if size is None:
        return None
    width, height = size.split("x")
    return int(height), int(width)
