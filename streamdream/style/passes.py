"""An optimised style in several passes over a film, to and fro, each going on from the one before.

Source: Ruder, Dosovitskiy and Brox (2016), section 4.3. What comes into the picture is painted
without knowing what it will be next to later. A pass the other way starts from there: every
frame from the mean of what the last pass made of it and of the neighbour painted just now,
moved to it; where that neighbour knows nothing, from the last pass alone. So paintings agree
with what is before and with what is behind them, and the last pass, which is shown, runs forward.

Frames and paintings wait on the disk: a pass takes them up in the order in which it needs them,
the one that was laid down last first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from streamdream.errors import OptionError
from streamdream.frame import Delta, Frame, Image, Pixels, Resized, interleaved, planes
from streamdream.governor import Scalar
from streamdream.options import Look, Options
from streamdream.ping_pong import Spool
from streamdream.pipeline import Carried, Drive, Effect, Picture, Settle, States
from streamdream.schedule import Moment
from streamdream.stacks import Stack
from streamdream.style.named import optimises, styles_of

SHARE = 0.5  # of the last pass, in what a frame starts from where both are known
WAITING = "paintings that wait for the next pass"

Redraw = Callable[
    [Iterator[Frame], Sequence[Effect], Drive, Settle | None], Generator[Frame, None, None]
]
"""What redraws frames, as pipeline.redraw does."""


def check_passes(options: Options) -> None:
    """Raise OptionError where there is nothing that could be painted in several passes."""
    if options.style_passes == 1:
        return
    flag = f"--style-passes {options.style_passes}"
    if not optimises(styles_of(options), options):
        told = "is for pictures as styles that are painted by optimisation"
        raise OptionError(flag, told, "name one with --style, or leave it out")
    if options.loop or options.loop_blend is not None:
        told = f"{options.loop_kind} reads its source twice in an order of its own"
        raise OptionError(flag, told, "leave one of them out")
    if options.lasts:
        told = "is not known before all frames were painted once"
        raise OptionError(flag, told, f"leave out {options.lasting_flag}")


class Again:
    """An effect that goes on from what an earlier pass made of each frame as well."""

    def __init__(self, effect: Effect, earlier: Stack) -> None:
        """Around `effect`; takes up one painting of `earlier` for each frame."""
        self._effect, self._earlier = effect, earlier
        self.replaces = effect.replaces

    def takes_part(self, options: Look) -> bool:
        """As the effect does."""
        return self._effect.takes_part(options)

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        """What was carried, mixed with what the earlier pass made of the frame."""
        carried = self._effect.prepared(image, carried, options)
        earlier = _painting_in(self._earlier.pop()).to(image.device)
        known = torch.ones_like(carried.age)
        trust = torch.zeros_like(known) if carried.trust is None else carried.trust
        share = 1 - (1 - SHARE) * trust
        delta = (1 - SHARE) * carried.delta + share * earlier
        return replace(carried, delta=delta, trust=known, uncovered=0.0)

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """As the effect redraws."""
        return self._effect(image, carried, options, index)

    def response(
        self, image: Image, result: Image, options: Look, carried: Carried
    ) -> Scalar | None:
        """As the effect has it."""
        return self._effect.response(image, result, options, carried)

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        """As the effect lays it on."""
        return self._effect.laid_on(pixels, image, delta, options)


@dataclass
class _Way:
    """To or fro: on the way back time and numbers count from the film's end."""

    options: Options
    drive: Drive
    end: Frame | None = None  # the last one, on the way back

    def turned(self, frame: Frame) -> Frame:
        """A frame as it comes on this way; of such a one, as it is in the film."""
        if self.end is None:
            return frame
        time, index = self.end.time - frame.time, self.end.index - frame.index
        return replace(frame, time=time, index=index)

    def driven(self, options: Options, frame: Frame) -> Options:
        """The options as they are at this frame of the film."""
        there = self.turned(frame)
        return self.drive(self.options.at(Moment(there.time, there.index)), there)


def in_passes(
    frames: Iterator[Frame],
    options: Options,
    effects: Sequence[Effect],
    redraw: Redraw,
    drive: Drive,
    folder: Path | None = None,
    leading: Callable[[], None] | None = None,
) -> Generator[Frame, None, None]:
    """The frames as the first of `effects` paints them in `options.style_passes` passes.

    The other effects redraw what comes of it. `leading` is called after each frame of a pass
    but the last. What waits lies in `folder` (None: the system's for such). Raises SinkError
    where the disk is full.
    """
    count = options.style_passes
    with ExitStack() as kept:
        coming, end = frames, None
        earlier: Stack | None = None
        if count % 2 == 0:  # the first pass begins at the end, so frames are only read before
            spool = kept.enter_context(closing(Spool(folder)))
            for end in frames:
                spool.push(end)
            coming = _popped(spool)
        for number in range(count):
            last, back = number == count - 1, (count - number) % 2 == 0
            way = _Way(options, drive, end if back else None)
            first = effects[0] if earlier is None else Again(effects[0], earlier)
            if last:
                with closing(redraw(coming, (first, *effects[1:]), way.driven, None)) as made:
                    yield from made
                return
            spool = kept.enter_context(closing(Spool(folder)))
            paintings = kept.enter_context(closing(Stack(WAITING, folder)))

            def pushed(
                coming: Iterator[Frame] = coming, spool: Spool = spool, way: _Way = way
            ) -> Iterator[Frame]:
                for frame in coming:
                    spool.push(frame)
                    yield way.turned(frame)

            def settle(frame: Frame, states: States, paintings: Stack = paintings) -> States:
                assert states[0] is not None
                paintings.push(_packed(states[0].delta))
                return states

            with closing(redraw(pushed(), (first,), way.driven, settle)) as made:
                for frame in made:
                    end = end if back else frame
                    if leading is not None:
                        leading()
            coming, earlier = _popped(spool), paintings


def _popped(spool: Spool) -> Iterator[Frame]:
    while len(spool):
        yield spool.pop()


def _packed(delta: Delta) -> bytes:
    kept = io.BytesIO()
    np.save(kept, interleaved(delta).astype(np.float16))
    return kept.getvalue()


def _painting_in(record: bytes) -> Delta:
    kept: np.ndarray = np.load(io.BytesIO(record))
    return planes(kept.astype(np.float32))
