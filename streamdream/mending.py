"""Mending what files bring: clocks that leap, interlaced pictures, mirrored photos."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from heapq import heappop, heappush
from itertools import chain, repeat
from pathlib import Path
from typing import cast

import av
from av.filter import Graph
from av.video.stream import VideoStream
from PIL import Image

LATE = 10  # seconds
SORTED_OVER = 5  # pictures; the widest disorder seen in a real file is 4
ORIENTATION = 0x112  # of EXIF


class Clock:
    """Joins the times of recordings that were put one behind the other, each with its own start.

    Times that leap back begin a new part, which follows the one before as if nothing was
    between. The pictures say where it begins: sound that is there sooner has to wait.
    """

    def __init__(self, pictures: int, usual: Fraction) -> None:
        """For the stream of index `pictures`, where one is usually shown for `usual` seconds."""
        self._pictures, self._usual = pictures, usual
        self._back = max(Fraction(1, 2), 8 * usual)
        self._latest: dict[int, Fraction] = {}
        self._part: dict[int, int] = {}
        self._offsets = [Fraction(0)]

    def part(self, stream: int, time: Fraction) -> int:
        """The part that this time of a stream, the next one read, belongs to."""
        latest = self._latest.get(stream, time)
        leapt = time < latest - self._back
        self._latest[stream] = time if leapt else max(latest, time)
        if leapt:
            self._part[stream] = self._part.get(stream, 0) + 1
            if stream == self._pictures:
                end = latest + self._offsets[-1] + self._usual
                self._offsets.append(end - time)
        return self._part.get(stream, 0)

    def offset(self, part: int) -> Fraction | None:
        """What to add to the times of a part; None while no picture of it was seen."""
        return self._offsets[part] if part < len(self._offsets) else None

    @property
    def newest(self) -> Fraction:
        """What to add in the part that the pictures are in."""
        return self._offsets[-1]


def in_order(
    pictures: Iterator[tuple[av.VideoFrame, Fraction]], tick: Fraction
) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction]]:
    """Pictures with increasing times, and the times they came with.

    Decoders deliver pictures in the right order, but some files number them in another (B-frames
    in AVI, webcams): the times are sorted over a few pictures, and one that still does not
    increase is moved by the least, a `tick`, that makes it.
    """
    held: deque[tuple[av.VideoFrame, Fraction]] = deque()
    times: list[Fraction] = []
    before: Fraction | None = None
    for timed in chain(pictures, repeat(None, SORTED_OVER)):
        if timed is not None:
            held.append(timed)
            heappush(times, timed[1])
        if held and (timed is None or len(held) > SORTED_OVER):
            picture, own = held.popleft()
            when = heappop(times)
            if before is not None and when <= before:
                when = before + tick
            before = when
            yield picture, when, own


class Deinterlacer:
    """Makes whole pictures of interlaced ones, as many as there were, with their times."""

    def __init__(self, stream: VideoStream) -> None:
        """Prepare for the pictures of a stream."""
        self._graph = Graph()
        source = self._graph.add_buffer(template=stream)
        weave = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        self._graph.link_nodes(source, weave, self._graph.add("buffersink")).configure()

    def __call__(self, picture: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        """The pictures that are ready; None for `picture` is the end."""
        self._graph.push(picture)
        while True:
            try:
                yield cast(av.VideoFrame, self._graph.pull())
            except (BlockingIOError, EOFError):
                return


def is_mirrored(path: Path) -> bool:
    """Whether a photo's EXIF data say that it is mirrored; libav tells only how it is turned."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as photo:
            return photo.getexif().get(ORIENTATION) in (2, 4, 5, 7)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
