"""What a trained network says of itself, read without loading it: this module imports no torch.

A network is a safetensors file: eight bytes that say how long the header is, the header (JSON),
the numbers. Nothing in it is ever run.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from streamdream.errors import ModelError, words

FORMAT = "streamdream network 1"
ENDING = ".safetensors"
WIDTHS = (4, 64)  # channels of the first layer, least and most
MOST_HEADER = 2**20  # bytes; ours are a hundred times smaller

Kind = Literal["style", "dream"]


@dataclass(frozen=True)
class NetworkCard:
    """A trained network's kind and making.

    `width` is how many channels its first layer has, `trained_on` the painting or the layers it
    learned from, `steps` how many steps it was trained for, `options` all options of that
    training as one line of JSON.
    """

    kind: Kind
    width: int
    trained_on: str
    steps: int
    options: str = "{}"

    def as_metadata(self) -> dict[str, str]:
        """The card as a header holds it."""
        # In one piece: safetensors puts several in any order, and files should be alike.
        return {FORMAT: json.dumps(asdict(self))}


def read_card(path: Path) -> NetworkCard:
    """The card of a network file.

    Raises ModelError if there is no such file, or it is no network that streamdream trained.
    """
    found = read_facts(path, FORMAT)
    if found is None:
        raise ModelError(path, "holds weights of another kind", f"make one: {MAKING}")
    try:
        card = NetworkCard(**found)
    except TypeError:
        raise damaged(path) from None
    texts = isinstance(card.trained_on, str) and isinstance(card.options, str)
    counts = isinstance(card.steps, int) and isinstance(card.width, int)
    if not (texts and counts and card.kind in get_args(Kind) and _fits(card.width)):
        raise damaged(path)
    return card


def _fits(width: int) -> bool:
    return WIDTHS[0] <= width <= WIDTHS[1]


MAKING = "streamdream train painting.jpg -o painting.safetensors"


def read_facts(path: Path, name: str) -> dict[str, Any] | None:
    """What a safetensors header tells under a name, None if it has none; raises ModelError."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ModelError(path, "is not a safetensors file", f"make one: {MAKING}")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise ModelError(path, "no such file") from None
    except OSError as fault:
        raise ModelError(path, words(fault)) from None
    except (ValueError, RecursionError):
        raise ModelError(path, "is not a safetensors file", f"make one: {MAKING}") from None
    told = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(told, dict) or name not in told:
        return None
    try:
        facts = json.loads(told[name])
    except (TypeError, ValueError, RecursionError):
        raise damaged(path) from None
    if not isinstance(facts, dict):
        raise damaged(path)
    return facts


def damaged(path: Path) -> ModelError:
    """What is told of a file that is ours and broken."""
    return ModelError(path, "is damaged", "get it again, or train it again")
