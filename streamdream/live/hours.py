"""Opening hours by the clock on the wall, whatever that clock does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

DAY = 24 * 60  # minutes
AHEAD = 3 * DAY  # a change may be left out on one day: the clock can jump over a whole span

Span = tuple[int, int]


class Hours:
    """Whether it is open now, and for how long that stays so."""

    def __init__(self, spans: tuple[Span, ...], now: Callable[[], datetime] = datetime.now) -> None:
        """Open within `spans`, each from and to a minute of the local day, the end not included.

        A span that ends before it begins goes over midnight, one that ends where it begins lasts
        all day. No span at all is always open. `now` gives local time; without a time zone it is
        that of the machine.
        """
        self._now = now
        self._open = [
            not spans or any(_within(minute, *span) for span in spans) for minute in range(DAY)
        ]

    def open(self) -> bool:
        """Whether it is open."""
        return self._at(self._now())

    def until(self) -> timedelta:
        """Time that really passes until the next change; `timedelta.max` if there is none.

        Looked for minute by minute, for clocks are put forward and back: a few milliseconds.
        """
        if len(set(self._open)) == 1:
            return timedelta.max
        now = self._now()
        begin, was = now.timestamp(), self._at(now)
        minute = begin - now.second - now.microsecond / 1e6
        for step in range(1, AHEAD):
            then = minute + step * 60
            if self._at(datetime.fromtimestamp(then, now.tzinfo)) != was:
                return timedelta(seconds=then - begin)
        return timedelta.max

    def _at(self, moment: datetime) -> bool:
        return self._open[moment.hour * 60 + moment.minute]


def _within(minute: int, begin: int, end: int) -> bool:
    begin, end = begin % DAY, end % DAY
    if begin < end:
        return begin <= minute < end
    return minute >= begin or minute < end
