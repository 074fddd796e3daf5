"""How the frames of a job are kept until they are joined, by what the output is.

Frames of a video as its own codec has them; pictures of a row as they will be; frames of an
animation, whose colours are chosen when all are known, without loss in FFV1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import cast

import av
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamdream.codecs import container_of, is_video
from streamdream.encoding import Encoding
from streamdream.files import is_row
from streamdream.frame import Frame
from streamdream.info import VideoInfo
from streamdream.jobs.segments import Coder, Stored
from streamdream.options import Options
from streamdream.pictures import PictureForm

FRAMES = Path("frames.mkv")  # the kind of file that would hold frames without loss


class VideoCoder:
    """Frames encoded as in a video file of this name."""

    def __init__(self, path: Path, encoding: Encoding) -> None:
        """Encode so."""
        self.encoding, self._path = encoding, path

    def begin(self, latest: int | None) -> None:
        """A new encoder, as a file would have it: its container decides about headers."""
        name = container_of(self._path).name
        self._container = cast(OutputContainer, av.open(BytesIO(), "w", format=name))
        self.stream: VideoStream = self.encoding.begin(self._container, latest)
        self._container.start_encoding()

    def packets(self, frame: Frame) -> Sequence[Stored]:
        """What is ready after one more frame."""
        return [Stored.of(packet) for packet in self.encoding.packets(frame)]

    def rest(self) -> Sequence[Stored]:
        """The rest of the segment."""
        return [Stored.of(packet) for packet in self.encoding.rest()]

    def shown(self, frame: Frame) -> Fraction:
        """How long a frame is shown, in seconds."""
        return self.encoding.shown(frame)


class RowCoder:
    """Pictures of a row: a packet is a file."""

    def __init__(self, path: Path, info: VideoInfo, comment: str) -> None:
        """For pictures by this pattern."""
        self._form = PictureForm(path, info, comment)
        self.notices = self._form.notices
        self._usual = 1 / (info.rate or Fraction(25))

    def begin(self, latest: int | None) -> None:
        """Nothing goes from picture to picture."""

    def packets(self, frame: Frame) -> Sequence[Stored]:
        """One picture."""
        return [Stored(frame.index, 1, True, self._form.encoded(frame))]

    def rest(self) -> Sequence[Stored]:
        """Nothing waits."""
        return []

    def shown(self, frame: Frame) -> Fraction:
        """How long a frame is shown, in seconds."""
        return frame.duration or self._usual


def coder_of(target: Path, info: VideoInfo, options: Options, comment: str) -> Coder:
    """What keeps frames as `info` tells for a target. Raises SinkError, OptionError."""
    if is_video(target):
        how = options.codec, options.crf, options.encoder_preset, options.hardware, options.threads
        return VideoCoder(target, Encoding(target, info, *how))
    if is_row(target):
        return RowCoder(target, info, comment)
    return VideoCoder(FRAMES, Encoding(FRAMES, _square(info), "ffv1"))


def frames_of(packets: Iterator[Stored], info: VideoInfo) -> Iterator[Frame]:
    """The frames of an animation, from the packets of a segment."""
    coder = VideoCoder(FRAMES, Encoding(FRAMES, _square(info), "ffv1"))
    coder.begin(None)
    context, base = coder.stream.codec_context, coder.encoding.base
    decoder = cast(VideoCodecContext, av.CodecContext.create("ffv1", "r"))
    decoder.extradata = context.extradata
    decoder.width, decoder.height, decoder.pix_fmt = context.width, context.height, context.pix_fmt
    kind = "rgb48le" if info.deep else "rgb24"
    if info.alpha:
        kind = "rgba64le" if info.deep else "rgba"
    for stored in packets:
        for picture in decoder.decode(stored.packet(base, stored.pts)):
            layers = picture.to_ndarray(format=kind)
            alpha = layers[..., 3].copy() if info.alpha else None
            time, shown = stored.pts * base, stored.duration * base
            yield Frame(layers[..., :3].copy(), time, 0, shown, alpha)


def _square(info: VideoInfo) -> VideoInfo:
    """The same with pixels as they are: nothing is to change their number."""
    return replace(info, sample_aspect=Fraction(1))
