"""What a zoom movie starts from or dives into: noise by name, a picture that fills the canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from streamdream.zoom.named import NAMES

if TYPE_CHECKING:
    from streamdream.frame import Size

Colours = Float[np.ndarray, "h w 3"]
Levels = UInt8[np.ndarray, "h w 3"]

MEAN, DEVIATION = 0.47, 0.2  # of noise, of 1: about those of photographs
BAND = 8.0, 32.0  # px a wave; where the networks see most
SHARE = 0.15  # of the pixels that are salt or pepper
USUAL = "pink"  # what "noise" means: the spectrum of photographs gives the richest dreams


def noise(name: str, size: Size, seed: Sequence[int]) -> Colours:
    """A picture (h, w, 3) of noise, values in [0, 1]; `name` is one of NAMES.

    Colours are independent. "pink" is 1/f in amplitude, as photographs are (Field 1987);
    "band-limited" has waves of BAND pixels only.
    """
    h, w = size
    rng = np.random.default_rng([*seed, NAMES.index(name)])
    kind = USUAL if name == "noise" else name
    if kind == "uniform":
        half = DEVIATION * math.sqrt(3)
        return rng.uniform(MEAN - half, MEAN + half, (h, w, 3)).astype(np.float32)
    if kind == "salt-and-pepper":
        drawn = rng.random((h, w, 1))
        found = np.where(drawn < SHARE / 2, 0.0, np.where(drawn < SHARE, 1.0, MEAN))
        return np.repeat(found, 3, axis=2).astype(np.float32)
    found = rng.standard_normal((h, w, 3))
    if kind in ("pink", "band-limited"):
        pitch = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        pitch[0, 0] = np.inf  # no mean of its own
        gain = (
            1 / pitch if kind == "pink" else ((pitch > 1 / BAND[1]) & (pitch < 1 / BAND[0])) * 1.0
        )
        waves = np.fft.rfft2(found, axes=(0, 1)) * gain[..., None]
        found = np.fft.irfft2(waves, (h, w), axes=(0, 1))
        found /= np.maximum(found.std(axis=(0, 1)), 1e-9)
    return np.clip(MEAN + DEVIATION * found, 0, 1).astype(np.float32)


def picture(path: str, size: Size | None, most: Size) -> Levels:
    """The first picture of a file (h, w, 3), upright, in sRGB; it fills `size` and is cut there.

    Without a size it keeps its shape, its sides even, and is no larger than `most` either way
    it lies. Raises SourceError.
    """
    import cv2

    from streamdream.frame import eight_bits, on_black
    from streamdream.sources import VideoSource

    with VideoSource(path, frames=1) as source:
        aspect = source.info.sample_aspect
        pixels = eight_bits(on_black(next(iter(source))))
    size = size or _fitted((pixels.shape[0], pixels.shape[1]), aspect, most)
    (h, w), (high, wide) = pixels.shape[:2], size
    across = float(aspect)
    scale = max(high / h, wide / (w * across))
    grown = max(wide, round(w * across * scale)), max(high, round(h * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    filled = cv2.resize(pixels, grown, interpolation=how)
    top, left = (grown[1] - high) // 2, (grown[0] - wide) // 2
    return np.ascontiguousarray(filled[top : top + high, left : left + wide]).astype(np.uint8)


def _fitted(size: Size, aspect: Fraction, most: Size) -> Size:
    h, w = float(size[0]), float(size[1] * aspect)
    high, wide = most if w >= h else most[::-1]
    scale = min(1.0, high / h, wide / w)
    return tuple(max(64, 2 * round(side * scale / 2)) for side in (h, w))  # type: ignore[return-value]
