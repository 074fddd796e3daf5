"""A small network that paints or dreams a frame in one pass, and its file.

Architecture: Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and
super-resolution" (arXiv:1603.08155) with the instance normalisation of Ulyanov, Vedaldi and
Lempitsky (arXiv:1607.08022) and the upsampling of Odena, Dumoulin and Olah (distill.pub, 2016).
It also reads what it painted before, carried to now, and where that can be trusted, and blends
the two by a mask of its own: so frames agree because they share their paint.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from streamdream.errors import ModelError, SinkError, words
from streamdream.style.cards import Kind, NetworkCard, damaged, read_card
from streamdream.style.convolutions import Doubling, Narrow, mirrored, normed

__all__ = ["Network", "NetworkCard", "Swift", "load_network", "read_card", "save_network"]

Pictures = Float[Tensor, "1 3 h w"]
Trust = Float[Tensor, "1 1 h w"]

BLOCKS = 4
GRID = 4  # px; the coarsest layer sees one value for so many
PLACE = 24  # px; a dream does not change the mean colour of so many
DREAMS_UP_TO = 0.35  # of the range of colours; tanh makes most of it far less
MOST_KEPT = 0.92  # of what was carried, at most: what no longer fits is gone in a second


class Convolution(nn.Module):
    """A convolution over a picture that is mirrored at its edges."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.inner = nn.Conv2d(inputs, outputs, side, stride)
        self.margin = side // 2

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.pad(x, (self.margin,) * 4, mode="reflect"))


class Layer(nn.Module):
    """A convolution, then instance normalisation."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs, side, stride)
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        # As many groups as channels: the same as instance_norm, ten times as fast on CPUs.
        return F.group_norm(self.convolution(x), len(self.scale), self.scale, self.shift)


class Residual(nn.Module):
    """Two layers whose result is added to what they read."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = Layer(channels, channels), Layer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Network(nn.Module):
    """Image, carried result and trust to the next result."""

    def __init__(self, kind: Kind = "style", width: int = 16) -> None:
        """Make one with `width` channels in its first layer, from torch's random numbers.

        A "style" repaints the image, a "dream" adds to it.
        """
        super().__init__()
        self.kind, self.width = kind, width
        self.enter = Layer(7, width, side=3)
        self.halve = Layer(width, 2 * width, stride=2)
        self.quarter = Layer(2 * width, 4 * width, stride=2)
        self.blocks = nn.Sequential(*[Residual(4 * width) for _ in range(BLOCKS)])
        self.widen = Layer(4 * width, 2 * width)
        self.finish = Layer(2 * width, width)
        self.leave = Convolution(width, 4, side=3)
        with torch.no_grad():
            # It begins with grey, or no dream, mostly kept from frame to frame.
            self.leave.inner.weight.mul_(0.4)
            bias = self.leave.inner.bias
            assert bias is not None
            bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1.5]))

    def forward(self, image: Pictures, carried: Pictures, trust: Trust) -> Pictures:
        """The result (1, 3, h, w) in [0, 1] for an image of at least 32x32.

        `carried` is the last result warped to now. Where `trust` is 0 it does not matter.
        """
        h, w = image.shape[-2:]
        x = F.relu(self.enter(self._read(image, carried, trust)))
        x = F.relu(self.quarter(F.relu(self.halve(x))))
        x = self.blocks(x)
        x = F.relu(self.widen(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        x = F.relu(self.finish(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self._laid_on(image, carried, trust, self.leave(x)[..., :h, :w].float())

    def _laid_on(self, image: Pictures, carried: Pictures, trust: Trust, x: Tensor) -> Pictures:
        """The result of what the last layer gives (1, 4, h, w): a painting, and what is kept."""
        painted = self._paint(image, x[:, :3])
        kept = trust * (MOST_KEPT * torch.sigmoid(x[:, 3:]))
        return painted + kept * (carried - painted)

    def _read(self, image: Pictures, carried: Pictures, trust: Trust) -> Tensor:
        """What the first layer reads (1, 7, h, w), h and w multiples of GRID."""
        h, w = image.shape[-2:]
        change = trust * (carried - image)
        read = torch.cat([image * 2 - 1, change * 2, trust], 1)
        read = F.pad(read, (0, -w % GRID, 0, -h % GRID), mode="reflect")
        return read.to(self.enter.scale.dtype, memory_format=torch.channels_last)

    def _paint(self, image: Pictures, x: Tensor) -> Pictures:
        if self.kind == "dream":
            change = torch.tanh(x)
            # Without what is even over a wide place, or it would learn to tint before all else.
            even = F.avg_pool2d(change, PLACE, ceil_mode=True)
            change = change - F.interpolate(even, change.shape[-2:], mode="bilinear")
            return (image + DREAMS_UP_TO * change).clamp(0, 1)
        # Begun on the image it would take ten times as long to paint over all of it.
        return torch.sigmoid(x)


class Swift:
    """A network that is not trained any more: the same numbers, apart from rounding, sooner."""

    def __init__(self, network: Network) -> None:
        """Take over a network, whose weights may not change from now on."""
        self.network, self.kind = network, network.kind
        leave = network.leave.inner
        self._widen, self._finish = (
            Doubling(layer.convolution.inner.weight, layer.convolution.inner.bias)
            for layer in (network.widen, network.finish)
        )
        self._leave = Narrow(leave.weight, leave.bias, across=2)

    @torch.no_grad()
    def __call__(self, image: Pictures, carried: Pictures, trust: Trust) -> Pictures:
        """As Network's."""
        net = self.network
        h, w = image.shape[-2:]
        x = _passed(net._read(image, carried, trust), net.enter, rectified=False)
        x = _passed(_passed(x, net.halve, 2), net.quarter, 2).relu_()
        for block in net.blocks:
            assert isinstance(block, Residual)
            inner = _passed(x, block.first, rectified=False)
            x = _passed(inner, block.second).add_(x)
        x = normed(self._widen(x), net.widen.scale, net.widen.shift)
        x = normed(self._finish(x, rectified=True), net.finish.scale, net.finish.shift)
        x = self._leave(mirrored(x, 1, rectified=True))[..., :h, :w].float()
        return net._laid_on(image, carried, trust, x)


def _passed(x: Tensor, layer: Layer, stride: int = 1, rectified: bool = True) -> Tensor:
    inner = layer.convolution.inner
    x = mirrored(x, layer.convolution.margin, rectified)
    return normed(F.conv2d(x, inner.weight, inner.bias, stride), layer.scale, layer.shift)


def load_network(
    path: Path, device: torch.device | str = "cpu", precision: torch.dtype = torch.float32
) -> Network:
    """The network in a file, ready to be called; raises ModelError as `read_card` does."""
    card = read_card(path)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as fault:
        raise ModelError(path, words(fault), "get it again, or train it again") from None
    network = Network(card.kind, card.width)
    expected = network.state_dict()
    alike = weights.keys() == expected.keys() and all(
        weights[name].shape == there.shape and bool(weights[name].isfinite().all())
        for name, there in expected.items()
    )
    if not alike:
        raise damaged(path)
    network.load_state_dict(weights)
    network.requires_grad_(False).eval()
    network.to(device, precision)
    return network.to(memory_format=torch.channels_last)


def save_network(path: Path, network: Network, card: NetworkCard) -> None:
    """Write a network in 16 bits, all of it or nothing; raises SinkError."""
    weights = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in network.state_dict().items()
    }
    write_whole(path, save(weights, card.as_metadata()))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that there is never half of it; raises SinkError."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        raise SinkError(path, words(fault)) from None
