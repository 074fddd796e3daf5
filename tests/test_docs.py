"""The commands in docs/ work, on a clip of 12 frames."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path

import pytest
from media import frame_times
from PIL import Image
from running import typing
from tour import ROOT, furnished

PAGES = ("objectives", "masks", "look")
COUNT = 12
# What makes a command quick without changing what it shows.
QUICK = {"--work-size": "48", "--steps": "1", "--warm-steps": "1", "--octaves": "1"}


def _commands(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    return furnished(tmp_path_factory.mktemp("docs"), sample)


@pytest.mark.parametrize("command", [c for page in PAGES for c in _commands(page)])
def test_the_commands_of_the_docs_work(
    place: Path,
    command: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    program, *words = shlex.split(command)
    assert program == "streamdream"
    target = place / words[words.index("-o") + 1]
    more = [word for pair in QUICK.items() for word in pair]
    if target.suffix == ".mp4":
        more += ["--frames", str(COUNT)]
    code, out, told = typing(capfd)(*words, *more)
    assert (code, out) == (0, ""), told
    assert "Traceback" not in told
    if target.suffix == ".png":
        with Image.open(target) as made, Image.open(place / words[0]) as source:
            assert made.size == source.size
    else:
        times = frame_times(target)
        assert len(times) == COUNT
        assert times == frame_times(place / "video.mp4")[:COUNT]
        assert times[0] == Fraction(0)
