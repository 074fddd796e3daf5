"""How is written what of a layer is excited: all of it, channels, or a place.

    block9                     the whole layer
    block9[3,17,40..55]        these channels
    block9[strongest:8]        those that respond most, `weakest:8` least, `average:8` as usual
    block9[17@0.5,0.4]         a neuron: channel 17 where the picture is half across, 0.4 down
    block9[@0.5,0.4]           all channels there

Each may have a weight behind it, as `models.parted` reads it. This module imports no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from streamdream.errors import ModelError

Pick = Literal["", "strongest", "weakest", "average"]

PICKS = ("strongest", "weakest", "average")
USUAL = 8  # channels that are picked where no number is given
EXAMPLE = "write it as block9[3,17,40..55], block9[strongest:8] or block9[17@0.5,0.4]"


@dataclass(frozen=True)
class Units:
    """What of a layer is meant.

    `channels` are ranges from the first to the last, none where all are meant, or `count` of
    those that are to be picked. `place` is (x, y), of 1, None for everywhere.
    """

    layer: str
    channels: tuple[tuple[int, int], ...] = ()
    pick: Pick = ""
    count: int = 0
    place: tuple[float, float] | None = None

    @property
    def highest(self) -> int:
        """The highest channel that is named, -1 if none is."""
        return max((last for _, last in self.channels), default=-1)


def read_units(text: str) -> Units:
    """What a name (without weight) means; raises ValueError with what is wrong."""
    name, bracket, inner = text.strip().partition("[")
    if not bracket:
        return Units(name.strip())
    if not inner.rstrip().endswith("]"):
        raise ValueError(f"has no closing bracket; {EXAMPLE}")
    channels, at, place = inner.strip()[:-1].partition("@")
    channels = channels.strip()
    found = Units(name.strip(), place=_place(place) if at else None)
    pick, colon, count = (part.strip() for part in channels.partition(":"))
    if pick in PICKS:
        if found.place is not None:
            raise ValueError(f"picks channels at a place; name them: {EXAMPLE}")
        return Units(found.layer, pick=cast(Pick, pick), count=_count(count) if colon else USUAL)
    if not channels and found.place is not None:
        return found
    ranges = tuple(_range(part.strip()) for part in channels.split(","))
    return Units(found.layer, ranges, place=found.place)


def _place(text: str) -> tuple[float, float]:
    parts = text.split(",")
    if len(parts) != 2 or not all(
        re.fullmatch(r"\s*(0?\.\d{1,9}|[01](\.0*)?)\s*", p) for p in parts
    ):
        raise ValueError(f"has no place @X,Y, both from 0 to 1; {EXAMPLE}")
    return float(parts[0]), float(parts[1])


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) < 1:
        raise ValueError(f"picks no number of channels; {EXAMPLE}")
    return int(text)


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", text)
    if not found:
        raise ValueError(f'"{text[:40]}" is no channel; {EXAMPLE}')
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"{text} goes backwards; write {last}..{first}")
    return first, last


def check_channels(units: Units, count: int, subject: str) -> None:
    """Raise ModelError if channels are named, or a number is picked, that a layer has not."""
    has = f"{units.layer} has {count} channels"
    if units.highest >= count:
        cure = f"they are 0 to {count - 1}"
        raise ModelError(subject, f"there is no channel {units.highest}, {has}", cure)
    if units.count > count:
        raise ModelError(subject, f"{units.count} are asked for, {has}", f"pick up to {count}")
