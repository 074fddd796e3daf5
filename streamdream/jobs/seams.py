"""Where a long shot is split: its parts are dreamed apart, and one dream becomes the other.

    part before   ... o o o o o o o o o o o o            drawn to the part behind from half of
                                ^ first       ^ end      the seam on
    part behind                 . . . . . . . o o o ...  its lead-in (.) is dreamed by both,
                                                         from nothing, and never shown

Both see the same frames, so the lead-in is the same to the last bit wherever it is dreamed, and
neither waits for the other. As for loops (see `loops`) it is the dreams that are mixed, not the
pictures of them: each step makes one dream of the mixture, which stays as sharp and strong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue

from streamdream.frame import Frame
from streamdream.loops import between, mixed, smooth
from streamdream.pipeline import States, Step

Dreamed = Callable[[Iterable[Frame]], Generator[Step, None, None]]
"""What dreams frames from nothing, as pipeline.steps does."""


class Seam:
    """Draws the last frames of a part of a shot to the dream that the part behind goes on from.

    To be called with every frame and the states after it; gives the states to go on from.
    """

    def __init__(self, first: int, end: int, dreamed: Dreamed) -> None:
        """For a part up to frame `end`, the other's lead-in to which begins with frame `first`."""
        self.first = first
        self._end, self._fade = end, (end - first + 1) // 2
        self._frames = SimpleQueue[Frame | None]()
        self._other = dreamed(self._waiting())
        self._now: Step | None = None  # of the other
        self._share = 0.0  # of the other dream, in the last state

    def seen(self, frames: Iterator[Frame]) -> Generator[Frame, None, None]:
        """The frames of the part, which the other sees as well once its lead-in has begun."""
        try:
            for frame in frames:
                if frame.index >= self.first:
                    self._frames.put(frame)
                yield frame
        finally:
            self._frames.put(None)

    def __call__(self, frame: Frame, states: States) -> States:
        """The states to show and to carry on."""
        if frame.index < self.first:
            return states
        self._now = next(self._other)
        point = self._now.point
        share = self._share_at(frame.index)
        if share == 0 or point is None:
            return states
        # What the state before had of it was carried along; this much is still to come.
        pull = (share - self._share) / (1 - self._share)
        self._share = share
        others = point.past[point.number]
        return tuple(
            state
            if state is None or other is None
            else replace(state, delta=between(state.delta, other.delta, pull))
            for state, other in zip(states, others, strict=True)
        )

    def shown(self, step: Step) -> Step:
        """A step of the part: masks that learn fade as well, as the other began to learn later."""
        other = self._now
        if other is None or step.point is None or step.point.measured is None:
            return step
        assert other.source.index == step.source.index
        share = self._share_at(step.source.index)
        return replace(step, frame=mixed(step.frame, other.frame, share)) if share else step

    def close(self) -> None:
        """End what dreams the lead-in."""
        self._frames.put(None)
        self._other.close()

    def _share_at(self, index: int) -> float:
        """How much of the other dream a frame is to have: less than all of it."""
        return smooth((index + 1 - (self._end - self._fade)) / (self._fade + 1))

    def _waiting(self) -> Iterator[Frame]:
        while (frame := self._frames.get()) is not None:
            yield frame
