"""Between the colours of a stream and RGB pixels, with the right matrix and range both ways.

libav takes BT.601 for everything unless told otherwise, and its quick path loses a grey
level on the way; `decoded` and `ToVideo` name the matrix and the range, and round exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from streamdream.frame import Pixels, Size

EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

TICK = Fraction(1, 25)
MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
BT709, UNSPECIFIED, SMPTE170M = 1, 2, 6  # ITU-T H.273 code points


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
            int(matrix) if matrix in MATRIX_NAMES else usual,
            usual if primaries in (UNSPECIFIED, 0) else int(primaries),
            usual if transfer in (UNSPECIFIED, 0) else int(transfer),
        )


def is_deep(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame has more than 8 bits a colour."""
    return max(component.bits for component in frame.format.components) > 8


def decoded(
    frame: av.VideoFrame, colour: Colour, size: Size, deep: bool, reformatter: VideoReformatter
) -> Pixels:
    """RGB pixels of a decoded frame, resized to `size` (h, w), not yet turned upright.

    `deep` asks for uint16 instead of uint8.
    """
    h, w = size
    rgb = reformatter.reformat(
        frame,
        width=w,
        height=h,
        format="rgb48le" if deep else "rgb24",
        src_colorspace=colour.matrix,
        src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
    )
    return rgb.to_ndarray().astype(np.uint16 if deep else np.uint8, copy=False)


def _is_full_range(frame: av.VideoFrame) -> bool:
    name = frame.format.name
    if frame.color_range in (ColorRange.JPEG, ColorRange.MPEG):
        return frame.color_range == ColorRange.JPEG
    return frame.format.is_rgb or name.startswith(("yuvj", "pal", "gray", "mono", "ya"))


class ToVideo:
    """Turns RGB pixels of one size into frames for an encoder: YUV of limited range, or RGB.

    A filter graph, because only that can say where chroma samples lie: on the left, as H.264
    means them and as decoded frames have them. Else every pass would move colours by a
    quarter of a pixel.
    """

    def __init__(self, size: Size, colour: Colour, pixel_format: str) -> None:
        """Prepare for pixels of `size` (h, w)."""
        self._size, self._format = size, VideoFormat(pixel_format)
        self._scale = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:in_range=pc"
        if self._format.is_rgb:
            self._scale += ":out_range=pc"
        else:
            matrix = MATRIX_NAMES[colour.matrix]
            self._scale += f":out_range=tv:out_color_matrix={matrix}:out_chroma_loc=left"
        self._graph: Graph | None = None
        self._given = ""

    def __call__(self, pixels: Pixels) -> av.VideoFrame:
        """A frame without a time, from RGB pixels (h, w, 3), uint8 or uint16."""
        given = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
        if self._graph is None or given != self._given:
            self._graph, self._given = self._configured(given), given
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=given)
        frame.pts, frame.time_base = 0, TICK
        self._graph.push(frame)
        return cast(av.VideoFrame, self._graph.pull())

    def _configured(self, given: str) -> Graph:
        h, w = self._size
        graph = Graph()
        chain = [
            graph.add_buffer(width=w, height=h, format=VideoFormat(given, w, h), time_base=TICK),
            graph.add("scale", self._scale),
            graph.add("format", f"pix_fmts={self._format.name}"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return graph
