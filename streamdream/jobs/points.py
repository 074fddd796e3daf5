"""Points on the disk: the carried state of a run, in float, to the last bit.

A point is a tree of dataclasses, tuples, numbers and tensors; the tensors go into a safetensors
file, the tree as JSON into its header. Tensors keep their order in memory: convolutions give
other bits for another one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from streamdream.governor import Governor, Look
from streamdream.masks.background import Background
from streamdream.masks.masking import Measured
from streamdream.pipeline import Point, State

FORMAT = "streamdream point 1"
KINDS: Mapping[str, type] = {
    kind.__name__: kind for kind in (Point, State, Governor, Look, Measured, Background)
}


def packed(point: Point) -> bytes:
    """A point as the content of a file."""
    packing = _Packing()
    told = json.dumps(packing.tree(point))
    return save(packing.tensors, {FORMAT: told})


def unpacked(data: bytes, device: torch.device | str = "cpu") -> Point:
    """The point that a file holds; raises ValueError if it holds none."""
    try:
        told, tensors = _header(data)[FORMAT], load(data)
    except (SafetensorError, KeyError, ValueError) as fault:
        raise ValueError(f"is no point: {fault}") from None
    return cast(Point, _Unpacking(tensors, device).value(json.loads(told)))


class _Packing:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}

    def tree(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                told = value
            case Fraction():
                told = {"fraction": str(value)}
            case Tensor():
                size, stride = list(value.shape), list(_dense(value).stride())
                host = value.device.type == "cpu"
                told = {"tensor": self._kept(value), "size": size, "stride": stride, "host": host}
            case np.ndarray():
                told = {"array": self.tree(torch.from_numpy(value))}
            case tuple():
                told = {"tuple": [self.tree(part) for part in value]}
            case dict():
                told = {"pairs": [[self.tree(k), self.tree(v)] for k, v in value.items()]}
            case _ if type(value) in KINDS.values():
                parts = {
                    field.name: self.tree(getattr(value, field.name)) for field in fields(value)
                }
                told = {"kind": type(value).__name__, "parts": parts}
            case _:
                raise TypeError(f"a point cannot keep {type(value).__name__}")
        return told

    def _kept(self, tensor: Tensor) -> str:
        """The name of a tensor; the same one is often in several states."""
        if id(tensor) not in self._names:
            dense = _dense(tensor).detach()
            name = self._names[id(tensor)] = str(len(self._names))
            self.tensors[name] = dense.as_strided((dense.numel(),), (1,)).cpu().clone()
        return self._names[id(tensor)]


class _Unpacking:
    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device | str) -> None:
        self._tensors, self._device = tensors, device
        self._found: dict[str, Tensor] = {}

    def value(self, told: Any) -> Any:
        match told:
            case {"fraction": text}:
                found = Fraction(text)
            case {"tensor": name, "size": size, "stride": stride, "host": host}:
                if name not in self._found:
                    there = self._tensors[name].as_strided(size, stride)
                    self._found[name] = there if host else there.to(self._device)
                found = self._found[name]
            case {"array": array}:
                found = self.value(array).numpy()
            case {"tuple": parts}:
                found = tuple(self.value(part) for part in parts)
            case {"pairs": pairs}:
                found = {self.value(key): self.value(part) for key, part in pairs}
            case {"kind": kind, "parts": parts}:
                found = KINDS[kind](**{name: self.value(part) for name, part in parts.items()})
            case _:
                found = told
        return found


def _dense(tensor: Tensor) -> Tensor:
    """A tensor whose elements lie side by side in memory, in whatever order: itself if they do."""
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor if reach == tensor.numel() else tensor.contiguous()


def _header(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]
