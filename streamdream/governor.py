"""Holds the strength of a carried dream through a scene.

Without it a still picture would burn in and a busy one would pale. Every frame, so much of the
old dream is kept that what the effect adds brings its RMS to where it was at the scene's start.
That alone does not do: at the same RMS a dream that had time fits the network better and looks
stronger, and one that is torn by motion looks weaker. So a few times a second the effect is
asked how strongly it responds to the result, and puts more or less effort into it until the
answer is again that of the scene's first frame.

All numbers stay on their device as tensors: reading one would make the host wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from streamdream.frame import Delta, Image

Scalar = Float[Tensor, ""]

PERIOD = Fraction(1, 6)  # s between two looks at the response
RATE = 1.5  # power of what is missing that a look mends: the response follows effort slowly
START = 0.5
EFFORT = 0.25, 1.0  # bounds: below, a dream softens; above, it boils
LEAST = 0.05  # bits; a response below says nothing
ROOM = 0.08  # about the change that a strong dream makes, of 1


@dataclass(frozen=True)
class Look:
    """What was seen when the response was last measured.

    `room` and `age` are those of the picture then; `response` is the one to hold; `frames`
    counts those that have passed since.
    """

    time: Fraction
    response: Scalar
    room: Scalar
    age: Scalar
    frames: int = 0


@dataclass(frozen=True)
class Governor:
    """How strong a scene's dream shall be, and what the last frame taught about that.

    `reference` is the RMS of the delta at the scene's start, in proportion to the room that
    the picture leaves; `added` how much of the RMS the last frame's steps added; `effort` what
    the effect shall put in, of 1.
    """

    reference: Scalar
    added: Scalar
    effort: Scalar
    room: Scalar
    look: Look

    @staticmethod
    def begin(
        image: Image, delta: Delta, response: Scalar, age: Scalar, time: Fraction
    ) -> Governor:
        """For a scene that starts with this dream."""
        room, strength = room_of(image), rms(delta)
        look = Look(time, response, room, age)
        return Governor(strength, strength * 0, torch.full_like(strength, START), room, look)

    def keep(self, image: Image, delta: Delta) -> Scalar:
        """How much of the last `delta` to keep on top of `image`, at least 0."""
        goal = self.reference * (room_of(image) / self.room)
        return ((goal - self.added) / rms(delta).clamp_min(1e-6)).clamp_min(0)

    def due(self, time: Fraction) -> bool:
        """Whether the response should be measured at this time."""
        return time - self.look.time >= PERIOD

    def after(self, image: Image, carried: Delta, delta: Delta) -> Governor:
        """The governor after a frame that made `delta` of what was `carried`."""
        room = room_of(image)
        return replace(
            self,
            reference=self.reference * (room / self.room),
            added=rms(delta) - rms(carried),
            room=room,
            look=replace(self.look, frames=self.look.frames + 1),
        )

    def looked(self, time: Fraction, response: Scalar, age: Scalar) -> Governor:
        """The governor after a look at the response; `age` is the dream's mean, in frames.

        Where the picture is another one than at the last look, because new things came in or
        the light changed, nobody knows what the response should be: in that proportion, what
        it is becomes what it should be.
        """
        now = response.clamp_min(LEAST)
        same = (age / (self.look.age + self.look.frames)).clamp(0, 1)
        same = same * (self.look.room / self.room).minimum(self.room / self.look.room)
        goal = now * (self.look.response.clamp_min(LEAST) / now) ** same
        effort = (self.effort * (goal / now) ** RATE).clamp(*EFFORT)
        return replace(self, effort=effort, look=Look(time, goal, self.room, age))

    def moved(self, seconds: Fraction) -> Governor:
        """The same, so much later."""
        return replace(self, look=replace(self.look, time=self.look.time + seconds))


def rms(delta: Delta) -> Scalar:
    """The root mean square of a delta (3, h, w)."""
    return delta.square().mean().sqrt()


def room_of(image: Image) -> Scalar:
    """The RMS that a change of +-ROOM keeps when black and white cut it off.

    A scene that begins in the dark leaves a dream less room; without this its strength would
    stay at that when the light comes.
    """
    down, up = image.clamp(0, ROOM), (1 - image).clamp(0, ROOM)
    return ((down.square() + up.square()) / 2).mean().sqrt()
