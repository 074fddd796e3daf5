"""Video files: frames encoded, other streams copied, nothing lost when writing just stops."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from streamdream.codecs import CONTAINERS, check_codec, choose_codec
from streamdream.colour import ToVideo
from streamdream.companions import Companions
from streamdream.copies import Copies
from streamdream.frame import Frame
from streamdream.sinks import FileSink, PartFile
from streamdream.sources import VideoInfo

os.environ.setdefault("SVT_LOG", "1")  # or the AV1 encoder talks on stderr

# Playable up to the last key frame if writing just stops, an ordinary file when it ends well.
SURVIVING = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"}
# Matroska would shift all streams to let none begin before 0, as sound often does a little.
UNSHIFTED = {"avoid_negative_ts": "disabled", "flush_packets": "1"}

LARGEST_TIMESCALE = 100_000_000  # units a second

# Tags that describe the container of the input, not its content.
NOT_CONTENT = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}


class VideoSink(FileSink):
    """A video file: the frames encoded, and the source's other streams packet for packet.

        with VideoSource("in.mp4") as source, VideoSink("out.mp4", source.info,
                                                        source.companions) as sink:
            for frame in source:
                sink.write(frame)

    Frames keep their times exactly where the container can express them: MP4 and MOV can,
    Matroska rounds to milliseconds.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        companions: Companions | None = None,
        codec: str = "auto",
        crf: float | None = None,
        preset: str = "medium",
        comment: str = "",
    ) -> None:
        """Begin a file for frames as `info` tells, with `comment` added to its metadata.

        `codec` is a name in codecs.CODECS, `crf` its quality (None: looks lossless), `preset`
        the effort by x264's names. Raises SinkError, and OptionError for a `crf` out of range.
        """
        self.notices: list[str] = []
        self._file = PartFile(Path(path))
        check_codec(self._file.path, codec, crf)
        self._asked = codec
        self._info = info
        self._companions = companions or Companions()
        self._companions.wanted = True
        self._codec = choose_codec(self._file.path, codec, info.deep, min(info.size))
        self._pixels = (self._codec.deep if info.deep else None) or self._codec.pixels
        h, w = info.size
        self._odd = (h % 2, w % 2) if self._codec.halved else (0, 0)
        self._to_video = ToVideo((h + self._odd[0], w + self._odd[1]), info.colour, self._pixels)
        self._format = CONTAINERS[self._file.path.suffix.lower()].name
        self._shown_until = Fraction(0)
        self._last: Fraction | None = None
        self._durations: dict[int, int] = {}
        self._closed = False
        try:
            self._container = self._open()
            self._stream = self._picture_stream(crf, preset)
            ending = self._file.path.suffix
            self._copies = Copies(self._companions, self._container, self._format, ending)
            self.notices += self._copies.notices
            self._describe(comment)
        except (FFmpegError, OSError, ValueError) as fault:
            raise self._file.fault(fault, playable=False) from None

    def write(self, frame: Frame) -> None:
        """Encode a frame, and copy what is played along with it; raises SinkError."""
        h, w = frame.pixels.shape[:2]
        if (h, w) != self._info.size:
            raise ValueError(f"frame {frame.index} is {w}x{h}, not {self._info.size}")
        down, right = self._odd
        pixels = frame.pixels
        if down or right:
            pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
        picture = self._to_video(pixels)
        picture.time_base = self._info.time_base
        picture.pts = round(frame.time / self._info.time_base)
        picture.pict_type = PictureType.NONE
        shown = frame.duration or 1 / (self._info.rate or Fraction(25))
        self._last, self._shown_until = frame.time, frame.time + shown
        self._durations[picture.pts] = round(shown / self._info.time_base)
        try:
            self._mux(self._timed(self._stream.encode(picture)))
            self._copy(self._shown_until)
        except (FFmpegError, OSError) as fault:
            self._abandon()
            raise self._file.fault(fault, playable=True) from None

    def close(self, complete: bool = True) -> None:
        """Finish the file; give it its name if it is `complete`. Raises SinkError."""
        if self._closed:
            return
        try:
            if self._last is not None:
                self._copy(None if complete else self._shown_until)
                self._copies.finish()
                self._mux(self._timed(self._stream.encode(None)))
            self._closed = True
            self._container.close()
            if self._last is None:
                self._file.part.unlink(missing_ok=True)
            elif complete:
                self._file.complete()
        except (FFmpegError, OSError) as fault:
            self._abandon()
            raise self._file.fault(fault, playable=True) from None

    @property
    def part(self) -> Path:
        """Where the file is until it is complete."""
        return self._file.part

    def _abandon(self) -> None:
        self._closed = True
        with suppress(FFmpegError, OSError):  # the first fault is the one to tell
            self._container.close()

    def _open(self) -> OutputContainer:
        fragments = self._format in ("mp4", "mov")
        options = dict(SURVIVING if fragments else UNSHIFTED)
        if fragments:
            options["movie_timescale"] = str(self._timescale())
        container = av.open(str(self._file.part), "w", format=self._format, options=options)
        return cast(OutputContainer, container)

    def _timescale(self) -> int:
        """Units a second that all streams' starts are whole numbers of, if there are such.

        MP4 keeps the start of a stream in these; the default of 1000 would round it.
        """
        own = self._info.time_base.denominator
        others = [s.time_base.denominator for s in self._companions.streams if s.time_base]
        scale = math.lcm(own, *others)
        if scale > LARGEST_TIMESCALE:
            scale = own
        while scale < 10_000:
            scale *= 2
        return scale

    def _picture_stream(self, crf: float | None, preset: str) -> VideoStream:
        info, codec = self._info, self._codec
        quality = crf if crf is not None else codec.crf or 0
        second = max(12, round(info.rate or 25))
        stream = cast(
            VideoStream, self._container.add_stream(codec.encoder, rate=info.rate or Fraction(25))
        )
        (h, w), (down, right) = info.size, self._odd
        stream.width, stream.height, stream.pix_fmt = w + right, h + down, self._pixels
        stream.options = dict(codec.options(quality, preset, second))
        context = stream.codec_context
        if codec.name == "hevc" and self._format in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect
        context.colorspace = 0 if codec.lossless else info.colour.matrix
        context.color_primaries = info.colour.primaries
        context.color_trc = info.colour.transfer
        context.color_range = ColorRange.JPEG if codec.lossless else ColorRange.MPEG
        stream.time_base = info.time_base
        self._tell(down or right)
        return stream

    def _tell(self, padded: int) -> None:
        info, title = self._info, self._codec.title
        (h, w), (down, right) = info.size, self._odd
        if padded:
            self.notices.append(
                f"{w}x{h} has an odd side, which {title} cannot have: "
                f"the edge is repeated to {w + right}x{h + down}"
            )
        usual = CONTAINERS[self._file.path.suffix.lower()].codecs[0]
        if info.deep and self._codec.deep is None:
            self.notices.append(
                f"more than 8 bits a colour are cut to 8, {title} plays with no more"
            )
        elif info.deep and self._codec.name != usual and self._asked == "auto":
            self.notices.append(
                f"written as {title}, which keeps more than 8 bits a colour; "
                f"--codec {usual} cuts them to 8"
            )

    def _describe(self, comment: str) -> None:
        found = self._companions
        content = {k: v for k, v in found.metadata.items() if k.lower() not in NOT_CONTENT}
        if comment:
            content["comment"] = "\n".join(filter(None, [content.get("comment"), comment]))
        self._container.metadata.update(content)
        for key in ("language", "title"):
            if key in found.picture_metadata:
                self._stream.metadata[key] = found.picture_metadata[key]
        if found.chapters:
            self._container.set_chapters(found.chapters)
        self._container.start_encoding()

    def _timed(self, packets: list[Packet]) -> list[Packet]:
        """Say how long pictures are shown: of the last one nothing else tells it."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
        return packets

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._container.mux(packet)

    def _copy(self, until: Fraction | None) -> None:
        self._copies.write(self._companions.take(until))
