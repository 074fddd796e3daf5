from __future__ import annotations

from pathlib import Path

import pytest
from media import Film, moving

from streamdream.errors import SourceError
from streamdream.options import Options
from streamdream.probe import describe, pace

QUICK = Options(work_size=64, octaves=1, layers=("block3",))


def test_it_tells_what_is_kept_and_what_not(tmp_path: Path) -> None:
    film = Film(
        moving((120, 160)), times=tuple(range(50)), languages=["deu"],
        chapters=[(0, 1, "One"), (1, 2, "Two")], metadata={"title": "Waves"},
    )  # fmt: skip
    report = describe(str(film.write(tmp_path / "in.mp4")), QUICK)
    text = "\n".join(report.lines)
    assert "160x120 h264, 25 frames a second, 8 bits, BT.601" in text
    assert "about 50 frames, 2.00 s" in text
    assert "dreamed at: 85x64" in text
    assert "audio 1: aac, 48000 Hz stereo (deu); goes along" in text
    assert "chapters: 2; kept" in text
    assert "title" in text
    assert "encoder" not in text.lower()
    assert report.frames == 50


def test_it_tells_of_a_picture_that_it_is_one(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(moving((64, 96))(0)).save(tmp_path / "in.png")
    report = describe(str(tmp_path / "in.png"), QUICK)
    assert "96x64 png, one picture" in report.lines[0]
    assert report.frames == 1


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.mp4").write_text("words " * 400)
    with pytest.raises(SourceError, match="not a video"):
        describe(str(tmp_path / "in.mp4"), QUICK)


def test_the_pace_is_measured_where_the_dream_is_warm(tmp_path: Path) -> None:
    film = Film(moving((120, 160)), times=tuple(range(20))).write(tmp_path / "in.mkv")
    found = pace(str(film), QUICK)
    assert 0 < found.each < found.first
    still = Film(moving((120, 160)), times=(0,)).write(tmp_path / "one.mkv")
    assert pace(str(still), QUICK).each == 0
