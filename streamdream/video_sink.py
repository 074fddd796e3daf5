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
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from streamdream.codecs import CONTAINERS, STDOUT, check_codec, choose_codec, container_of
from streamdream.colour import ToVideo
from streamdream.companions import Companions
from streamdream.copies import Copies
from streamdream.errors import SinkError
from streamdream.frame import Frame, Size, on_black
from streamdream.hardware import find
from streamdream.info import VideoInfo
from streamdream.sinks import FileSink, PartFile, StdoutFile
from streamdream.views import square, squared

os.environ.setdefault("SVT_LOG", "1")  # or the AV1 encoder talks on stderr

# Playable up to the last key frame if writing just stops, an ordinary file when it ends well.
SURVIVING = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"}
# Matroska would shift all streams to let none begin before 0, as sound often does a little.
UNSHIFTED = {"avoid_negative_ts": "disabled", "flush_packets": "1"}
HOUR = 3600  # seconds; no picture is decoded that long before it is shown
FINEST = 1_000_000_000  # units a second that every encoder takes
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
        hardware: str = "none",
    ) -> None:
        """Begin a file for frames as `info` tells, with `comment` added to its metadata.

        `codec` is a name in codecs.CODECS, `crf` its quality (None: looks lossless), `preset`
        the effort by x264's names; `hardware` a name in hardware.MAKERS or "any": such an
        encoder is taken if it works. Raises SinkError, and OptionError for a `crf` out of range.
        """
        self.notices: list[str] = []
        self._file = StdoutFile() if Path(path) == STDOUT else PartFile(Path(path))
        self._ending = Path(path).suffix.lower() or ".mkv"
        check_codec(Path(path), codec, crf)
        self._asked = codec
        self._info = info
        self._companions = companions or Companions()
        self._companions.wanted = True
        self._codec = choose_codec(Path(path), codec, info.deep, min(info.size), info.alpha)
        self._alpha = info.alpha and self._codec.name in container_of(Path(path)).clear
        self._pixels = self._codec.form(info.deep, self._alpha)
        self._encoder = self._codec.encoder
        quality = crf if crf is not None else self._codec.crf or 0
        self._second = second = min(600, max(12, round(info.rate or 25)))
        self._lit = self._codec.lit
        self._settings = self._codec.options(quality, preset, second, self._alpha, info.light)
        self._size, self._aspect = info.size, info.sample_aspect
        if not container_of(Path(path)).tells_aspect(self._codec.name):
            self._size, self._aspect = square(info, self._codec.halved), Fraction(1)
        h, w = self._size
        self._odd = (h % 2, w % 2) if self._codec.halved else (0, 0)
        if hardware != "none":
            self._seek_hardware(hardware, (h + self._odd[0], w + self._odd[1]), quality, preset)
        self._to_video = ToVideo((h + self._odd[0], w + self._odd[1]), info.colour, self._pixels)
        self._format = container_of(Path(path)).name
        self._base = info.time_base if info.time_base.denominator <= FINEST else Fraction(1, 90000)
        self._latest: int | None = None
        self._muxed = False
        self._shown_until = Fraction(0)
        self._last: Fraction | None = None
        self._durations: dict[int, int] = {}
        self._closed = False
        try:
            self._container = self._open()
            self._stream = self._picture_stream()
            self._copies = Copies(self._companions, self._container, self._format, self._ending)
            self.notices += self._copies.notices
            self._describe(comment)
        except (FFmpegError, OSError, ValueError) as fault:
            raise self._file.fault(fault, None) from None

    def write(self, frame: Frame) -> None:
        """Encode a frame, and copy what is played along with it; raises SinkError."""
        h, w = frame.pixels.shape[:2]
        if (h, w) != self._info.size:
            raise ValueError(f"frame {frame.index} is {w}x{h}, not {self._info.size}")
        down, right = self._odd
        frame = squared(frame, self._size)
        pixels = frame.pixels if self._alpha else on_black(frame)
        alpha = frame.alpha if self._alpha else None
        if down or right:
            pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
            if alpha is not None:
                alpha = np.pad(alpha, ((0, down), (0, right)), mode="edge")
        picture = self._to_video(pixels, alpha)
        picture.time_base = self._base
        picture.pts = round(frame.time / self._base)
        if self._latest is not None:
            picture.pts = max(picture.pts, self._latest + 1)
        self._latest = picture.pts
        picture.pict_type = PictureType.NONE
        if not self._codec.lossless:  # ProRes looks for it here, and nowhere else
            colour = self._info.colour
            picture.colorspace, picture.color_primaries = colour.matrix, colour.primaries
            picture.color_trc = self._codec.transfer(colour.transfer)
        shown = frame.duration or 1 / (self._info.rate or Fraction(25))
        self._last, self._shown_until = frame.time, frame.time + shown
        self._durations[picture.pts] = round(shown / self._base)
        try:
            self._mux(self._timed(self._stream.encode(picture)))
            self._copy(self._shown_until)
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    def close(self, complete: bool = True) -> None:
        """Finish the file; give it its name if it is `complete`. Raises SinkError."""
        if self._closed:
            return
        try:
            if self._last is not None:
                self._copy(None if complete else self._shown_until)
                told = len(self._copies.notices)
                self._copies.finish()
                self.notices += self._copies.notices[told:]
                self._mux(self._timed(self._stream.encode(None)))
            self._closed = True
            self._container.close()
            if self._last is None:
                self._file.forget()
            elif complete:
                self._file.complete()
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    @property
    def part(self) -> Path | None:
        """Where the file is until it is complete, None for standard output."""
        return self._file.part

    def _abandoned(self, fault: BaseException) -> SinkError:
        self._closed = True
        with suppress(FFmpegError, OSError):  # the first fault is the one to tell
            self._container.close()
        if not self._muxed or self._file.part is None:
            self._file.forget()
        return self._file.fault(fault, self._file.part)

    def _open(self) -> OutputContainer:
        fragments = self._format in ("mp4", "mov")
        options = dict(SURVIVING if fragments else UNSHIFTED)
        if fragments:
            options["movie_timescale"] = str(self._timescale())
        container = av.open(self._file.target, "w", format=self._format, options=options)
        return cast(OutputContainer, container)

    def _timescale(self) -> int:
        """Units a second that all streams' starts are whole numbers of, if there are such.

        MP4 keeps the start of a stream in these; the default of 1000 would round it.
        """
        own = self._base.denominator
        others = [s.time_base.denominator for s in self._companions.streams if s.time_base]
        scale = math.lcm(own, *others)
        if scale > LARGEST_TIMESCALE:
            scale = own
        while scale < 10_000:
            scale *= 2
        return scale

    def _seek_hardware(self, kind: str, size: Size, quality: float, preset: str) -> None:
        info, title = self._info, self._codec.title
        if self._alpha:
            found, why = None, "none keeps transparency"
        else:
            found, why = find(kind, self._codec, size, info.deep, quality, preset, self._second)
        if found is None:
            told = f"no {'hardware' if kind == 'any' else kind} encoder for {title} works here"
            self.notices.append(f"{told} ({why}); encoding with {self._encoder}")
            return
        self._encoder, self._pixels, self._settings = found.encoder, found.pixels, found.options
        self._lit = False
        self.notices.append(f"encoding with {found.encoder}")

    def _picture_stream(self) -> VideoStream:
        info, codec = self._info, self._codec
        rate = info.rate or Fraction(25)
        stream = cast(VideoStream, self._container.add_stream(self._encoder, rate=rate))
        (h, w), (down, right) = self._size, self._odd
        stream.width, stream.height, stream.pix_fmt = w + right, h + down, self._pixels
        stream.options = dict(self._settings)
        context = stream.codec_context
        if codec.name == "hevc" and self._format in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        context.time_base = self._base
        context.sample_aspect_ratio = self._aspect
        context.colorspace = 0 if codec.lossless else info.colour.matrix
        context.color_primaries = info.colour.primaries
        context.color_trc = codec.transfer(info.colour.transfer)
        context.color_range = ColorRange.JPEG if codec.lossless else ColorRange.MPEG
        stream.time_base = self._base
        self._tell(down or right)
        return stream

    def _tell(self, padded: int) -> None:
        info, title = self._info, self._codec.title
        (h, w), (down, right) = self._size, self._odd
        if self._size != info.size:
            (high, wide), ending = info.size, self._ending
            self.notices.append(
                f"pixels are made square: {wide}x{high} becomes {w}x{h}, {title} in {ending} "
                "cannot say that they are not"
            )
        if padded:
            self.notices.append(
                f"{w}x{h} has an odd side, which {title} cannot have: "
                f"the edge is repeated to {w + right}x{h + down}"
            )
        usual = CONTAINERS[self._ending].codecs[0]
        form = VideoFormat(self._pixels)
        cut = info.deep and max(component.bits for component in form.components) <= 8
        if info.alpha and not self._alpha:
            self.notices.append(
                f"transparency is lost: {title} in {self._ending} has none, it is drawn on black; "
                "mov, webm, png and webp keep it"
            )
        elif info.alpha and self._codec.name != usual and self._asked == "auto":
            self.notices.append(f"written as {title}, which keeps the transparency")
        if info.light is not None and not self._lit:
            self.notices.append(
                f"what the HDR was mastered for is left out: {self._encoder} has no way"
            )
        if cut and info.colour.hdr:
            self.notices.append(
                f"HDR in 8 bits shows bands: {title} has no more; use --codec hevc or --tone-map"
            )
        elif cut:
            self.notices.append(
                f"more than 8 bits a colour are cut to 8, {title} plays with no more"
            )
        elif info.deep and not info.alpha and self._codec.name != usual and self._asked == "auto":
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
        """Say how long pictures are shown (of the last one nothing else tells it), mend dts."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            # x265 leaves decoding times to chance where a video has one or two pictures.
            pts = packet.pts or 0
            if packet.dts is None or not 0 <= pts - packet.dts <= HOUR / self._base:
                packet.dts = pts
        return packets

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._container.mux(packet)
            self._muxed = True

    def _copy(self, until: Fraction | None) -> None:
        self._copies.write(self._companions.take(until))
