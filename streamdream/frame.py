"""Frames, and the only place where bytes become tensors and back.

Conventions, for the whole package:
- Image: float32 RGB in [0, 1], shape (3, h, w), on the run's device, no batch axis.
- Delta: float32 (3, h, w), a change to an image, -1 to 1.
- Mask: float32 (1, h, w) in [0, 1]; in a trust mask 1 means: trust the past.
- Pixels: uint8 RGB, shape (h, w, 3), in main memory; uint16 where a source has more than 8
  bits a colour, scaled to the whole range.
- Alpha: how opaque pixels are, (h, w), of their type; colours are not multiplied by it.
- Flow: float32 (2, h, w), backward, in pixels (dx, dy): now[y, x] was at
  before[y + dy, x + dx].
- Times and rates are `fractions.Fraction`, in seconds. Sizes are (h, w); WxH is for people.
- Tensors lie in memory with the channels last, as OpenCV and fast convolutions want them;
  `planes` and `interleaved` go between the two without copying.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor

# Shapes with the same letters are the same size within one signature; tests check them.
Image = Float[Tensor, "3 h w"]
Delta = Float[Tensor, "3 h w"]
Mask = Float[Tensor, "1 h w"]
Flow = Float[Tensor, "2 h w"]
Planes = Float[Tensor, "c h w"]
Resized = Float[Tensor, "c _ _"]
Array = Float[np.ndarray, "h w c"]
Pixels = UInt8[np.ndarray, "h w 3"] | UInt16[np.ndarray, "h w 3"]
Bytes = UInt8[np.ndarray, "h w 3"]
Alpha = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
Small = UInt8[np.ndarray, "108 192"]
Size = tuple[int, int]

SMALL = (108, 192)  # (h, w) of the grey copies that shots are told apart by


@dataclass(frozen=True)
class Frame:
    """One picture of a stream.

    `pixels` (h, w, 3) uint8 or uint16 RGB, upright; `time` when it is first shown, in seconds;
    `index` its number in the stream it came from, counted from 0; `duration` how long it is
    shown, in seconds, None if that is not known; `alpha` (h, w) how opaque it is, None if it
    is wholly so; `small` a grey copy of the whole picture (108, 192), however it was resized
    and turned since, None if it has to be made of the pixels.
    """

    pixels: Pixels
    time: Fraction
    index: int
    duration: Fraction | None = None
    alpha: Alpha | None = None
    small: Small | None = None


def planes(array: Array, device: torch.device | str = "cpu") -> Planes:
    """An array (h, w, c) as a tensor (c, h, w) over the same memory (or on `device`)."""
    return torch.from_numpy(array).to(device).permute(2, 0, 1)


def interleaved(tensor: Planes) -> Array:
    """A tensor (c, h, w) as an array (h, w, c), over the same memory where it lies so."""
    return np.ascontiguousarray(tensor.detach().permute(1, 2, 0).cpu().numpy())


def to_image(pixels: Pixels, size: Size, device: torch.device | str = "cpu") -> Resized:
    """Pixels as an image (3, h, w) in [0, 1] of the given size, averaged down where smaller."""
    h, w = size
    scaled = pixels
    if pixels.shape[:2] != size:
        how = cv2.INTER_AREA if h < pixels.shape[0] else cv2.INTER_CUBIC
        scaled = cv2.resize(pixels, (w, h), interpolation=how)
    return planes(scaled.astype(np.float32) * np.float32(1 / white(pixels)), device)


def to_small(pixels: Pixels) -> Small:
    """Pixels as a grey copy (108, 192) of the whole picture, whatever its shape."""
    h, w = SMALL
    scaled = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(eight_bits(scaled), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def white(pixels: Pixels) -> int:
    """The largest value that these pixels can have."""
    return int(np.iinfo(pixels.dtype).max)


Levels = TypeVar("Levels", bound=np.ndarray)


def eight_bits(levels: Levels) -> Levels:
    """The same pixels or opacity as uint8, rounded to the nearest value."""
    if levels.dtype == np.uint8:
        return levels
    return cast(Levels, ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8))


def on_black(frame: Frame) -> Pixels:
    """The pixels of a frame as they are seen where nothing is behind it."""
    if frame.alpha is None:
        return frame.pixels
    most = np.float32(white(frame.pixels))
    seen = frame.pixels * (frame.alpha[..., None] / most)
    return seen.round().astype(frame.pixels.dtype)


def to_pixels(image: Image) -> Bytes:
    """An image (3, h, w) in [0, 1] as pixels (h, w, 3), rounded to the nearest value."""
    return np.round(interleaved(image).clip(0, 1) * 255).astype(np.uint8)


def composite(pixels: Pixels, delta: Resized, strength: float) -> Pixels:
    """Add a delta (3, h, w), upsampled to the pixels' size and scaled by `strength`.

    The source keeps its sharpness whatever size was dreamed at. With strength 0 the pixels
    come back untouched.
    """
    if strength == 0:
        return pixels
    h, w = pixels.shape[:2]
    change = interleaved(delta) * np.float32(white(pixels) * strength)
    if change.shape[:2] != (h, w):
        change = cv2.resize(change, (w, h), interpolation=cv2.INTER_CUBIC)
    depth = cv2.CV_8U if pixels.dtype == np.uint8 else cv2.CV_16U
    return cv2.add(pixels, change, dtype=depth).astype(pixels.dtype, copy=False)


def resize(image: Planes, size: Size) -> Resized:
    """An image, delta or mask (c, h, w) at another size: averaged down, bicubic up."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    down = size[0] < image.shape[-2]
    mode = "bilinear" if down else "bicubic"
    return F.interpolate(image[None], size, mode=mode, antialias=down)[0]


def work_size(size: Size, height: int) -> Size:
    """The size dreamed at: `height` lines for a landscape picture, as many columns for a portrait.

    Never larger than the picture itself, but never below 32 either way: networks read less
    as nothing.
    """
    h, w = size
    scale = min(1.0, height / min(h, w))
    return max(32, round(h * scale)), max(32, round(w * scale))
