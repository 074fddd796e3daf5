"""Which shares a film is split into: parts that begin and end where scenes do.

They are found while the first of them are already being dreamed, by the detector that the
pipeline asks as well (see `cuts`), without converting more than the frames before cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from fractions import Fraction
from itertools import takewhile
from typing import Any

from streamdream.cuts import Turn, shots
from streamdream.jobs.folder import JobFolder, read_sealed, write_sealed
from streamdream.jobs.rendering import Share
from streamdream.places import Place
from streamdream.sources import Glimpse, VideoSource

PARTS = 6  # shares for each worker, about: fewer leave some idle in the end, more begin too often
SHORTEST = 24  # frames; beginning to read a share takes as long as some frames do


def shares_of(
    folder: JobFolder,
    source: VideoSource,
    workers: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[Share, None, None]:
    """The shares of a film, in order, each as soon as its end is known, until it is `stopped`.

    Once all are known they are kept in the job's folder, and read from there another time.
    """
    frames = source.info.frames or 0
    least = max(SHORTEST, frames // (PARTS * workers))
    begin = Share()
    for place in _kept(folder) or _found(folder, source, stopped):
        if place.index - begin.begin >= least:
            yield Share(begin.begin, place.index, begin.place)
            begin = Share(place.index, None, place)
    yield begin


def _kept(folder: JobFolder) -> list[Place] | None:
    """Where scenes begin, from another time; None if that is not known, or damaged."""
    try:
        told = read_sealed(folder.plan)
        return None if told is None else [_place(each) for each in told]
    except (ValueError, TypeError, KeyError):
        return None


def _found(folder: JobFolder, source: VideoSource, stopped: Callable[[], bool]) -> Iterator[Place]:
    told: list[dict[str, Any]] = []
    with closing(source.skim()) as glimpses:
        for place in scene_places(source, takewhile(lambda _: not stopped(), glimpses)):
            told.append({**asdict(place), "time": str(place.time)})
            yield place
    if not stopped():
        write_sealed(folder.plan, told)


def scene_places(source: VideoSource, glimpses: Iterable[Glimpse]) -> Iterator[Place]:
    """Where scenes begin but the first: each a place behind the last frame before it."""
    before: Glimpse | None = None
    for glimpse, turn in shots(glimpses, lambda picture: picture.small()):
        if turn is Turn.BEGINS and before is not None:
            yield source.place_behind(before.frame())
        before = glimpse


def _place(told: dict[str, Any]) -> Place:
    return Place(**{**told, "time": Fraction(told["time"])})
