"""What a trained network says of itself, read without loading it: this module imports no torch.

A network is a safetensors file: eight bytes that say how long the header is, the header (JSON),
the numbers. Nothing in it is ever run.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast, get_args

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
        """The card as the text pairs that a header holds."""
        return {"format": FORMAT, **{name: str(value) for name, value in asdict(self).items()}}


def read_card(path: Path) -> NetworkCard:
    """The card of a network file.

    Raises ModelError if there is no such file, or it is no network that streamdream trained.
    """
    found = read_metadata(path)
    if found.get("format") != FORMAT:
        raise ModelError(path, "holds weights of another kind", f"make one: {MAKING}")
    try:
        card = NetworkCard(
            kind=cast(Kind, found["kind"]),
            width=int(found["width"]),
            trained_on=found["trained_on"],
            steps=int(found["steps"]),
            options=found["options"],
        )
    except (KeyError, ValueError):
        raise damaged(path) from None
    if card.kind not in get_args(Kind) or not WIDTHS[0] <= card.width <= WIDTHS[1]:
        raise damaged(path)
    return card


MAKING = "streamdream train painting.jpg -o painting.safetensors"


def read_metadata(path: Path) -> Mapping[str, str]:
    """The text pairs in a safetensors header; raises ModelError."""
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
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise damaged(path)
    return found


def damaged(path: Path) -> ModelError:
    """What is told of a file that is ours and broken."""
    return ModelError(path, "is damaged", "get it again, or train it again")
