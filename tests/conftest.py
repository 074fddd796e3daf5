from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "samples"))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

from media import Film

from streamdream import backbone
from streamdream.frame import Image, planes

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="session")
def lite0() -> backbone.Backbone:
    return backbone.load("efficientnet-lite0")


@pytest.fixture(scope="session")
def vgg19() -> backbone.Backbone:
    return backbone.load("vgg19")


@pytest.fixture(scope="session")
def photo() -> Image:
    """A photograph (3, 120, 160) in [0, 1]."""
    import cv2
    from skimage import data

    small = cv2.resize(data.coffee(), (160, 120), interpolation=cv2.INTER_AREA)
    return planes(small.astype(np.float32) / 255)


@pytest.fixture(scope="session")
def sample() -> Path:
    return SAMPLES / "clip.mp4"


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, two languages, subtitles, chapters, tags."""
    return Film(
        languages=("eng", "fra"),
        subtitles=[(0.0, 0.1, "one"), (0.2, 0.3, "two")],
        chapters=[(0.0, 0.2, "First"), (0.2, 0.4, "Second")],
        metadata={"title": "Ten frames", "artist": "nobody", "comment": "made for tests"},
    ).write(tmp_path_factory.mktemp("media") / "film.mp4")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not torch.cuda.is_available():
        terminalreporter.write_line("no CUDA device here: tests that need a GPU are skipped")
