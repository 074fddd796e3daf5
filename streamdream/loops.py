"""Loops: the last frame of the result leads to its first, in the picture and in the dream.

    lead-in     the last seconds of the source are dreamed, and not shown; the deltas of the
                very last of them, the seam, wait on the disk
    loop        the dream goes on over the seam into the first frame, along the motion from
                the last frame to the first, and through all frames; over the seam it is drawn
                to the deltas that wait there: to what the first frame went on from

Both passes see the same frames with the same numbers, so what they make lies on the same
things. A source whose end does not lead to its beginning is made to: its first seconds are
left out, and fade into its last ones instead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Self, cast

import numpy as np

from streamdream.cuts import Cuts, small_of
from streamdream.errors import OptionError, SourceError
from streamdream.frame import Alpha, Delta, Frame, interleaved, planes, to_image, white, work_size
from streamdream.governor import rms
from streamdream.motion import Motion, warp
from streamdream.options import Options
from streamdream.pipeline import Settle, States
from streamdream.schedule import Moment
from streamdream.sinks import write_error
from streamdream.sources import Glimpse, VideoSource

LEAD = 3  # s; a dream has settled by then
SEAM = 1  # s that one dream takes to become the other
SHARE = 3  # the seam is no longer than this part of a loop
ROUGH, UNSEEN = 2, 2  # times, and grey levels, that a jump is larger than other changes
IN_MEMORY = 2**26  # bytes of deltas; from there on they wait on the disk

ALONE = "one picture is no loop"
ASTRAY = "its last frame does not lead to its first"
CURE = "use --loop-blend 1 or --ping-pong"

Redraw = Callable[[Iterator[Frame], Settle | None], Generator[Frame, None, None]]
"""What dreams frames, as pipeline.redraw does."""


def check_loop(options: Options, source: VideoSource) -> None:
    """Raise OptionError or SourceError if the options ask for a loop that cannot be."""
    if options.loop_kind is None:
        return
    if source.info.still or 1 in (options.frames, source.info.frames):
        raise OptionError(options.loop_kind, ALONE, "leave it out")
    given = source.input
    endless = not given.all_files and source.info.frames is None
    if (given.piped or endless) and not options.ping_pong:
        cure = "save it as a file first, or use --ping-pong"
        raise SourceError(given.label, f"comes only once, {options.loop_kind} reads it twice", cure)


@dataclass(frozen=True)
class Loop:
    """A part of a source as a loop.

    `again` gives the part from its beginning, as often as it is called. It has `count` frames;
    of these the first `head` are left out, and fade into the last `head` instead. Times are the
    source's: `begin` when the first frame that is not left out is shown, `last` when the last
    one is, `until` when that ends; `shift` is what they are moved by towards 0. `rough` that the
    last frame leads to the first worse than frames of this source do.
    """

    again: Callable[[], VideoSource]
    count: int
    head: int
    begin: Fraction
    last: Fraction
    until: Fraction
    shift: Fraction
    rough: bool = False

    @staticmethod
    def of(again: Callable[[], VideoSource], options: Options, motion: Motion) -> Loop:
        """Look at all that `again` gives, for the loop that the options ask for.

        Raises SourceError where nothing that `motion` knows leads from the last frame to the
        first, and OptionError where too much is to fade.
        """
        blend = Fraction(options.loop_blend or 0)
        with again() as source:
            first: Frame | None = None
            begin: Glimpse | None = None
            latest: deque[Glimpse] = deque(maxlen=2)
            for glimpse in source.skim():
                first = first or glimpse.frame()
                if begin is None and glimpse.time >= first.time + blend:
                    begin = glimpse
                latest.append(glimpse)
            assert first is not None
            if len(latest) < 2:
                raise OptionError(str(options.loop_kind), ALONE, "leave it out")
            before, last = (glimpse.frame() for glimpse in latest)
            usual = 1 / (source.info.rate or Fraction(25))
            until = last.time + (last.duration or usual)
            if begin is None or blend > (until - first.time) / 2:
                told = f"is more than half of the {float(until - first.time):.3g} s that there are"
                raise OptionError(str(options.loop_kind), told, "give fewer seconds")
            rest = None if blend else unexplained(last, first, options, motion)
            if rest == math.inf:
                raise SourceError(source.input.label, ASTRAY, CURE)
            usual_rest = unexplained(before, last, options, motion)
        return Loop(
            again, last.index + 1, begin.index, begin.time, last.time, until,
            shift=begin.time - first.time,
            rough=rest is not None and rest > ROUGH * usual_rest + UNSEEN,
        )  # fmt: skip

    @property
    def length(self) -> int:
        """How many frames the loop has."""
        return self.count - self.head

    @property
    def period(self) -> Fraction:
        """How long it takes, in seconds."""
        return self.until - self.begin

    def lead(self, options: Options) -> Fraction:
        """How many seconds at the end are dreamed before the loop begins."""
        memory = options.at(Moment(self.last - self.shift, self.length - 1)).memory
        return min(max(Fraction(LEAD), Fraction(memory)), self.period) if memory else Fraction(0)

    def frames(self, source: VideoSource, since: Fraction = Fraction(0)) -> Iterator[Frame]:
        """The loop's frames, as far as the source shows them at `since` or later.

        Over the end, in as many frames as are left out at the beginning, these fade in by
        smoothstep, in the pixels' own values.
        """
        with ExitStack() as stack:
            heads: Iterator[Glimpse] | None = None
            for glimpse in source.skim():
                if glimpse.index < self.head or glimpse.time < since:
                    continue
                frame = glimpse.frame()
                place = glimpse.index - self.length
                if self.head and place >= 0:
                    if heads is None:
                        heads = stack.enter_context(self.again()).skim()
                    head = next(h for h in heads if h.index == place).frame()
                    frame = mixed(frame, head, smooth((place + 1) / (self.head + 1)))
                yield replace(frame, index=frame.index - self.head, time=frame.time - self.shift)

    def redrawn(
        self,
        source: VideoSource,
        options: Options,
        redraw: Redraw,
        folder: Path | None = None,
        leading: Callable[[], None] | None = None,
    ) -> Generator[Frame, None, None]:
        """The loop's frames as `redraw` makes them of those of `source`.

        `leading` is called after each frame of the lead-in. Deltas wait in `folder` (None: the
        system's for such). Raises SinkError where the disk is full.
        """
        lead = self.lead(options)
        if not lead:  # nothing is carried, across no seam
            with closing(redraw(self.frames(source), None)) as redrawn:
                yield from redrawn
            return

        def twice() -> Iterator[Frame]:
            with self.again() as early:
                yield from self.frames(early, self.until - lead)
            yield from self.frames(source)

        final = self.length - 1
        with (
            Seam(final, self.last - self.shift, self.period, folder) as seam,
            closing(redraw(twice(), seam)) as redrawn,
        ):
            for frame in redrawn:
                if leading is not None:
                    leading()
                if frame.index == final:
                    break
            yield from redrawn


class Seam:
    """Draws the end of a loop to the dream that its beginning went on from.

    To be called with every frame and the state after it, first of the lead-in and then of the
    loop; gives the state to go on from.
    """

    def __init__(
        self, final: int, last: Fraction, period: Fraction, folder: Path | None = None
    ) -> None:
        """For a loop of `period` seconds whose last frame is number `final`, shown at `last`.

        Raises SinkError if nothing can be written in `folder`.
        """
        self._final, self._last, self._period = final, last, period
        self._seconds = min(Fraction(SEAM), period / SHARE)
        self._leading = True
        self._share = 0.0  # of the dream that waits, in the last state
        place = None if folder is None else str(folder)
        self._waiting = SpooledTemporaryFile(IN_MEMORY, dir=place)  # noqa: SIM115 - see __exit__

    def __call__(self, frame: Frame, states: States) -> States:
        """The states to show and to carry on."""
        share = smooth(float(1 + (frame.time - self._last) / self._seconds))
        if self._leading:
            if share > 0:
                for state in states:
                    self._put(None if state is None else state.delta)
            if frame.index == self._final:
                self._leading = False
                self._waiting.seek(0)
                return tuple(state and state.moved(-self._period) for state in states)
            return states
        if share == 0:
            return states
        # What the state before had of it was carried along; this much is still to come.
        pull = (share - self._share) / (1 - self._share)
        self._share = share
        waiting = [self._take() for _ in states]
        return tuple(
            state
            if state is None or kept is None
            else replace(state, delta=between(state.delta, kept.to(state.delta.device), pull))
            for state, kept in zip(states, waiting, strict=True)
        )

    def __enter__(self) -> Self:
        """The seam itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what waits."""
        with suppress(OSError):  # a full disk was told of before
            self._waiting.close()

    def _put(self, delta: Delta | None) -> None:
        found = np.zeros(0) if delta is None else interleaved(delta)
        try:
            np.save(self._waiting, found.astype(np.float16))
            self._waiting.flush()
        except OSError as fault:
            raise write_error("dream that waits for the loop's end", fault) from None

    def _take(self) -> Delta | None:
        kept: np.ndarray = np.load(self._waiting)
        return planes(kept.astype(np.float32)) if kept.size else None


def between(one: Delta, other: Delta, share: float) -> Delta:
    """A mixture of two deltas (3, h, w) with this share (0 to 1) of the `other`.

    It is as strong as they are: the mean of two that are not alike would be weaker.
    """
    mixture = one + (other - one) * share
    strength = rms(one) * (1 - share) + rms(other) * share
    return mixture * (strength / rms(mixture).clamp_min(1e-6)).clamp_max(2)


def unexplained(before: Frame, now: Frame, options: Options, motion: Motion) -> float:
    """What of `now` is not `before` moved, in mean grey levels of 255; infinite behind a cut."""
    was, image = (
        to_image(f.pixels, work_size(f.pixels.shape[:2], options.at(Moment(f.time, f.index)).lines))
        for f in (before, now)
    )
    apart = was.shape != image.shape or Cuts().between(small_of(now), small_of(before))
    if apart or (movement := motion.between(image, was)).cut:
        return math.inf
    return 255 * float((warp(was, movement.flow) - image).abs().mean())


def mixed(one: Frame, other: Frame, share: float) -> Frame:
    """A frame with this share (0 to 1) of another's picture in it.

    A place counts by how opaque it is.
    """
    one = replace(one, small=None)
    most = float(white(one.pixels))
    if one.alpha is None or other.alpha is None:
        both = one.pixels * np.float32(1 - share) + other.pixels * np.float32(share)
        return replace(one, pixels=both.round().astype(one.pixels.dtype))
    here, there = one.alpha * np.float32(1 - share), other.alpha * np.float32(share)
    alpha = here + there
    both = one.pixels * here[..., None] + other.pixels * there[..., None]
    both = both / alpha.clip(1e-6)[..., None]
    return replace(
        one,
        pixels=both.round().clip(0, most).astype(one.pixels.dtype),
        alpha=cast(Alpha, alpha.round().astype(one.alpha.dtype)),
    )


def smooth(way: float) -> float:
    """From 0 to 1 without a kink at either end (smoothstep)."""
    way = min(1.0, max(0.0, way))
    return way * way * (3 - 2 * way)
