"""Pictures that are looked at and not redrawn: paintings, and masks that say where."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from streamdream.frame import Image, Mask, Size, eight_bits, on_black, planes, resize
from streamdream.info import Reading
from streamdream.sources import VideoSource

MOST = 2048  # px; of a larger picture nobody sees more


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


@lru_cache(maxsize=16)
def mask_of(path: Path, size: Size) -> Mask:
    """How white a picture is, (1, h, w), stretched to a size (h, w); raises SourceError."""
    return whiteness(painting(path), size)


def whiteness(image: Image, size: Size) -> Mask:
    """How white an image (3, _, _) is, (1, h, w), stretched to a size (h, w)."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722], device=image.device).view(3, 1, 1)
    return resize((image * weights).sum(0, keepdim=True), size).clamp(0, 1)
