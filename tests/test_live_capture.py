from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from live import Camera as Webcam
from media import Film
from PIL import Image as Picture

from streamdream.errors import SourceError
from streamdream.live import camera as cameras
from streamdream.live import capture as capturing
from streamdream.live.camera import Camera, find, listed
from streamdream.live.capture import Capture, Upright
from streamdream.live.options import LiveOptions
from streamdream.threads import Newest


def halves(number: int) -> np.ndarray:
    """Red on the left, a grey on the right that changes."""
    pixels = np.full((48, 64, 3), number % 200, np.uint8)
    pixels[:, :32, 0] = 255
    return pixels


@contextmanager
def reading(camera: Camera, told: list[str] | None = None) -> Iterator[Capture]:
    capture = Capture(camera, (told if told is not None else []).append)
    try:
        yield capture
    finally:
        capture.close()


def waited(capture: Capture, done: Callable[[], bool], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        capture.newest(0.05)
        if done():
            return True
    return False


@pytest.mark.alone
def test_a_made_picture_comes_at_its_pace() -> None:
    with reading(find("test", LiveOptions(capture_rate="20", capture_size="160x96"))) as capture:
        assert waited(capture, lambda: capture.arrived >= 40)
        assert capture.captured_rate == pytest.approx(20, rel=0.15)
        got = capture.newest(1)
        assert got is not None
        assert (got.frame.width, got.frame.height) == (160, 96)
        assert 0 <= time.monotonic() - got.arrived < 0.5


@pytest.mark.alone
def test_who_is_slow_gets_the_newest_and_the_rest_is_counted() -> None:
    with reading(find("test", LiveOptions(capture_rate="60", capture_size="64x64"))) as capture:
        indices = []
        for _ in range(6):
            time.sleep(0.25)
            got = capture.newest(1)
            assert got is not None
            assert time.monotonic() - got.arrived < 0.1  # not a picture from a queue
            indices.append(got.index)
        assert np.diff(indices).min() >= 8
        assert capture.dropped >= 40


def test_newest_hands_over_the_last_item_and_waits_no_longer_than_asked() -> None:
    slot: Newest[int] = Newest()
    began = time.monotonic()
    assert slot.take(0.1) is None
    assert 0.05 < time.monotonic() - began < 1
    for i in range(3):
        slot.put(i)
    assert slot.take(0) == 2
    assert slot.dropped == 2
    threading.Timer(0.1, slot.put, (7,)).start()
    assert slot.take(5) == 7


@pytest.mark.alone
def test_a_clip_is_paced_and_begins_again(tmp_path: Path) -> None:
    film = Film(time_base=Fraction(1, 20)).write(tmp_path / "clip.mp4")
    with reading(find(str(film), LiveOptions())) as capture:
        assert waited(capture, lambda: capture.arrived >= 35)
        assert capture.reconnects == 0
        assert capture.captured_rate == pytest.approx(20, rel=0.15)


@pytest.mark.alone
def test_a_photo_is_filmed_for_ever(tmp_path: Path) -> None:
    Picture.fromarray(np.full((48, 64, 3), 99, np.uint8)).save(tmp_path / "photo.png")
    with reading(find(str(tmp_path / "photo.png"), LiveOptions())) as capture:
        assert waited(capture, lambda: capture.arrived >= 30)
        assert capture.captured_rate == pytest.approx(25, rel=0.2)


def test_a_killed_camera_is_found_again() -> None:
    told: list[str] = []
    server = Webcam(paint=halves)
    with reading(find(server.url, LiveOptions()), told) as capture:
        assert waited(capture, lambda: capture.connected and capture.arrived > 5)
        server.kill()
        assert waited(capture, lambda: not capture.connected)
        assert "lost" in capture.state
        time.sleep(0.5)
        server = Webcam(server.port, halves)
        before = capture.arrived
        assert waited(capture, lambda: capture.arrived > before + 5)
        assert capture.connected
        server.kill()
    assert any("there again" in text for text in told)
    assert len(told) < 8


def test_a_camera_that_is_not_there_yet_is_waited_for_and_told_once() -> None:
    told: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with reading(find(f"http://127.0.0.1:{port}/cam.mjpg", LiveOptions()), told) as capture:
        time.sleep(2)
        assert capture.newest(0.1) is None
        assert len(told) == 1
        server = Webcam(port, halves)
        assert waited(capture, lambda: capture.arrived > 3)
        server.kill()


@pytest.mark.slow
def test_a_frozen_camera_is_opened_again_and_one_that_never_answers_is_closed_in_time() -> None:
    server = Webcam(paint=halves)
    with reading(find(server.url, LiveOptions())) as capture:
        assert waited(capture, lambda: capture.arrived > 5)
        server.frozen.set()
        assert waited(capture, lambda: not capture.connected, 12)
        server.frozen.clear()
        before = capture.arrived
        assert waited(capture, lambda: capture.arrived > before + 3, 20)
        server.kill()
    mute = socket.create_server(("127.0.0.1", 0))
    capture = Capture(Camera("mute", f"http://127.0.0.1:{mute.getsockname()[1]}/x.mjpg"), print)
    time.sleep(0.5)
    began = time.monotonic()
    capture.close()
    assert time.monotonic() - began < 12
    mute.close()


def test_a_reader_that_hangs_is_given_up_and_another_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capturing, "STALL", 0.5)
    hangs = threading.Event()
    opened = []
    real = av.open

    def stuck(*args: object, **kwargs: object) -> object:
        opened.append(1)
        if len(opened) <= 2:
            hangs.wait(20)  # as a driver does whose device is gone
        return real(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(capturing.av, "open", stuck)
    told: list[str] = []
    with reading(find("test", LiveOptions(capture_size="64x64")), told) as capture:
        assert waited(capture, lambda: capture.arrived > 3)
        assert any("no picture for" in text for text in told)
        assert not capture.hopeless
        hangs.set()


def test_when_all_readers_hang_only_a_new_process_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "STALL", 0.05)
    monkeypatch.setattr(capturing, "READS", 0.05)
    hangs = threading.Event()

    def stuck(*_args: object, **_kwargs: object) -> object:
        hangs.wait(20)
        raise OSError("gone")

    monkeypatch.setattr(capturing.av, "open", stuck)
    with reading(find("test", LiveOptions())) as capture:
        assert waited(capture, lambda: capture.hopeless, 5)
        threads = threading.active_count()
        time.sleep(0.3)
        capture.newest(0)
        assert threading.active_count() <= threads
        hangs.set()


