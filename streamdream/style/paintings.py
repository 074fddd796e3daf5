"""Pictures that are painted like, and masks that say where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from streamdream.frame import Image, Mask, Size, eight_bits, on_black, planes, resize
from streamdream.info import Reading
from streamdream.options import Look
from streamdream.sources import VideoSource

MOST = 2048  # px; of a larger painting nobody sees more


@lru_cache(maxsize=16)
def painting(path: Path) -> Image:
    """The picture of a file (3, h, w), upright, in sRGB; raises SourceError, also for damage."""
    with VideoSource(path, frames=1, reading=Reading(strict=True)) as source:
        pixels = eight_bits(on_black(next(iter(source))))
    scale = min(1.0, MOST / max(pixels.shape[:2]))
    if scale < 1:
        side = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
        pixels = cv2.resize(pixels, side, interpolation=cv2.INTER_AREA)
    return planes(np.asarray(pixels, np.float32) / np.float32(255))


def fitted(image: Image, size: Size, scale: float, least: int = 32) -> Image:
    """A painting (3, h, w) with the area of a picture of `size` (h, w) times `scale` squared.

    It is not enlarged: that would only blur it.
    """
    high, wide = image.shape[-2:]
    factor = min(1.0, scale * math.sqrt(size[0] * size[1] / (high * wide)))
    return resize(image, (max(least, round(high * factor)), max(least, round(wide * factor))))


@lru_cache(maxsize=16)
def mask_of(path: Path, size: Size) -> Mask:
    """How white a picture is, (1, h, w), stretched to a size (h, w); raises SourceError."""
    image = painting(path)
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
    return resize((image * weights).sum(0, keepdim=True), size).clamp(0, 1)


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
