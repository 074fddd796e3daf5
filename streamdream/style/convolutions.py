"""The convolutions of networks that paint, without gradients, in the form that is fastest on CPUs.

They compute what F.pad, F.interpolate and F.conv2d would, apart from the order of sums. A padded
picture is written once, already rectified. A convolution over a picture enlarged twice reads that
before it is enlarged (the sub-pixel convolution of Shi et al., arXiv:1609.05158): of its nine
products four are left. And where there are few channels, neighbours in a row become channels too,
which costs nothing where channels lie last, and fills the processor's vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Maps = Float[Tensor, "1 c h w"]
Padded = Float[Tensor, "1 c _ _"]
Out = Float[Tensor, "1 o _ _"]
Kernels = Float[Tensor, "o i k k"]
Vector = Float[Tensor, "o"]

FEW = 8  # channels; fewer than a vector has room for
EPSILON = 1e-5  # of variance, as F.group_norm has it


def mirrored(x: Maps, margin: int, rectified: bool = False) -> Padded:
    """A margin of so many pixels around x, as in a mirror; `rectified`: of x without negatives."""
    found, inner = _framed(x, margin, rectified)
    across = found[..., margin:-margin, :]
    across[..., :margin] = inner[..., 1 : margin + 1].flip(-1)
    across[..., -margin:] = inner[..., -margin - 1 : -1].flip(-1)
    found[..., :margin, :] = found[..., margin + 1 : 2 * margin + 1, :].flip(-2)
    found[..., -margin:, :] = found[..., -2 * margin - 1 : -margin - 1, :].flip(-2)
    return found


def repeated(x: Maps, rectified: bool = False) -> Padded:
    """A margin of one pixel around x that repeats its edges; `rectified` as in `mirrored`."""
    found, inner = _framed(x, 1, rectified)
    across = found[..., 1:-1, :]
    across[..., :1], across[..., -1:] = inner[..., :1], inner[..., -1:]
    found[..., :1, :], found[..., -1:, :] = found[..., 1:2, :], found[..., -2:-1, :]
    return found


def _framed(x: Tensor, margin: int, rectified: bool) -> tuple[Tensor, Tensor]:
    """Room for x (1, c, h, w) and a margin, and that part of it which holds x."""
    h, w = x.shape[-2] + 2 * margin, x.shape[-1] + 2 * margin
    found = torch.empty(
        (1, x.shape[1], h, w), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    inner = found[..., margin:-margin, margin:-margin]
    if rectified:
        torch.clamp(x, min=0, out=inner)
    else:
        inner.copy_(x)
    return found, inner


def laid(weight: Kernels) -> Kernels:
    """Kernels in the order in which they are read."""
    return weight.contiguous(memory_format=torch.channels_last)


class Doubling:
    """A 3x3 convolution of a picture that is enlarged twice by repeating every pixel."""

    def __init__(self, weight: Kernels, bias: Vector | None = None) -> None:
        """Of kernels (o, i, 3, 3); the enlarged picture is mirrored at its edges."""
        # Of three rows of the enlarged picture two are the same: rows p - 1 and p of the picture
        # are read for the even row, p and p + 1 for the odd one.
        rows = _halves(weight, 2)
        parts = [part for row in rows for part in _halves(row, 3)]
        self._weight = laid(torch.cat(parts))
        self._bias = None if bias is None else bias.repeat(4)
        self._outputs = len(weight)

    def __call__(self, x: Maps, rectified: bool = False) -> Out:
        """What it makes of x (1, i, h, w): (1, o, 2h, 2w)."""
        h, w = x.shape[-2:]
        # Mirrored pixels of what is enlarged are the edge itself, repeated.
        parts = F.conv2d(repeated(x, rectified), self._weight, self._bias)
        found = torch.empty(
            (1, self._outputs, 2 * h, 2 * w),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        for i, part in enumerate(parts.split(self._outputs, 1)):
            down, right = i // 2, i % 2
            found[..., down::2, right::2] = part[..., down : down + h, right : right + w]
        return found


def _halves(weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    a, b, c = weight.split(1, axis)
    return torch.cat([a, b + c], axis), torch.cat([a + b, c], axis)


class Narrow:
    """A convolution with few channels, of several pixels of a row at once."""

    def __init__(self, weight: Kernels, bias: Vector | None = None, across: int = 4) -> None:
        """Of kernels (o, i, k, k), `across` pixels at once; k - 1 has to be a multiple of it."""
        o, i, k, _ = weight.shape
        groups = (k - 1) // across + 1
        # Of pixel q in group g the kernel of pixel p reads at g * across + q - p.
        found = weight.new_zeros(across, o, groups * across, i, k)
        for p in range(across):
            found[p, :, p : p + k] = weight.permute(0, 3, 1, 2)
        found = found.view(across * o, groups, across * i, k)
        self._weight = laid(found.permute(0, 2, 3, 1))
        self._bias = None if bias is None else bias.repeat(across)
        self._across, self._outputs = across, o

    def __call__(self, x: Padded) -> Out:
        """What it makes of a padded x (1, i, h, w), channels last, w a multiple of `across`."""
        _, i, h, w = x.shape
        together = x.permute(0, 2, 3, 1).reshape(1, h, w // self._across, i * self._across)
        found = F.conv2d(together.permute(0, 3, 1, 2), self._weight, self._bias)
        rows = found.permute(0, 2, 3, 1)
        return rows.reshape(1, rows.shape[1], -1, self._outputs).permute(0, 3, 1, 2)


def normed(x: Maps, gain: Vector, shift: Vector) -> Maps:
    """Brings x to mean `shift` and deviation `gain`, channel by channel (instance norm)."""
    _, c, h, w = x.shape
    if c >= FEW:
        # As many groups as channels: the same as instance_norm, and faster on CPUs.
        return F.group_norm(x, c, gain, shift, EPSILON)
    rows = x.permute(0, 2, 3, 1).reshape(h, w * c).float()
    mean = rows.sum(0).view(w, c).sum(0) / (h * w)
    apart = rows - mean.repeat(w)
    factor = gain / (apart.square().sum(0).view(w, c).sum(0) / (h * w) + EPSILON).sqrt()
    found = torch.addcmul(shift.repeat(w), apart, factor.repeat(w))
    return found.to(x.dtype).view(1, h, w, c).permute(0, 3, 1, 2)
