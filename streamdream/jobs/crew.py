"""A crew of workers: shares are handed out to them, and again if one of them ends before.

Workers are processes of this machine, or of others: see `cluster`. The crew takes shares as they
are found, so the first are rendered while the film is still looked through. In which order they
are done makes no difference: their segments lie in the job's folder.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import IO, Protocol, cast

import torch

import streamdream
from streamdream import errors
from streamdream.errors import ModelError
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.messages import Done, Far, Fault, Message, Ready, Unfit, Work
from streamdream.jobs.rendering import Share, missing

TRIES = 3  # of a share, before it is taken for the share's fault that workers end
LOOK = 0.2  # seconds between two looks at whether somebody wants to stop
EARLY = 4  # shares that may wait to be handed out
SEARCHER = "streamdream-search"
LEAVE = 10.0  # seconds that a worker may take to end


Search = Callable[[Callable[[], bool]], Generator[Share, None, None]]
"""Finds shares, until what it is given says that it is to stop."""


class Hand(Protocol):
    """A worker, and the share that it has, with how many frames of it are done.

    Only one that is `ready` gets shares. `end` tells how it has ended, once it has.
    """

    share: Share | None
    frames: int
    ready: bool
    end: str

    def give(self, order: Share) -> None:
        """Have it render a share; one that has ended will be told by its silence."""
        ...

    def dismiss(self) -> None:
        """Give no more orders, whereupon it ends."""
        ...

    def leave(self) -> None:
        """See that it has ended."""
        ...


Hear = Callable[[Hand, Message | None], None]  # what a worker says; None: it has ended


class Staff(Protocol):
    """Where workers come from; `flag` is the option by which, `cure` helps where they end."""

    flag: str
    cure: str

    def hire(self, hear: Hear) -> Hand | None:
        """One more worker, None if there is no place for it now; raises errors.Error."""
        ...


@dataclass(eq=False)
class _Process:
    """A worker on this machine, the `number` of those that there are."""

    process: subprocess.Popen[bytes]
    number: int
    share: Share | None = None
    frames: int = 0
    ready: bool = True  # what it is given before waits for it
    end: str = ""

    def give(self, order: Work | Share) -> None:
        """Send an order; one that has ended will be told by its silence."""
        stream = cast(IO[bytes], self.process.stdin)
        with suppress(OSError):
            pickle.dump(order, stream)
            stream.flush()

    def dismiss(self) -> None:
        """Give no more orders, whereupon it ends."""
        with suppress(OSError):
            cast(IO[bytes], self.process.stdin).close()

    def leave(self) -> None:
        """See that it has ended."""
        self.dismiss()
        try:
            self.process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.end = f"a worker ended (exit code {self.process.returncode})"
        cast(IO[bytes], self.process.stdout).close()


class Processes:
    """At most so many workers on this machine."""

    flag = "--workers"
    cure = "use fewer --workers if memory is short"

    def __init__(self, work: Work, workers: int) -> None:
        """For this work; none has begun yet."""
        self._work, self._workers = work, workers
        self._hired: list[_Process] = []

    def hire(self, hear: Hear) -> Hand | None:
        """One more, None if all have begun."""
        self._hired = [hand for hand in self._hired if not hand.end]
        taken = {hand.number for hand in self._hired}
        # Who comes for another one that has ended gets that one's GPU.
        number = next((n for n in range(self._workers) if n not in taken), None)
        if number is None:
            return None
        process = subprocess.Popen(
            [sys.executable, "-m", "streamdream.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(number),
            start_new_session=True,  # Ctrl-C is for us, who tell them
        )
        hand = _Process(process, number)
        self._hired.append(hand)
        Thread(target=_listen, args=(hand, hear), daemon=True).start()
        hand.give(self._work)
        return hand


@dataclass(frozen=True)
class _Found:
    """A share that was found; None: that was all, or a fault ended the search."""

    share: Share | None
    fault: BaseException | None = None


@dataclass(frozen=True)
class _Told:
    """What a worker says; None: it has ended."""

    hand: Hand
    message: Message | None


@dataclass
class Crew:
    """Workers, and what they have done; a context manager that ends them."""

    staff: Staff
    folder: JobFolder
    notice: Callable[[str], None]
    frames: int = 0  # done of the shares handed out so far
    _hands: list[Hand] = field(default_factory=list)
    _heard: Queue[_Found | _Told] = field(default_factory=Queue)
    _waiting: deque[Share] = field(default_factory=deque)
    _tried: Counter[int] = field(default_factory=Counter)

    def render(self, shares: Search, step: Callable[[int], None]) -> None:
        """Render all shares; those that are there already are not touched.

        `step` is told now and then how many frames are done, and may raise Stopped. Raises what
        ends the search for shares, and an Error that a worker met.
        """
        asking, stopping = Queue[bool](), Event()
        found = shares(stopping.is_set)
        how = found, asking, self._heard
        searcher = Thread(target=_search, args=how, name=SEARCHER, daemon=True)
        searcher.start()
        searching, asked = True, 0
        try:
            while searching or self._waiting or any(h.share for h in self._hands):
                while searching and asked + len(self._waiting) < EARLY:
                    asking.put(True)
                    asked += 1
                self._hand_out()
                step(self.frames + sum(hand.frames for hand in self._hands))
                with suppress(Empty):
                    heard = self._heard.get(timeout=LOOK)
                    if isinstance(heard, _Told):
                        self._hear(heard.hand, heard.message)
                        continue
                    asked -= 1
                    if heard.fault is not None:
                        raise heard.fault
                    searching = heard.share is not None
                    if heard.share is not None and (rest := missing(self.folder, heard.share)):
                        self._waiting.append(rest)
        finally:
            # What is searched is closed by whoever opened it, once this has returned.
            stopping.set()
            asking.put(False)
            searcher.join()

    def close(self) -> None:
        """End all workers; what they have not finished is made again another time."""
        for hand in self._hands:
            hand.dismiss()
        for hand in self._hands:
            hand.leave()

    def __enter__(self) -> Crew:
        """The crew itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all workers."""
        self.close()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = [hand for hand in self._hands if hand.share is None]
            free = next((hand for hand in idle if hand.ready), None)
            if free is None:
                # No more of them begin than there are shares that wait.
                hired = None
                if len(idle) < len(self._waiting):
                    hired = self.staff.hire(lambda hand, told: self._heard.put(_Told(hand, told)))
                if hired is None:
                    return
                self._hands.append(hired)
                continue
            free.share, free.frames = self._waiting.popleft(), 0
            free.give(free.share)

    def _hear(self, hand: Hand, message: Message | None) -> None:
        if isinstance(message, Ready):
            hand.ready = True
            return
        if isinstance(message, Unfit):
            hand.ready = False
            self.notice(message.reason)
            return
        if isinstance(message, Far):
            hand.frames = message.frames
            return
        if isinstance(message, Fault):
            kind = getattr(errors, message.kind)
            raise kind(message.subject, message.reason, message.cure)
        share, hand.share = hand.share, None
        done = share is not None and missing(self.folder, share)
        if isinstance(message, Done):
            self.frames, hand.frames = self.frames + hand.frames, 0
        else:
            self._hands.remove(hand)
            hand.leave()
        if share is None or not done:
            return
        self._tried[share.begin] += 1
        told = f"{hand.end} before frame {share.end or 'the last'}"
        if self._tried[share.begin] >= TRIES:
            raise ModelError(self.staff.flag, f"{told}, {TRIES} times", self.staff.cure)
        self.notice(f"{told}; what it had not finished is done again")
        self.frames += max(0, done.begin - share.begin)
        self._waiting.appendleft(done)


def _search(
    shares: Generator[Share, None, None], asking: Queue[bool], heard: Queue[_Found | _Told]
) -> None:
    """Find a share whenever asked for one."""
    with closing(shares):
        while asking.get():
            try:
                share = next(shares, None)
            except BaseException as fault:  # told to whoever waits for shares
                heard.put(_Found(None, fault))
                return
            heard.put(_Found(share))
            if share is None:
                return


def _listen(hand: _Process, hear: Hear) -> None:
    stream = cast(IO[bytes], hand.process.stdout)
    try:
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                hear(hand, pickle.load(stream))
    finally:
        hear(hand, None)


def _environment(number: int) -> dict[str, str]:
    """The environment of a worker, which sees one GPU if there are several."""
    environment = dict(os.environ)
    paths = str(Path(streamdream.__file__).parent.parent), environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    count = torch.cuda.device_count()
    if count > 1:
        there = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = there if len(there) == count else [str(i) for i in range(count)]
        environment["CUDA_VISIBLE_DEVICES"] = names[number % count]
    return environment
