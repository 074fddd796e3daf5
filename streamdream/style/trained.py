"""A painter that paints, or dreams, with networks that `streamdream train` made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from streamdream.errors import ModelError
from streamdream.frame import Image, Mask
from streamdream.models import weighed
from streamdream.options import Look
from streamdream.style.named import named
from streamdream.style.network import Swift, load_network
from streamdream.style.paintings import mixed

SHIPPED: dict[str, str] = {
    "creatures": "49674d1f15b3ab6efe1f5dd8c13ae660b0ab392a559e92e4ac5c0a8a9886d2f0",
    "scream": "64ef4b3c39ce95cde514c8c7f1faea23c45c84e37b772b5b66afbb8c9af7fa9e",
    "starry-night": "b77dd7fb6f38d7a6174c6e2a273458b796976531c29085a4abfa37dd6971cc50",
}
"""The SHA-256 of the networks that come with the package, by name."""


class Trained:
    """A painter with any number of trained networks, each loaded when it is first named."""

    reads_carried = True

    def __init__(self, device: torch.device, precision: torch.dtype, names: Sequence[str]) -> None:
        """Load the networks of these names; raises ModelError as `load_network` does."""
        self._device, self._precision = device, precision
        self._networks: dict[str, Swift] = {}
        for name in names:
            self._network(name)
        self.kind = self._network(names[0]).kind

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        """The next result (3, h, w); of several networks the mean by weight, or by mask."""
        given = image[None], carried[None], trust[None]
        names, weights = weighed(options.style)
        painted = [self._network(name)(*given)[0] for name in names]
        found = mixed(painted, weights, options)
        return (image + (found - image) * options.style_weight).clamp(0, 1)

    def _network(self, name: str) -> Swift:
        if name not in self._networks:
            if name in SHIPPED:
                check(_path(name), SHIPPED[name])
            network = load_network(_path(name), self._device, self._precision)
            self._networks[name] = Swift(network)
        return self._networks[name]


def _path(name: str) -> Path:
    path = named(name).path
    assert path is not None
    return path


def check(path: Path, sha256: str) -> None:
    """Raise ModelError if a file is not the one meant."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        told = f"SHA-256 is {found[:16]}..., expected {sha256[:16]}..."
        raise ModelError(path, told, "pip install --force-reinstall streamdream")
