"""Which class a name or a number means; this module imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from streamdream import models
from streamdream.errors import ModelError, near


def class_of(text: str, model: str, told: int | None = None) -> int:
    """The number of a class of a model by its name (in any case) or number.

    `told` is how many classes its weights tell: where these are others than the model's own,
    only numbers mean something. Raises ModelError with the nearest names if there is none.
    """
    subject = f"--classes {text}"
    names = models.classes_of(models.card(model))
    if not names:
        cure = f"use --model {next(iter(models.CARDS))}"
        raise ModelError(subject, f"{model} tells no classes apart", cure)
    count = len(names) if told is None else told
    if _is_number(text):
        if int(text) >= count:
            raise ModelError(subject, "no such class", f"they are 0 to {count - 1}")
        return int(text)
    if count != len(names):
        reason = f"the weights tell {count} classes, whose names are not known"
        raise ModelError(subject, reason, f"give a number from 0 to {count - 1}")
    known = _numbers(names)
    found = known.get(_plain(text))
    if found is None:
        alike = [name for name in names if _plain(text) and _plain(text) in _plain(name)]
        cure = f"did you mean {alike[0]}?" if alike else near(_plain(text), tuple(known), "classes")
        raise ModelError(subject, "no such class", cure)
    return found


def check_classes(typed: Iterable[str], model: str, own: bool = False) -> None:
    """Raise ModelError if classes (with weights) are not there, or weigh nothing together.

    How many there are in weights of one's `own` is not known before they are loaded.
    """
    weights: dict[int, float] = {}
    texts = tuple(typed)
    for text in texts:
        try:
            name, weight = models.parted(text)
        except ValueError:
            cure = "write it as goldfish*0.4"
            raise ModelError(
                f"--classes {text}", "has no weight from -1000 to 1000", cure
            ) from None
        unlimited = own and _is_number(name)
        number = class_of(name, model, int(name) + 1 if unlimited else None)
        if number in weights:
            raise ModelError(f"--classes {','.join(texts)}", f"{name} is named twice")
        weights[number] = weight
    if weights and not any(weights.values()):
        raise ModelError(f"--classes {','.join(texts)}", "weigh nothing", "let one be other than 0")


def _is_number(text: str) -> bool:
    # Longer ones Python itself refuses to read.
    return re.fullmatch(r"\s*[0-9]{1,9}\s*", text) is not None


@lru_cache(maxsize=4)
def _numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    # Of two classes of one name the first is meant by it.
    return {_plain(name): number for number, name in reversed(list(enumerate(names)))}


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())
