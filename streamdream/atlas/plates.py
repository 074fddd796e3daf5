"""The pictures of an atlas: what each shows, and how they are dreamed, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch

from streamdream import backbone
from streamdream.effects import effects_of
from streamdream.frame import Frame, Pixels
from streamdream.masks.masking import Masks
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import Picture, redraw
from streamdream.sinks import Stopped

MOST_WORKERS = 8  # each holds the activations of a network
SOON = 0.2  # s after which somebody who wants it to stop is heard


@dataclass(frozen=True)
class Plate:
    """One picture of an atlas: the dream of a picture by `options`, which `command` makes alone.

    `name` is its title, `told` a sentence about it, `facts` what is known of it, `kind` what it
    can be sorted by.
    """

    name: str
    options: Options
    command: str
    facts: tuple[str, ...] = ()
    kind: str = ""
    told: str = ""


@dataclass(frozen=True)
class Dreamed:
    """A plate and its picture, (h, w, 3) RGB of the source's size."""

    plate: Plate
    pixels: Pixels


Keep = Callable[[int, Dreamed], None]
"""Takes a finished plate and its number; called by several threads."""


def dream_plates(
    plates: Sequence[Plate], frame: Frame, device: torch.device, keep: Keep
) -> Generator[int, None, None]:
    """Dream a frame as each of the plates has it; yields now and then how many are done.

    On a CPU as many are dreamed at once as there are threads: they share nothing, and small
    pictures keep one thread busier than two. Closing it leaves what is not done undone. Raises
    what dreaming raises.
    """
    ending, loading, threads = threading.Event(), threading.Lock(), torch.get_num_threads()
    load = cache(backbone.load)
    workers = min(len(plates), MOST_WORKERS, threads) if device.type == "cpu" else 1
    each = max(1, threads // max(1, workers))

    def watch(_frame: Frame, _picture: Picture) -> None:
        if ending.is_set():
            raise Stopped

    def work(number: int) -> None:
        options = plates[number].options
        with loading:
            effects = effects_of(options, device, load)
            masks = Masks.of(options, options.start or Fraction(0))
        how = options, effects, OpticalFlow(options.flow), device, watch
        with closing(redraw([frame], *how, masks=masks)) as frames:
            keep(number, Dreamed(plates[number], next(frames).pixels))

    # The number of threads is one thread's own, and what new ones begin with.
    torch.set_num_threads(each)
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            left: set[Future[None]] = {pool.submit(work, number) for number in range(len(plates))}
            try:
                while left:
                    done, left = wait(left, SOON, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    yield len(plates) - len(left)
            finally:
                ending.set()
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(threads)
