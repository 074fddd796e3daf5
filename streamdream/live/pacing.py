"""Keeping time: how many pictures a second are shown, how late, and how fine a dream fits in."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

NOTCH = 2 ** (-1 / 4)  # one change of quality: a sixth of the lines, a third of the work
LOWEST = 0.5  # of the wanted lines; below, a dream has no room for its shapes
FULL, ROOM = 0.85, 0.5  # of the time between two pictures: above is too much, below allows more
PATIENCE = 1.0, 5.0  # seconds of too much until less is done, of room until more is
LONGEST_DREAM = 0.6  # seconds; more steps than fit in are left out
WINDOW = 120  # pictures that rates and latencies are told of


class Rate:
    """How often something happened lately, a second."""

    def __init__(self, span: float = 3.0) -> None:
        """Look back for so many seconds."""
        self._span = span
        self._seen: deque[tuple[float, float]] = deque()

    def count(self, total: float, now: float) -> None:
        """It happened `total` times until `now`."""
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[0][0] > self._span:
            self._seen.popleft()

    @property
    def now(self) -> float:
        """Times a second."""
        if len(self._seen) < 2:
            return 0.0
        (begun, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(ended - begun, 1e-6)


class Latencies:
    """Seconds from capture to show, of the last pictures."""

    def __init__(self) -> None:
        """Begin with none."""
        self._seen: deque[float] = deque(maxlen=WINDOW)

    def add(self, seconds: float) -> None:
        """One more."""
        self._seen.append(seconds)

    @property
    def milliseconds(self) -> tuple[float, float]:
        """The median and the 95th percentile, in milliseconds."""
        if not self._seen:
            return 0.0, 0.0
        p50, p95 = np.percentile(np.array(self._seen) * 1000, [50, 95])
        return float(p50), float(p95)


class Pacing:
    """Chooses the work size and the steps that let the pictures come in time.

    `share` is the part of the wanted lines that is worked at. It goes down a notch after a second
    of too much work and up after five with room for it; going up must not lead straight down
    again, so after each such mistake it waits twice as long.
    """

    def __init__(self, period: float) -> None:
        """For a picture every `period` seconds."""
        self.period = period
        self.share = 1.0
        self.load = 0.0  # of the time between two pictures, how much is spent on one
        self._good: float | None = None
        self._bad: float | None = None
        self._rose = -1e9
        self._wait = PATIENCE[1]

    def showed(self, busy: float, late: bool = False, now: float | None = None) -> None:
        """A picture took so many seconds of work; `late` that one had to be dropped for it."""
        now = time.monotonic() if now is None else now
        load = busy / self.period
        self.load = load if self.load == 0 else self.load + 0.1 * (load - self.load)
        if self.load > FULL or (late and self.load > ROOM):
            self._good = None
            self._bad = now if self._bad is None else self._bad
            if now - self._bad >= PATIENCE[0] and self.share > LOWEST:
                self._fall(now)
        elif self.load < ROOM and self.share < 1:
            self._bad = None
            self._good = now if self._good is None else self._good
            if now - self._good >= self._wait:
                self.share = min(1.0, self.share / NOTCH)
                self._rose, self._good = now, None
        else:
            self._good = self._bad = None

    def _fall(self, now: float) -> None:
        self.share = max(LOWEST, self.share * NOTCH)
        self._bad = None
        self.load *= NOTCH
        self._wait = min(300.0, self._wait * 2) if now - self._rose < 10 else PATIENCE[1]

    def lines(self, wanted: int, ceiling: float = 1.0) -> int:
        """The lines to work at, of those wanted, at most a `ceiling` part of them."""
        return max(32, min(wanted, round(wanted * min(self.share, ceiling))))

    def steps(self, wanted: int, each: float) -> int:
        """Warm steps per octave, of those `wanted`, if with them a dream took `each` seconds."""
        if each <= LONGEST_DREAM or wanted <= 1:
            return wanted
        return max(1, round(wanted * LONGEST_DREAM / each))
