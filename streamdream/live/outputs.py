"""Where live pictures go: each output in a thread of its own, so that none holds up the picture.

An output takes the newest picture and drops what it has no time for. One that fails is closed,
told about, and opened again with growing pauses, for ever.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from threading import Condition, Thread
from typing import Protocol

from streamdream.errors import Error, words
from streamdream.frame import Bytes, Size

SHORTEST, LONGEST = 0.5, 30.0  # seconds between two tries to open
STEADY = 10.0  # seconds after which a failure counts as a new one
STUCK = 15.0  # seconds for one picture after which an output counts as not running
LEAVE = 5.0  # seconds that an output has for its end

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """One picture as it is shown: `pixels` (h, w, 3) uint8, never written to again.

    `time` in seconds since the run began, strictly increasing; `index` its number; `arrived`
    when the camera's picture came, in monotonic seconds, None if it is an old one.
    """

    pixels: Bytes
    time: Fraction
    index: int
    arrived: float | None = None

    @property
    def size(self) -> Size:
        """(h, w)."""
        return self.pixels.shape[0], self.pixels.shape[1]


class Target(Protocol):
    """Something open that pictures are written to; all calls come from one thread.

    Both may raise anything that is an Exception: the output is then closed and tried again.
    """

    def write(self, picture: Shown) -> None:
        """Take one picture, of the size that it was opened for. May block."""
        ...

    def close(self) -> None:
        """Finish what was written."""
        ...


Opening = Callable[[Size, float], Target]
"""Opens a target for pictures of this size (h, w), about so many a second. May block."""


class Output:
    """A target that is fed, watched and opened again."""

    def __init__(
        self, name: str, opening: Opening, rate: float, tell: Tell, depth: int = 1
    ) -> None:
        """Feed what `opening` opens, at most `depth` pictures late; what happens is told.

        `tell` is called from the output's thread.
        """
        self.name = name
        self.written = self.dropped = self.failures = 0
        self._trouble = self._told = ""
        self._busy: float | None = None  # since when it has been at one picture
        self._opening, self._rate, self._tell = opening, rate, tell
        self._waiting: deque[Shown] = deque()
        self._depth = depth
        self._changed = Condition()
        self._ending = False
        self._thread = Thread(target=self._work, name=f"streamdream-{name}", daemon=True)
        self._thread.start()

    def offer(self, picture: Shown) -> None:
        """Take a picture without waiting; one that is too old makes room for it."""
        with self._changed:
            if len(self._waiting) >= self._depth:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(picture)
            self._changed.notify()

    def close(self, seconds: float = LEAVE) -> None:
        """Finish; what takes longer than so many `seconds` is left alone."""
        self.end()
        self._thread.join(seconds)

    def end(self) -> None:
        """Begin to finish, without waiting for it."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    @property
    def trouble(self) -> str:
        """Why it is not running, empty if it is."""
        busy = self._busy
        stuck = busy is not None and time.monotonic() - busy > STUCK
        return self._trouble or ("takes no picture" if stuck else "")

    @property
    def running(self) -> bool:
        """Whether pictures arrive where they should."""
        return not self.trouble

    def _next(self) -> Shown | None:
        """The next picture, None when it is time to end."""
        with self._changed:
            while not self._waiting and not self._ending:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._changed:
            while not self._ending and (left := until - time.monotonic()) > 0:
                self.dropped += len(self._waiting)
                self._waiting.clear()
                self._changed.wait(left)

    def _work(self) -> None:
        target: Target | None = None
        size: Size | None = None
        pause, opened = SHORTEST, math.inf
        while (picture := self._next()) is not None:
            if self._ending and self._trouble:
                break  # to try once more would take time, and end at once
            self._busy = time.monotonic()
            try:
                if target is not None and size != picture.size:
                    target, ended = None, target
                    ended.close()
                if target is None:
                    size, opened = picture.size, math.inf
                    target = self._opening(size, self._rate)
                    opened = time.monotonic()
                target.write(picture)
                self.written += 1
                self._trouble = ""
                if self._told and time.monotonic() - opened > STEADY:
                    self._tell(f"{self.name}: goes on")
                    self._told = ""
            except Exception as fault:  # whatever it is, the picture goes on
                pause = SHORTEST if time.monotonic() - opened > STEADY else pause
                self._failed(fault, pause)
                target = self._left(target)
                self._busy = None
                self._pause(pause)
                pause = min(LONGEST, pause * 2)
            self._busy = None
        if target is not None:
            try:
                target.close()
            except Exception as fault:
                self._tell(f"{self.name}: {_why(fault)}")

    def _failed(self, fault: Exception, pause: float) -> None:
        self.failures += 1
        why = _why(fault)
        self._trouble = why
        if why != self._told:
            self._tell(f"{self.name}: {why}; tried again in {pause:g} s")
        self._told = why

    def _left(self, target: Target | None) -> None:
        if target is not None:
            with suppress(Exception):  # the first fault was told
                target.close()


def _why(fault: Exception) -> str:
    return str(fault) if isinstance(fault, Error) else words(fault)
