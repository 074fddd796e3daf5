"""Options that follow signals: what a person says of it, and what becomes of their values.

Live runs and runs that write files share this. It imports neither torch, av nor the options, so
that wrong reactions are answered at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator

from streamdream.errors import near
from streamdream.keys import Span

if TYPE_CHECKING:
    from streamdream.options import Common

HEARD = ("level", "bass", "mid", "treble", "onset")
SIGNALS = ("beat", *HEARD, "motion")

ATTACK, RELEASE = 0.01, 0.25  # time constants in seconds, of rising and of falling


class Follower:
    """A value that rises fast to where it is sent and falls slowly, so that nothing flickers."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.value = 0.0

    def step(self, goal: float, seconds: float) -> float:
        """The value after so many seconds on its way to `goal`."""
        slowness = ATTACK if goal > self.value else RELEASE
        self.value += (goal - self.value) * -math.expm1(-seconds / slowness)
        return self.value


class Reaction:
    """An option that follows a signal: from `low` to `high` as the signal goes from 0 to 1."""

    FORM = re.compile(
        r"([a-z][a-z-]*)\s*:\s*([a-z]+)(?:\s+(-?\d+(?:\.\d+)?)\s*\.\.\s*(-?\d+(?:\.\d+)?))?"
    )

    def __init__(self, option: str, signal: str, low: float, high: float) -> None:
        """Let this option (as it is typed) follow this signal."""
        self.option, self.signal, self.low, self.high = option, signal, low, high

    @staticmethod
    def read(text: str, kind: type[Common]) -> Reaction:
        """From "strength: bass 0.4..1.2"; without a span it is the slider's.

        `kind` is the model whose options and signals there are. Raises ValueError.
        """
        found = Reaction.FORM.fullmatch(text.strip())
        if not found:
            raise ValueError('it is "option: signal" or "option: signal LOW..HIGH"')
        option, signal, low, high = found.groups()
        there = sliders(kind)
        slider = there.get(option.replace("-", "_"))
        if slider is None:
            numbers = [name.replace("_", "-") for name in there]
            raise ValueError(f"{option} cannot follow a signal; {near(option, numbers, 'options')}")
        if signal not in kind.signals:
            known = near(signal, kind.signals, "signals")
            if signal in SIGNALS:
                known = f"here there are {', '.join(kind.signals)}"
                raise ValueError(f"{signal} is a signal of live runs only; {known}")
            raise ValueError(f"{signal} is no signal; {known}")
        return Reaction(
            option,
            signal,
            slider[0] if low is None else float(low),
            slider[1] if high is None else float(high),
        )

    @staticmethod
    def read_all(value: object, kind: type[Common]) -> object:
        """Texts of reactions, from one or several whose parts are divided by commas.

        What is no text is given back, for others to refuse. Raises ValueError.
        """
        texts = as_texts(value)
        if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
            return value
        parts = tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
        for part in parts:
            Reaction.read(part, kind)
        return parts

    def value(self, place: float) -> float:
        """The option's value where its signal is at a `place` from 0 to 1."""
        return self.low + (self.high - self.low) * min(1.0, max(0.0, place))


def as_texts(value: object) -> object:
    """One text as a row of one, anything else as it is."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(as_texts)]


def sliders(kind: type[Common]) -> dict[str, tuple[float, float]]:
    """Names of the fields that are numbers with a slider, and the sliders' spans."""
    found: dict[str, tuple[float, float]] = {}
    for name, field in kind.model_fields.items():
        extra = field.json_schema_extra
        ends = extra.get("slides") if isinstance(extra, dict) else None
        if isinstance(ends, tuple | list) and len(ends) == 2:
            found[name] = float(str(ends[0])), float(str(ends[1]))
    return found


Kind = TypeVar("Kind", bound="Common")


def driven(options: Kind, reactions: Iterable[Reaction], signals: Mapping[str, float]) -> Kind:
    """The options with those in it that follow one of the `signals`, each 0 to 1.

    Values stay in their option's range, whole numbers are rounded; of two reactions of one
    option the last counts.
    """
    moved: dict[str, Any] = {}
    for reaction in reactions:
        place = signals.get(reaction.signal)
        if place is None:
            continue
        name = reaction.option.replace("-", "_")
        field = type(options).model_fields[name]
        moved[name] = Span.of(field).fit(reaction.value(place))
    return options.model_copy(update=moved) if moved else options
