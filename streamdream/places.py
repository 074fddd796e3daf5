"""Places in a source: where it can be read on, and how they are recognised."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

import numpy as np

from streamdream.frame import Frame


@dataclass(frozen=True)
class Place:
    """Where a source can be read on: behind a frame.

    `index` is that of the next frame; `time` and `digest` (see `digest_of`) those of the frame
    before it. `plain`: up to here times are those in the file, and nothing was damaged, so that
    it may be sought; `clock` that the file's clock did not leap.
    """

    index: int
    time: Fraction
    digest: str
    plain: bool
    clock: bool

    def is_behind(self, frame: Frame) -> bool:
        """Whether it is the place behind this frame."""
        return frame.time == self.time and digest_of(frame) == self.digest


def digest_of(frame: Frame) -> str:
    """Tells a frame's picture from others."""
    found = blake2b(np.ascontiguousarray(frame.pixels).data, digest_size=16)
    if frame.alpha is not None:
        found.update(np.ascontiguousarray(frame.alpha).data)
    return found.hexdigest()
