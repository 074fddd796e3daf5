"""What was hidden for a while gets back the look that it had before.

Source: the long-term consistency of Ruder, Dosovitskiy and Brox, "Artistic style transfer for
videos" (arXiv:1604.08610): where the last frame cannot be trusted, older ones are asked, the
nearest first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from streamdream.frame import Image
from streamdream.motion import Motion, Movement

PARTS = Fraction(1, 4), Fraction(1, 2), Fraction(1)  # of the time that is looked back
NEW_FROM = 0.02  # of a picture that is new, from which looking back is worth it


Kept = tuple[int, Fraction, Image]
"""A picture (3, h, w) that may be looked back to, with the number of its view and its time."""


@dataclass(frozen=True)
class Older:
    """A frame of a while ago, by the `number` of its view, and the movement back to it."""

    number: int
    movement: Movement


class Lookback:
    """Finds how frames moved since a while ago.

    It holds the pictures of so many seconds, at work size, and forgets them at a cut.
    """

    def __init__(self, motion: Motion, kept: Iterable[Kept] = ()) -> None:
        """Look back with this motion, to what was `kept` and to what is to come."""
        self._motion = motion
        self._kept: deque[Kept] = deque(kept)

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What may still be looked back to."""
        return tuple(self._kept)

    @property
    def oldest(self) -> int | None:
        """The number of the oldest view that may still be looked back to."""
        return self._kept[0][0] if self._kept else None

    def __call__(
        self,
        number: int,
        time: Fraction,
        image: Image,
        movement: Movement | None,
        seconds: float,
    ) -> tuple[Older, ...]:
        """The movements of a view to older ones, the nearest first; none if it is not needed.

        It is looked back so many `seconds`; 0 is not at all.
        """
        if seconds <= 0:
            self._kept.clear()
            return ()
        furthest = Fraction(seconds)
        resized = bool(self._kept) and self._kept[-1][2].shape != image.shape
        if movement is None or movement.cut or resized:
            self._kept.clear()
        while self._kept and not time - furthest <= self._kept[0][1] < time:
            self._kept.popleft()
        found: dict[int, Older] = {}
        if movement is not None and 1 - float(movement.trust.mean()) > NEW_FROM:
            for part in PARTS:
                wanted = time - part * furthest
                early = [kept for kept in list(self._kept)[:-1] if kept[1] <= wanted]
                for then, _, before in early[-1:]:
                    if then not in found:
                        found[then] = Older(then, self._motion.between(image, before))
        self._kept.append((number, time, image))
        return tuple(older for older in found.values() if not older.movement.cut)
