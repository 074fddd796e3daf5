"""The dream beside the display: a thread that dreams on from where the stage says, step by step.

The stage hands it a `Job` whenever it is idle, and shows what is `ready`, carried along by what
moved since the job's frame.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from threading import Condition, Event, Thread, get_native_id

import numpy as np
import torch

from streamdream import backbone
from streamdream.dream import Dream
from streamdream.errors import Error, ModelError
from streamdream.frame import Flow, Image, interleaved
from streamdream.live.options import LiveOptions
from streamdream.motion import Colours, OpticalFlow
from streamdream.pipeline import Effect, State, advance, carry, resized

EARLY = 0.25  # seconds after which an unfinished dream is shown
LEAST_KEPT = 0.85  # of a dream when the next one begins, however long the last one took
FADED = 0.8  # of the old look that a job of the new one keeps
MOST_FILLED = 0.13  # of a picture that extra steps are made for: one an octave
GROWS, BOLDEST = 4.0, 2.0  # seconds that a scene grows for; how much larger steps may get for it
KEPT_MODELS = 2
LOWEST = 0.25  # of the wanted size, however little memory there is
FORGIVES = 600.0  # seconds after which a larger size is tried again; each time twice as many
REST = 2.0  # seconds after a fault
NICE = 5  # the display goes first

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What to dream: `image` (3, h, w) of a frame at `time`, on from `state`.

    `start` (2, h, w) is about how the frame moved since the state's; None, or no state, begins
    anew. A scene grows over as many jobs as its first frame would get steps, so that it is seen
    at once and follows what moves: `growth` is how many it had, each `bold` times as strong.
    `fades`: its look was changed, so what is carried gives way while it grows.
    """

    image: Image
    time: Fraction
    index: int
    options: LiveOptions
    state: State | None = None
    start: Flow | None = None
    growth: int = 0
    bold: float = 1.0
    fades: bool = False

    @property
    def growing(self) -> bool:
        """Whether the scene has not yet all the dream that it shall have."""
        return self.options.memory > 0 and self.growth < self.options.steps / self.bold


@dataclass(frozen=True)
class Ready:
    """A dream of a job, as a change `delta` (h, w, 3) to its frame.

    `state` is given with the finished one, and says how to go on.
    """

    job: Job
    delta: Colours
    state: State | None


