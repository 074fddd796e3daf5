"""Where weights lie that did not come with the installation, told without loading anything."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

HUB = "https://download.pytorch.org/models/"
CACHE_VARIABLE, HUB_VARIABLE = "STREAMDREAM_MODELS", "STREAMDREAM_HUB"


@dataclass(frozen=True)
class Store:
    """A folder of weights, and whether what is missing there may be fetched from the hub.

    Without a `folder` it is the environment's STREAMDREAM_MODELS, or the platform's place for
    such.
    """

    folder: Path | None = None
    offline: bool = False

    @property
    def place(self) -> Path:
        """The folder."""
        if self.folder is not None:
            return self.folder.expanduser()
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named).expanduser()
        from platformdirs import user_cache_path

        return user_cache_path("streamdream", appauthor=False) / "models"

    def find(self, file: str) -> Path | None:
        """Where a file of weights lies: here, or where torchvision itself has put it."""
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        torch_home = Path(os.environ.get("TORCH_HOME") or f"{cache}/torch").expanduser()
        for folder in (self.place, torch_home / "hub" / "checkpoints"):
            if (folder / file).is_file():
                return folder / file
        return None


def url_of(file: str) -> str:
    """Where a file of weights is fetched from: torchvision's hub, or a mirror of it.

    A mirror is named by the environment's STREAMDREAM_HUB.
    """
    return (os.environ.get(HUB_VARIABLE) or HUB).rstrip("/") + "/" + file


def proof_of(file: str) -> str:
    """The beginning of a file's SHA-256 in hexadecimal digits, which its name carries."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    assert found is not None, file
    return found[1]
