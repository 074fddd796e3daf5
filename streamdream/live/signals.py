"""What options can follow, of this moment: a beat, what is heard, how much moves.

Fed from several threads (taps, a MIDI clock, a microphone, the stage), asked for by the stage
thirty times a second.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from statistics import fmean, median
from threading import Lock

from streamdream.reactions import HEARD, RELEASE, Follower

STALE = 1.0  # seconds after which a value that nobody renews falls to 0
SLOWEST, FASTEST = 30.0, 300.0  # beats a minute
TAPS = 8
FORGOTTEN = 3.0  # seconds after a tap in which the next one belongs to it
ALIKE = 0.12  # of the median: how far off an interval between taps may be
QUARTER = 24  # ticks of a MIDI clock
TICKS = 2 * QUARTER + 1  # of them that the tempo is taken from
ENOUGH = 7  # ticks that say a tempo
BROKEN = 0.5  # seconds between two ticks after which they begin anew


class Signals:
    """The signals of this moment, each 0 to 1, by name. For many threads."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Tell time by `now`, in seconds that never go back."""
        self._now = now
        self._lock = Lock()
        self._period: float | None = None  # seconds a beat
        self._anchor = 0.0  # when there was a beat
        self._taps: deque[float] = deque(maxlen=TAPS)
        self._ticks: deque[float] = deque(maxlen=TICKS)
        self._count = 0  # ticks since the last beat
        self._heard: Mapping[str, float] = {}
        self._heard_at = -math.inf
        self._movement = Follower()
        self._moving = 0.0  # where movement was sent to
        self._moved_at = self._asked_at = -math.inf

    def __call__(self) -> Mapping[str, float]:
        """All of SIGNALS: `beat` is 1 on the beat and falls to 0 before the next."""
        with self._lock:
            now = self._now()
            fading = math.exp(-max(0.0, now - self._heard_at - STALE) / RELEASE)
            found = {name: self._heard.get(name, 0.0) * fading for name in HEARD}
            if now - self._moved_at > STALE:
                self._moving = 0.0
            found["motion"] = self._moved(now)
            found["beat"] = self._beat(now)
        return found

    @property
    def bpm(self) -> float | None:
        """Beats a minute, None while there is no tempo."""
        period = self._period
        return None if period is None else 60 / period

    def tap(self, at: float | None = None) -> None:
        """A tap on the beat, now or `at` a moment: the beat falls on it, several set the tempo."""
        with self._lock:
            at = self._now() if at is None else at
            if self._taps and not 0 <= at - self._taps[-1] <= FORGOTTEN:
                self._taps.clear()
            self._taps.append(at)
            self._anchor = at
            between = [b - a for a, b in pairwise(self._taps)]
            if between:
                middle = median(between)
                alike = [gap for gap in between if abs(gap - middle) <= ALIKE * middle]
                self._period = _period(fmean(alike or between))

    def clock(self, at: float | None = None) -> None:
        """A tick of a MIDI clock, now or `at` a moment: 24 of them are a beat."""
        with self._lock:
            at = self._now() if at is None else at
            if self._ticks and not 0 <= at - self._ticks[-1] <= BROKEN:
                self._ticks.clear()
            self._ticks.append(at)
            if len(self._ticks) >= ENOUGH:
                tick = (at - self._ticks[0]) / (len(self._ticks) - 1)
                self._period = _period(tick * QUARTER)
            if self._period is not None:
                self._anchor = at - self._count * self._period / QUARTER
            self._count = (self._count + 1) % QUARTER

    def downbeat(self) -> None:
        """The next tick of the MIDI clock is a beat."""
        with self._lock:
            self._count = 0

    def movement(self, value: float) -> None:
        """How much moves in the picture, 0 to 1."""
        with self._lock:
            now = self._now()
            self._moved(now)
            self._moving = min(1.0, max(0.0, value))
            self._moved_at = now

    def heard(self, values: Mapping[str, float]) -> None:
        """What is heard now: values of HEARD, 0 to 1, smooth already."""
        with self._lock:
            self._heard = dict(values)
            self._heard_at = self._now()

    def _moved(self, now: float) -> float:
        since = 0.0 if self._asked_at == -math.inf else now - self._asked_at
        self._asked_at = now
        return self._movement.step(self._moving, since)

    def _beat(self, now: float) -> float:
        if self._period is None:
            return 0.0
        phase = (now - self._anchor) / self._period % 1.0
        return (1.0 - phase) ** 2


def _period(seconds: float) -> float:
    return min(60 / SLOWEST, max(60 / FASTEST, seconds))
