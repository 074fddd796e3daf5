"""Picture files: one, or one a frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from PIL import Image

from streamdream.chunks import chunk, settings_exif, text_chunk
from streamdream.errors import SinkError
from streamdream.files import FIRST, PICTURE_FORMATS, numbered, row_of
from streamdream.frame import Frame, Size, eight_bits, on_black
from streamdream.info import VideoInfo
from streamdream.sinks import FileSink, PartFile
from streamdream.views import square, squared

LARGEST = {"WEBP": 16383, "JPEG": 65500, "GIF": 65535}  # pixels a side
QUALITY = 95  # of JPEG and WebP
AFTER_HEADER = 8 + 25  # bytes of a PNG up to where other chunks may come


def shortcomings(info: VideoInfo, title: str, deep: bool, alpha: bool, cure: str) -> Iterator[str]:
    """What a person should know about pictures that hold `deep` colours, or `alpha`, or not."""
    (h, w), (high, wide) = info.size, square(info)
    if (h, w) != (high, wide):
        yield f"pixels are made square: {w}x{h} becomes {wide}x{high}"
    if info.deep and not deep:
        yield f"more than 8 bits a colour are cut to 8, {title} has no more"
    if info.alpha and not alpha:
        yield f"transparency is lost: {title} has none, it is drawn on black; {cure}"
    if info.colour.hdr:
        yield f"HDR looks pale in {title} pictures, which are not known to be HDR; see --tone-map"


def check_side(path: Path, title: str, size: Size) -> None:
    """Raise SinkError if a picture of `size` (h, w) is too large for its kind."""
    most = LARGEST.get(title.upper())
    if most is not None and max(size) > most:
        h, w = size
        raise SinkError(path, f"{w}x{h} is too large, {title} ends at {most}", "use png or --size")


class PictureSink(FileSink):
    """A picture file, PNG, JPEG or WebP, for one frame."""

    def __init__(self, path: str | Path, info: VideoInfo, comment: str = "") -> None:
        """Prepare to write one picture as `info` tells, with `comment` in its metadata."""
        self._file = PartFile(Path(path))
        self._writer = PictureForm(self._file.path, info, comment)
        self._frame: Frame | None = None
        self.notices = list(self._writer.notices)
        self.part = None

    def write(self, frame: Frame) -> None:
        """Take the one frame; raises SinkError at a second one, as where a header told of one."""
        if self._frame is not None:
            told = "a picture file holds one frame, the input has more"
            raise SinkError(self._file.path, told, "add --frames 1")
        self._frame = frame

    def close(self, complete: bool = True) -> None:
        """Write the picture if all is `complete`; raises SinkError."""
        if complete and self._frame is not None:
            self._writer.save(self._file, self._frame)


class RowSink(FileSink):
    """Pictures in a row, one a frame: `frames/%05d.png`, counted from 1."""

    def __init__(
        self, pattern: Path, info: VideoInfo, companions: list[str], comment: str = ""
    ) -> None:
        """Write by this pattern, with `comment` in every picture; its folder is made.

        `companions` names what else the source has, to say that it is left out.
        """
        self.part = self._pattern = pattern
        self._writer = PictureForm(pattern, info, comment)
        self._count = 0
        try:
            pattern.parent.mkdir(exist_ok=True)
        except OSError as fault:
            raise PartFile(pattern).fault(fault, None) from None
        self.notices = [f"{what} is left out: pictures hold none" for what in companions]
        self.notices += self._writer.notices

    def write(self, frame: Frame) -> None:
        """Write one picture; raises SinkError."""
        self._writer.save(PartFile(numbered(self._pattern, FIRST + self._count)), frame)
        self._count += 1

    def close(self, complete: bool = True) -> None:
        """Tell of what is left of a longer row of before: it would follow this one."""
        left = len(row_of(self._pattern)) - self._count
        if complete and left > 0:
            some = "1 picture" if left == 1 else f"{left} pictures"
            self.notices.append(f"{some} of a longer row of before are left behind this one")


class PictureForm:
    """How frames become pictures of one kind; `notices` says what becomes of them."""

    def __init__(self, path: Path, info: VideoInfo, comment: str) -> None:
        """For frames as `info` tells in files named so, with `comment` in each."""
        self._kind = PICTURE_FORMATS[path.suffix.lower()]
        self._size, self._profile, self._comment = square(info), info.profile, comment
        check_side(path, self._kind, self._size)
        png = self._kind == "PNG"
        cure = "png keeps it"
        self.notices = list(shortcomings(info, self._kind, png, self._kind != "JPEG", cure))

    def save(self, file: PartFile, frame: Frame) -> None:
        """Write a frame; raises SinkError."""
        try:
            file.part.write_bytes(self.encoded(frame))
            file.complete()
        except (OSError, FFmpegError) as fault:
            file.forget()
            raise file.fault(fault, None) from None

    def encoded(self, frame: Frame) -> bytes:
        """A frame as the content of such a file."""
        frame = squared(frame, self._size)
        if self._kind == "PNG":
            return png(frame, self._comment, self._profile)
        if self._kind == "JPEG":
            image = Image.fromarray(eight_bits(on_black(frame)))
            more: dict[str, object] = {"subsampling": 0, "comment": self._comment}
        else:
            layers = [frame.pixels] if frame.alpha is None else [frame.pixels, frame.alpha]
            image = Image.fromarray(eight_bits(np.dstack(layers)))
            more = {"exif": settings_exif(self._comment)}
        data = BytesIO()
        image.save(data, self._kind, quality=QUALITY, icc_profile=self._profile or b"", **more)
        return data.getvalue()


def png(frame: Frame, comment: str, profile: bytes | None = None) -> bytes:
    """A PNG of 8 or 16 bits a colour: libav's, with a text and an ICC profile.

    Pillow writes no 16 bits, and takes eight times as long as this for 3% less.
    """
    layers = [frame.pixels] if frame.alpha is None else [frame.pixels, frame.alpha]
    joined = np.ascontiguousarray(np.dstack(layers))
    kinds = ("rgb24", "rgba") if joined.dtype == np.uint8 else ("rgb48le", "rgba64le")
    kind = kinds[frame.alpha is not None]
    picture = av.VideoFrame.from_ndarray(joined, format=kind)
    picture = picture.reformat(format=kind.replace("le", "be"))
    context = cast(VideoCodecContext, av.CodecContext.create("png", "w"))
    context.height, context.width = joined.shape[:2]
    context.pix_fmt, context.time_base = picture.format.name, Fraction(1, 25)
    context.options = {"compression_level": "2", "pred": "paeth"}
    picture.pts = 0
    packets = [*context.encode(picture), *context.encode(None)]
    chunks = text_chunk(comment) if comment else b""
    if profile is not None:
        chunks = chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)) + chunks
    made = b"".join(bytes(packet) for packet in packets)
    return made[:AFTER_HEADER] + chunks + made[AFTER_HEADER:]
