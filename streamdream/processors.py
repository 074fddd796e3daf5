"""How many processors PyTorch's work is spread over, thread by thread."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import cv2
import torch

LONG = 60  # seconds that threads may take to begin


@contextmanager
def using(count: int) -> Iterator[None]:
    """Let this thread spread its work over so many processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let PyTorch and OpenCV compute with so many threads; None leaves them as they are."""
    if threads is None:
        yield
        return
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        with using(threads):
            yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def alone(workers: int, count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads to work side by side, each on so many processors.

    At the end what they are at is finished, and what waits for them is lost.
    """
    before = torch.get_num_threads()
    there = Barrier(workers + 1, timeout=LONG)
    pool = ThreadPoolExecutor(workers, "streamdream-paint", _limit, (count,))
    try:
        for _ in range(workers):
            pool.submit(there.wait)
        there.wait()
        # They were set one by one, but threads that begin later would follow the last one.
        torch.set_num_threads(before)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _limit(count: int) -> None:
    torch.get_num_threads()  # a thread's first use of it takes over what was set last anywhere
    torch.set_num_threads(count)
