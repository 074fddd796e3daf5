"""The dream beside the display: a thread that redraws on from where the stage says, step by step.

The stage hands it a `Job` whenever it is idle, and shows what is `ready`, carried along by what
moved since the job's frame.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from threading import Condition, Event, Thread, get_native_id

import numpy as np
import torch

from streamdream.effects import effects_of
from streamdream.errors import Error, ModelError
from streamdream.frame import Delta, Image, resize
from streamdream.live.chains import Chains, Key, Load, Names, names_of
from streamdream.live.layers import layer_of
from streamdream.live.options import LiveOptions
from streamdream.motion import Movement, OpticalFlow, Vectors
from streamdream.pipeline import Effect, State, States, advance, carry

EARLY = 0.25  # seconds after which an unfinished dream is shown
LEAST_KEPT = 0.85  # of a dream when the next one begins, however long the last one took
FADED = 0.8  # of the old look that a job of the new one keeps
MOST_FILLED = 0.13  # of a picture that extra steps are made for: one an octave
GROWS, BOLDEST = 4.0, 2.0  # seconds that a scene grows for; how much larger steps may get for it
LOWEST = 0.25  # of the wanted size, however little memory there is
FORGIVES = 600.0  # seconds after which a larger size is tried again; each time twice as many
REST = 2.0  # seconds after a fault
NICE = 5  # the display goes first

Tell = Callable[[str], None]
Parts = list[tuple[Effect, Image, Delta]]


@dataclass(frozen=True)
class Past:
    """What one job hands to the next, of the picture `image` (3, h, w) at `time`.

    `states` are those of the effects that `key` stands for, after painting like `styles`;
    `growth` how many jobs in a row a dream took part in.
    """

    image: Image
    time: Fraction
    states: States
    key: Key
    styles: Names
    growth: int


@dataclass(frozen=True)
class Job:
    """What to redraw: `image` (3, h, w) of a frame at `time`, on from a `past`.

    `moved` is about how the frame moved since then, and good as it is if that is `near`; None, or
    no past, begins anew. A dreamed scene grows over as many jobs as its first frame would get
    steps, so that it is seen at once and follows what moves: `growth` is how many it had, each
    `bold` times as strong. `fades`: its look was changed, so what is carried gives way while it
    grows. What is lined up `follows` a job by its index, and takes its past from that.
    """

    image: Image
    time: Fraction
    index: int
    options: LiveOptions
    past: Past | None = None
    moved: Movement | None = None
    near: bool = False
    growth: int = 0
    bold: float = 1.0
    fades: bool = False
    follows: int = 0

    @property
    def growing(self) -> bool:
        """Whether the scene has not yet all the dream that it shall have."""
        return self.options.memory > 0 and self.growth < self.options.steps / self.bold


@dataclass(frozen=True)
class Ready:
    """What a job made, as a `layer` (h, w, c), see `layers`.

    `past` is given with the finished one, and says how to go on.
    """

    job: Job
    layer: Vectors
    past: Past | None


class Dreamer:
    """Does one job at a time, in a thread of its own; never more than one is waiting."""

    def __init__(
        self, options: LiveOptions, device: torch.device, tell: Tell, load: Load = effects_of
    ) -> None:
        """Load the networks; raises Error if that cannot be."""
        self.device = device
        self.steps = self.dreams = self.faults = 0
        self.ceiling = 1.0  # part of the wanted size that there was memory for
        self.each = 0.0  # seconds a finished dream took lately
        self._starved, self._forgives = 0.0, FORGIVES / 2
        self._tell = tell
        self._told: dict[str, float] = {}
        self._chains = Chains(device, tell, load)
        self._chains.of(options)
        self._flow: tuple[str, OpticalFlow] | None = None
        self._job: Job | None = None
        self._next: Job | None = None
        self._busy, self._doing = False, 0
        self._ready: deque[Ready] = deque(maxlen=64)
        self._changed = Condition()
        self._dropping = Event()
        self._ending = False
        self._thread = Thread(target=self._work, name="streamdream-dream", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it can still dream; if not, only a new process can."""
        return self._thread.is_alive()

    @property
    def idle(self) -> bool:
        """Whether a job would be begun at once."""
        return not self._busy

    @property
    def doing(self) -> int:
        """The index of the job that was begun last."""
        return self._doing

    def offer(self, job: Job) -> bool:
        """Give it something to dream, if it is idle."""
        with self._changed:
            if self._busy:
                return False
            self._dropping.clear()
            self._busy, self._job, self._doing = True, job, job.index
            self._changed.notify()
        return True

    def line_up(self, job: Job) -> bool:
        """Let a job follow the one that is being done, from what that leaves as its past.

        It takes the place of one that waits already; false if it came too late.
        """
        with self._changed:
            if self._doing != job.follows or not self._busy:
                return False
            self._next = job
        return True

    def ready(self) -> list[Ready]:
        """What was dreamed since the last call, oldest first."""
        found = []
        while self._ready:
            found.append(self._ready.popleft())
        return found

    def drop(self) -> None:
        """Nobody wants what is being dreamed: the scene is over."""
        with self._changed:
            self._dropping.set()
            self._next = None
        self._ready.clear()

    def close(self, seconds: float = 10.0) -> None:
        """End after the step that is being made."""
        self._dropping.set()
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(seconds)

    def _work(self) -> None:
        _leave_room(self.device)
        while True:
            with self._changed:
                while self._job is None and not self._ending:
                    self._changed.wait()
                if self._ending:
                    return
                job, self._job = self._job, None
            assert job is not None
            past: Past | None = None
            try:
                past = self._redraw(job)
            except Exception as fault:  # the picture goes on, whatever it is
                self._mend(fault, job)
            finally:
                with self._changed:
                    following, self._next = self._next, None
                    if following is None or past is None:
                        self._busy = False
                    else:
                        self._doing = following.index
                        self._job = replace(following, past=past, growth=past.growth)

    def _redraw(self, job: Job) -> Past | None:
        """Do a job, with the last style that worked if there is none like the one asked for."""
        options = self._chains.usable(job.options)
        try:
            past = self._dream(replace(job, options=options))
            self._chains.worked(options)
        except Exception as fault:
            if _is_starved(fault):
                raise
            if _is_no_number(fault) and self._chains.exact(options):
                raise
            if not self._chains.refuse(options, fault):
                raise
            past = self._dream(replace(job, options=self._chains.usable(options)))
        return past

    def _dream(self, job: Job) -> Past | None:
        began = self._shown = time.monotonic()
        options, image = job.options, job.image.to(self.device)
        key, effects = self._chains.of(options)
        styles = names_of(options)
        states = _states(job.past, key, styles, effects)
        movement = self._movement(job, image, effects) if any(states) else None
        taking = [effect for effect in effects if effect.takes_part(options)]
        parts: Parts = []
        found: list[State | None] = []
        growth, seen = 0, image
        for effect, state in zip(effects, states, strict=True):
            if effect not in taking:
                found.append(None)
                continue
            if not effect.replaces:
                now = job if state is not None else replace(job, growth=0, fades=False)
                growth = now.growth + 1
            else:
                now = job
            after = self._advanced(now, effect, state, seen, movement, parts, effect is taking[-1])
            if after is None:
                return None
            found.append(after)
            parts.append((effect, seen, after.delta))
            seen = seen + after.delta
        layer = layer_of(parts, (image.shape[-2], image.shape[-1]), options)
        past = Past(image, job.time, tuple(found), key, styles, growth)
        self._ready.append(Ready(job, layer, past))
        self.dreams += 1
        if self.ceiling < 1 and time.monotonic() - self._starved > self._forgives:
            self.ceiling, self._starved = min(1.0, self.ceiling / 0.75), time.monotonic()
        took = time.monotonic() - began
        self.each = took if self.each == 0 else self.each + 0.2 * (took - self.each)
        return past

    def _advanced(
        self,
        job: Job,
        effect: Effect,
        state: State | None,
        image: Image,
        movement: Movement | None,
        parts: Parts,
        last: bool,
    ) -> State | None:
        """One effect's state after a job, None if nobody wants it any more.

        Only a dream grows, step by step; a painting is there as a whole, and does not fade.
        """
        options = job.options
        memory = options.memory
        if state is not None and memory > 0:
            # However rarely this machine dreams, one dream does not pale before the next.
            passed = float(job.time - state.time)
            memory = max(memory, -passed / float(np.log(LEAST_KEPT)))
        carried = carry(state, image, job.time, movement, memory, effect.replaces)
        if not effect.replaces and job.growing:
            kept = FADED if job.fades else 1.0
            carried = replace(carried, delta=carried.delta * kept, governor=None)
            step_size = min(64.0, options.step_size * job.bold)
            options = options.model_copy(update={"steps": 1, "step_size": step_size})
        elif carried.governor is not None:
            # New places get their dream from the next jobs, which come the sooner.
            carried = replace(carried, uncovered=min(carried.uncovered, MOST_FILLED))
        carried = effect.prepared(image, carried, options)
        picture = (image + carried.delta).clamp(0, 1).clone
        for picture in effect(image, carried, options, job.index):
            self.steps += 1
            if self._dropping.is_set():
                return None
            now = time.monotonic()
            if last and now - self._shown > EARLY:
                self._shown = now
                unfinished = _finite(picture() - image)
                size = image.shape[-2], image.shape[-1]
                layer = layer_of([*parts, (effect, image, unfinished)], size, options)
                self._ready.append(Ready(job, layer, None))
        after = advance(carried, image, picture(), job.time, effect, options)
        _finite(after.delta)
        return None if self._dropping.is_set() else after

    def _movement(self, job: Job, image: Image, effects: Sequence[Effect]) -> Movement | None:
        """The movement since the job's past, None where nothing is carried over."""
        past = job.past
        if past is None or job.moved is None or job.options.memory <= 0:
            return None
        if job.near and effects[0].replaces:
            return job.moved
        # Measured anew over all that time: trust composed step by step only dwindles.
        before = resize(past.image, (image.shape[-2], image.shape[-1]))
        return self._motion(job.options.flow).between(image, before, job.moved.flow)

    def bold(self, jobs: int) -> float:
        """How much larger steps have to be for a scene to grow in time on a slow machine."""
        return max(1.0, min(BOLDEST, jobs * self.each / GROWS))

    def _motion(self, name: str) -> OpticalFlow:
        if self._flow is None or self._flow[0] != name:
            self._flow = name, OpticalFlow(name)
        return self._flow[1]

    def _mend(self, fault: Exception, job: Job) -> None:
        """Say what went wrong, once a minute, and make it less likely to come again."""
        self.faults += 1
        text = str(fault) if isinstance(fault, Error) else f"{type(fault).__name__}: {fault}"
        starved = _is_starved(fault)
        if starved:
            self.ceiling = max(LOWEST, self.ceiling * 0.75)
            self._starved = time.monotonic()
            self._forgives = min(86400.0, self._forgives * 2)
            text = f"not enough memory; dreaming at {self.ceiling:.0%} of the size"
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        elif _is_no_number(fault):
            text = "the dream came out as no numbers; begun anew in fp32"
        now = time.monotonic()
        self._told = {told: at for told, at in self._told.items() if now - at < 60}
        if text not in self._told:
            self._told[text] = now
            self._tell(f"{'style' if job.options.style else 'dream'}: {text}")
        self._ready.clear()
        # The stage goes on from the last finished state, which may be the reason.
        self._ready.append(Ready(replace(job, past=None), np.zeros((0, 0, 3), np.float32), None))
        with self._changed:
            if not self._ending:
                self._changed.wait(REST if not starved else 0.1)


