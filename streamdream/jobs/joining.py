"""The segments of a job as one result: packet by packet, with what goes along with the pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

from streamdream.animation import AnimationSink
from streamdream.errors import SinkError
from streamdream.files import FIRST, numbered, row_of
from streamdream.info import Counts, VideoInfo
from streamdream.jobs.coders import frames_of
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.segments import (
    BrokenSegment,
    Record,
    Stored,
    packets_of,
    record_of,
    times_of,
)
from streamdream.sinks import PartFile
from streamdream.sources import VideoSource
from streamdream.video_sink import VideoSink

Tell = Callable[[str], None]
JOINING = "joining"


@dataclass(frozen=True)
class Film:
    """What all segments of a job are together.

    `frames` in number, shown until the time `until`; `reorder` the most packets that come before
    one that is shown sooner; `clock` that the source's clock is whole; `counts` what went wrong.
    """

    frames: int
    until: Fraction
    reorder: int
    clock: bool
    counts: Counts

    @staticmethod
    def of(folder: JobFolder) -> Film:
        """Look at all records; raises BrokenSegment where they do not tile the film."""
        reorder, last = 0, None
        for record in records(folder):
            reorder, last = max(reorder, record.reorder), record
        assert last is not None
        return Film(last.end, last.until, reorder, last.place.clock, Counts(**last.counts))


def records(folder: JobFolder, whole: bool = False) -> Iterator[Record]:
    """The records of all segments, each going on where the one before ends.

    Raises BrokenSegment where one does not, or (with `whole`) is not what was written.
    """
    end, last = 0, False
    for begin in folder.begun():
        record = record_of(folder.segment(begin), whole)
        if record is None or begin != end or last:
            raise BrokenSegment(folder.segment(begin))
        yield record
        end, last = record.end, record.last
    if not last:
        raise BrokenSegment(folder.segment(end))


def join_video(
    folder: JobFolder, film: Film, sink: VideoSink, source: VideoSource, ends: bool, tell: Tell
) -> None:
    """Write a video of all segments, with the companions that `sink` and `source` share.

    `ends`: the result ends with its frames, before the source does. Raises BrokenSegment.
    """
    # Where the clock leapt only the pictures tell when a part of the source begins.
    played = (
        source.undecoded(film.until if ends else None)
        if film.clock
        else (glimpse.time for glimpse in source.skim())
    )
    read, shown = Fraction(-1), Fraction(0)
    with sink:
        for packets, times in _timed(folder, film.reorder):
            tell(JOINING)
            for stored, dts in zip(packets, times, strict=False):
                shown = max(shown, (stored.pts + stored.duration) * sink.base)
                while read < shown and (now := next(played, None)) is not None:
                    read = max(read, now)
                sink.take([stored.packet(sink.base, dts)], shown)
        for _ in played:  # the rest of what is played
            tell(JOINING)


def _timed(folder: JobFolder, reorder: int) -> Iterator[tuple[Iterator[Stored], Iterator[int]]]:
    """Of each segment the packets, and the times at which they are decoded.

    A packet is decoded when the one was shown that came so many before it: so times increase
    however short segments are, and are those of an encoder that made all of them.
    """
    whole: set[int] = set()

    def checked(begin: int) -> Path:
        path = folder.segment(begin)
        if begin not in whole and record_of(path) is None:
            raise BrokenSegment(path)
        whole.add(begin)
        return path

    shown = (time for begin in folder.begun() for time in sorted(times_of(checked(begin))))
    first = list(islice(shown, reorder + 1))
    early = first[-1] - first[0]
    decoded = chain((time - early for time in first[:reorder]), first, shown)
    for record in records(folder):
        packets = packets_of(checked(record.begin))
        yield packets, islice(decoded, record.end - record.begin)


def join_animation(folder: JobFolder, sink: AnimationSink, info: VideoInfo, tell: Tell) -> None:
    """Make an animation of all segments; raises BrokenSegment."""
    with sink:
        for record in records(folder, whole=True):
            for frame in frames_of(packets_of(folder.segment(record.begin)), info):
                tell(JOINING)
                sink.write(frame)


def join_row(folder: JobFolder, target: Path, tell: Tell) -> list[str]:
    """Write the pictures of a row out of all segments; raises BrokenSegment, SinkError.

    Returns what a person should know.
    """
    count = 0
    for record in records(folder, whole=True):
        for stored in packets_of(folder.segment(record.begin)):
            tell(JOINING)
            file = PartFile(numbered(target, FIRST + count))
            try:
                file.part.write_bytes(stored.data)
                file.complete()
            except OSError as fault:
                file.forget()
                raise file.fault(fault, None) from None
            count += 1
    left = len(row_of(target)) - count
    some = "1 picture" if left == 1 else f"{left} pictures"
    return [f"{some} of a longer row of before are left behind this one"] if left > 0 else []


def check_free(target: Path, overwrite: bool) -> None:
    """Raise SinkError if something has come where the result goes."""
    if target.exists() and not overwrite:
        cure = "move it away, and the same command goes on"
        raise SinkError(target, "exists already", cure)
