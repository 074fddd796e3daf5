"""Where a film's shots begin, by small grey copies of its pictures; and flashes, which are no cuts.

The pipeline and `streamdream scenes` both ask `shots`, with the same copies, so that they never
differ, whatever size is dreamed at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TypeVar

import cv2
import numpy as np

from streamdream.frame import Frame, Small, to_small
from streamdream.motion import carried_along, estimate, shift_between

CUT_RESIDUAL = 22.0  # grey levels that remain after the best motion
CUT_NORMALISED = 0.45  # the same in units of the frames' own contrast
DIM = 34.0  # contrast below which pictures of different shots may differ by less
DIM_RESIDUAL = 4.0  # grey levels; less is grain
DIM_NORMALISED = 0.65  # what remains of evened pictures, in units of their contrast
EVEN = 40.0  # contrast that pictures are evened to
BLACK = 4.0  # contrast below which nothing is to be seen
FLASH = 3  # pictures; what lasts longer is a shot
RETURNED = 0.5  # of what the flash left unexplained, at most, is left when it is over


class Turn(Enum):
    """What a picture is to the ones before it."""

    BEGINS = "begins"  # a shot
    GOES_ON = "goes on"
    FLASH = "flash"  # interrupts a shot, which goes on behind it


class Cuts:
    """Tells pictures that belong to different shots. Not to be shared between threads."""

    def __init__(self) -> None:
        """Set up the search for motion."""
        self._coarse = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def between(self, now: Small, before: Small) -> bool:
        """Whether a picture changed in a way that neither motion nor light explains."""
        rest, normalised = self.unexplained(now, before)
        if rest >= CUT_RESIDUAL and normalised >= CUT_NORMALISED:
            return True
        contrasts = float(now.std()), float(before.std())
        if min(contrasts) < BLACK or sum(contrasts) / 2 > DIM or rest < DIM_RESIDUAL:
            return False
        # Between dim pictures so many grey levels cannot remain: light is evened out instead.
        a, b = _evened(now, contrasts[0]), _evened(before, contrasts[1])
        return self._moved_apart(a, b) / EVEN >= DIM_NORMALISED

    def returned(self, now: Small, before: Small, flash: Small) -> bool:
        """Whether `now` goes on from `before` as if the `flash` between had not been."""
        if self.between(now, before):
            return False
        most = RETURNED * self.unexplained(flash, before)[0]
        return self.unexplained(now, before)[0] <= most

    def unexplained(self, now: Small, before: Small) -> tuple[float, float]:
        """What of `now` is not `before` moved: mean grey levels of 255, and per contrast.

        Compensating the motion keeps whip pans, and normalising by contrast keeps fades, from
        being taken for cuts. Where even the plain difference is no cut, it is given.
        """
        contrast = 0.5 * (float(now.std()) + float(before.std())) + 2.0
        rest = float(cv2.absdiff(now, before).mean())
        if rest >= CUT_RESIDUAL:  # compensating the motion leaves no more than this
            rest = self._moved_apart(now, before)
        return rest, rest / contrast

    def _moved_apart(self, now: Small, before: Small) -> float:
        """What of `now` is not `before` moved, in mean grey levels."""
        flow = estimate(self._coarse, now, before, shift_between(now, before))
        return float(np.abs(carried_along(before.astype(np.float32), flow) - now).mean())


def _evened(small: Small, contrast: float) -> Small:
    """A copy with the same mean and contrast as all."""
    even = (small - np.float32(small.mean())) * np.float32(EVEN / contrast) + 128
    return even.clip(0, 255).astype(np.uint8)


def small_of(frame: Frame) -> Small:
    """The grey copy of a frame."""
    return to_small(frame.pixels) if frame.small is None else frame.small


Picture = TypeVar("Picture")


def shots(
    pictures: Iterable[Picture], small: Callable[[Picture], Small], before: Small | None = None
) -> Iterator[tuple[Picture, Turn]]:
    """Every picture, and whether a shot begins with it; `small` gives its grey copy.

    They may go on a shot, behind the picture of the grey copy `before`, which is no flash.

    A flash of up to FLASH pictures is found by looking so many ahead, only where a shot may
    begin: nowhere else is a picture held back. What a picture is depends on its own shot and on
    the first FLASH pictures behind it only, so a part that ends at a cut is told the same.
    """
    cuts, coming = Cuts(), iter(pictures)
    waiting: deque[tuple[Picture, Small]] = deque()
    while True:
        if not waiting:
            if (picture := next(coming, None)) is None:
                return
            waiting.append((picture, small(picture)))
        picture, now = waiting.popleft()
        if before is not None and not cuts.between(now, before):
            before = now
            yield picture, Turn.GOES_ON
            continue
        lasts = 0 if before is None else _lasts(cuts, before, now, waiting, coming, small)
        if not lasts:
            before = now
            yield picture, Turn.BEGINS
            continue
        yield picture, Turn.FLASH
        for _ in range(lasts - 1):
            yield waiting.popleft()[0], Turn.FLASH


class LiveShots:
    """The same for pictures that come live: it cannot look ahead, so it waits.

    What may be a cut is taken for a flash, until it has lasted for FLASH pictures.
    """

    def __init__(self) -> None:
        """Begin with no picture."""
        self._cuts = Cuts()
        self._before: Small | None = None
        self._flash: Small | None = None
        self._lasts = 0

    def __call__(self, now: Small) -> Turn:
        """What the next picture is to the ones before it."""
        before, flash = self._before, self._flash
        if before is None:
            goes_on = False
        elif flash is None:
            goes_on = not self._cuts.between(now, before)
        else:
            goes_on = self._cuts.returned(now, before, flash)
        if not goes_on and before is not None and self._lasts < FLASH:
            self._lasts += 1
            self._flash = now if flash is None else flash
            return Turn.FLASH
        self._before, self._flash, self._lasts = now, None, 0
        return Turn.GOES_ON if goes_on else Turn.BEGINS


def _lasts(
    cuts: Cuts,
    before: Small,
    flash: Small,
    waiting: deque[tuple[Picture, Small]],
    coming: Iterator[Picture],
    small: Callable[[Picture], Small],
) -> int:
    """For how many pictures a flash lasts that begins behind `before`; 0 if it is a shot."""
    for length in range(1, FLASH + 1):
        if len(waiting) < length:
            if (picture := next(coming, None)) is None:
                return 0
            waiting.append((picture, small(picture)))
        if cuts.returned(waiting[length - 1][1], before, flash):
            return length
    return 0