def _states(past: Past | None, key: Key, styles: Names, effects: Sequence[Effect]) -> States:
    """The states that effects go on from: those of the same ones.

    Another style begins anew, or it would paint over the last one; a blend with it does not.
    """
    nothing: States = (None,) * len(effects)
    if past is None or not (past.key == key or past.key.paints_as(key)):
        return nothing
    painted = past.states[:1] if not styles or styles & past.styles else nothing[:1]
    return painted + (past.states[1:] if past.key == key else nothing[1:])


def _finite(delta: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(delta).all():
        raise ModelError("dream", "came out as no numbers")
    return delta


def _is_no_number(fault: Exception) -> bool:
    return isinstance(fault, ModelError) and "no numbers" in str(fault)


def _is_starved(fault: Exception) -> bool:
    """Whether it is memory that was missing."""
    return isinstance(fault, MemoryError | torch.OutOfMemoryError) or (
        type(fault) is RuntimeError and "allocate memory" in str(fault)
    )


def _leave_room(device: torch.device) -> None:
    """Let the display go before the dream where both want the processor."""
    cores = os.cpu_count() or 1
    if device.type == "cpu":
        torch.set_num_threads(max(1, cores - 1))
    if sys.platform == "linux":
        me = get_native_id()  # on Linux that is for this thread only
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, max(NICE, os.getpriority(os.PRIO_PROCESS, me)))
