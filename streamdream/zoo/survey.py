"""Writes the listing of torchvision's networks: python -m streamdream.zoo.survey.

The listing tells their layers and sizes without building them; a test tells when it is stale.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_model_weights

from streamdream.zoo.families import FAMILIES, Family, logits_path
from streamdream.zoo.networks import built, traced
from streamdream.zoo.traced import Traced

LISTING = Path(__file__).with_name("torchvision.json")
SEEN = 512  # px; side of the picture whose maps tell the strides
LEAST = 32  # px


def surveyed(some: Collection[str] | None = None) -> dict[str, Any]:
    """What the listing tells: all networks, or some, by name."""
    built = ((family, b) for family in FAMILIES for b in family.builders)
    return {_name(b): _entry(f, b) for f, b in built if some is None or _name(b) in some}


def _name(builder: str) -> str:
    return "vgg19-tv" if builder == "vgg19" else builder


def _entry(family: Family, builder: str) -> dict[str, Any]:
    weights: Any = get_model_weights(builder)["IMAGENET1K_V1"]
    network = built(builder)
    paths = dict(family.read(network)) | {"logits": logits_path(family)}
    read = traced(network, paths)
    maps = read(torch.empty(1, 3, SEEN, SEEN, device="meta"), read.layers)
    layers = []
    for name, y in maps.items():
        # Layers without a place have no stride.
        stride = 0 if y.shape[-1] == 1 else 2 ** round(math.log2(SEEN / y.shape[-1]))
        layers.append([name, paths[name], y.shape[1], stride])
    return {
        "builder": builder,
        "file": weights.url.rsplit("/", 1)[1],
        "megabytes": round(weights.meta["_file_size"] * 2**20 / 1e6, 1),
        "parameters": weights.meta["num_params"],
        "smallest": _smallest(read),
        "head": family.head,
        "default_layers": family.defaults.get(builder, family.defaults[""]).split(),
        "walk": family.walk.get(builder, family.walk.get("", "")).split(),
        "layers": layers,
    }


def _smallest(read: Traced) -> int:
    """The least side of a picture of which all layers can be read."""
    side = LEAST
    while True:
        try:
            read(torch.empty(1, 3, side, side, device="meta"), read.layers)
            return side
        except RuntimeError:
            side += 1


def text_of(entries: dict[str, Any]) -> str:
    """The listing as it is written: a line for each network's layer."""
    told = []
    for name, entry in entries.items():
        rows = ",\n".join(f"   {json.dumps(row)}" for row in entry["layers"])
        head = json.dumps({k: v for k, v in entry.items() if k != "layers"}, indent=1)[:-2]
        told.append(f'{json.dumps(name)}: {head},\n "layers": [\n{rows}\n ]\n}}')
    return "{\n" + ",\n".join(told) + "\n}\n"


if __name__ == "__main__":
    LISTING.write_text(text_of(surveyed()), "utf-8")
