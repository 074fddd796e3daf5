"""Which class a name or a number means; this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from streamdream import models
from streamdream.errors import ModelError, near


def class_of(text: str, model: str) -> int:
    """The number of a class of a model by its name (in any case) or number.

    Raises ModelError with the nearest names if there is none.
    """
    subject = f"--classes {text}"
    names = models.classes_of(models.card(model))
    if not names:
        cure = f"use --model {next(iter(models.CARDS))}"
        raise ModelError(subject, f"{model} tells no classes apart", cure)
    if text.strip().isascii() and text.strip().isdigit():
        if int(text) >= len(names):
            raise ModelError(subject, "no such class", f"they are 0 to {len(names) - 1}")
        return int(text)
    known = _numbers(names)
    found = known.get(_plain(text))
    if found is None:
        alike = [name for name in names if _plain(text) and _plain(text) in _plain(name)]
        cure = f"did you mean {alike[0]}?" if alike else near(_plain(text), tuple(known), "classes")
        raise ModelError(subject, "no such class", cure)
    return found


def check_classes(typed: Iterable[str], model: str) -> None:
    """Raise ModelError if classes (with weights) are not there, or weigh nothing together."""
    weights: dict[int, float] = {}
    texts = tuple(typed)
    for text in texts:
        try:
            name, weight = models.parted(text)
        except ValueError:
            cure = "write it as goldfish*0.4"
            raise ModelError(f"--classes {text}", "has no weight", cure) from None
        number = class_of(name, model)
        if number in weights:
            raise ModelError(f"--classes {','.join(texts)}", f"{name} is named twice")
        weights[number] = weight
    if weights and not any(weights.values()):
        raise ModelError(f"--classes {','.join(texts)}", "weigh nothing", "let one be other than 0")


@lru_cache(maxsize=4)
def _numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    # Of two classes of one name the first is meant by it.
    return {_plain(name): number for number, name in reversed(list(enumerate(names)))}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())
