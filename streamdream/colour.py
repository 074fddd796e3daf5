"""Between the colours of a stream and RGB pixels, with the right matrix and range both ways.

libav takes BT.601 for everything unless told otherwise, and its quick path loses a grey
level on the way; `decoded` and `encoded` name the matrix and the range, and round exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from streamdream.frame import Pixels, Size

EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

BT709, UNSPECIFIED, SMPTE170M, RGB = 1, 2, 6, 0  # ITU-T H.273 code points


@dataclass(frozen=True)
class Colour:
    """How a stream's numbers mean colours: code points of ITU-T H.273."""

    matrix: int
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colour:
        """The colours of a decoded frame.

        What is not tagged is guessed as players do: BT.709 from 720 lines up, else BT.601.
        """
        usual = BT709 if min(frame.width, frame.height) >= 720 else SMPTE170M
        matrix, primaries, transfer = frame.colorspace, frame.color_primaries, frame.color_trc
        return cls(
            usual if matrix in (UNSPECIFIED, RGB) else int(matrix),
            usual if primaries in (UNSPECIFIED, 0) else int(primaries),
            usual if transfer in (UNSPECIFIED, 0) else int(transfer),
        )


def decoded(
    frame: av.VideoFrame, colour: Colour, size: Size, reformatter: VideoReformatter
) -> Pixels:
    """RGB pixels of a decoded frame, resized to `size` (h, w), not yet turned upright."""
    h, w = size
    rgb = reformatter.reformat(
        frame,
        width=w,
        height=h,
        format="rgb24",
        src_colorspace=colour.matrix,
        src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
    )
    return rgb.to_ndarray().astype(np.uint8, copy=False)


def _is_full_range(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    if frame.color_range in (ColorRange.JPEG, ColorRange.MPEG):
        return frame.color_range == ColorRange.JPEG
    return frame.format.is_rgb or name.startswith(("yuvj", "pal", "gray", "mono", "ya"))


def encoded(
    pixels: Pixels, colour: Colour, pixel_format: str, reformatter: VideoReformatter
) -> av.VideoFrame:
    """A frame of limited range for an encoder, from RGB pixels."""
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return reformatter.reformat(
        rgb,
        format=pixel_format,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=colour.matrix,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
    )
