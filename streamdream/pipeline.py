"""READ FIRST: the journey of one frame, from the source to the sink.

    source ─ pixels ─ image at work size ─ motion since the last frame       `views`, ahead
                                              │                              of the dream
           the last dream's delta ─ carried along it, trusted, faded         `carry`
                                              │
                                 effect: dreams on from there ─ delta ─      `advance`: kept
                                              │                              for the next frame
                       full-size pixels + delta ─ sink

What passes from one frame to the next is one value, `State`; nothing else is remembered, and
nothing crosses a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from streamdream.frame import Delta, Frame, Image, Mask, composite, to_image, work_size
from streamdream.motion import Motion, Movement, warp
from streamdream.options import Options
from streamdream.threads import ahead

Scalar = Float[Tensor, ""]  # left on its device: reading it would make the host wait

Picture = Callable[[], Image]
"""Gives an image (3, h, w) in [0, 1]: a picture that is only drawn if somebody looks."""

ROOM = 0.08  # about the change that a strong dream makes, of 1
GROWN_UP = 3.0  # frames after which a place has all the dream it needs

Watch = Callable[[Frame, Picture], None]


@dataclass(frozen=True)
class View:
    """What a frame shows, found without dreaming.

    `image` (3, h, w) the frame at work size; `movement` back to the frame before, None where
    nothing is carried over.
    """

    frame: Frame
    image: Image
    movement: Movement | None


@dataclass(frozen=True)
class State:
    """All that one frame hands to the next.

    `image` (3, h, w) the source at work size; `delta` (3, h, w) what the effect changed about
    it; `age` (1, h, w) for how many frames each place has been dreamed, at most GROWN_UP;
    `reference` the RMS of the delta at the start of the scene, which is held from then on
    (in proportion to the room that the picture leaves);
    `added` how much of the RMS the last frame added, 0 where a scene starts.
    """

    time: Fraction
    image: Image
    delta: Delta
    age: Mask
    reference: Scalar
    added: Scalar


@dataclass(frozen=True)
class Carried:
    """What reaches a frame from the one before: a faded `delta` and the `age` it has.

    `reference` is None where a scene starts; `uncovered` is the share of the picture that
    nothing could be carried to.
    """

    delta: Delta
    age: Mask
    reference: Scalar | None
    uncovered: float = 1.0


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
) -> Generator[Frame, None, None]:
    """Redraw every frame with `effect`, on top of the last result carried along by `motion`.

    Frames are read, and motion is found, by a thread of its own while the effect is at work:
    neither `frames` nor `motion` may be used, nor closed, elsewhere before the generator has
    ended or has been closed. `watch` is called with the frame and the unfinished picture after
    every step.
    """
    state: State | None = None
    with closing(ahead(views(frames, options, motion))) as seen:
        for view in seen:
            frame, image = view.frame, view.image.to(device)
            now = options.at(frame.time)
            carried = carry(state, image, frame.time, view.movement, now.memory)
            picture: Picture = (image + carried.delta).clamp(0, 1).clone
            for picture in effect(image, carried, now, frame.index):
                if watch is not None:
                    watch(frame, picture)
            state = advance(carried, image, picture(), frame.time)
            yield replace(frame, pixels=composite(frame.pixels, state.delta, now.strength))


def views(frames: Iterable[Frame], options: Options, motion: Motion) -> Iterator[View]:
    """What each frame shows, and how it moved since the one before."""
    before: Image | None = None
    for frame in frames:
        now = options.at(frame.time)
        image = to_image(frame.pixels, work_size(frame.pixels.shape[:2], now.lines))
        movement = None
        if before is not None and before.shape == image.shape and now.memory > 0:
            movement = motion.between(image, before)
        yield View(frame, image, movement)
        before = image


def carry(
    state: State | None, image: Image, time: Fraction, movement: Movement | None, memory: float
) -> Carried:
    """Carry the last delta to where its things are now, and let it fade.

    A governor says how much: so much that what the effect adds brings the dream back to the
    strength it had at the scene's start. Else a still picture would burn in and a busy one
    would pale. But it fades at least by exp(-dt / `memory`): with time, not with frames.
    """
    if state is None or movement is None or movement.cut:
        return Carried(torch.zeros_like(image), torch.zeros_like(image[:1]), None)
    flow, trust = movement.flow.to(image.device), movement.trust.to(image.device)
    reference = state.reference * (_room(image) / _room(state.image))
    strength = _rms(state.delta).clamp_min(1e-6)
    most = math.exp(-float(time - state.time) / memory)
    keep = ((reference - state.added) / strength).clamp(0, most)
    return Carried(
        warp(state.delta, flow) * (trust * keep),
        warp(state.age, flow, sharp=False) * trust,
        reference,
        uncovered=1 - float(movement.trust.mean()),
    )


def advance(carried: Carried, image: Image, result: Image, time: Fraction) -> State:
    """The state after a frame."""
    delta = result - image
    strength = _rms(delta)
    if carried.reference is None:
        age = torch.full_like(carried.age, GROWN_UP)
        return State(time, image, delta, age, strength, torch.zeros_like(strength))
    age = (carried.age + 1).clamp(max=GROWN_UP)
    added = strength - _rms(carried.delta)
    return State(time, image, delta, age, carried.reference, added)


def _rms(delta: Delta) -> Scalar:
    return delta.square().mean().sqrt()


def _room(image: Image) -> Scalar:
    """The RMS that a change of +-ROOM keeps when black and white cut it off.

    A scene that begins in the dark leaves a dream less room; without this its strength would
    stay at that when the light comes.
    """
    down, up = image.clamp(0, ROOM), (1 - image).clamp(0, ROOM)
    return ((down.square() + up.square()) / 2).mean().sqrt()
