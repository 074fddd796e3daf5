from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import ExitStack
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
# Locked by tests that run at the same time; a lock needs a file, not what is in it.
DOOR, ROOM = Path(__file__), Path(__file__).parent / "media.py"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let the other processes wait while a test runs that is marked `alone`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    import fcntl

    alone = item.get_closest_marker("alone") is not None
    with ExitStack() as opened:
        door, room = (opened.enter_context(path.open("rb")) for path in (DOOR, ROOM))
        # Who waits to be alone keeps the door closed, or there would always be somebody inside.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Closing would not do: a process that the test forked may still have it open.
            fcntl.flock(room, fcntl.LOCK_UN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that run alone behind the others, which so seldom wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random tensors are the same in every run, whichever tests ran before."""
    torch.manual_seed(0)


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
