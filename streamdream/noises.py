"""Noise by name: what a movie may begin with, and what a dream may be dreamed from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from streamdream.polish.options import NOISES

if TYPE_CHECKING:
    from streamdream.frame import Size

Colours = Float[np.ndarray, "h w 3"]

MEAN, DEVIATION = 0.47, 0.2  # of noise, of 1: about those of photographs
BAND = 8.0, 32.0  # px a wave; where the networks see most
SHARE = 0.15  # of the pixels that are salt or pepper
USUAL = "pink"  # what "noise" means: the spectrum of photographs gives the richest dreams


def noise(name: str, size: Size, seed: Sequence[int]) -> Colours:
    """A picture (h, w, 3) of noise, values in [0, 1]; `name` is one of NOISES, or "noise".

    Colours are independent. "pink" is 1/f in amplitude, as photographs are (Field 1987);
    "band-limited" has waves of BAND pixels only.
    """
    h, w = size
    rng = np.random.default_rng([*seed, ("noise", *NOISES).index(name)])
    kind = USUAL if name == "noise" else name
    if kind == "uniform":
        half = DEVIATION * math.sqrt(3)
        return rng.uniform(MEAN - half, MEAN + half, (h, w, 3)).astype(np.float32)
    if kind == "salt-and-pepper":
        drawn = rng.random((h, w, 1))
        found = np.where(drawn < SHARE / 2, 0.0, np.where(drawn < SHARE, 1.0, MEAN))
        return np.repeat(found, 3, axis=2).astype(np.float32)
    found = rng.standard_normal((h, w, 3))
    if kind in ("pink", "band-limited"):
        pitch = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        pitch[0, 0] = np.inf  # no mean of its own
        gain = (
            1 / pitch if kind == "pink" else ((pitch > 1 / BAND[1]) & (pitch < 1 / BAND[0])) * 1.0
        )
        waves = np.fft.rfft2(found, axes=(0, 1)) * gain[..., None]
        found = np.fft.irfft2(waves, (h, w), axes=(0, 1))
        found /= np.maximum(found.std(axis=(0, 1)), 1e-9)
    return np.clip(MEAN + DEVIATION * found, 0, 1).astype(np.float32)


def grain(name: str, size: Size, seed: Sequence[int]) -> Colours:
    """Noise (h, w, 3) as a change of a picture, about the mean of 0, with an RMS of 1."""
    found = noise(name, size, seed) - np.float32(MEAN)
    return found / np.maximum(np.sqrt(np.square(found).mean()), np.float32(1e-9))
