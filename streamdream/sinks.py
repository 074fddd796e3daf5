"""Where frames go: a video file, a picture file.

Nothing appears under the final name before it is complete: a sink writes to `name.part.ext`
and renames it at the end. An interrupted run finishes that file; of a killed one it holds all
but the last few seconds.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from streamdream.colour import ToVideo
from streamdream.companions import Companions
from streamdream.errors import SinkError
from streamdream.files import PICTURE_FORMATS, VIDEO_FORMATS, part_of
from streamdream.frame import Frame
from streamdream.pipeline import Picture
from streamdream.sources import VideoInfo

# Playable up to the last key frame if writing just stops, an ordinary file when it ends well.
SURVIVING = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"}
# Matroska would shift all streams to let none begin before 0, as sound often does a little.
UNSHIFTED = {"avoid_negative_ts": "disabled", "flush_packets": "1"}

LARGEST_TIMESCALE = 100_000_000  # units a second

# Tags that describe the container of the input, not its content.
NOT_CONTENT = {"encoder", "major_brand", "minor_version", "compatible_brands", "duration"}


class Stopped(Exception):
    """Somebody asked the run to stop; what was done so far is kept."""


class Sink(Protocol):
    """Takes frames; a context manager that completes the result when all went well."""

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know."""
        ...

    @property
    def part(self) -> Path | None:
        """Where an unfinished result lies, None if nowhere."""
        ...

    def watch(self, frame: Frame, picture: Picture) -> None:
        """See an unfinished picture, after every step; may raise Stopped."""
        ...

    def write(self, frame: Frame) -> None:
        """Take one frame."""
        ...

    def __enter__(self) -> Self:
        """The sink itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the result, or leave what there is if a fault is on its way."""
        ...


