"""A worker: a process of its own that renders shares of a job, one after another.

`crew` starts it and talks with it: pickled messages, orders on standard input and what became of
them on what was standard output. When nobody gives orders any more it ends at once: whoever goes
on with the job may have begun already.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Sequence
from queue import Queue
from typing import BinaryIO

from streamdream.jobs.messages import Done, Far, Fault, Message, Ready, Work
from streamdream.jobs.rendering import Share

PAUSE = 0.1  # seconds between two messages about how far it is


class _Orders:
    """Shares to render, from a stream that ends when whoever gives them does."""

    def __init__(self, stream: BinaryIO) -> None:
        self.work: Work = pickle.load(stream)
        self._stream, self._shares = stream, Queue[Share]()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Share:
        return self._shares.get()

    def _listen(self) -> None:
        try:
            while True:
                self._shares.put(pickle.load(self._stream))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)  # what is not finished would be made again anyway


def main() -> None:
    """Render shares until there is nobody who gives them."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not to get between messages
    orders = _Orders(sys.stdin.buffer)
    work = orders.work

    from streamdream.effects import effects_of
    from streamdream.errors import Error
    from streamdream.jobs.coders import coder_of
    from streamdream.jobs.folder import JobFolder
    from streamdream.jobs.manifest import StillThere, machine_told
    from streamdream.jobs.rendering import render
    from streamdream.pipeline import Effect
    from streamdream.processors import using_threads
    from streamdream.run import choose_device, prepared

    def answer(message: Message) -> None:
        pickle.dump(message, answers)
        answers.flush()

    folder = JobFolder.of(work.target)
    still_there = StillThere(work.files, work.known, folder)
    effects: Sequence[Effect] | None = None
    last = 0.0

    def step(frames: int) -> None:
        nonlocal last
        if time.monotonic() - last > PAUSE:
            last = time.monotonic()
            answer(Far(frames))

    with using_threads(work.options.threads):
        try:
            device = choose_device(work.options.device)
        except Error as fault:
            answer(Fault(type(fault).__name__, fault.subject, fault.reason, fault.cure))
            return
        answer(Ready(machine_told(work.options, device)))
        while True:
            share = orders.next()
            try:
                with prepared(work.source, work.target, work.options, overwrite=True) as ready:
                    options = ready.options
                    if effects is None:
                        effects = effects_of(options, ready.device)
                    coder = coder_of(work.target, ready.info, options, work.comment)
                    render(ready, effects, coder, folder, share, step, still_there)
                answer(Done())
            except Error as fault:
                answer(Fault(type(fault).__name__, fault.subject, fault.reason, fault.cure))


if __name__ == "__main__":
    main()