class Dreamer:
    """Dreams one job at a time, in a thread of its own; never more than one is waiting."""

    def __init__(self, options: LiveOptions, device: torch.device, tell: Tell) -> None:
        """Load the network; raises ModelError if that cannot be."""
        self.device = device
        self.steps = self.dreams = self.faults = 0
        self.ceiling = 1.0  # part of the wanted size that there was memory for
        self.each = 0.0  # seconds a finished dream took lately
        self._starved, self._forgives = 0.0, FORGIVES / 2
        self._tell = tell
        self._told: dict[str, float] = {}
        self._precision: dict[str, str] = {}
        self._effects: dict[str, Effect] = {}
        self._effects[options.model] = self._loaded(options.model, options.precision)
        self._flow: tuple[str, OpticalFlow] | None = None
        self._job: Job | None = None
        self._busy = False
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

    def offer(self, job: Job) -> bool:
        """Give it something to dream, if it is idle."""
        with self._changed:
            if self._busy:
                return False
            self._dropping.clear()
            self._busy, self._job = True, job
            self._changed.notify()
        return True

    def ready(self) -> list[Ready]:
        """What was dreamed since the last call, oldest first."""
        found = []
        while self._ready:
            found.append(self._ready.popleft())
        return found

    def drop(self) -> None:
        """Nobody wants what is being dreamed: the scene is over."""
        self._dropping.set()
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
            try:
                self._dream(job)
            except Exception as fault:  # the picture goes on, whatever it is
                self._mend(fault, job)
            finally:
                with self._changed:
                    self._busy = False

    def _dream(self, job: Job) -> None:
        began = shown = time.monotonic()
        effect = self._effect(job.options)
        image = job.image.to(self.device)
        state, options = job.state, job.options
        if state is not None and state.image.shape != image.shape:
            state = resized(state, (image.shape[-2], image.shape[-1]))
        memory = options.memory
        if state is not None and memory > 0:
            # However rarely this machine dreams, one dream does not pale before the next.
            passed = float(job.time - state.time)
            memory = max(memory, -passed / float(np.log(LEAST_KEPT)))
        movement = None
        if state is not None and job.start is not None and memory > 0:
            # Measured anew over all that time: trust composed step by step only dwindles.
            movement = self._motion(options.flow).between(image, state.image, job.start)
        carried = carry(state, image, job.time, movement, memory)
        if job.growing:
            kept = FADED if job.fades else 1.0
            carried = replace(carried, delta=carried.delta * kept, governor=None)
            step_size = min(64.0, options.step_size * job.bold)
            options = options.model_copy(update={"steps": 1, "step_size": step_size})
        elif carried.governor is not None:
            # New places get their dream from the next jobs, which come the sooner.
            carried = replace(carried, uncovered=min(carried.uncovered, MOST_FILLED))
        picture = (image + carried.delta).clamp(0, 1).clone
        for picture in effect(image, carried, options, job.index):
            self.steps += 1
            if self._dropping.is_set():
                return
            now = time.monotonic()
            if now - shown > EARLY:
                shown = now
                self._publish(job, picture() - image, None)
        state = advance(carried, image, picture(), job.time, effect, options)
        if not torch.isfinite(state.delta).all():
            raise ModelError("dream", "came out as no numbers")
        if self._dropping.is_set():
            return
        self._publish(job, state.delta, state)
        self.dreams += 1
        if self.ceiling < 1 and time.monotonic() - self._starved > self._forgives:
            self.ceiling, self._starved = min(1.0, self.ceiling / 0.75), time.monotonic()
        took = time.monotonic() - began
        self.each = took if self.each == 0 else self.each + 0.2 * (took - self.each)

    def bold(self, jobs: int) -> float:
        """How much larger steps have to be for a scene to grow in time on a slow machine."""
        return max(1.0, min(BOLDEST, jobs * self.each / GROWS))

    def _motion(self, name: str) -> OpticalFlow:
        if self._flow is None or self._flow[0] != name:
            self._flow = name, OpticalFlow(name)
        return self._flow[1]

    def _publish(self, job: Job, delta: torch.Tensor, state: State | None) -> None:
        found = interleaved(delta)
        if state is None and not np.isfinite(found).all():
            raise ModelError("dream", "came out as no numbers")
        self._ready.append(Ready(job, found, state))

    def _effect(self, options: LiveOptions) -> Effect:
        name = options.model
        if name not in self._effects:
            self._effects[name] = self._loaded(name, options.precision)
            while len(self._effects) > KEPT_MODELS:
                del self._effects[next(iter(self._effects))]
        return self._effects[name]

    def _loaded(self, name: str, asked: str) -> Effect:
        precision = self._precision.get(name) or backbone.choose_precision(asked, name, self.device)
        return Dream(backbone.load(name, self.device, backbone.PRECISIONS[precision]))

    def _mend(self, fault: Exception, job: Job) -> None:
        """Say what went wrong, once a minute, and make it less likely to come again."""
        self.faults += 1
        text = str(fault) if isinstance(fault, Error) else f"{type(fault).__name__}: {fault}"
        starved = isinstance(fault, MemoryError | torch.OutOfMemoryError) or (
            type(fault) is RuntimeError and "allocate memory" in text
        )
        if starved:
            self.ceiling = max(LOWEST, self.ceiling * 0.75)
            self._starved = time.monotonic()
            self._forgives = min(86400.0, self._forgives * 2)
            text = f"not enough memory; dreaming at {self.ceiling:.0%} of the size"
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        elif isinstance(fault, ModelError) and "no numbers" in text:
            self._precision[job.options.model] = "fp32"
            self._effects.pop(job.options.model, None)
            text = "the dream came out as no numbers; begun anew in fp32"
        now = time.monotonic()
        self._told = {told: at for told, at in self._told.items() if now - at < 60}
        if text not in self._told:
            self._told[text] = now
            self._tell(f"dream: {text}")
        self._ready.clear()
        # The stage goes on from the last finished state, which may be the reason.
        self._ready.append(Ready(replace(job, state=None), np.zeros((0, 0, 3), np.float32), None))
        with self._changed:
            if not self._ending:
                self._changed.wait(REST if not starved else 0.1)


def _leave_room(device: torch.device) -> None:
    """Let the display go before the dream where both want the processor."""
    cores = os.cpu_count() or 1
    if device.type == "cpu":
        torch.set_num_threads(max(1, cores - 1))
    if sys.platform == "linux":
        me = get_native_id()  # on Linux that is for this thread only
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, me, max(NICE, os.getpriority(os.PRIO_PROCESS, me)))
