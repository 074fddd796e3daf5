"""Paintings in the size that is wanted, and several of them as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from streamdream.frame import Image, Size, resize
from streamdream.options import Look
from streamdream.stills import mask_of


def fitted(image: Image, size: Size, scale: float, least: int = 32) -> Image:
    """A painting (3, h, w) with the area of a picture of `size` (h, w) times `scale` squared.

    It is not enlarged: that would only blur it.
    """
    high, wide = image.shape[-2:]
    factor = min(1.0, scale * math.sqrt(size[0] * size[1] / (high * wide)))
    return resize(image, (max(least, round(high * factor)), max(least, round(wide * factor))))


def mixed(painted: Sequence[Image], weights: Sequence[float] | None, options: Look) -> Image:
    """Several paintings (3, h, w) of a picture as one: each where its mask is, or the mean."""
    size: Size = painted[0].shape[-2], painted[0].shape[-1]
    shares = torch.tensor(weights or [1.0] * len(painted), device=painted[0].device).view(
        -1, 1, 1, 1
    )
    if len(options.style_mask) == len(painted) > 1:
        masks = [mask_of(Path(mask), size) for mask in options.style_mask]
        shares = shares * torch.stack(masks).to(shares.device).clamp_min(1e-4)
    return (torch.stack(list(painted)) * shares).sum(0) / shares.sum(0)
