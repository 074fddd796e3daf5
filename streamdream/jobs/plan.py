"""Which shares a film is split into: parts that begin and end where scenes do.

They are found while the first of them are already being dreamed, by the detector that the
pipeline asks as well (see `cuts`), without converting more than the frames before cuts. Shots
that are too long for one are split where that is asked for, see `seams`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import takewhile
from typing import Any

from streamdream.cuts import Turn, shots
from streamdream.jobs.folder import JobFolder, read_sealed, write_sealed
from streamdream.jobs.rendering import Share
from streamdream.jobs.segments import fault_of
from streamdream.places import Place
from streamdream.sources import Glimpse, VideoSource

PARTS = 6  # shares for each worker, about: fewer leave some idle in the end, more begin too often
SHORTEST = 24  # frames; beginning to read a share takes as long as some frames do
OVERLAP = 2  # s in which both parts of a shot are dreamed: half to settle, half to fade
FEWEST = 4  # frames of it, however slow a film is


@dataclass(frozen=True)
class Beginning:
    """Where a share may begin: `lead` frames behind `place`, 0 where a scene begins."""

    place: Place
    lead: int = 0

    @property
    def index(self) -> int:
        """The first frame of the share."""
        return self.place.index + self.lead

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self.place), "time": str(self.place.time), "lead": self.lead}

    @staticmethod
    def read(told: dict[str, Any]) -> Beginning:
        """From what `told` gave."""
        place = {name: value for name, value in told.items() if name != "lead"}
        return Beginning(Place(**{**place, "time": Fraction(told["time"])}), told["lead"])


def shares_of(
    folder: JobFolder,
    source: VideoSource,
    workers: int,
    stopped: Callable[[], bool] = lambda: False,
    split: float | None = None,
    still_there: Callable[[], None] = lambda: None,
) -> Generator[Share, None, None]:
    """The shares of a film, in order, each as soon as its end is known, until it is `stopped`.

    Shots of more than `split` seconds become several. Once all are known they are kept in the
    job's folder, and read from there another time; `still_there` raises an Error where the film
    is not what it was.
    """
    frames = source.info.frames or 0
    least = max(SHORTEST, frames // (PARTS * workers))
    begin = Share()
    for found in _kept(folder) or _found(folder, source, stopped, split, still_there):
        # Every part of a split shot is a share, for however many workers: so frames are the same.
        if found.lead or found.index - begin.begin >= least:
            yield replace(begin, end=found.index, seam=found.lead)
            begin = Share(found.index, None, found.place, lead=found.lead)
    yield begin


def _kept(folder: JobFolder) -> list[Beginning] | None:
    """Where shares may begin, from another time; None if that is not known, or damaged."""
    try:
        told = read_sealed(folder.plan)
        return None if told is None else [Beginning.read(each) for each in told]
    except (ValueError, TypeError, KeyError):
        return None


def _found(
    folder: JobFolder,
    source: VideoSource,
    stopped: Callable[[], bool],
    split: float | None,
    still_there: Callable[[], None],
) -> Iterator[Beginning]:
    told: list[dict[str, Any]] = []
    with closing(source.skim()) as glimpses:
        for found in beginnings(source, takewhile(lambda _: not stopped(), glimpses), split):
            told.append(found.told())
            yield found
    if not stopped():
        still_there()
        try:
            write_sealed(folder.plan, told)
        except OSError as fault:
            raise fault_of(folder, fault) from None


def beginnings(
    source: VideoSource, glimpses: Iterable[Glimpse], split: float | None = None
) -> Iterator[Beginning]:
    """Where scenes begin but the first, and where those of more than `split` seconds are split.

    No part that comes of splitting is shorter than half of what it may be. Where both parts are
    dreamed there is no flash: it puts the split off.
    """
    before: Glimpse | None = None
    every = None if split is None else Fraction(split)
    # Since when the part runs, where the next one's lead-in begins, and its first frame.
    begin, lead_in, at = Fraction(0), None, None
    for glimpse, turn in shots(glimpses, lambda picture: picture.small()):
        if before is None or turn is Turn.BEGINS:
            if before is not None:
                yield Beginning(source.place_behind(before.frame()))
            begin, lead_in, at = glimpse.time, None, None
        elif every is not None:
            if turn is Turn.FLASH and lead_in is not None and at is None:
                # What a flash is shows only behind it, so there is to be none where a part ends.
                begin, lead_in = glimpse.time - every + OVERLAP, None
            elif lead_in is not None and at is None and glimpse.time - begin >= every:
                at = glimpse if glimpse.index - lead_in.index >= FEWEST else None
            if lead_in is not None and at is not None and glimpse.time - begin >= every * 3 / 2:
                yield Beginning(lead_in, at.index - lead_in.index)
                begin, lead_in, at = at.time, None, None
            fits = lead_in is None and turn is not Turn.FLASH
            if fits and glimpse.time - begin >= every - OVERLAP:
                lead_in = source.place_behind(before.frame())
        before = glimpse
