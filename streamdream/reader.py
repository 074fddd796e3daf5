"""An input opened by libav: its pictures as they are stored, its packets, what it is like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamdream.companions import is_cover
from streamdream.errors import SourceError, words
from streamdream.info import Counts, Reading
from streamdream.inputs import Input, locate
from streamdream.mending import Deinterlacer
from streamdream.unpacking import is_moving_webp, unpack

# What libav's bindings raise on broken files, found by feeding them broken files.
BROKEN = (FFmpegError, OSError, ValueError, EOFError, IndexError, MemoryError)
RUNNING_CLOCK = ("mpegts", "mpeg", "rtsp")  # formats whose times start anywhere
SEEING_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # libav's own decoders drop it
SLOWEST, FASTEST = Fraction(1, 1000), 1000  # pictures a second; what is said beyond is wrong
PHOTOS = ("heic", "heix", "mif1", "avif")  # brands of files that hold one picture


class Reader:
    """Packets of an input, and the pictures of one of its video streams.

    `stream` is that one, `container` what it is in, `counts` what went wrong so far, `notices`
    what a person should know.
    """

    def __init__(self, text: str | Path, reading: Reading) -> None:
        """Open what `text` names (see inputs.locate); raises SourceError."""
        self._reading = reading
        self.input: Input = locate(text, reading.rate)
        self.notices: list[str] = list(self.input.notices)
        self._folder: TemporaryDirectory[str] | None = None
        self.container = self._open()
        try:
            self.stream = self._choose()
            self.begin()
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Forget what went before: reading begins somewhere else."""
        self.counts = Counts()
        self._weave: Deinterlacer | None = None

    def seek(self, time: Fraction) -> None:
        """Go on from the key frame before a time of the stream, in seconds, if that works."""
        self.container.seek(int(time / self.tick), stream=self.stream)
        self.begin()

    def reopen(self) -> None:
        """Begin from the start."""
        self.container.close()
        self.container = self._open()
        self.stream = self._prepared(self.container.streams.video[self._number])
        self.begin()

    def close(self) -> None:
        """Close the file."""
        self.container.close()
        if self._folder is not None:
            self._folder.cleanup()

    def fault(self, reason: str, cure: str = "") -> SourceError:
        return SourceError(self.input.label, reason, cure)

    @property
    def cure(self) -> str:
        if self.input.path is not None:
            return "it may be cut off or damaged"
        if self.input.piped:
            return "pipe a format that can be read from front to end, as mkv or ts"
        return "" if self.input.files else "if it plays elsewhere, download it first"

    def _open(self) -> InputContainer:
        given = self.input
        if self._folder is None and given.path is not None and is_moving_webp(given.path):
            self._folder = TemporaryDirectory(prefix="streamdream-")
            self._unpacked(self._folder)
            given = self.input
        try:
            opened = av.open(
                given.name, format=given.kind, options=dict(given.options),
                metadata_errors="replace",
            )  # fmt: skip
        except BROKEN as fault:
            raise self.fault(f"not a video or picture ({words(fault)})", self.cure) from None
        return cast(InputContainer, opened)

    def _unpacked(self, folder: TemporaryDirectory[str]) -> None:
        assert self.input.path is not None
        try:
            unpacked = unpack(self.input.path, Path(folder.name), self._reading.most)
        except SourceError:
            folder.cleanup()
            raise
        self.input = replace(self.input, name=str(unpacked))

    def _choose(self) -> VideoStream:
        pictures = [s for s in self.container.streams.video if not is_cover(s)]
        videos = [s for s in pictures if getattr(s, "codec_context", None) is not None]
        if pictures and not videos:
            raise self.fault("nothing here can decode its video")
        if not videos:
            sound = "it holds only sound" if self.container.streams.audio else ""
            raise self.fault("has no video stream", sound)
        if self.container.metadata.get("major_brand") in PHOTOS and len(videos) > 2:
            raise self.fault("a photo in tiles, which are not joined here", "make it a JPEG")
        stream = max(videos, key=lambda s: s.width * s.height)
        if self._reading.stream is not None:
            wanted = [s for s in videos if s.index == self._reading.stream]
            if not wanted:
                there = ", ".join(f"{s.index} ({s.width}x{s.height})" for s in videos)
                raise self.fault(
                    f"stream {self._reading.stream} is no video", f"there are: {there}"
                )
            stream = wanted[0]
        self._check_pixels(stream.width, stream.height)
        self._number = self.container.streams.video.index(stream)
        if len(videos) > 1 and self._reading.stream is None:
            self.notices.append(
                f"{len(videos)} video streams; dreaming stream {stream.index} "
                f"({stream.width}x{stream.height}); --video-stream takes another"
            )
        return self._prepared(stream)

    def _prepared(self, stream: VideoStream) -> VideoStream:
        self._decoder: VideoCodecContext = stream.codec_context
        seeing = SEEING_ALPHA.get(self._decoder.name)
        if seeing is not None and stream.metadata.get("alpha_mode") == "1":
            self._decoder = cast(VideoCodecContext, VideoCodecContext.create(seeing, "r"))
        self._decoder.thread_type = "AUTO"
        if self._reading.strict:
            self._decoder.options = {"err_detect": "explode"}
        return stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._reading.most:
            raise self.fault(
                f"{width}x{height} are more than {self._reading.most} pixels",
                "allow it with --max-pixels",
            )

    def pictures(self, packet: Packet) -> Iterator[av.VideoFrame]:
        """What a packet of the stream gives; a broken one is skipped and counted."""
        try:
            decoded = cast(list[av.VideoFrame], self._decoder.decode(packet))
        except BROKEN as fault:
            self._skip(fault)
            return
        for picture in self._whole(decoded, last=not packet.size):
            self._check_pixels(picture.width, picture.height)
            if picture.is_corrupt:
                self._damaged()
            yield picture

    def _skip(self, fault: BaseException) -> None:
        if self._reading.strict:
            raise self.fault(f"damaged ({words(fault)})", "without --strict it would be skipped")
        self.counts.skipped += 1

    def _damaged(self) -> None:
        if self._reading.strict:
            raise self.fault("a picture is damaged", "without --strict it would be shown")
        self.counts.damaged += 1

    def _whole(self, pictures: list[av.VideoFrame], last: bool) -> Iterator[av.VideoFrame]:
        """The pictures, those of interlaced video made whole from their two halves."""
        if self._weave is None and self._reading.deinterlace:
            if not any(picture.interlaced_frame for picture in pictures):
                yield from pictures
                return
            self._weave = Deinterlacer(self.stream)
            told = "interlaced: made whole by bwdif; --no-deinterlace leaves it"
            if told not in self.notices:  # seeking begins anew
                self.notices.append(told)
        elif self._weave is None:
            yield from pictures
            return
        for picture in pictures:
            yield from self._weave(picture)
        if last:
            yield from self._weave(None)

    def packets(self) -> Iterator[Packet]:
        wanted = [self.stream, *self.container.streams.audio]
        wanted += self.container.streams.subtitles
        packets = self.container.demux(wanted)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except BROKEN as fault:
                self._skip(fault)
                return

    @property
    def codec(self) -> str:
        """The name of what decodes the pictures."""
        return self.stream.codec_context.name

    @property
    def tick(self) -> Fraction:
        """The unit of the stream's times, in seconds."""
        base = self.stream.time_base
        return Fraction(base.numerator, base.denominator) if base else Fraction(1, 90000)

    @property
    def origin(self) -> Fraction:
        start = self.container.start_time
        return Fraction(0) if start is None else max(Fraction(0), Fraction(start, av.time_base))

    def any_picture(self, seen: Callable[[av.VideoFrame], bool]) -> bool:
        """Whether any picture is so, on a look of its own through the file."""
        try:
            with self._open() as container:
                pictures = container.decode(container.streams.video[self._number])
                return any(seen(picture) for picture in pictures)
        except BROKEN:
            return False

    @property
    def unpacked(self) -> bool:
        """Whether what is read was unpacked before."""
        return self._folder is not None

    @property
    def clock_runs(self) -> bool:
        """Whether the format's clock runs on from one recording to the next."""
        return any(n in RUNNING_CLOCK for n in self.container.format.name.split(","))

    @property
    def still(self) -> bool:
        name = self.container.format.name
        photo = "image2" in name or "_pipe" in name
        if "mov" in name:  # HEIC and AVIF are kinds of it
            brand = self.container.metadata.get("major_brand", "").strip()
            photo = brand in PHOTOS and self.stream.frames <= 1
        return self.input.count is None and photo

    @property
    def rate(self) -> Fraction | None:
        """Pictures a second, None if the file tells none that makes sense."""
        told = self.stream.average_rate or self.stream.guessed_rate
        rate = Fraction(told.numerator, told.denominator) if told else Fraction(0)
        return rate if SLOWEST <= rate <= FASTEST else None

    @property
    def usual(self) -> Fraction:
        return 1 / (self.rate or Fraction(25))
