"""What a person may name as input."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from media import Film, moving
from PIL import Image

from streamdream import inputs
from streamdream.errors import SinkError, SourceError
from streamdream.files import check_target
from streamdream.info import Reading
from streamdream.inputs import locate
from streamdream.pictures import RowSink
from streamdream.sources import VideoSource


def drawn(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(moving((48, 64))(index)).save(folder / name)


def seen(text: str | Path, rate: Fraction = Fraction(25)) -> list[tuple[int, Fraction]]:
    """Which of the drawn pictures come, and when."""
    with VideoSource(text, reading=Reading(rate=rate)) as source:
        found = []
        for frame in source:
            off = [np.abs(frame.pixels.astype(int) - moving((48, 64))(i)).mean() for i in range(15)]
            found.append((int(np.argmin(off)), frame.time))
        assert source.info.frames == len(found)
        assert not source.info.still
    return found


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ([f"{i:04d}.png" for i in range(7, 10)], "%04d.png"),
        ([f"a {i}.png" for i in range(8, 12)], "a %d.png"),
        ([f"take2_{i:03d}.jpg" for i in range(3)], "take2_%03d.jpg"),
        ([f"{i:02d}.png" for i in (1, 5, 9)], "*.png"),
        ([f"{n}.png" for n in ("apple", "bear", "cat")], "*.png"),
    ],
)
def test_pictures_in_a_row_come_in_order(tmp_path: Path, names: list[str], pattern: str) -> None:
    folder = tmp_path / "with % sign"
    drawn(folder, names)
    expected = [(i, Fraction(i, 10)) for i in range(len(names))]
    assert seen(folder, Fraction(10)) == expected
    assert seen(f"{folder}/{pattern}", Fraction(10)) == expected


def test_a_pattern_ends_at_the_first_gap_and_a_missing_one_is_told(tmp_path: Path) -> None:
    drawn(tmp_path, ["1.png", "2.png", "4.png"])
    assert [index for index, _ in seen(tmp_path / "%d.png")] == [0, 1]
    for text in ("x%d.png", "*.jpg"):
        with pytest.raises(SourceError, match="matches no file"):
            locate(str(tmp_path / text))


def test_folders_that_are_no_row_of_pictures_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a folder without pictures"):
        locate(tmp_path)
    drawn(tmp_path, ["1.png", "2.jpg"])
    with pytest.raises(SourceError, match=r"holds \.jpg and \.png files; say which"):
        locate(tmp_path)
    (tmp_path / "2.jpg").unlink()
    with VideoSource(tmp_path) as source:
        assert source.info.still


def test_a_file_with_a_percent_sign_or_a_star_is_itself(tmp_path: Path) -> None:
    for name in ("100%d.mkv", "what*.mkv", "[x].mkv"):
        Film(times=(0, 1)).write(tmp_path / "in.mkv").rename(tmp_path / name)
        with VideoSource(tmp_path / name) as source:
            assert len(list(source)) == 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_url_is_read(tmp_path: Path, server: str) -> None:
    Film(container_options={"movflags": "faststart"}).write(tmp_path / "in.mp4")
    with VideoSource(f"{server}/in.mp4") as source:
        assert len(list(source)) == 10
    with pytest.raises(SourceError, match="404"):
        VideoSource(f"{server}/gone.mp4")


@pytest.mark.parametrize("after", [0.0, 0.6])
def test_a_server_that_falls_silent_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    """It answers nothing, or stops midway, and holds the connection."""
    data = Film(times=tuple(range(50))).write(tmp_path / "in.ts").read_bytes()
    data = data[: round(after * len(data))]
    monkeypatch.setattr(inputs, "WAIT", "400000")
    leave = threading.Event()

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while not leave.is_set():
                talk, _ = listening.accept()
                held.append(talk)
                if after:
                    talk.recv(4096)
                    talk.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 900000\r\n\r\n" + data)

    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=[listening], daemon=True).start()
        began = time.monotonic()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/in.ts"
        if after:
            with VideoSource(address) as source:
                assert len(list(source)) >= 1
                assert source.counts.skipped + source.counts.missing >= 1
        else:
            with pytest.raises(SourceError, match="download it first"):
                VideoSource(address)
        assert time.monotonic() - began < 20
        leave.set()
    for talk in held:
        talk.close()


def test_a_password_in_a_url_is_not_told() -> None:
    assert locate("rtsp://me:secret@camera/1").label == "rtsp://camera/1"


@pytest.mark.parametrize(("name", "fine"), [("in.mkv", True), ("in.ts", True), ("in.mp4", False)])
def test_what_is_piped_in_is_read(tmp_path: Path, name: str, fine: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 288, 512, 3), np.uint8)
    path = Film(lambda i: noise[i % 20], times=tuple(range(60)))
    code = (
        "from streamdream.sources import VideoSource\n"
        "from streamdream.errors import SourceError\n"
        "try:\n    print(len(list(VideoSource('-'))))\n"
        "except SourceError as fault:\n    print(fault)"
    )
    film = path.write(tmp_path / name).read_bytes()
    result = subprocess.run(
        [sys.executable, "-c", code], input=film, capture_output=True, check=True
    )
    told = result.stdout.decode().strip()
    assert told == "60" if fine else told.startswith("standard input: ")


def test_pictures_in_a_row_are_written_and_read_again(tmp_path: Path) -> None:
    film = Film(moving((48, 64)), times=(0, 1, 2), codec="ffv1", languages=["eng"], options={})
    (tmp_path / "100%").mkdir()
    pattern = tmp_path / "100%" / "f%03d.png"
    with VideoSource(film.write(tmp_path / "in.mkv")) as source:
        sink = RowSink(pattern, source.info, ["audio stream 1"], "made so")
        with sink:
            for frame in source:
                sink.write(frame)
    assert sink.notices == ["audio stream 1 is left out: pictures hold none"]
    assert sorted(p.name for p in pattern.parent.iterdir()) == [f"f{i:03d}.png" for i in (1, 2, 3)]
    assert [index for index, _ in seen(pattern)] == [0, 1, 2]
    with Image.open(pattern.parent / "f002.png") as picture:
        assert picture.info["Comment"] == "made so"
    with pytest.raises(SinkError, match=r"f001\.png: exists already"):
        check_target(pattern)
    check_target(pattern, overwrite=True)


def test_numbers_with_gaps_and_without_leading_zeros_are_refused(tmp_path: Path) -> None:
    drawn(tmp_path, ["f1.png", "f2.png", "f10.png"])
    with pytest.raises(SourceError, match="have gaps; give them leading zeros"):
        locate(tmp_path)


def test_pictures_behind_a_gap_are_told(tmp_path: Path) -> None:
    drawn(tmp_path, ["1.png", "2.png", "4.png"])
    with VideoSource(tmp_path / "%d.png") as source:
        assert source.notices == ["1 pictures behind the gap at 3 are left out"]


def test_a_rows_own_folder_is_made_and_no_other(tmp_path: Path) -> None:
    film = Film(moving((48, 64)), times=(0, 1), codec="ffv1", options={})
    source = film.write(tmp_path / "in.mkv")
    pattern = tmp_path / "new" / "%03d.png"
    check_target(pattern)
    with VideoSource(source) as reader, RowSink(pattern, reader.info, []) as sink:
        for frame in reader:
            sink.write(frame)
    assert len(seen(pattern)) == 2
    with pytest.raises(SinkError, match="there is no folder"):
        check_target(tmp_path / "a" / "b" / "%03d.png")


def test_a_row_does_not_overwrite_itself(tmp_path: Path) -> None:
    drawn(tmp_path, ["1.png", "2.png"])
    for text in (tmp_path, tmp_path / "%d.png", f"{tmp_path}/*.png"):
        with pytest.raises(SinkError, match="is the input itself"):
            check_target(tmp_path / "%d.png", locate(text).all_files, overwrite=True)


def test_a_start_in_what_is_piped_in_is_read_up_to(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 288, 512, 3), np.uint8)
    film = Film(lambda i: noise[i % 20], times=tuple(range(60))).write(tmp_path / "in.mkv")
    code = (
        "from fractions import Fraction\nfrom streamdream.sources import VideoSource\n"
        "print(len(list(VideoSource('-', start=Fraction(1)))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], input=film.read_bytes(), capture_output=True, check=True
    )
    assert result.stdout.decode().strip() == "35"
