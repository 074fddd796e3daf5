"""Between the colours of a stream and RGB pixels, with the right matrix and range both ways.

libav takes BT.601 for everything unless told otherwise, and its quick path loses a grey
level on the way; `ToRGB` and `ToVideo` name the matrix and the range, and round exactly.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from streamdream.frame import SMALL, Alpha, Levels, Pixels, Size, Small

EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

SCALED = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # the same in a graph

TICK = Fraction(1, 25)
WHITE, WHITE_OF_YUV = 65535, 65280
# Decoders that say where chroma samples lie.
TELLING = ("h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "webp", "h263")
MATRIX_NAMES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
BT709, UNSPECIFIED, SMPTE170M, BT2020 = 1, 2, 6, 9  # ITU-T H.273 code points
PRIMARIES_NAMES = {1: "bt709", 9: "bt2020", 11: "smpte431", 12: "smpte432"}
HDR = {16: "smpte2084", 18: "arib-std-b67"}  # the transfer functions PQ and HLG


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
        if matrix in MATRIX_NAMES:
            usual = int(matrix) if matrix in (BT709, BT2020) else SMPTE170M
        return cls(
            int(matrix) if matrix in MATRIX_NAMES else usual,
            usual if primaries in (UNSPECIFIED, 0) else int(primaries),
            min(usual, SMPTE170M) if transfer in (UNSPECIFIED, 0) else int(transfer),
        )

    @property
    def hdr(self) -> bool:
        """Whether the numbers mean more light than ordinary screens show: PQ or HLG."""
        return self.transfer in HDR


@dataclass(frozen=True)
class Light:
    """What an HDR stream was mastered for: SMPTE ST 2086 and CTA-861.3.

    `display` is x and y of red, green, blue and white, then the least and the most light in
    cd/m2, None if unknown; `content` the brightest pixel and the brightest frame's mean, in
    cd/m2.
    """

    display: tuple[Fraction, ...] | None
    content: tuple[int, int] | None

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Light | None:
        """What comes with a decoded frame, None if nothing does."""
        data: dict[str, bytes] = {}
        # Some kinds of side data are not known to libav's bindings, which then give up.
        with suppress(ValueError):
            data = {kind: bytes(found) for kind in LIGHT if (found := frame.side_data.get(kind))}
        display, content = (data.get(kind) for kind in LIGHT)
        known = None
        if display is not None and display[-8:] == FILLED:
            parts = struct.unpack("=20i", display[:-8])
            pairs = zip(parts[::2], parts[1::2], strict=True)
            known = tuple(Fraction(a, b) for a, b in pairs if b)
        about = None if content is None else struct.unpack("=2I", content[:8])
        if (known is None or len(known) != 10) and about is None:
            return None
        return cls(known if known and len(known) == 10 else None, about)

    def for_x265(self) -> str:
        """As x265's parameters, each after a colon."""
        text = ""
        if self.display is not None:
            xy, (least, most) = [round(v * 50000) for v in self.display[:8]], self.display[8:]
            (rx, ry, gx, gy, bx, by, wx, wy) = xy
            text = f":master-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})"
            text += f"L({round(most * 10000)},{round(least * 10000)})"
        return text + (f":max-cll={self.content[0]},{self.content[1]}" if self.content else "")

    def for_svt(self) -> str:
        """As SVT-AV1's parameters."""
        parts = []
        if self.display is not None:
            rx, ry, gx, gy, bx, by, wx, wy, least, most = (f"{float(v):.6f}" for v in self.display)
            parts.append(
                f"mastering-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({most},{least})"
            )
        if self.content is not None:
            parts.append(f"content-light={self.content[0]},{self.content[1]}")
        return ":".join(parts)


LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
FILLED = struct.pack("=2i", 1, 1)  # that primaries and luminance are both given


