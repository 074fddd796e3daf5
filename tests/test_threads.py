from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from streamdream.errors import SinkError
from streamdream.frame import Frame
from streamdream.pipeline import Picture
from streamdream.sinks import Stopped
from streamdream.threads import Behind, ahead


def numbered(count: int) -> Iterator[Frame]:
    for i in range(count):
        yield Frame(np.full((2, 2, 3), i, np.uint8), Fraction(i), i)


def threads() -> int:
    return sum(t.name.startswith("streamdream") for t in threading.enumerate())


def test_working_ahead_changes_neither_values_nor_order() -> None:
    assert list(ahead(range(50))) == list(range(50))
    assert list(ahead([])) == []
    assert threads() == 0


def test_it_works_ahead_but_only_so_far() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with closing(ahead(items(), depth=2)) as taken:
        assert next(taken) == 0
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [0, 1, 2, 3]  # one taken, two waiting, one in the making
    assert threads() == 0


def test_a_fault_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    seen: list[int] = []
    with pytest.raises(OSError, match="gone"):
        seen.extend(ahead(items()))  # extend keeps what came before the fault
    assert seen == [1, 2]
    assert threads() == 0


def test_stopping_early_closes_what_was_read() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    for _ in ahead(items()):
        break
    assert closed.wait(5)
    assert threads() == 0


class Remembering:
    """A sink that remembers what it got, slowly, and may fail at a frame."""

    def __init__(self, fails_at: int = -1) -> None:
        self.notices = ["a notice"]
        self.part = Path("x.part")
        self.got: list[int] = []
        self.ended_with: BaseException | None = None
        self._fails_at = fails_at

    def watch(self, frame: Frame, picture: Picture) -> None: ...

    def write(self, frame: Frame) -> None:
        time.sleep(0.01)
        if frame.index == self._fails_at:
            raise SinkError("x", "the disk is full")
        self.got.append(frame.index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended_with = fault


def write_behind(sink: Remembering, count: int, ends: Exception | None = None) -> None:
    with Behind(sink) as behind:
        for frame in numbered(count):
            behind.write(frame)
        if ends is not None:
            raise ends


def test_writing_behind_writes_everything_in_order() -> None:
    sink = Remembering()
    assert (Behind(sink).notices, Behind(sink).part) == (sink.notices, sink.part)
    write_behind(sink, 20)
    assert sink.got == list(range(20))
    assert sink.ended_with is None
    assert threads() == 0


@pytest.mark.parametrize("fails_at", [3, 19])
def test_a_fault_of_writing_reaches_the_loop(fails_at: int) -> None:
    sink = Remembering(fails_at)
    with pytest.raises(SinkError, match="the disk is full"):
        write_behind(sink, 20)
    assert sink.got == list(range(fails_at))
    assert isinstance(sink.ended_with, SinkError)
    assert threads() == 0


def test_what_was_taken_is_written_when_the_loop_is_stopped() -> None:
    sink = Remembering()
    with pytest.raises(Stopped):
        write_behind(sink, 5, Stopped())
    assert sink.got == list(range(5))
    assert isinstance(sink.ended_with, Stopped)
