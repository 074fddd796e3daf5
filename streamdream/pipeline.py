"""READ FIRST: the journey of one frame, from the source to the sink.

    source ─ pixels ─ image at work size ─ shot, motion since the last frame `views`, ahead
                                              │                              of the dream
           the last result's delta ─ carried along it, trusted, faded        `carry`
                                              │
                        effect: dreams, or paints, on from there ─ delta ─   `advance`: kept
                                              │                              for the next frame
                      full-size pixels ─ the result laid on ─ masked ─ arranged ─ sink

What passes from one frame to the next is one value, `State`; nothing else is remembered, and
nothing crosses a cut. Of several effects each redraws what the one before made, and has a state
of its own. So has a mask (`View.measured`); it decides what is shown, and not what is carried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from streamdream.cuts import Turn, shots, small_of
from streamdream.errors import ModelError
from streamdream.frame import (
    Delta,
    Frame,
    Image,
    Mask,
    Pixels,
    Resized,
    Size,
    Small,
    resize,
    to_image,
    work_size,
)
from streamdream.governor import Governor, Scalar
from streamdream.masks.masking import Masks, Measured, Opacity, laid
from streamdream.motion import Motion, Movement, still, warp
from streamdream.options import Look, Options
from streamdream.recall import Kept, Lookback, Older
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
    nothing is carried over. `number` counts views; `older` are movements back to earlier ones,
    of which none before number `oldest` is needed again, and `kept` are the pictures of those
    that may be. `begins` that a shot does; `flash` that it only interrupts one: it is dreamed on,
    standing still, and then forgotten. `opacity` (H, W, 1) is how much the full-size frame is
    redrawn, None for wholly; `measured` what the mask goes on from.
    """

    frame: Frame
    image: Image
    movement: Movement | None
    number: int
    older: tuple[Older, ...]
    oldest: int
    kept: tuple[Kept, ...] = ()
    begins: bool = False
    flash: bool = False
    opacity: Opacity | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class State:
    """All that one frame hands to the next.

    `image` (3, h, w) the source at work size; `delta` (3, h, w) what the effect changed about
    it; `age` (1, h, w) for how many frames each place has been dreamed, GROWN_UP from the
    start where a scene starts; `governor` holds the scene's strength, None where the effect
    does that itself. `chosen` are the channels picked for this scene, see `objectives.aimer`.
    """

    time: Fraction
    image: Image
    delta: Delta
    age: Mask
    governor: Governor | None
    chosen: Mapping[str, Tensor] = field(default_factory=dict)

    def moved(self, seconds: Fraction) -> State:
        """The same, so much later."""
        governor = self.governor and self.governor.moved(seconds)
        return replace(self, time=self.time + seconds, governor=governor)


States = tuple[State | None, ...]
"""One for each effect; None where it took no part."""

Settle = Callable[[Frame, States], States]
"""Has the last word on a frame's states: what it gives is shown, and carried on.

A flash is forgotten as ever where it gives back the very states that it was given.
"""


@dataclass(frozen=True)
class Point:
    """All that a run needs to go on behind a frame as if it had never stopped.

    `number` is that of the frame's view, `image` (3, h, w) the frame at work size, `small` its
    grey copy, `shape` that of its pixels; `past` the states by the numbers of their views, the
    frame's own among them; `kept` the earlier pictures that may be looked back to; `measured`
    what the mask goes on from.
    """

    number: int
    image: Image
    small: Small
    shape: tuple[int, ...]
    past: dict[int, States]
    kept: tuple[Kept, ...]
    measured: Measured | None = None


@dataclass(frozen=True)
class Step:
    """A redrawn `frame`, the frame of the `source` it was, and the `point` behind it.

    Behind a flash there is none. `begins`: a shot does, and nothing of what was before went in.
    """

    frame: Frame
    source: Frame
    point: Point | None
    begins: bool


