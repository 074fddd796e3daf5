"""What a dream begins with where there is none yet: noise."""

from __future__ import annotations

from streamdream.frame import Delta, Image, planes
from streamdream.noises import grain
from streamdream.options import Look
from streamdream.pipeline import Carried


def grainy(image: Image, carried: Carried, options: Look, index: int) -> Delta:
    """The noise (3, h, w) that a frame's dream begins with, by its number.

    Only places that hardly were dreamed get some: from there on it is carried like the dream it
    became part of, and does not flicker.
    """
    size = image.shape[-2], image.shape[-1]
    seed = options.seed, index
    noise = planes(grain(options.noise_kind, size, seed), image.device) * (options.noise / 255)
    if carried.trust is None:
        return noise
    return noise * (1 - 2 * carried.age).clamp(0, 1)
