"""Working ahead of a loop and behind it, in threads that hide inside an iterator and a sink.

To the loop nothing changes: the same values come in the same order, and faults are raised
where they belong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Condition, Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from streamdream.frame import Frame
    from streamdream.pipeline import Picture

T = TypeVar("T")
Taken_contra = TypeVar("Taken_contra", contravariant=True)

DEPTH = 2  # items; more would only take memory
LOOK = 0.2  # seconds between two looks at whether somebody wants to stop
LEAVE = 3.0  # seconds that the item in the making may take at the end


@dataclass(frozen=True)
class _End:
    """Comes last, with the fault that was the reason if there was one."""

    fault: BaseException | None = None


def ahead(
    items: Iterable[T], depth: int = DEPTH, waiting: Callable[[], None] | None = None
) -> Generator[T, None, None]:
    """The same items, made in a thread up to `depth` ahead of whoever takes them.

    What making an item raises is raised when that item is asked for. Closing the generator
    waits for the item in the making and closes `items` too; one that takes for ever (a pipe
    that nothing comes from) is left to its thread after some seconds. While nothing comes,
    `waiting` is called several times a second; what it raises ends the waiting.
    """
    queue: Queue[T | _End] = Queue(depth)
    stopping = Event()

    def make() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                queue.put(item)
                if stopping.is_set():
                    break
            end = _End()
        except BaseException as fault:  # it belongs to the loop, not to this thread
            end = _End(fault)
        if isinstance(iterator, Generator):
            iterator.close()
        queue.put(end)

    maker = Thread(target=make, name="streamdream-ahead", daemon=True)
    maker.start()
    try:
        while True:
            try:
                item = queue.get(timeout=None if waiting is None else LOOK)
            except Empty:
                if waiting is not None:
                    waiting()
                continue
            if isinstance(item, _End):
                if item.fault is not None:
                    raise item.fault
                return
            yield item
    finally:
        stopping.set()
        given_up = time.monotonic() + LEAVE
        while maker.is_alive() and time.monotonic() < given_up:
            with suppress(Empty):
                queue.get(timeout=0.05)


class Newest(Generic[T]):
    """Hands the newest item from one thread to another; older ones make room for it."""

    def __init__(self) -> None:
        """Begin empty."""
        self.dropped = 0  # items that nobody took in time
        self._item: T | None = None
        self._changed = Condition()

    def put(self, item: T) -> None:
        """Lay it out, instead of what may lie there."""
        with self._changed:
            self.dropped += self._item is not None
            self._item = item
            self._changed.notify()

    def take(self, seconds: float) -> T | None:
        """What lies there, as soon as something does; None if nothing did in so many seconds."""
        with self._changed:
            if self._item is None:
                self._changed.wait(seconds)
            found, self._item = self._item, None
        return found


class Takes(Protocol[Taken_contra]):
    """A sink, of frames or of what else there is one of for each."""

    @property
    def notices(self) -> Sequence[str]: ...

    @property
    def part(self) -> Path | None: ...

    def watch(self, frame: Frame, picture: Picture) -> None: ...

    def write(self, frame: Taken_contra, /) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Behind(Generic[T]):
    """A sink that is written to by a thread of its own, so that encoding and dreaming overlap.

    A fault of the writing is raised by the next `write`, or at the end.
    """

    def __init__(self, sink: Takes[T], depth: int = DEPTH) -> None:
        """Write to this sink, at most `depth` frames late."""
        self._sink = sink
        self._queue: Queue[T | None] = Queue(depth)
        self._fault: BaseException | None = None
        self._writer = Thread(target=self._work, name="streamdream-behind", daemon=True)

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know."""
        return self._sink.notices

    @property
    def part(self) -> Path | None:
        """Where an unfinished result lies, None if nowhere."""
        return self._sink.part

    def watch(self, frame: Frame, picture: Picture) -> None:
        """Let the sink see an unfinished picture."""
        self._sink.watch(frame, picture)

    def write(self, frame: T) -> None:
        """Take one frame, and wait only if the thread is too far behind."""
        if self._fault is not None:
            raise self._fault
        self._queue.put(frame)

    def __enter__(self) -> Self:
        """Begin."""
        self._sink.__enter__()
        self._writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what was taken, then complete the result or leave what there is."""
        self._queue.put(None)
        self._writer.join()
        late = None if fault is self._fault else self._fault
        cause = fault or late
        self._sink.__exit__(type(cause) if cause else None, cause, trace)
        if late is not None:
            raise late

    def _work(self) -> None:
        while (frame := self._queue.get()) is not None:
            if self._fault is None:
                try:
                    self._sink.write(frame)
                except BaseException as fault:  # told to the loop
                    self._fault = fault
