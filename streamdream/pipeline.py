"""READ FIRST: the journey of one frame, from the source to the sink.

    source ─ pixels ─ image at work size ─ motion since the last frame
                                              │
           the last dream's delta ─ carried along it, trusted, faded
                                              │
                                 effect: dreams on from there ─ delta ─ kept for the next frame
                                              │
                       full-size pixels + delta ─ sink

What passes from one frame to the next is one value, `State`; nothing else is remembered, and
nothing crosses a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from streamdream.frame import Frame, composite, to_image, work_size
from streamdream.motion import Motion, Movement, warp
from streamdream.options import Options

Picture = Callable[[], Tensor]
"""Gives an image (3, h, w) in [0, 1]: a picture that is only drawn if somebody looks."""

Watch = Callable[[Frame, Picture], None]


@dataclass(frozen=True)
class State:
    """All that one frame hands to the next.

    `image` (3, h, w) the source at work size; `delta` (3, h, w) what the effect changed about
    it; `age` (1, h, w) for how many frames each place has been carried; `reference` the
    RMS of the delta at the start of the scene, which is held from then on.
    """

    time: Fraction
    image: Tensor
    delta: Tensor
    age: Tensor
    reference: float


@dataclass(frozen=True)
class Carried:
    """What reaches a frame from the one before: a faded `delta` and the `age` it has.

    `reference` is None where a scene starts.
    """

    delta: Tensor
    age: Tensor
    reference: float | None


class Effect(Protocol):
    """Redraws an image, going on from what was carried."""

    def __call__(
        self, image: Tensor, carried: Carried, options: Options, index: int
    ) -> Iterator[Picture]:
        """Yield after every step; the last picture is the result."""
        ...


def redraw(
    frames: Iterable[Frame],
    options: Options,
    effect: Effect,
    motion: Motion,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
) -> Iterator[Frame]:
    """Redraw every frame with `effect`, on top of the last result carried along by `motion`.

    `watch` is called with the frame and the unfinished picture after every step.
    """
    state: State | None = None
    for frame in frames:
        now = options.at(frame.time)
        image = to_image(frame.pixels, work_size(frame.pixels.shape[:2], now.work_size), device)
        carried = carry(state, image, frame.time, motion, now.memory)
        picture: Picture = (image + carried.delta).clamp(0, 1).clone
        for picture in effect(image, carried, now, frame.index):
            if watch is not None:
                watch(frame, picture)
        state = advance(carried, image, picture(), frame.time)
        yield Frame(composite(frame.pixels, state.delta, now.strength), frame.time, frame.index)


def carry(
    state: State | None, image: Tensor, time: Fraction, motion: Motion, memory: float
) -> Carried:
    """Carry the last delta to where its things are now, and let it fade.

    It fades with time, not with frames: after `memory` seconds 1/e is left. A governor holds
    its strength at that of the scene's start: while it is stronger it fades faster (or a
    still picture would burn in), while it is weaker up to three times as slowly.
    """
    nothing = Carried(torch.zeros_like(image), torch.zeros_like(image[:1]), None)
    if state is None or memory == 0 or state.image.shape != image.shape:
        return nothing
    movement = motion.between(image, state.image)
    if movement.cut:
        return nothing
    strength = float(state.delta.square().mean().sqrt())
    fade = float(time - state.time) / memory
    keep = math.exp(-fade) * state.reference / max(strength, 1e-6)
    keep = min(keep, math.exp(-fade / 3)) if strength < state.reference else keep
    return Carried(
        warp(state.delta, movement.flow) * movement.trust * keep,
        _carried_age(state.age, movement),
        state.reference,
    )


def _carried_age(age: Tensor, movement: Movement) -> Tensor:
    return warp(age, movement.flow, sharp=False) * movement.trust


def advance(carried: Carried, image: Tensor, result: Tensor, time: Fraction) -> State:
    """The state after a frame."""
    delta = result - image
    reference = carried.reference
    if reference is None:
        reference = float(delta.square().mean().sqrt())
    return State(time, image, delta, carried.age + 1, reference)
