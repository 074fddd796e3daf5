"""The newest picture as JPEG, made once for everybody who watches and not at all for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from threading import Condition, Thread
from typing import TYPE_CHECKING, NamedTuple

from streamdream.errors import words

if TYPE_CHECKING:
    from streamdream.live.outputs import Shown

QUALITY = 80  # of JPEG, of 100
OLD = 1.0  # seconds after which a picture is not the present any more


class Jpeg(NamedTuple):
    """One encoded picture; numbers increase."""

    number: int
    data: bytes


class Pictures:
    """Takes pictures from one thread, encodes in its own and hands out on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[str], None]) -> None:
        """Hand out on this loop; faults of the encoder are told."""
        self._loop, self._tell = loop, tell
        self._changed = Condition()
        self._newest: Shown | None = None
        self._number = 0  # of the newest picture, 0 for none
        self._arrived = 0.0  # when it came, monotonic seconds
        self._encoded = 0  # number of the last picture that was tried
        self._viewers = 0
        self._ending = False
        self._jpeg = Jpeg(0, b"")  # this and the next belong to the loop
        self._fresh = asyncio.Event()
        self._thread = Thread(target=self._work, name="streamdream-web-jpeg", daemon=True)
        self._thread.start()

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return self._viewers

    @property
    def number(self) -> int:
        """The newest picture's number, 0 if there was none."""
        return self._number

    def offer(self, picture: Shown) -> None:
        """Take the newest picture; nothing is done with it unless somebody watches."""
        with self._changed:
            self._newest = picture
            self._number += 1
            self._arrived = time.monotonic()
            self._changed.notify()

    @contextmanager
    def watched(self) -> Generator[None]:
        """Somebody watches as long as this lasts."""
        with self._changed:
            self._viewers += 1
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._viewers -= 1

    async def after(self, number: int, seconds: float) -> Jpeg | None:
        """The newest picture, which came after this number; None if none came in `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._jpeg.number <= number:
                    await self._fresh.wait()
        return self._jpeg if self._jpeg.number > number else None

    async def now(self) -> Jpeg | None:
        """The present picture, or the last one there was, or None; call it while `watched`."""
        number = self._number
        if number and time.monotonic() - self._arrived < OLD:
            return await self.after(number - 1, OLD)
        return await self.after(number, OLD) or (
            await self.after(number - 1, OLD) if number else None
        )

    def end(self) -> None:
        """Let the encoder end."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait for the encoder's end, so long at most."""
        self._thread.join(seconds)

    def _idle(self) -> bool:
        return not self._viewers or self._encoded == self._number

    def _work(self) -> None:
        told = ""
        while True:
            with self._changed:
                while self._idle() and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                picture, number = self._newest, self._number
                self._encoded = number
            assert picture is not None
            try:
                data = encoded(picture)
            except Exception as fault:  # one bad picture is none; the next may be good
                if (why := " ".join(words(fault).split())) != told:
                    self._tell(f"page: a picture could not be encoded: {why}")
                told = why
                continue
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._publish, Jpeg(number, data))

    def _publish(self, jpeg: Jpeg) -> None:
        self._jpeg = jpeg
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()


def encoded(picture: Shown) -> bytes:
    """A picture as JPEG."""
    import cv2

    blue_first = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", blue_first, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ValueError("JPEG takes no such size")
    return data.tobytes()