@dataclass(frozen=True)
class Carried:
    """What reaches a frame from the one before: a faded `delta` and the `age` it has.

    `trust` (1, h, w) says where it can be believed, None where a scene starts; so does
    `governor`, which is also None where the effect holds its strength itself. `uncovered` is the
    share of the picture that nothing could be carried to, `elapsed` the time since then in seconds.
    `time` is the frame's, `chosen` as in State.
    """

    delta: Delta
    age: Mask
    governor: Governor | None = None
    uncovered: float = 1.0
    trust: Mask | None = None
    elapsed: float = 0.0
    time: Fraction = Fraction(0)
    chosen: Mapping[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Effect(Protocol):
    """Redraws an image, going on from what was carried."""

    @property
    def replaces(self) -> bool:
        """Whether its result is a picture of its own, in place of the source: a painting.

        Then it is the picture that is carried, and it does not fade. If not, its result is a
        change of the source, and that is carried: a dream.
        """
        ...

    def takes_part(self, options: Look) -> bool:
        """Whether it redraws a frame with these options at all."""
        ...

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        """What was carried, with what is chosen for all of a scene where one starts."""
        ...

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """Yield after every step of what was prepared; the last picture is the result."""
        ...

    def response(
        self, image: Image, result: Image, options: Look, carried: Carried
    ) -> Scalar | None:
        """How much of the effect `result` shows on top of `image`, in bits.

        None if nobody has to hold its strength.
        """
        ...

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        """Full-size pixels (H, W, 3) with its result on them, at work size `image + delta`."""
        ...


Begin = Callable[[Image, Look, int], None]
"""Begins with a frame: its image at work size, its options, its index."""


@runtime_checkable
class Early(Protocol):
    """An effect that can begin with frames before it is known what is carried to them."""

    def beginning(self, device: torch.device | str) -> AbstractContextManager[Begin | None]:
        """While this is open, what begins with a frame; None if it would not help.

        Frames are begun in their order, by a thread that is not the effect's. The effect redraws
        the same with and without.
        """
        ...


def redraw(
    frames: Iterable[Frame],
    options: Options,
    effect: Effect | Sequence[Effect],
    motion: Motion,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    waiting: Callable[[], None] | None = None,
    drive: Drive = undriven,
    settle: Settle | None = None,
    masks: Masks | None = None,
) -> Generator[Frame, None, None]:
    """Redraw every frame with `effect`, on top of the last result carried along by `motion`.

    Of several effects each goes on from what the one before made of the frame. Frames are read,
    and motion is found, by a thread of its own while the effect is at work: neither `frames` nor
    `motion` may be used, nor closed, elsewhere before the generator has ended or has been closed.
    `watch` is called with the frame and the unfinished picture after every step, `waiting` now
    and then while no frame comes; what they raise ends it. `drive` moves options at each frame.
    `masks` say where (None: those of the options); they are closed in the end.
    Raises ModelError where a result is not finite.
    """
    with closing(
        steps(frames, options, effect, motion, device, watch, waiting, drive, settle, masks)
    ) as made:
        for step in made:
            yield step.frame


def steps(
    frames: Iterable[Frame],
    options: Options,
    effect: Effect | Sequence[Effect],
    motion: Motion,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
    waiting: Callable[[], None] | None = None,
    drive: Drive = undriven,
    settle: Settle | None = None,
    masks: Masks | None = None,
    point: Point | None = None,
) -> Generator[Step, None, None]:
    """As `redraw`, with every frame the point behind it.

    From such a `point` it goes on with the `frames` that follow, bit for bit as if it had made
    those before as well.
    """
    effects = (effect,) if isinstance(effect, Effect) else tuple(effect)
    past: dict[int, States] = {} if point is None else dict(point.past)
    states = (None,) * len(effects) if point is None else past[point.number]
    masks = masks or Masks.of(options)
    early = effects[0] if len(effects) == 1 and isinstance(effects[0], Early) else None
    with ExitStack() as stack:
        begin = None if early is None else stack.enter_context(early.beginning(device))
        seen = ahead(views(frames, options, motion, drive, masks, point, begin), waiting=waiting)
        for view in stack.enter_context(closing(seen)):
            frame, image = view.frame, view.image.to(device)
            now = drive(options.at(Moment(frame.time, frame.index)), frame)
            found: list[State | None] = []
            for each, state in zip(effects, states, strict=True):
                if not each.takes_part(now):
                    found.append(None)
                    continue
                how = now.memory, each.replaces
                carried = carry(state, image, frame.time, view.movement, *how)
                for older in view.older:
                    then = past[older.number][len(found)]
                    if then is not None:
                        again = carry(then, image, frame.time, older.movement, *how)
                        carried = joined(carried, again)
                carried = each.prepared(image, carried, now)
                picture: Picture = (image + carried.delta).clamp(0, 1).clone
                for picture in each(image, carried, now, frame.index):
                    if watch is not None:
                        watch(frame, picture)
                after = advance(carried, image, picture(), frame.time, each, now)
                if not torch.isfinite(after.delta).all():
                    cure = "use --precision fp32 or a smaller --step-size"
                    raise ModelError("dream", f"frame {frame.index} came out as no numbers", cure)
                found.append(after)
                image = image + after.delta
            unsettled = tuple(found)
            shown = unsettled if settle is None else settle(frame, unsettled)
            states = states if view.flash and shown is unsettled else shown
            past = {number: kept for number, kept in past.items() if number >= view.oldest}
            past[view.number] = states
            pixels = frame.pixels
            for each, after in zip(effects, shown, strict=True):
                if after is not None:
                    pixels = each.laid_on(pixels, after.image, after.delta, now)
            if view.opacity is not None:
                pixels = laid(frame.pixels, pixels, view.opacity)
            seen_so = view.image, small_of(frame), frame.pixels.shape
            kept = past, view.kept, view.measured
            behind = None if view.flash else Point(view.number, *seen_so, *kept)
            yield Step(arranged(frame, pixels, now.view), frame, behind, view.begins)


def views(
    frames: Iterable[Frame],
    options: Options,
    motion: Motion,
    drive: Drive = undriven,
    masks: Masks | None = None,
    point: Point | None = None,
    begin: Begin | None = None,
) -> Iterator[View]:
    """What each frame shows, how it moved since the one before in its shot, and where to redraw.

    The first may follow on the frame of a `point`. `begin` is called with each frame before its
    movement is looked for.

    Frames of another size are another shot; another size to dream at is not. Closes `masks`.
    """
    with closing(masks) if masks is not None else nullcontext():
        yield from _views(frames, options, motion, drive, masks, point, begin)


def _views(
    frames: Iterable[Frame],
    options: Options,
    motion: Motion,
    drive: Drive,
    masks: Masks | None,
    point: Point | None,
    begin: Begin | None,
) -> Iterator[View]:
    before = None if point is None else point.image
    measured = None if point is None else point.measured
    size = () if point is None else point.shape
    back = Lookback(motion, () if point is None else point.kept)
    told = shots(frames, small_of, None if point is None else point.small)
    for number, (frame, turn) in enumerate(told, 0 if point is None else point.number + 1):
        begins = turn is Turn.BEGINS or frame.pixels.shape != size
        if begins:
            before, size = None, frame.pixels.shape
        now = drive(options.at(Moment(frame.time, frame.index)), frame)
        image = to_image(frame.pixels, work_size(frame.pixels.shape[:2], now.lines))
        if begin is not None:
            begin(image, now, frame.index)
        oldest = number if back.oldest is None else back.oldest
        movement = None
        follows = now.memory > 0 or (masks is not None and masks.follows)
        if turn is Turn.FLASH and before is not None:
            # The mask stays where it was, as the dream does.
            opacity = masks and masks.opacity(measured, frame.time, frame.pixels.shape[:2], now)
            movement = still(image) if now.memory > 0 else None
            where = opacity, measured
            yield View(frame, image, movement, number, (), oldest, (), False, True, *where)
            continue
        if before is not None and follows:
            movement = motion.between(image, resize(before, (image.shape[-2], image.shape[-1])))
        opacity = None
        if masks is not None:
            measured = masks.measured(image, movement, frame.time, measured, now)
            opacity = masks.opacity(measured, frame.time, frame.pixels.shape[:2], now)
        if now.memory == 0:
            movement = None
        older = back(number, frame.time, image, movement, now.recall)
        oldest = number if back.oldest is None else back.oldest
        where = opacity, measured
        kept = back.kept
        yield View(frame, image, movement, number, older, oldest, kept, begins, False, *where)
        before = image


def carry(
    state: State | None,
    image: Image,
    time: Fraction,
    movement: Movement | None,
    memory: float,
    replaces: bool = False,
) -> Carried:
    """Carry the last result to where its things are now, and let it fade.

    The governor says how much of a change stays, but it fades at least by exp(-dt / `memory`):
    with time, not with frames. A picture that `replaces` the source stays as it is. A state of
    another work size is brought to this one's.
    """
    if state is None or movement is None or movement.cut:
        return Carried(torch.zeros_like(image), torch.zeros_like(image[:1]), time=time)
    if state.image.shape != image.shape:
        state = resized(state, (image.shape[-2], image.shape[-1]))
    flow, trust = movement.flow.to(image.device), movement.trust.to(image.device)
    age = warp(state.age, flow, sharp=False) * trust
    uncovered = 1 - float(movement.trust.mean())
    elapsed = float(time - state.time)
    if replaces:
        picture = warp(state.image + state.delta, flow)
        return Carried((picture - image) * trust, age, state.governor, uncovered, trust, elapsed)
    most = math.exp(-elapsed / memory)
    keep: Scalar | float = most
    if state.governor is not None:
        keep = state.governor.keep(image, state.delta).clamp_max(most)
    delta = warp(state.delta, flow) * (trust * keep)
    known = time, state.chosen
    return Carried(delta, age, state.governor, uncovered, trust, elapsed, *known)


def joined(carried: Carried, again: Carried) -> Carried:
    """What reaches a frame from the one before and, where that knows nothing, from an older one."""
    if carried.trust is None or again.trust is None:
        return carried
    share = again.trust.minimum(1 - carried.trust) / again.trust.clamp_min(1e-6)
    trust = carried.trust + again.trust * share
    return replace(
        carried,
        delta=carried.delta + again.delta * share,
        age=carried.age + again.age * share,
        uncovered=1 - float(trust.mean()),
        trust=trust,
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
        response = effect.response(image, result, options, carried)
        if response is not None:
            governor = Governor.begin(image, delta, response, age.mean(), time)
        return State(time, image, delta, age, governor, carried.chosen)
    age = carried.age + 1
    governor = governor.after(image, carried.delta, delta)
    if governor.due(time):
        response = effect.response(image, result, options, carried)
        if response is not None:
            governor = governor.looked(time, response, age.mean())
    return State(time, image, delta, age, governor, carried.chosen)


def resized(state: State, size: Size) -> State:
    """A state at another work size (h, w)."""
    return replace(
        state,
        image=resize(state.image, size),
        delta=resize(state.delta, size),
        age=resize(state.age, size).clamp(0),
    )
