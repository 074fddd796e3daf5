"""What becomes of a gradient before it is a step: its bands, its colours, its grain.

Sources: Burt and Adelson, "The Laplacian pyramid as a compact image code" (1983), as Mordvintsev,
Olah and Tyka use it (2015); Ohta, Kanade and Sakai, "Color information for region segmentation"
(1980) for the axes along which colours of photographs do not correlate; Olah, Mordvintsev and
Schubert, "Feature visualization" (2017) for gradients in such a space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.frame import Delta, Planes, resize

if TYPE_CHECKING:
    from streamdream.polish.options import Polished

BANDS = 4
CASCADE = 0.5, 1.0, 2.0  # of the given deviation: those of the Gaussians
WIDE = 3.0  # deviations, at which a Gaussian is cut off
# Light to dark, red to blue, green to magenta: each axis of length 1, and the standard deviation
# that photographs (ImageNet's) have along it, of the first one's.
AXES = (1, 1, 1), (1, 0, -1), (-1, 2, -1)
DEVIATIONS = 1.0, 0.275, 0.133


@dataclass(frozen=True)
class Polish:
    """How gradients are treated, see `Polished`: this one leaves them as they are.

    `smooth` is in pixels, `total_variation` and `source_pull` are those of
    `terms.drawn_back`, `fourier` has the frequencies of a picture climb, not its pixels.
    """

    smooth: float = 0.0
    levels: int = BANDS
    total_variation: float = 0.0
    source_pull: float = 0.0
    decorrelate: float = 0.0
    fourier: bool = False

    @property
    def draws_back(self) -> bool:
        """Whether `terms.drawn_back` has something to do."""
        return self.total_variation > 0 or self.source_pull > 0

    @staticmethod
    def of(options: Polished) -> Polish:
        """What the options ask for."""
        return Polish(
            options.smooth,
            options.levels,
            options.total_variation,
            options.source_pull,
            options.decorrelate,
            options.fourier,
        )


PLAIN = Polish()


def polished(gradient: Delta, polish: Polish) -> Delta:
    """A gradient (3, h, w) in other colours and smoothed, as far as that is asked for."""
    if polish.decorrelate > 0:
        gradient = decorrelated(gradient, polish.decorrelate)
    if polish.smooth > 0:
        gradient = smoothed(gradient, polish.smooth)
    return gradient


def normalised(gradient: Delta, bands: int = BANDS) -> Delta:
    """A gradient (3, h, w) whose Laplacian pyramid has unit RMS in every band.

    Without it the finest band drowns the others and the dream is a high-frequency hash; that is
    what is left with one band.
    """
    levels: list[Tensor] = []
    low = gradient[None]
    while len(levels) < bands - 1 and min(low.shape[-2:]) >= 16:
        lower = _halved(low)
        levels.append(low - F.interpolate(lower, low.shape[-2:], mode="bilinear"))
        low = lower
    out = _unit(low)
    for band in reversed(levels):
        out = F.interpolate(out, band.shape[-2:], mode="bilinear") + _unit(band)
    return out[0]


def _halved(x: Tensor) -> Tensor:
    # 1 3 3 1, made on the device: a copy from the host could not be recorded.
    row = (4 - (2 * torch.arange(4, device=x.device) - 3).abs()) / 8
    kernel = (row[:, None] * row).expand(3, 1, 4, 4)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=3)


def _unit(x: Tensor) -> Tensor:
    return x * (math.sqrt(x.numel()) / torch.linalg.vector_norm(x).clamp_min(1e-12))


def smoothed(gradient: Delta, sigma: float) -> Delta:
    """The mean of a gradient (3, h, w) blurred by Gaussians of `sigma` pixels times CASCADE.

    A single Gaussian would leave nothing that is smaller than itself.
    """
    return torch.stack([blurred(gradient, sigma * scale) for scale in CASCADE]).mean(0)


def blurred(x: Planes, sigma: float) -> Planes:
    """Planes (c, h, w) blurred by a Gaussian of `sigma` pixels; edges go on as they end.

    Wide ones are blurred at a smaller size, which looks the same.
    """
    h, w = x.shape[-2], x.shape[-1]
    shrink = min(int(sigma / 4), h // 4, w // 4)
    if shrink > 1:
        small = resize(x, (h // shrink, w // shrink))
        return resize(blurred(small, sigma / shrink), (h, w))
    radius = max(1, math.ceil(WIDE * sigma))
    place = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (place / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    # Every plane a picture of its own: quicker than a convolution in groups.
    padded = F.pad(x[:, None].contiguous(), (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1))[:, 0]


def decorrelated(gradient: Delta, amount: float) -> Delta:
    """A gradient (3, h, w) whose colours vary as those of photographs do, at an `amount` of 1.

    Along each of AXES it is brought to its share of the whole RMS. An ascent in a space in which
    these are unit axes would make such steps, whatever a network prefers.
    """
    axes = torch.tensor(AXES, device=gradient.device, dtype=gradient.dtype)
    axes = axes / axes.square().sum(1, keepdim=True).sqrt()
    along = axes @ gradient.flatten(1)
    have = along.square().mean(1, keepdim=True).sqrt()
    want = torch.tensor(DEVIATIONS, device=gradient.device, dtype=gradient.dtype)[:, None]
    want = want * (have.square().sum().sqrt() / want.square().sum().sqrt())
    gain = (want / have.clamp_min(1e-12)) ** amount
    return (axes.T @ (along * gain)).view_as(gradient)