class _PartFile:
    """A file that gets its name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.part = part_of(self.path)

    def complete(self) -> None:
        with open(self.part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)

    def fault(self, fault: BaseException, playable: bool) -> SinkError:
        reason = str(getattr(fault, "strerror", None) or fault or type(fault).__name__)
        kept = f"{self.part} holds what was done" if playable and self.part.exists() else ""
        if isinstance(fault, OSError) and fault.errno == errno.ENOSPC:
            reason = "the disk is full"
        return SinkError(self.path, f"cannot be written ({reason})", kept)


class VideoSink:
    """A video file: the frames as H.264, and the source's other streams packet for packet.

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
        crf: float = 18,
        preset: str = "medium",
        comment: str = "",
    ) -> None:
        """Begin a file for frames as `info` tells, with `comment` added to its metadata.

        `crf` 0 to 51 and `preset` are those of x264. Raises SinkError.
        """
        self.notices: list[str] = []
        self._file = _PartFile(Path(path))
        self._info = info
        self._companions = companions or Companions()
        self._companions.wanted = True
        h, w = info.size
        self._to_video = ToVideo((h + h % 2, w + w % 2), info.colour, "yuv420p")
        self._format = VIDEO_FORMATS[self._file.path.suffix.lower()]
        self._shown_until = Fraction(0)
        self._last: Fraction | None = None
        self._durations: dict[int, int] = {}
        self._closed = False
        try:
            self._container = self._open()
            self._stream = self._picture_stream(crf, preset)
            self._copies = self._copied_streams()
            self._describe(comment)
        except (FFmpegError, OSError, ValueError) as fault:
            raise self._file.fault(fault, playable=False) from None

    def write(self, frame: Frame) -> None:
        """Encode a frame, and copy what is played along with it; raises SinkError."""
        h, w = frame.pixels.shape[:2]
        if (h, w) != self._info.size:
            raise ValueError(f"frame {frame.index} is {w}x{h}, not {self._info.size}")
        pixels = np.pad(frame.pixels, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
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

    def watch(self, frame: Frame, picture: Picture) -> None:
        """A file shows nothing unfinished."""

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, or leave a playable part of it if a fault is on its way."""
        self.close(complete=fault is None)

    def close(self, complete: bool = True) -> None:
        """Finish the file; give it its name if it is `complete`. Raises SinkError."""
        if self._closed:
            return
        try:
            if self._last is not None:
                self._copy(None if complete else self._shown_until)
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
        options = dict(UNSHIFTED if self._format == "matroska" else SURVIVING)
        if self._format != "matroska":
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

    def _picture_stream(self, crf: float, preset: str) -> VideoStream:
        info = self._info
        stream = self._container.add_stream("libx264", rate=info.rate or Fraction(25))
        h, w = info.size
        if h % 2 or w % 2:
            self.notices.append(
                f"{w}x{h} has an odd side, which H.264 cannot have: "
                f"the edge is repeated to {w + w % 2}x{h + h % 2}"
            )
        stream.width, stream.height, stream.pix_fmt = w + w % 2, h + h % 2, "yuv420p"
        # A killed run keeps what was written up to the last key frame: one about every second.
        second = max(12, round(info.rate or 25))
        stream.options = {"crf": f"{crf:g}", "preset": preset, "g": str(second)}
        context = stream.codec_context
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect
        context.colorspace = info.colour.matrix
        context.color_primaries = info.colour.primaries
        context.color_trc = info.colour.transfer
        context.color_range = ColorRange.MPEG
        stream.time_base = info.time_base
        return stream

    def _copied_streams(self) -> dict[int, _Copy]:
        copies: dict[int, _Copy] = {}
        for stream in self._companions.streams:
            if not _can_hold(self._format, stream):
                name = stream.codec_context.name if stream.codec_context else "unknown codec"
                self.notices.append(
                    f"{stream.type} stream {stream.index} ({name}) is left out: "
                    f"{self._file.path.suffix} cannot hold it"
                )
                continue
            copies[stream.index] = _Copy(self._container, stream)
        for what in self._companions.left_out:
            self.notices.append(f"{what} is left out")
        return copies

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
        for packet in self._companions.take(until):
            copy = self._copies.get(packet.stream.index)
            if copy is not None:
                self._mux(copy.packets(packet))


class _Copy:
    """A stream copied packet for packet."""

    def __init__(self, container: OutputContainer, stream: Stream) -> None:
        self._stream = container.add_stream_from_template(stream)
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = Disposition(stream.disposition)
        _give_layout(self._stream)
        self._filter: BitStreamFilterContext | None = None
        context = stream.codec_context
        if context and context.name == "aac" and not context.extradata:
            # AAC of broadcast streams has its headers in the packets.
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)

    def packets(self, packet: Packet) -> list[Packet]:
        packets = [packet] if self._filter is None else list(self._filter.filter(packet))
        for ready in packets:
            ready.stream = self._stream
        return packets


def _give_layout(stream: Stream) -> None:
    """Name the channels of plain sound that only counts them, or MP4 would not take it."""
    if isinstance(stream, AudioStream) and "channels" in stream.codec_context.layout.name:
        usual = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
        name = usual.get(stream.codec_context.layout.nb_channels)
        if name:
            stream.codec_context.layout = name


def _can_hold(container_format: str, stream: Stream) -> bool:
    """Whether a container takes a stream: only writing its header tells."""
    if stream.codec_context is None:
        return False
    try:
        with av.open(BytesIO(), "w", format=container_format) as trial:
            _give_layout(trial.add_stream_from_template(stream))
            trial.start_encoding()
    except (ValueError, FFmpegError, OSError):
        return False
    return True


class PictureSink:
    """A picture file, PNG or JPEG, for one frame."""

    def __init__(self, path: str | Path, comment: str = "") -> None:
        """Prepare to write one picture, with `comment` in its metadata."""
        self._file = _PartFile(Path(path))
        self._comment = comment
        self._format = PICTURE_FORMATS[self._file.path.suffix.lower()]
        self._frame: Frame | None = None
        self.notices: list[str] = []
        self.part = None

    def write(self, frame: Frame) -> None:
        """Take the one frame; a second one is an error of the caller."""
        if self._frame is not None:
            raise ValueError("a picture file holds one frame")
        self._frame = frame

    def watch(self, frame: Frame, picture: Picture) -> None:
        """A file shows nothing unfinished."""

    def __enter__(self) -> Self:
        """The sink itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the picture, unless a fault is on its way."""
        if fault is None and self._frame is not None:
            self._save(self._frame)

    def _save(self, frame: Frame) -> None:
        try:
            image = Image.fromarray(frame.pixels)
            if self._format == "PNG":
                text = PngInfo()
                text.add_itxt("Comment", self._comment)
                image.save(self._file.part, "PNG", pnginfo=text)
            else:
                image.save(
                    self._file.part, "JPEG", quality=95, subsampling=0, comment=self._comment
                )
            self._file.complete()
        except OSError as fault:
            self._file.part.unlink(missing_ok=True)
            raise self._file.fault(fault, playable=False) from None