def test_a_camera_whose_picture_never_changes_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capturing, "SAME", 0.6)
    still = Camera("still", "color=gray:size=64x64:rate=20,realtime", "lavfi", noisy=True)
    told: list[str] = []
    with reading(still, told) as capture:
        assert waited(capture, lambda: capture.reconnects > 0, 8)
    assert any("the same picture" in text for text in told)
    with reading(replace(still, noisy=False)) as capture:
        assert waited(capture, lambda: capture.arrived > 30)
        assert capture.reconnects == 0


def test_a_hundred_cameras_leave_nothing_behind() -> None:
    import os

    def once() -> None:
        with reading(find("test", LiveOptions(capture_size="64x64", capture_rate="100"))) as c:
            assert waited(c, lambda: c.arrived > 0)

    once()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        once()
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_camera_can_be_let_go_and_taken_again() -> None:
    with reading(find("test", LiveOptions(capture_size="64x64"))) as capture:
        assert waited(capture, lambda: capture.arrived > 3)
        capture.pause()
        count = capture.arrived
        time.sleep(0.3)
        assert capture.arrived == count
        assert capture.state == "closed"
        capture.resume()
        assert waited(capture, lambda: capture.arrived > count)


def coded(pixels: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv444p")


def test_pictures_are_turned_mirrored_and_fitted() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40] = (255, 0, 0)  # red in the upper left
    frame = coded(pixels)
    for rotate, mirror, corner in (
        (0, False, (5, 5)), (0, True, (5, -5)), (90, False, (5, -5)), (180, False, (-5, -5)),
        (270, False, (-5, 5)), (90, True, (5, 5)),
    ):  # fmt: skip
        seen = Upright(rotate)(frame, mirror)
        assert seen.shape[:2] == ((80, 40) if rotate in (90, 270) else (40, 80))
        assert seen[corner][0] > 200, (rotate, mirror)
    assert Upright(0, (120, 120))(frame, False).shape == (60, 120, 3)
    assert Upright(90, (120, 120))(frame, False).shape == (120, 60, 3)


