"""Picture files: one, or one a frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from streamdream.files import FIRST, PICTURE_FORMATS, numbered
from streamdream.frame import Frame, Levels, eight_bits, on_black
from streamdream.info import VideoInfo
from streamdream.sinks import FileSink, PartFile
from streamdream.views import square, squared

SETTINGS_TAG = 0x10E  # ImageDescription of EXIF
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


class PictureSink(FileSink):
    """A picture file, PNG, JPEG or WebP, for one frame."""

    def __init__(self, path: str | Path, info: VideoInfo, comment: str = "") -> None:
        """Prepare to write one picture as `info` tells, with `comment` in its metadata."""
        self._file = PartFile(Path(path))
        self._writer = _Writer(self._file.path, info, comment)
        self._frame: Frame | None = None
        self.notices = list(self._writer.notices)
        self.part = None

    def write(self, frame: Frame) -> None:
        """Take the one frame; a second one is an error of the caller."""
        if self._frame is not None:
            raise ValueError("a picture file holds one frame")
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
        self._writer = _Writer(pattern, info, comment)
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


class _Writer:
    """Writes frames as pictures of one kind."""

    def __init__(self, path: Path, info: VideoInfo, comment: str) -> None:
        self._kind = PICTURE_FORMATS[path.suffix.lower()]
        self._size, self._profile, self._comment = square(info), info.profile, comment
        png = self._kind == "PNG"
        cure = "png keeps it"
        self.notices = list(shortcomings(info, self._kind, png, self._kind != "JPEG", cure))

    def save(self, file: PartFile, frame: Frame) -> None:
        """Write a frame; raises SinkError."""
        try:
            self._save(file.part, frame)
            file.complete()
        except (OSError, FFmpegError) as fault:
            file.forget()
            raise file.fault(fault, None) from None

    def _save(self, path: Path, frame: Frame) -> None:
        frame = squared(frame, self._size)
        pixels, alpha = frame.pixels, frame.alpha
        if self._kind == "PNG" and pixels.dtype == np.uint16:
            path.write_bytes(deep_png(pixels, alpha, self._comment, self._profile))
            return
        if self._kind == "JPEG":
            seen, alpha = on_black(frame), None
        else:
            seen = pixels
        layers = [eight_bits(seen)] + ([] if alpha is None else [eight_bits(alpha)])
        image = Image.fromarray(np.dstack(layers) if len(layers) > 1 else layers[0])
        if self._kind == "PNG":
            text = PngInfo()
            text.add_itxt("Comment", self._comment)
            image.save(path, "PNG", pnginfo=text, icc_profile=self._profile)
        elif self._kind == "WEBP":
            image.save(
                path, "WEBP", quality=92, exif=settings_exif(self._comment),
                icc_profile=self._profile or b"",
            )  # fmt: skip
        else:
            image.save(
                path, "JPEG", quality=95, subsampling=0, comment=self._comment,
                icc_profile=self._profile,
            )  # fmt: skip


def settings_exif(comment: str) -> Image.Exif:
    """EXIF data with a text in them."""
    data = Image.Exif()
    data[SETTINGS_TAG] = comment.encode()  # Pillow would make text ASCII
    return data


def deep_png(
    pixels: Levels, alpha: Levels | None, comment: str, profile: bytes | None = None
) -> bytes:
    """A PNG of 16 bits a colour, which Pillow cannot write: libav's, with text and profile."""
    kind = "rgb48le" if alpha is None else "rgba64le"
    joined = pixels if alpha is None else np.dstack([pixels, alpha])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(joined), format=kind)
    frame = frame.reformat(format=kind.replace("le", "be"))
    context = cast(VideoCodecContext, av.CodecContext.create("png", "w"))
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = frame.format.name, Fraction(1, 25)
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]
    chunks = text_chunk(comment)
    if profile is not None:
        chunks = chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)) + chunks
    return with_chunks(b"".join(bytes(packet) for packet in packets), chunks)


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return png[:AFTER_HEADER] + chunks + png[AFTER_HEADER:]


def text_chunk(comment: str) -> bytes:
    """A comment as PNG keeps it (iTXt; PNG specification, 11.3.3.4)."""
    return chunk(b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check
