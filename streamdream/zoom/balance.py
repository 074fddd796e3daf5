"""Keeps light, contrast and colour of a movie that feeds on itself where they began.

Every dreamed step adds a little, and what is added stays: without this, thousands of frames end
in white, black or one colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from streamdream.frame import Image

Colour = Float[Tensor, "3 1 1"]

SECONDS = 0.5  # time constant of the way back
DULL = 0.1  # deviation of a picture in which a dream is hardly seen
LEAST = 0.02  # deviation; what has less is not stretched any further


@dataclass(frozen=True)
class Tone:
    """Mean and standard deviation of each colour, (3, 1, 1), of 1."""

    mean: Colour
    deviation: Colour

    @staticmethod
    def of(image: Image) -> Tone:
        """That of a picture (3, h, w)."""
        deviation, mean = torch.std_mean(image, dim=(1, 2), keepdim=True, correction=0)
        return Tone(mean, deviation)

    def lively(self) -> Tone:
        """The same, with as much contrast as a dream needs to be seen."""
        return Tone(self.mean, self.deviation.clamp_min(DULL))

    def towards(self, other: Tone, share: float) -> Tone:
        """A tone between this one (0) and another (1)."""
        return Tone(
            torch.lerp(self.mean, other.mean, share),
            torch.lerp(self.deviation, other.deviation, share),
        )


def balanced(image: Image, tone: Tone, seconds: float) -> Image:
    """The picture (3, h, w) on its way to a tone, after so many seconds of it."""
    now = Tone.of(image)
    share = -math.expm1(-seconds / SECONDS)
    gain = (tone.deviation / now.deviation.clamp_min(LEAST)) ** share
    return ((image - now.mean) * gain + now.mean + share * (tone.mean - now.mean)).clamp(0, 1)
