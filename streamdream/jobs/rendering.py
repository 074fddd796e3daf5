"""A share of a film becomes segments: what a run does, or each of many.

A share is rendered from nothing where a scene begins, or from the point behind the frame before
it: then it does not matter who made that, or when. All that is needed is in the job's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from streamdream.frame import Frame
from streamdream.jobs.folder import JobFolder, digest_of_bytes
from streamdream.jobs.points import unpacked
from streamdream.jobs.seams import Seam
from streamdream.jobs.segments import Coder, Record, SegmentsSink, record_of
from streamdream.masks.masking import Masks
from streamdream.motion import OpticalFlow
from streamdream.pipeline import Effect, Picture, Point, Settle, Step, steps
from streamdream.places import Place
from streamdream.run import Prepared, drive_of, enough_memory
from streamdream.threads import Behind


@dataclass(frozen=True)
class Share:
    """Frames `begin` up to `end` (None: to the last).

    The source goes on at `place`, None: `begin` is counted off from its start. `point` is the
    digest of the point to go on from, None where a scene begins. Times of packets are behind
    `latest`, None where nobody knows what comes before.

    Where it goes on a shot whose part before is another share, `lead` frames before `begin` are
    dreamed and not kept; `place` is where they begin. Where the shot goes on in another share,
    the last `seam` frames are drawn to the dream that leads to that.
    """

    begin: int = 0
    end: int | None = None
    place: Place | None = None
    point: str | None = None
    latest: int | None = None
    lead: int = 0
    seam: int = 0

    def behind(self, record: Record, end: int | None) -> Share:
        """What of it follows on one of its segments, up to `end`."""
        how = record.place, record.point or None, record.latest
        return Share(record.end, end, *how, seam=self.seam if end == self.end else 0)


def missing(folder: JobFolder, share: Share | None = None) -> Share | None:
    """The first part of a share (None: of the film) that no segment has; None if all is there.

    It begins sooner where the point to go on from is gone. Segments that do not follow on what
    comes before them are removed.
    """
    share = share or Share()
    followed: list[Record] = []  # of segments that follow on each other
    end = share.begin
    for begin in folder.begun():
        if begin < share.begin or (share.end is not None and begin >= share.end):
            continue
        record = record_of(folder.segment(begin), whole=False)
        if record is None or begin < end:
            folder.segment(begin).unlink(missing_ok=True)
            continue
        if begin > end:
            return _to(begin, share, followed, folder)
        followed.append(record)
        end = record.end
        if record.last:
            return None
    return None if end == share.end else _to(share.end, share, followed, folder)


def _to(end: int | None, share: Share, followed: list[Record], folder: JobFolder) -> Share:
    while followed:
        record = followed.pop()
        if record.point is None:
            continue
        if record.point == "" or _point_data(folder, record.end, record.point) is not None:
            return share.behind(record, end)
    return replace(share, end=end, seam=share.seam if end == share.end else 0)


def _point_data(folder: JobFolder, index: int, digest: str) -> bytes | None:
    try:
        data = folder.point(index).read_bytes()
    except OSError:
        return None
    return data if digest_of_bytes(data) == digest else None


def render(
    ready: Prepared,
    effects: Sequence[Effect],
    coder: Coder,
    folder: JobFolder,
    share: Share,
    step: Callable[[int], None],
    still_there: Callable[[], None],
) -> None:
    """Make the segments of a share, from a source that was just opened.

    `step` is called again and again with the number of frames that are done of it, and may raise
    Stopped: finished segments stay. `still_there` raises an Error where what is read has changed
    meanwhile; it is asked before a segment counts. Raises SinkError and ModelError.
    """
    source, options, device = ready.source, ready.options, ready.device
    done, cut_off = 0, False

    def frames() -> Generator[Frame, None, None]:
        nonlocal cut_off
        for glimpse in source.skim(share.place):
            if glimpse.index < share.begin - share.lead:
                continue
            if share.end is not None and glimpse.index >= share.end:
                cut_off = True
                return
            yield glimpse.frame()

    def ended() -> bool:
        return not cut_off

    def watch(frame: Frame, picture: Picture) -> None:
        step(done)

    point = _point(folder, share, device)
    drive = drive_of(options, source, ready.song)
    seam = None

    def dreamed(
        stream: Iterable[Frame], settle: Settle | None = None, point: Point | None = None
    ) -> Generator[Step, None, None]:
        motion = OpticalFlow(options.flow)
        masks = Masks.of(options, options.start or Fraction(0))
        how = motion, device, watch, lambda: step(done), drive, settle, masks, point
        return steps(stream, options, effects, *how)

    if share.seam:
        assert share.end is not None
        seam = Seam(share.end - share.seam, share.end, dreamed)
    most = options.segment
    first = seam and seam.first
    sink = SegmentsSink(folder, coder, source, most, share.latest, ended, first, still_there)
    stream = frames() if seam is None else seam.seen(frames())
    with (
        enough_memory(device),
        Behind(sink) as behind,
        nullcontext() if seam is None else closing(seam),
        closing(dreamed(stream, seam, point)) as made,
    ):
        for each in made:
            if each.source.index < share.begin:
                continue
            behind.write(each if seam is None else seam.shown(each))
            done += 1
            step(done)


def _point(folder: JobFolder, share: Share, device: torch.device) -> Point | None:
    if share.point is None:
        return None
    data = _point_data(folder, share.begin, share.point)
    assert data is not None  # the share was chosen so
    return unpacked(data, device)
