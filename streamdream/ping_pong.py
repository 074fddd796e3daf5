"""There and back: frames, and then the same frames again from the last to the first.

They wait on the disk, each packed on its own without loss (FFV1, intra only). Memory stays the
same however many there are.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from streamdream.frame import Frame, Size
from streamdream.sinks import write_error
from streamdream.stacks import Stack

FORMS = {  # (bytes a value, values a pixel): libav's names of what frames have, of what is packed
    (1, 3): ("rgb24", "bgr0"),
    (1, 4): ("rgba", "bgra"),
    (2, 3): ("rgb48le", "gbrp16le"),
    (2, 4): ("rgba64le", "gbrap16le"),
}
WAITING = "frames that wait for the way back"


def there_and_back(
    frames: Generator[Frame, None, None], usual: Fraction, folder: Path | None = None
) -> Generator[Frame, None, None]:
    """The frames, and behind them the same again from the last but one to the second.

    Played over and over they swing to and fro: each is shown as long on the way back as on
    the way there, the last as long as it says or else for the `usual` seconds. They wait in
    `folder` (None: the system's for such). Closes `frames`; raises SinkError where the disk is
    full.
    """
    with closing(Spool(folder)) as spool, closing(frames):
        later: Frame | None = None
        for frame in frames:
            if later is not None:
                spool.push(later)
            later = frame
            yield frame
        if later is None:
            return
        time, index = later.time + (later.duration or usual), later.index
        while len(spool) > 1:  # the first one follows when it all begins again
            frame = spool.pop()
            shown = later.time - frame.time
            index += 1
            yield replace(frame, time=time, index=index, duration=shown)
            time, later = time + shown, frame


@dataclass(frozen=True)
class _Packed:
    """A frame but for its picture, which is packed: `head` is what the decoder must know."""

    time: Fraction
    index: int
    duration: Fraction | None
    size: Size
    form: tuple[int, int]
    head: bytes
    picture: bytes


class Spool:
    """A stack of frames on the disk."""

    def __init__(self, folder: Path | None = None) -> None:
        """An empty one in this folder; raises SinkError if nothing can be written there."""
        self._packing: tuple[tuple[Size, tuple[int, int]], VideoCodecContext] | None = None
        self._stack = Stack(WAITING, folder)

    def __len__(self) -> int:
        """How many frames lie there."""
        return len(self._stack)

    def close(self) -> None:
        """Remove what lies there."""
        self._stack.close()

    def push(self, frame: Frame) -> None:
        """Lay a frame on top; raises SinkError."""
        layers = [frame.pixels] if frame.alpha is None else [frame.pixels, frame.alpha]
        joined = np.ascontiguousarray(np.dstack(layers))
        size, form = (joined.shape[0], joined.shape[1]), (joined.itemsize, joined.shape[2])
        try:
            encoder = self._encoder(size, form)
            picture = av.VideoFrame.from_ndarray(joined, format=FORMS[form][0])
            picture = picture.reformat(format=encoder.pix_fmt)
            picture.pts = len(self._stack)
            picture.time_base = Fraction(1, 1)
            (packet,) = encoder.encode(picture)
            head = encoder.extradata or b""
            packed = _Packed(
                frame.time, frame.index, frame.duration, size, form, head, bytes(packet)
            )
        except (OSError, FFmpegError) as fault:
            raise write_error(WAITING, fault) from None
        self._stack.push(pickle.dumps(packed))

    def pop(self) -> Frame:
        """Take the topmost frame away; raises SinkError."""
        packed: _Packed = pickle.loads(self._stack.pop())
        try:
            joined = _unpacked(packed)
        except (OSError, FFmpegError) as fault:
            raise write_error(WAITING, fault) from None
        alpha = np.ascontiguousarray(joined[..., 3]) if joined.shape[2] == 4 else None
        pixels = np.ascontiguousarray(joined[..., :3])
        return Frame(pixels, packed.time, packed.index, packed.duration, alpha)

    def _encoder(self, size: Size, form: tuple[int, int]) -> VideoCodecContext:
        if self._packing is None or self._packing[0] != (size, form):
            encoder = cast(VideoCodecContext, VideoCodecContext.create("ffv1", "w"))
            encoder.height, encoder.width = size
            encoder.pix_fmt, encoder.time_base = FORMS[form][1], Fraction(1, 1)
            encoder.options = {"level": "3", "slicecrc": "1", "g": "1"}
            self._packing = (size, form), encoder
        return self._packing[1]


def _unpacked(packed: _Packed) -> np.ndarray:
    decoder = cast(VideoCodecContext, VideoCodecContext.create("ffv1", "r"))
    decoder.height, decoder.width = packed.size
    decoder.extradata = packed.head
    decoder.thread_type = "SLICE"  # with frames in threads the picture would come late
    (picture,) = decoder.decode(Packet(packed.picture))
    return picture.to_ndarray(format=FORMS[packed.form][0])
