"""What a zoom movie starts from or dives into: a picture that fills the canvas."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from streamdream.frame import Size

Levels = UInt8[np.ndarray, "h w 3"]


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
