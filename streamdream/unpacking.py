"""Animated WebP, which libav cannot decode: unpacked by Pillow into a file that it can."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from streamdream.errors import SourceError

TICK = Fraction(1, 1000)
HEAD = 21  # bytes up to the flags of an extended file
MOVES = 0x02


def is_moving_webp(path: Path) -> bool:
    """Whether a file is an animated WebP (WebP container specification)."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    extended = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
    return extended and len(head) == HEAD and bool(head[20] & MOVES)


def unpack(path: Path, folder: Path, most: int) -> Path:
    """Write the pictures without loss into a file in `folder`, with their times.

    Raises SourceError if it is damaged or has more than `most` pixels.
    """
    target = folder / "unpacked.mkv"
    try:
        with Image.open(path) as moving, av.open(str(target), "w") as out:
            w, h = moving.size
            if w * h > most:
                raise SourceError(
                    path, f"{w}x{h} are more than {most} pixels", "allow it with --max-pixels"
                )
            stream = cast(VideoStream, out.add_stream("ffv1", rate=25))
            stream.width, stream.height, stream.pix_fmt = w, h, "bgra"
            stream.codec_context.time_base = TICK
            time = 0
            for index in range(getattr(moving, "n_frames", 1)):
                moving.seek(index)
                seen = np.asarray(moving.convert("RGBA"))
                picture = av.VideoFrame.from_ndarray(seen, format="rgba").reformat(format="bgra")
                picture.pts, picture.time_base = time, TICK
                duration = max(1, round(moving.info.get("duration", 0)))
                time += duration
                for packet in stream.encode(picture):
                    packet.duration = duration
                    out.mux(packet)
            out.mux(stream.encode(None))
    except (OSError, ValueError, EOFError, Image.DecompressionBombError) as fault:
        raise SourceError(path, f"not a whole WebP ({fault})") from None
    return target
