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
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch

from streamdream.frame import Delta, Frame, Image, Mask, composite, to_image, work_size
from streamdream.motion import Motion, Movement, warp
from streamdream.options import Options

Picture = Callable[[], Image]
"""Gives an image (3, h, w) in [0, 1]: a picture that is only drawn if somebody looks."""

ROOM = 0.08  # about the change that a strong dream makes, of 1
GROWN_UP = 3.0  # frames after which a place has all the dream it needs

Watch = Callable[[Frame, Picture], None]


@dataclass(frozen=True)
class State:
    """All that one frame hands to the next.

    `image` (3, h, w) the source at work size; `delta` (3, h, w) what the effect changed about
    it; `age` (1, h, w) for how many frames each place has been dreamed, at most GROWN_UP;
    `reference` the RMS of the delta at the start of the scene, which is held from then on
    (in proportion to the room that the picture leaves);
    `added` how much of the RMS the last frame added, None where a scene starts.
    """

    time: Fraction
    image: Image
    delta: Delta
    age: Mask
    reference: float
    added: float | None = None


@dataclass(frozen=True)
class Carried:
    """What reaches a frame from the one before: a faded `delta` and the `age` it has.

    `reference` is None where a scene starts.
    """

    delta: Delta
    age: Mask
    reference: float | None


@runtime_checkable
class Effect(Protocol):
    """Redraws an image, going on from what was carried."""

    def __call__(
        self, image: Image, carried: Carried, options: Options, index: int
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
        yield replace(frame, pixels=composite(frame.pixels, state.delta, now.strength))


def carry(
    state: State | None, image: Image, time: Fraction, motion: Motion, memory: float
) -> Carried:
    """Carry the last delta to where its things are now, and let it fade.

    It fades with time, not with frames: by exp(-dt / `memory`) at first, and then as a governor
    asks, so that what the effect adds brings the dream back to the strength it had at the
    scene's start. Else a still picture would burn in and a busy one would pale. However much
    is asked for, it never fades slower than with three times `memory`.
    """
    nothing = Carried(torch.zeros_like(image), torch.zeros_like(image[:1]), None)
    if state is None or memory == 0 or state.image.shape != image.shape:
        return nothing
    movement = motion.between(image, state.image)
    if movement.cut:
        return nothing
    reference = state.reference * _room(image) / _room(state.image)
    fade = float(time - state.time) / memory
    keep = math.exp(-fade)
    if state.added is not None:
        steady = (reference - state.added) / max(_rms(state.delta), 1e-6)
        keep = min(max(steady, 0.0), math.exp(-fade / 3))
    return Carried(
        warp(state.delta, movement.flow) * movement.trust * keep,
        _carried_age(state.age, movement),
        reference,
    )


def _carried_age(age: Mask, movement: Movement) -> Mask:
    return warp(age, movement.flow, sharp=False) * movement.trust


def advance(carried: Carried, image: Image, result: Image, time: Fraction) -> State:
    """The state after a frame."""
    delta = result - image
    strength = _rms(delta)
    if carried.reference is None:
        age = torch.full_like(carried.age, GROWN_UP)
        return State(time, image, delta, age, reference=strength, added=None)
    age = (carried.age + 1).clamp(max=GROWN_UP)
    added = strength - _rms(carried.delta)
    return State(time, image, delta, age, carried.reference, added)


def _rms(delta: Delta) -> float:
    return float(delta.square().mean().sqrt())


def _room(image: Image) -> float:
    """The RMS that a change of +-ROOM keeps when black and white cut it off.

    A scene that begins in the dark leaves a dream less room; without this its strength would
    stay at that when the light comes.
    """
    down, up = image.clamp(0, ROOM), (1 - image).clamp(0, ROOM)
    return float(((down.square() + up.square()) / 2).mean().sqrt())
