"""Points on the disk: the carried state of a run, in float, to the last bit.

A point is a tree of dataclasses, tuples, numbers and tensors; the tensors go into a safetensors
file, the tree as JSON into its header. Tensors keep their order in memory: convolutions give
other bits for another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from streamdream.governor import Governor, Look
from streamdream.pipeline import Point, State

FORMAT = "streamdream point 1"
KINDS: Mapping[str, type] = {kind.__name__: kind for kind in (Point, State, Governor, Look)}


def packed(point: Point) -> bytes:
    """A point as the content of a file."""
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def tree(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Fraction):
            return {"fraction": str(value)}
        if isinstance(value, Tensor):
            size, stride = list(value.shape), list(_dense(value).stride())
            host = value.device.type == "cpu"
            return {"tensor": kept(value), "size": size, "stride": stride, "host": host}
        if isinstance(value, np.ndarray):
            return {"array": tree(torch.from_numpy(value))}
        if isinstance(value, tuple):
            return {"tuple": [tree(part) for part in value]}
        if isinstance(value, dict):
            return {"pairs": [[tree(key), tree(part)] for key, part in value.items()]}
        if is_dataclass(value) and type(value).__name__ in KINDS:
            parts = {field.name: tree(getattr(value, field.name)) for field in fields(value)}
            return {"kind": type(value).__name__, "parts": parts}
        raise TypeError(f"a point cannot keep {type(value).__name__}")

    def kept(tensor: Tensor) -> str:
        # The same tensor is often in several states.
        if id(tensor) not in names:
            name = names[id(tensor)] = str(len(names))
            dense = _dense(tensor).detach()
            tensors[name] = dense.as_strided((dense.numel(),), (1,)).cpu().clone()
        return names[id(tensor)]

    told = json.dumps(tree(point))
    return save(tensors, {FORMAT: told})


def unpacked(data: bytes, device: torch.device | str = "cpu") -> Point:
    """The point that a file holds; raises ValueError if it holds none."""
    try:
        tensors = load(data)
        told = _header(data)[FORMAT]
    except (SafetensorError, KeyError, ValueError) as fault:
        raise ValueError(f"is no point: {fault}") from None
    found: dict[str, Tensor] = {}

    def value(told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        if "fraction" in told:
            return Fraction(told["fraction"])
        if "tensor" in told:
            if told["tensor"] not in found:
                there = tensors[told["tensor"]].as_strided(told["size"], told["stride"])
                found[told["tensor"]] = there if told["host"] else there.to(device)
            return found[told["tensor"]]
        if "array" in told:
            return value(told["array"]).numpy()
        if "tuple" in told:
            return tuple(value(part) for part in told["tuple"])
        if "pairs" in told:
            return {value(key): value(part) for key, part in told["pairs"]}
        return KINDS[told["kind"]](**{name: value(part) for name, part in told["parts"].items()})

    return cast(Point, value(json.loads(told)))


def _dense(tensor: Tensor) -> Tensor:
    """A tensor whose elements lie side by side in memory, in whatever order: itself if they do."""
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor if reach == tensor.numel() else tensor.contiguous()


def _header(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]
