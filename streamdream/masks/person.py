"""Where people are, by a network that tells them from the rest: MediaPipe's selfie segmenter.

It is run by LiteRT, once a frame, on the CPU: a few milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamdream.errors import ModelError, words
from streamdream.frame import Image, Mask, interleaved, planes
from streamdream.masks.keys import ramp

THREADS = 2
UNSURE = 0.3, 0.7  # of certainty: up to there nobody, from there on somebody


class Person:
    """Finds people in images."""

    def __init__(self, path: Path) -> None:
        """Load a network from a TensorFlow Lite file.

        It takes a picture (1, h, w, 3) in [0, 1] and gives how certainly (1, h, w, 1) somebody is
        there. Raises ModelError for another one.
        """
        from ai_edge_litert.interpreter import Interpreter

        subject = f"--mask person {path}"
        try:
            found: Any = Interpreter(str(path), num_threads=THREADS)
            found.allocate_tensors()
            (given,), (got,) = found.get_input_details(), found.get_output_details()
        except (ValueError, RuntimeError) as fault:
            raise ModelError(subject, f"cannot be used ({words(fault)})") from None
        shapes = tuple(given["shape"]), tuple(got["shape"])
        floats = given["dtype"] == got["dtype"] == np.float32
        if not floats or shapes[0][::3] != (1, 3) or shapes[1][::3] != (1, 1):
            told = "does not take a picture (1, h, w, 3) and give a mask (1, h, w, 1)"
            raise ModelError(subject, told, "see docs/masks.md for one that does")
        self._network, self._given, self._got = found, given["index"], got["index"]
        self._size: tuple[int, int] = shapes[0][2], shapes[0][1]

    def __call__(self, image: Image) -> Mask:
        """Where (1, h, w) people are in an image (3, h, w)."""
        h, w = image.shape[-2:]
        small = cv2.resize(interleaved(image), self._size, interpolation=cv2.INTER_AREA)
        self._network.set_tensor(self._given, np.ascontiguousarray(small[None], np.float32))
        self._network.invoke()
        certain = self._network.get_tensor(self._got)[0, ..., 0]
        found = cv2.resize(certain, (w, h), interpolation=cv2.INTER_LINEAR)
        return planes(ramp(np.asarray(found, np.float32), *UNSURE)[..., None], image.device)
