"""A crew of workers: shares are handed out to processes, and again if one of them ends before.

It takes shares as they are found, so the first are rendered while the film is still looked
through. In which order they are done makes no difference: their segments lie in the job's folder.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, cast

import torch

import streamdream
from streamdream import errors
from streamdream.errors import ModelError
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.messages import Done, Far, Fault, Message, Work
from streamdream.jobs.rendering import Share, missing

TRIES = 3  # of a share, before it is taken for the share's fault that workers end
LOOK = 0.2  # seconds between two looks at whether somebody wants to stop
EARLY = 4  # shares that may wait to be handed out
LEAVE = 10.0  # seconds that a worker may take to end


@dataclass(eq=False)
class _Hand:
    """A worker, and the share that it has, with how many frames of it are done."""

    process: subprocess.Popen[bytes]
    share: Share | None = None
    frames: int = 0

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
        cast(IO[bytes], self.process.stdout).close()


@dataclass(frozen=True)
class _Found:
    """A share that was found; None: that was all, or a fault ended the search."""

    share: Share | None
    fault: BaseException | None = None


@dataclass(frozen=True)
class _Told:
    """What a worker says; None: it has ended."""

    hand: _Hand
    message: Message | None


@dataclass
class Crew:
    """At most so many workers, and what they have done; a context manager that ends them."""

    work: Work
    workers: int
    folder: JobFolder
    notice: Callable[[str], None]
    frames: int = 0  # done of the shares handed out so far
    _hired: int = 0
    _hands: list[_Hand] = field(default_factory=list)
    _heard: Queue[_Found | _Told] = field(default_factory=Queue)
    _waiting: deque[Share] = field(default_factory=deque)
    _tried: Counter[int] = field(default_factory=Counter)

    def render(self, shares: Iterable[Share], step: Callable[[int], None]) -> None:
        """Render all shares; those that are there already are not touched.

        `step` is told now and then how many frames are done, and may raise Stopped. Raises what
        ends the search for shares, and an Error that a worker met.
        """
        asking = Queue[bool]()
        Thread(target=_search, args=(shares, asking, self._heard), daemon=True).start()
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
            asking.put(False)

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
            free = next((hand for hand in self._hands if hand.share is None), None)
            if free is None and len(self._hands) < self.workers:
                free = self._hire()
            if free is None:
                return
            free.share, free.frames = self._waiting.popleft(), 0
            free.give(free.share)

    def _hire(self) -> _Hand:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamdream.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(self._hired),
            start_new_session=True,  # Ctrl-C is for us, who tell them
        )
        self._hired += 1
        hand = _Hand(process)
        self._hands.append(hand)
        Thread(target=_listen, args=(hand, self._heard), daemon=True).start()
        hand.give(self.work)
        return hand

    def _hear(self, hand: _Hand, message: Message | None) -> None:
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
        code = hand.process.returncode
        told = f"a worker ended (exit code {code}) before frame {share.end or 'the last'}"
        if self._tried[share.begin] >= TRIES:
            cure = "use fewer --workers if memory is short"
            raise ModelError("--workers", f"{told}, {TRIES} times", cure)
        self.notice(f"{told}; what it had not finished is done again")
        self.frames += max(0, done.begin - share.begin)
        self._waiting.appendleft(done)


def _search(shares: Iterable[Share], asking: Queue[bool], heard: Queue[_Found | _Told]) -> None:
    """Find a share whenever asked for one."""
    found: Iterator[Share] = iter(shares)
    while asking.get():
        try:
            share = next(found, None)
        except BaseException as fault:  # told to whoever waits for shares
            heard.put(_Found(None, fault))
            return
        heard.put(_Found(share))
        if share is None:
            return


def _listen(hand: _Hand, heard: Queue[_Found | _Told]) -> None:
    stream = cast(IO[bytes], hand.process.stdout)
    try:
        with suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                heard.put(_Told(hand, pickle.load(stream)))
    finally:
        heard.put(_Told(hand, None))


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
