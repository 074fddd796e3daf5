"""READ FIRST: the journey of one frame, from the source to the sink.

    source ─ pixels ─ image at work size ─ motion since the last frame       `views`, ahead
                                              │                              of the dream
           the last dream's delta ─ carried along it, trusted, faded         `carry`
                                              │
                                 effect: dreams on from there ─ delta ─      `advance`: kept
                                              │                              for the next frame
                       full-size pixels + delta ─ arranged ─ sink

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

from streamdream.errors import ModelError
from streamdream.frame import (
    Delta,
    Frame,
    Image,
    Mask,
    Size,
    composite,
    resize,
    to_image,
    work_size,
)
from streamdream.governor import Governor, Scalar
from streamdream.motion import Motion, Movement, warp
from streamdream.options import Look, Options
from streamdream.schedule import Moment
from streamdream.threads import ahead
from streamdream.views import arranged

Picture = Callable[[], Image]
"""Gives an image (3, h, w) in [0, 1]: a picture that is only drawn if somebody looks."""

GROWN_UP = 3.0  # frames after which a place has all the dream it needs

Watch = Callable[[Frame, Picture], None]

Drive = Callable[[Options, Frame], Options]
"""Gives the options with those moved that follow something at a frame; called by two threads."""


def undriven(options: Options, frame: Frame) -> Options:
    """The options as they are: nothing drives them."""
    return options


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
    it; `age` (1, h, w) for how many frames each place has been dreamed, GROWN_UP from the
    start where a scene starts; `governor` holds the scene's strength.
    """

    time: Fraction
    image: Image
    delta: Delta
    age: Mask
    governor: Governor

    def moved(self, seconds: Fraction) -> State:
        """The same, so much later."""
        return replace(self, time=self.time + seconds, governor=self.governor.moved(seconds))


Settle = Callable[[Frame, State], State]
"""Has the last word on a frame's state: what it gives is shown, and carried on."""


@dataclass(frozen=True)
class Carried:
    """What reaches a frame from the one before: a faded `delta` and the `age` it has.

    `governor` is None where a scene starts; `uncovered` is the share of the picture that
    nothing could be carried to.
    """

    delta: Delta
    age: Mask
    governor: Governor | None = None
    uncovered: float = 1.0


@runtime_checkable
class Effect(Protocol):
    """Redraws an image, going on from what was carried."""

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """Yield after every step; the last picture is the result."""
        ...

    def response(self, image: Image, result: Image, options: Look) -> Scalar:
        """How much of the effect `result` shows on top of `image`, in bits."""
        ...


def redraw(
    frames: Iterable[Frame],
    options: Options,
    effect: Effect,
    motion: Motion,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    waiting: Callable[[], None] | None = None,
    drive: Drive = undriven,
    settle: Settle | None = None,
) -> Generator[Frame, None, None]:
    """Redraw every frame with `effect`, on top of the last result carried along by `motion`.

    Frames are read, and motion is found, by a thread of its own while the effect is at work:
    neither `frames` nor `motion` may be used, nor closed, elsewhere before the generator has
    ended or has been closed. `watch` is called with the frame and the unfinished picture after
    every step, `waiting` now and then while no frame comes; what they raise ends it. `drive`
    moves options at each frame. Raises ModelError where a dream is not finite.
    """
    state: State | None = None
    with closing(ahead(views(frames, options, motion, drive), waiting=waiting)) as seen:
        for view in seen:
            frame, image = view.frame, view.image.to(device)
            now = drive(options.at(Moment(frame.time, frame.index)), frame)
            carried = carry(state, image, frame.time, view.movement, now.memory)
            picture: Picture = (image + carried.delta).clamp(0, 1).clone
            for picture in effect(image, carried, now, frame.index):
                if watch is not None:
                    watch(frame, picture)
            state = advance(carried, image, picture(), frame.time, effect, now)
            if not torch.isfinite(state.delta).all():
                cure = "use --precision fp32 or a smaller --step-size"
                raise ModelError("dream", f"frame {frame.index} came out as no numbers", cure)
            if settle is not None:
                state = settle(frame, state)
            dreamed = composite(frame.pixels, state.delta, now.strength)
            yield arranged(frame, dreamed, now.view)


def views(
    frames: Iterable[Frame], options: Options, motion: Motion, drive: Drive = undriven
) -> Iterator[View]:
    """What each frame shows, and how it moved since the one before.

    Frames of another size are another scene; another size to dream at is not.
    """
    before: Image | None = None
    size: tuple[int, ...] = ()
    for frame in frames:
        if frame.pixels.shape != size:
            before, size = None, frame.pixels.shape
        now = drive(options.at(Moment(frame.time, frame.index)), frame)
        image = to_image(frame.pixels, work_size(frame.pixels.shape[:2], now.lines))
        movement = None
        if before is not None and now.memory > 0:
            movement = motion.between(image, resize(before, (image.shape[-2], image.shape[-1])))
        yield View(frame, image, movement)
        before = image


def carry(
    state: State | None, image: Image, time: Fraction, movement: Movement | None, memory: float
) -> Carried:
    """Carry the last delta to where its things are now, and let it fade.

    The governor says how much of it stays, but it fades at least by exp(-dt / `memory`): with
    time, not with frames. A state of another work size is brought to this one's.
    """
    if state is None or movement is None or movement.cut:
        return Carried(torch.zeros_like(image), torch.zeros_like(image[:1]))
    if state.image.shape != image.shape:
        state = resized(state, (image.shape[-2], image.shape[-1]))
    flow, trust = movement.flow.to(image.device), movement.trust.to(image.device)
    most = math.exp(-float(time - state.time) / memory)
    keep = state.governor.keep(image, state.delta).clamp_max(most)
    return Carried(
        warp(state.delta, flow) * (trust * keep),
        warp(state.age, flow, sharp=False) * trust,
        state.governor,
        uncovered=1 - float(movement.trust.mean()),
    )


def advance(
    carried: Carried,
    image: Image,
    result: Image,
    time: Fraction,
    effect: Effect,
    options: Look,
) -> State:
    """The state after a frame."""
    delta = result - image
    governor = carried.governor
    if governor is None:
        age = torch.full_like(carried.age, GROWN_UP)
        response = effect.response(image, result, options)
        governor = Governor.begin(image, delta, response, age.mean(), time)
        return State(time, image, delta, age, governor)
    age = carried.age + 1
    governor = governor.after(image, carried.delta, delta)
    if governor.due(time):
        response = effect.response(image, result, options)
        governor = governor.looked(time, response, age.mean())
    return State(time, image, delta, age, governor)


def resized(state: State, size: Size) -> State:
    """A state at another work size (h, w)."""
    return replace(
        state,
        image=resize(state.image, size),
        delta=resize(state.delta, size),
        age=resize(state.age, size).clamp(0),
    )
