"""Video files: frames encoded, other streams copied, nothing lost when writing just stops."""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from streamdream.codecs import STDOUT, container_of
from streamdream.companions import Companions
from streamdream.copies import Copies
from streamdream.encoding import Encoding
from streamdream.errors import SinkError
from streamdream.frame import Frame
from streamdream.info import VideoInfo
from streamdream.sinks import FileSink, PartFile, StdoutFile

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
        hardware: str = "none",
        threads: int | None = None,
    ) -> None:
        """Begin a file for frames as `info` tells, with `comment` added to its metadata.

        `codec` is a name in codecs.CODECS, `crf` its quality (None: looks lossless), `preset`
        the effort by x264's names; `hardware` a name in hardware.MAKERS or "any": such an
        encoder is taken if it works; `threads` are the encoder's, None for its own choice. Raises
        SinkError, and OptionError for a `crf` out of range.
        """
        self._file = StdoutFile() if Path(path) == STDOUT else PartFile(Path(path))
        self._companions = companions or Companions()
        self._companions.wanted = True
        self._encoding = Encoding(Path(path), info, codec, crf, preset, hardware, threads)
        self.notices: list[str] = self._encoding.notices
        self._format = container_of(Path(path)).name
        self._muxed = self._encoded = self._begun = False
        self._shown_until = Fraction(0)
        self._closed = False
        try:
            self._container = self._open()
            self._stream = self._encoding.begin(self._container)
            ending = Path(path).suffix.lower() or ".mkv"
            self._copies = Copies(self._companions, self._container, self._format, ending)
            self.notices += self._copies.notices
            self._describe(comment)
        except (FFmpegError, OSError, ValueError) as fault:
            raise self._file.fault(fault, None) from None

    def write(self, frame: Frame) -> None:
        """Encode a frame, and copy what is played along with it; raises SinkError."""
        try:
            self._encoded = True
            self._put(self._encoding.packets(frame), frame.time + self._encoding.shown(frame))
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    def take(self, packets: list[Packet], until: Fraction) -> None:
        """Write packets of frames that were encoded elsewhere in the same way.

        They are in the order in which they are decoded, with times in units of `base`; `until`
        (seconds) says how far what is played along is copied. Raises SinkError.
        """
        try:
            for packet in packets:
                packet.stream = self._stream
            self._put(packets, until)
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    def close(self, complete: bool = True) -> None:
        """Finish the file; give it its name if it is `complete`. Raises SinkError."""
        if self._closed:
            return
        try:
            if self._begun:
                self._copy(None if complete else self._shown_until)
                told = len(self._copies.notices)
                self._copies.finish()
                self.notices += self._copies.notices[told:]
                self._mux(self._encoding.rest() if self._encoded else [])
            self._closed = True
            self._container.close()
            if not self._begun:
                self._file.forget()
            elif complete:
                self._file.complete()
        except (FFmpegError, OSError) as fault:
            raise self._abandoned(fault) from None

    @property
    def base(self) -> Fraction:
        """The unit of the times of packets, in seconds."""
        return self._encoding.base

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

    def _put(self, packets: list[Packet], until: Fraction) -> None:
        self._begun, self._shown_until = True, until
        self._mux(packets)
        self._copy(until)

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
        own = self._encoding.base.denominator
        others = [s.time_base.denominator for s in self._companions.streams if s.time_base]
        scale = math.lcm(own, *others)
        if scale > LARGEST_TIMESCALE:
            scale = own
        while scale < 10_000:
            scale *= 2
        return scale

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

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._container.mux(packet)
            self._muxed = True

    def _copy(self, until: Fraction | None) -> None:
        self._copies.write(self._companions.take(until))