def is_deep(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame has more than 8 bits a colour."""
    return max(component.bits for component in frame.format.components) > 8


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame can be transparent; that of a palette's colours is not told."""
    parts = frame.format.components
    return frame.format.has_palette or any(component.is_alpha for component in parts)


class ToRGB:
    """Turns decoded frames into RGB pixels of one size, not yet turned upright."""

    def __init__(
        self,
        colour: Colour,
        size: Size,
        deep: bool,
        alpha: bool,
        tone_map: bool = False,
        siting: str | None = None,
    ) -> None:
        """Prepare for frames of this `colour`, to be resized to `size` (h, w).

        `deep` asks for uint16 instead of uint8, `alpha` for the opacity too. `tone_map` brings
        HDR to BT.709, by swscale's perceptual mapping (ITU-R BT.2390 in ICtCp, of libplacebo).
        `siting` says where chroma samples lie, None if the frames do.
        """
        self._colour, self._size, self._tone_map = colour, size, tone_map
        kinds = {
            (False, False): "rgb24", (False, True): "rgba",
            (True, False): "rgb48le", (True, True): "rgba64le",
        }  # fmt: skip
        self._format = kinds[deep, alpha]
        self._alpha, self._siting = alpha, siting
        self._reformatter = VideoReformatter()
        self._graph: Graph | None = None
        self._given: tuple[int, int, str] | None = None

    def __call__(self, frame: av.VideoFrame) -> tuple[Pixels, Alpha | None]:
        """Pixels (h, w, 3), and opacity (h, w) if it was asked for."""
        shape = frame.format
        by_graph = self._tone_map or (self._siting and not shape.is_rgb)
        array = (self._filtered(frame) if by_graph else self._converted(frame)).to_ndarray()
        if array.dtype.itemsize == 1:
            return (array[..., :3], array[..., 3]) if self._alpha else (array, None)
        # What libav calls little-endian is what this machine has.
        array = array.astype(np.uint16, copy=False)
        pixels = _stretched(array[..., :3], WHITE if self._tone_map else _white(shape))
        return pixels, _stretched(array[..., 3], _opaque(shape)) if self._alpha else None

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        h, w = self._size
        return self._reformatter.reformat(
            frame,
            width=w,
            height=h,
            format=self._format,
            src_colorspace=self._colour.matrix,
            src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
        )

    def _filtered(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The same by a filter graph, which can do more."""
        given = frame.width, frame.height, frame.format.name
        if self._graph is None or given != self._given:
            self._graph, self._given = self._configured(frame), given
        frame.pts, frame.time_base = 0, TICK
        # Tags that make no sense would stop the filter.
        frame.colorspace = 0 if frame.format.is_rgb else self._colour.matrix
        frame.color_primaries, frame.color_trc = self._colour.primaries, self._colour.transfer
        self._graph.push(frame)
        return cast(av.VideoFrame, self._graph.pull())

    def _configured(self, frame: av.VideoFrame) -> Graph:
        (h, w), colour = self._size, self._colour
        span = "pc" if _is_full_range(frame) else "tv"
        matrix = "gbr" if frame.format.is_rgb else MATRIX_NAMES[colour.matrix]
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
            f"time_base={TICK}:colorspace={matrix}:range={span}"
        )
        scale = f"w={w}:h={h}:{SCALED}:out_range=pc:in_range={span}"
        if not frame.format.is_rgb:
            scale += f":in_color_matrix={matrix}"
        if self._siting and not frame.format.is_rgb:
            scale += f":in_chroma_loc={self._siting}"
        if self._tone_map:
            scale += (
                f":in_primaries={PRIMARIES_NAMES.get(colour.primaries, 'bt2020')}:"
                f"in_transfer={HDR[colour.transfer]}:"
                "out_primaries=bt709:out_transfer=bt709:intent=perceptual"
            )
        return _chained(Graph(), source, scale, self._format)


class ToSmall:
    """Turns decoded frames into small grey copies, as they are stored: not upright.

    By swscale, straight from a video's luma: a whole picture in RGB takes much longer.
    """

    def __init__(self, colour: Colour) -> None:
        """Prepare for frames of this `colour`."""
        self._matrix, self._reformatter = colour.matrix, VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Small:
        """The copy (108, 192), averaged down, of the whole range of grey."""
        h, w = SMALL
        small = self._reformatter.reformat(
            frame,
            width=w,
            height=h,
            format="gray",
            src_colorspace=self._matrix,
            src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
        )
        return cast(Small, np.ascontiguousarray(small.to_ndarray()))


def siting(decoder: str, colour: Colour, frame: av.VideoFrame) -> str | None:
    """Where chroma samples lie if a decoder (by libav's name) does not tell; None: it does.

    libav would take them for centred. They lie on the left in all kinds of MPEG but the first,
    in the corner in BT.2020 (ITU-R BT.2100, 6).
    """
    shape = frame.format
    quarter = shape.components[0].width > shape.components[-1].width if shape.components else False
    if decoder in TELLING or shape.is_rgb or len(shape.components) < 3 or not quarter:
        return None
    return "topleft" if colour.primaries == BT2020 else "left"


def _stretched(levels: Levels, white: int) -> Levels:
    """Levels (uint16) whose largest is `white` so that it is 65535."""
    if white == WHITE:
        return levels
    whole = (levels.astype(np.uint32) * WHITE + white // 2) // white
    return cast(Levels, whole.clip(max=WHITE).astype(np.uint16))


def _white(shape: VideoFormat) -> int:
    """What swscale makes white of in 16 bits: of YUV 255 * 256, of grey its bits shifted up."""
    if shape.is_rgb or shape.has_palette:
        return WHITE
    return WHITE_OF_YUV if len(shape.components) >= 3 else _opaque(shape)


def _opaque(shape: VideoFormat) -> int:
    bits = shape.components[-1].bits
    shifted = ((1 << bits) - 1) << (16 - bits)
    return WHITE if shape.is_rgb or shape.has_palette or bits <= 8 else shifted


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
        self._scale = f"{SCALED}:in_range=pc"
        if self._format.is_rgb:
            self._scale += ":out_range=pc"
        else:
            matrix = MATRIX_NAMES[colour.matrix]
            self._scale += f":out_range=tv:out_color_matrix={matrix}:out_chroma_loc=left"
        self._graph: Graph | None = None
        self._given = ""

    def __call__(self, pixels: Pixels, alpha: Alpha | None = None) -> av.VideoFrame:
        """A frame without a time, from pixels (h, w, 3) and opacity (h, w), uint8 or uint16."""
        if pixels.dtype == np.uint16 and not self._format.is_rgb:
            pixels = _lowered(pixels)
        joined = pixels if alpha is None else np.dstack([pixels, alpha])
        kinds = ("rgb24", "rgba") if pixels.dtype == np.uint8 else ("rgb48le", "rgba64le")
        given = kinds[alpha is not None]
        if self._graph is None or given != self._given:
            self._graph, self._given = self._configured(given), given
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(joined), format=given)
        frame.pts, frame.time_base = 0, TICK
        self._graph.push(frame)
        return cast(av.VideoFrame, self._graph.pull())

    def _configured(self, given: str) -> Graph:
        h, w = self._size
        source = f"video_size={w}x{h}:pix_fmt={given}:time_base={TICK}"
        return _chained(Graph(), source, self._scale, self._format.name)


def _lowered(pixels: Pixels) -> Pixels:
    """The way back of `_stretched` for YUV."""
    lower = (pixels.astype(np.uint32) * WHITE_OF_YUV + WHITE // 2) // WHITE
    return lower.astype(np.uint16)


def _chained(graph: Graph, source: str, scale: str, pixel_format: str) -> Graph:
    chain = [
        graph.add("buffer", source),
        graph.add("scale", scale),
        graph.add("format", f"pix_fmts={pixel_format}"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph
