"""Frames become packets of a video stream: the codec, its settings, colours, exact times."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.format import VideoFormat
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from streamdream.codecs import CONTAINERS, check_codec, choose_codec, container_of
from streamdream.colour import ToVideo
from streamdream.frame import Frame, Size, on_black
from streamdream.hardware import find
from streamdream.info import VideoInfo
from streamdream.views import square, squared

os.environ.setdefault("SVT_LOG", "0")  # or the AV1 encoder talks on stderr

HOUR = 3600  # seconds; no picture is decoded that long before it is shown
FINEST = 1_000_000_000  # units a second that every encoder takes


class Encoding:
    """How frames of one kind are encoded for a file, into one stream after another.

    `notices` says what becomes of them; `base` is the unit of the packets' times in seconds,
    `latest` the time of the last packet in it.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        codec: str = "auto",
        crf: float | None = None,
        preset: str = "medium",
        hardware: str = "none",
        threads: int | None = None,
    ) -> None:
        """For frames as `info` tells in a file of this name; the rest as VideoSink's.

        `threads` of the encoder, which some give other bits for; None lets it choose.
        """
        self._threads = threads
        self.notices: list[str] = []
        self._ending = path.suffix.lower() or ".mkv"
        check_codec(path, codec, crf)
        self._asked = codec
        self._info = info
        self._codec = choose_codec(path, codec, info.deep, min(info.size), info.alpha)
        self._alpha = info.alpha and self._codec.name in container_of(path).clear
        self._pixels = self._codec.form(info.deep, self._alpha)
        self._encoder = self._codec.encoder
        quality = crf if crf is not None else self._codec.crf or 0
        self._second = second = min(600, max(12, round(info.rate or 25)))
        self._lit = self._codec.lit
        self._settings = self._codec.options(quality, preset, second, self._alpha, info.light)
        self._size, self._aspect = info.size, info.sample_aspect
        if not container_of(path).tells_aspect(self._codec.name):
            self._size, self._aspect = square(info, self._codec.halved), Fraction(1)
        h, w = self._size
        self._odd = (h % 2, w % 2) if self._codec.halved else (0, 0)
        if hardware != "none":
            self._seek_hardware(hardware, (h + self._odd[0], w + self._odd[1]), quality, preset)
        self._format = container_of(path).name
        self.base = info.time_base if info.time_base.denominator <= FINEST else Fraction(1, 90000)
        self.latest: int | None = None
        self._durations: dict[int, int] = {}
        self._tell(self._odd != (0, 0))

    def begin(self, container: OutputContainer, latest: int | None = None) -> VideoStream:
        """The stream that frames go into from here on, added to a container.

        Their times are behind `latest`, which ends what other streams hold already.
        """
        h, w = self._size
        size = h + self._odd[0], w + self._odd[1]
        self._to_video = ToVideo(size, self._info.colour, self._pixels)
        self.latest = latest
        self._durations.clear()
        self._stream = self._picture_stream(container)
        return self._stream

    def packets(self, frame: Frame) -> list[Packet]:
        """What is ready after one more frame."""
        h, w = frame.pixels.shape[:2]
        if (h, w) != self._info.size:
            raise ValueError(f"frame {frame.index} is {w}x{h}, not {self._info.size}")
        down, right = self._odd
        duration = self.shown(frame)
        frame = squared(frame, self._size)
        pixels = frame.pixels if self._alpha else on_black(frame)
        alpha = frame.alpha if self._alpha else None
        if down or right:
            pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="edge")
            if alpha is not None:
                alpha = np.pad(alpha, ((0, down), (0, right)), mode="edge")
        picture = self._to_video(pixels, alpha)
        picture.time_base = self.base
        picture.pts = round(frame.time / self.base)
        if self.latest is not None:
            picture.pts = max(picture.pts, self.latest + 1)
        self.latest = picture.pts
        picture.pict_type = PictureType.NONE
        if not self._codec.lossless:  # ProRes looks for it here, and nowhere else
            colour = self._info.colour
            picture.colorspace, picture.color_primaries = colour.matrix, colour.primaries
            picture.color_trc = self._codec.transfer(colour.transfer)
        self._durations[picture.pts] = round(duration / self.base)
        return self._timed(self._stream.encode(picture))

    def rest(self) -> list[Packet]:
        """What the encoder still holds back."""
        return self._timed(self._stream.encode(None))

    def shown(self, frame: Frame) -> Fraction:
        """How long a frame is shown, in seconds."""
        return frame.duration or 1 / (self._info.rate or Fraction(25))

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

    def _picture_stream(self, container: OutputContainer) -> VideoStream:
        info, codec = self._info, self._codec
        rate = info.rate or Fraction(25)
        stream = cast(VideoStream, container.add_stream(self._encoder, rate=rate))
        (h, w), (down, right) = self._size, self._odd
        stream.width, stream.height, stream.pix_fmt = w + right, h + down, self._pixels
        stream.options = dict(self._settings)
        context = stream.codec_context
        if codec.name == "hevc" and self._format in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for
        if self._threads is not None:
            context.thread_count = self._threads
        context.time_base = self.base
        context.sample_aspect_ratio = self._aspect
        context.colorspace = 0 if codec.lossless else info.colour.matrix
        context.color_primaries = info.colour.primaries
        context.color_trc = codec.transfer(info.colour.transfer)
        context.color_range = ColorRange.JPEG if codec.lossless else ColorRange.MPEG
        stream.time_base = self.base
        return stream

    def _tell(self, padded: bool) -> None:
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

    def _timed(self, packets: list[Packet]) -> list[Packet]:
        """Say how long pictures are shown (of the last one nothing else tells it), mend dts."""
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts or 0, 0)
            # x265 leaves decoding times to chance where a video has one or two pictures.
            pts = packet.pts or 0
            if packet.dts is None or not 0 <= pts - packet.dts <= HOUR / self.base:
                packet.dts = pts
        return packets
