"""The numbers in an ONNX file, read with protobuf: of its format no more is told than that takes.

ONNX's own package would read a file as well, and is many times larger.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import Tensor

# Of onnx.proto: messages, their fields, and the fields' numbers.
MANY, TEXT, BYTES, INTEGER = 0x100, 9, 12, 3  # protobuf's types; MANY for a list of them
PARTS: dict[str, dict[str, tuple[int, int | str]]] = {
    "Tensor": {"dims": (1, MANY | INTEGER), "data_type": (2, INTEGER), "name": (8, TEXT),
               "raw_data": (9, BYTES)},
    "Node": {"input": (1, MANY | TEXT), "output": (2, MANY | TEXT), "op_type": (4, TEXT)},
    "Graph": {"node": (1, "Node"), "initializer": (5, "Tensor")},
    "Model": {"graph": (7, "Graph")},
}  # fmt: skip
TYPES = {1: np.float32, 3: np.int8, 6: np.int32, 7: np.int64}


def numbers_of(data: bytes) -> dict[str, Tensor]:
    """The constants of an ONNX model by name, float32.

    Those kept as integers with a scale are found under the name of what they stand for. Raises
    google.protobuf.message.DecodeError for what is no such model.
    """
    model = _model()()
    model.ParseFromString(data)
    stored = {t.name: _array(t) for t in model.graph.initializer if t.data_type in TYPES}
    found = {n: torch.from_numpy(a) for n, a in stored.items() if a.dtype == np.float32}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            levels, scale, zero = (stored[name] for name in node.input)
            # One scale for all, or one for each of the first axis.
            shape = (-1,) + (1,) * (levels.ndim - 1) if scale.ndim else ()
            values = (levels.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
            found[node.output[0]] = torch.from_numpy(values.astype(np.float32))
    return found


def _array(tensor: Any) -> np.ndarray:
    """A stored tensor; empty where its numbers are not kept raw, as those of networks are."""
    flat = np.frombuffer(tensor.raw_data, TYPES[tensor.data_type])
    return flat.reshape(tuple(tensor.dims)).copy() if len(flat) else flat.copy()


@cache
def _model() -> type[Any]:
    """The class of a model's message."""
    file = descriptor_pb2.FileDescriptorProto(name="part_of_onnx", package="part", syntax="proto2")
    for part, fields in PARTS.items():
        message = file.message_type.add(name=part)
        for name, (number, kind) in fields.items():
            many = isinstance(kind, str) and part == "Graph"
            field = message.field.add(name=name, number=number, label=1)
            if isinstance(kind, str):
                field.type, field.type_name = field.TYPE_MESSAGE, f".part.{kind}"
            else:
                field.type, many = cast(Any, kind & ~MANY), bool(kind & MANY)
            if many:
                field.label = field.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part.Model"))