def test_colours_of_a_camera_are_right() -> None:
    server = Webcam(paint=halves)
    with reading(find(server.url, LiveOptions())) as capture:
        assert waited(capture, lambda: capture.arrived > 2)
        got = None
        while got is None:
            got = capture.newest(1)
        seen = Upright()(got.frame, False).astype(int)
    server.kill()
    grey = np.median(seen[4:-4, 40:], axis=(0, 1))
    assert np.ptp(grey) <= 2
    red = np.median(seen[4:-4, 4:24], axis=(0, 1))
    assert red[0] > 245


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nothing.mp4", "no such file, and no camera"),
        ("tset", "did you mean test"),
        ("/dev/video77", "no such device"),
        ("77", "no /dev/video77"),
        (None, "none is plugged in"),
        ("srt://127.0.0.1:9", "no srt"),
        ("screen", "no X display"),
        (".", "is a folder"),
    ],
)
def test_what_is_no_source_is_told(
    text: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    if Path("/dev/video0").exists():
        pytest.skip("there is a camera here")
    with pytest.raises(SourceError, match=reason):
        find(text, LiveOptions())


def test_a_patient_one_waits_for_a_device_that_is_not_there() -> None:
    assert find("/dev/video77", LiveOptions(), patient=True).name == "/dev/video77"
    told: list[str] = []
    with reading(find("77", LiveOptions(), patient=True), told) as capture:
        assert waited(capture, lambda: len(told) == 1)
        assert not capture.connected


def test_credentials_of_a_camera_are_not_shown() -> None:
    for url in ("rtsp://admin:p@secret@host/1", "http://host/video?user=admin&pwd=secret"):
        assert "secret" not in find(url, LiveOptions()).label
    found = find("rtsp://user:secret@camera.local/1", LiveOptions())
    assert "secret" not in found.label
    assert "secret" in found.name
    assert [t["rtsp_transport"] for t in found.tries] == ["tcp", "udp"]


def test_a_device_is_asked_for_mjpeg_first_then_for_what_it_has(tmp_path: Path) -> None:
    options = LiveOptions(capture_size="1280x720", capture_rate="30")
    tries = cameras._device("/dev/video0", "camera", options).tries
    assert tries[0] == {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}
    assert tries[1] == {"video_size": "1280x720", "framerate": "30"}
    assert tries[-1] == {}
    only = cameras._device("/dev/video0", "c", LiveOptions(pixel_format="yuyv422")).tries
    assert only == ({"input_format": "yuyv422"},)


def test_cameras_are_listed_with_what_is_always_there() -> None:
    lines = list(listed())
    assert any("test" in line and "rtsp" in line for line in lines)


def test_a_file_that_no_waiting_makes_a_video_is_refused(tmp_path: Path) -> None:
    song = tmp_path / "song.mkv"
    with av.open(str(song), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="has no picture"):
        find(str(song), LiveOptions())
    (tmp_path / "bad.mp4").write_text("not a video")
    with pytest.raises(SourceError, match="not a video"):
        find(str(tmp_path / "bad.mp4"), LiveOptions())


@pytest.mark.alone
def test_a_pause_in_a_clip_is_kept(tmp_path: Path) -> None:
    times = [0, 1, 2, 32, 33, 34]  # a second and a half in between
    film = Film(times=times, time_base=Fraction(1, 20)).write(tmp_path / "clip.mkv")
    with reading(find(str(film), LiveOptions())) as capture:
        assert waited(capture, lambda: capture.arrived >= 3)
        began = time.monotonic()
        assert waited(capture, lambda: capture.arrived >= 4)
        assert 1.2 < time.monotonic() - began < 2.5


def test_broken_packets_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    film = Film(times=range(20), time_base=Fraction(1, 20)).write(tmp_path / "clip.mkv")
    data = bytearray(film.read_bytes())
    rng = np.random.default_rng(3)
    for place in rng.integers(len(data) // 3, len(data), 40):
        data[place] ^= 0xFF
    film.write_bytes(data)
    with reading(find(str(film), LiveOptions())) as capture:
        waited(capture, lambda: capture.arrived > 10, 5)
        assert capture.arrived > 0 or capture.reconnects > 0
