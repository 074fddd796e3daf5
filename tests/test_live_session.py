from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from live import Camera as Webcam
from media import frame_times

from streamdream.errors import Error, OptionError, SinkError
from streamdream.live.camera import find
from streamdream.live.options import LiveOptions, Reaction
from streamdream.live.outputs import Shown
from streamdream.live.session import Session
from streamdream.live.status import Status
from streamdream.settings import made

SMALL = {"work_size": 64, "octaves": 2, "capture_size": "160x96", "steps": 2}


def options(**given: Any) -> LiveOptions:
    return made(LiveOptions, {**SMALL, "window": False, "seconds": 30, **given})


@contextmanager
def session(source: str = "test", **given: Any) -> Iterator[tuple[Session, list[str]]]:
    """A session that runs in a thread while the test looks on."""
    told: list[str] = []
    chosen = options(**given)
    made = Session(find(source, chosen), chosen, told.append)
    ending = threading.Event()
    faults: list[BaseException] = []

    def run() -> None:
        try:
            made.run(ending.is_set)
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield made, told
    finally:
        ending.set()
        thread.join(20)
        made.close()
    assert not thread.is_alive()
    for fault in faults:
        raise fault


def waited(done: Callable[[], object], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if done():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.alone
def test_a_run_shows_dreams_and_tells_how_it_goes(tmp_path: Path) -> None:
    with session(record=str(tmp_path / "out.mp4")) as (run, told):
        assert waited(lambda: run.status.dreams > 0 and run.status.shown > 5)
        status = run.status
        assert status.connected
        assert status.size == (96, 160)
        assert 0 < status.latency[0] <= status.latency[1] < 1000
        assert status.lines == 64
        assert status.wanted == pytest.approx(30, rel=0.3)
        assert "record" in status.states
        assert [o.name for o in status.outputs] == ["record"]
    (made,) = tmp_path.glob("out-*.mp4")
    times = frame_times(made)
    assert len(times) > 10
    assert times[0] == 0
    assert told == [f"recording into files named after {tmp_path / 'out.mp4'}", f"recorded {made}"]


def test_recording_is_off_until_it_is_asked_for_and_snapshots_are_saved(tmp_path: Path) -> None:
    moving = "0: 0.5, 1000s: 2"
    with session(http=0, folder=str(tmp_path), strength=moving) as (run, told):
        assert waited(lambda: run.status.dreams > 0)
        assert list(tmp_path.iterdir()) == []
        run.controls.act("snapshot")
        run.controls.act("record", True)
        assert waited(lambda: "record" in run.status.states)
        time.sleep(1)
        run.controls.act("record", False)
        assert waited(lambda: list(tmp_path.glob("streamdream-*.mp4")))
        assert waited(lambda: any("snapshot" in text for text in told))
    (png,) = tmp_path.glob("*.png")
    from streamdream.run import read_settings
    from streamdream.settings import recorded

    assert recorded(read_settings(png), "it")["work_size"] == 64
    assert 0.5 < float(str(recorded(read_settings(png), "it")["strength"])) < 1
    (film,) = tmp_path.glob("*.mp4")
    assert recorded(read_settings(film), "it")["strength"] == moving
    assert len(frame_times(film)) > 3


@pytest.mark.alone
def test_pause_freeze_and_reset_do_what_they_say(tmp_path: Path) -> None:
    with session(http=0) as (run, _):
        assert waited(lambda: run.status.dreams > 0)

        def pictures() -> list[Shown]:
            found: list[Shown] = []
            until = time.monotonic() + 0.7
            while time.monotonic() < until:
                if run._shown is not None and (not found or found[-1] is not run._shown):
                    found.append(run._shown)
                time.sleep(0.005)
            return found

        run.controls.act("freeze", True)
        assert waited(lambda: "freeze" in run.status.states)
        frozen = pictures()
        assert len(frozen) > 5
        assert all(np.array_equal(frozen[0].pixels, p.pixels) for p in frozen)
        times = [p.time for p in frozen]
        assert times == sorted(set(times))
        run.controls.act("freeze", False)
        run.controls.act("pause", True)
        assert waited(lambda: "pause" in run.status.states)
        assert len(pictures()) > 3  # the dream on it goes on
        run.controls.act("pause", False)
        run.controls.act("blackout")
        run.controls.set("fade", 0.1)
        assert waited(lambda: run._shown is not None and run._shown.pixels.max() == 0)
        run.controls.act("blackout")
        assert waited(lambda: run._shown is not None and run._shown.pixels.max() > 100)
        run.controls.act("reset")
        before = run.dreamer.dreams
        assert waited(lambda: run.dreamer.dreams > before + 2)


def test_presets_change_the_network_while_it_runs() -> None:
    with session(http=0) as (run, told):
        assert waited(lambda: run.status.dreams > 0)
        run.controls.take_preset("classic")  # VGG19
        before = run.dreamer.dreams
        assert waited(lambda: run.dreamer.dreams > before + 1)
        shown = run._count
        assert waited(lambda: run._count > shown + 5)
        assert run.status.preset == "classic"
        run.controls.take_preset("eyes")
        before = run.dreamer.dreams
        assert waited(lambda: run.dreamer.dreams > before + 1)
    assert run.dreamer.faults == 0
    assert told[1:] == []


@pytest.mark.alone
def test_the_last_dream_lives_on_while_the_camera_is_away() -> None:
    server = Webcam()
    with session(server.url, http=0) as (run, _):
        assert waited(lambda: run.status.connected and run.status.dreams > 0)
        server.kill()
        assert waited(lambda: not run.status.connected)
        count, dreams = run._count, run.dreamer.dreams
        assert waited(lambda: run._count > count + 10 and run.dreamer.dreams > dreams + 2)
        assert run.status.shown > 3
        server = Webcam(server.port)
        assert waited(lambda: run.status.connected)
        server.kill()


def test_outside_of_opening_hours_it_is_black_and_the_camera_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with session(http=0, hours="00:00-24:00", fade=0.1) as (run, told):
        assert waited(lambda: run.status.dreams > 0)
        monkeypatch.setattr(run._hours, "open", lambda: False)
        assert waited(lambda: run._shown is not None and run._shown.pixels.max() == 0)
        assert run.capture.state == "closed"
        assert any("closed" in text for text in told)
        monkeypatch.setattr(run._hours, "open", lambda: True)
        assert waited(lambda: run._shown is not None and run._shown.pixels.max() > 100)


@pytest.mark.alone
def test_fewer_pictures_than_the_camera_has_if_that_is_wanted() -> None:
    with session(http=0, fps=10.0) as (run, _):
        assert waited(lambda: run.status.seconds > 4)
        assert run.status.shown == pytest.approx(10, rel=0.25)
        assert run.status.wanted == 10


def test_the_page_shows_and_steers_the_real_thing() -> None:
    with session(http=0) as (run, told):
        assert waited(lambda: run.status.dreams > 0)
        address = told[0].removeprefix("page: ").rstrip("/")
        request = urllib.request.Request(
            address + "/api/set", json.dumps({"strength": 0.25}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200
        assert waited(lambda: abs(run.controls.at().strength - 0.25) < 1e-6)
        with av.open(address + "/stream.mjpg", format="mpjpeg", timeout=5) as stream:
            frames = stream.decode(video=0)
            seen = [next(frames).to_ndarray(format="rgb24").astype(int) for _ in range(8)]  # type: ignore[union-attr]
        assert seen[0].shape == (96, 160, 3)
        assert np.abs(seen[0] - seen[-1]).mean() > 1


def test_a_console_that_is_gone_ends_nothing() -> None:
    chosen = options(http=0)

    def broken(_text: str) -> None:
        raise SystemExit(1)

    run = Session(find("test", chosen), chosen, broken)
    run.tell("one")
    run.close()


def test_a_token_is_said_on_the_console_and_nowhere_else(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    process = command(
        "test", "--no-window", "--http", "0", "--host", "0.0.0.0", "--osc", "0", "--token",
        "very-secret-indeed", "--seconds", "4", "--log", str(log),
    )  # fmt: skip
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "very-secret-indeed" in text
    assert "very-secret-indeed" not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    lines = log.read_text().splitlines()
    assert "streamdream" in lines[0]
    assert "ended" in lines[-1]


def test_there_is_black_until_the_first_picture_comes() -> None:
    with session("http://127.0.0.1:9/nothing.mjpg", http=0, size="320x180") as (run, told):
        assert waited(lambda: run._shown is not None)
        assert run._shown is not None
        assert run._shown.size == (180, 320)
        assert run._shown.pixels.max() == 0
        assert any("tried again" in text for text in told)


def test_without_a_sign_of_the_window_or_the_dreamer_there_is_none_of_life() -> None:
    chosen = options(http=0)
    run = Session(find("test", chosen), chosen, lambda _text: None)
    beats: list[str] = []

    class Beating:
        orphaned = False

        def beat(self, status: str = "") -> None:
            beats.append(status)

    run._heart = Beating()  # type: ignore[assignment]
    now = time.monotonic()
    assert run._lives(now)
    assert len(beats) == 1
    object.__setattr__(run, "_options", chosen.model_copy(update={"window": True}))
    run._presented = now - 60
    assert run._lives(now)
    assert len(beats) == 1
    run.dreamer.close()
    assert not run._lives(now)
    run.close()


class Screen:
    """A window that can be lost."""

    shown = 0
    broken = False
    acts: list[tuple[str, object]] = []  # noqa: RUF012

    def __init__(self, *_args: object) -> None:
        if Screen.broken:
            raise SinkError("window", "cannot be opened")

    def poll(self) -> None:
        if Screen.broken:
            raise SinkError("window", "lost")

    def show(self, picture: Shown, status: Status) -> None:
        Screen.shown += 1

    def act(self, name: str, value: object = None) -> None:
        Screen.acts.append((name, value))

    @property
    def shown_states(self) -> tuple[str, ...]:
        return ("status",)

    def close(self) -> None:
        pass


def test_a_lost_window_is_opened_again_and_nothing_else_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import streamdream.live.window as windows

    monkeypatch.setattr(windows, "Window", Screen)
    Screen.shown, Screen.broken = 0, False
    with session(window=True, http=0) as (run, told):
        assert waited(lambda: Screen.shown > 10)
        run.controls.act("help")
        assert waited(lambda: ("help", None) in Screen.acts)
        assert waited(lambda: "status" in run.status.states)
        Screen.broken = True
        assert waited(lambda: any("lost" in text for text in told))
        dreams = run.dreamer.dreams
        assert waited(lambda: run.dreamer.dreams > dreams + 2)
        Screen.broken = False
        assert waited(lambda: any("there again" in text for text in told))
        shown = Screen.shown
        assert waited(lambda: Screen.shown > shown + 5)


@pytest.mark.parametrize(
    ("given", "subject"),
    [
        ({"record": "/nowhere/out.mp4"}, "nowhere"),
        ({"record": "out.txt"}, "out.txt"),
        ({"folder": "/nowhere"}, "nowhere"),
        ({"hls": __file__}, "test_live_session"),
        ({"stream": ("srt://127.0.0.1:9",)}, "srt"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_anything_is_loaded(
    given: dict[str, Any], subject: str
) -> None:
    chosen = options(**{"http": 0, **given})
    began = time.monotonic()
    with pytest.raises(Error, match=re.escape(subject)):
        Session(find("test", chosen), chosen, print)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"window": False}, "needs another output"),
        ({"hours": "25:00-26:00"}, "opening hours"),
        ({"hours": "10-18"}, "opening hours"),
        ({"react": "strength bass"}, "option: signal"),
        ({"react": "strength: base"}, "did you mean bass"),
        ({"react": "layers: bass"}, "cannot follow"),
        ({"react": "strenth: bass"}, "did you mean strength"),
        ({"token": "short"}, "at least 8"),
        ({"attract": 1}, "greater than or equal to 5"),
        ({"pixel_format": "a b"}, "match"),
        ({"capture_size": "big"}, "WIDTHxHEIGHT"),
        ({"fps": 0}, "greater than or equal to 1"),
        ({"layers": "block99"}, "no such layer"),
    ],
)
def test_wrong_options_are_told(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(Error, match=reason):
        made(LiveOptions, given)


def test_reactions_are_read() -> None:
    chosen = made(LiveOptions, {"react": "strength: bass 0.4..1.2, step-size: onset"})
    first, second = chosen.reactions
    assert (first.option, first.signal, first.low, first.high) == ("strength", "bass", 0.4, 1.2)
    assert (second.low, second.high) == LiveOptions.sliders()["step_size"]
    assert Reaction.read("strength: beat -1..1", LiveOptions).low == -1
    with pytest.raises(OptionError, match="react"):
        made(LiveOptions, {"react": "nothing"})


# From here on the command itself, as a person starts it.


SETTINGS = ["--work-size", "64", "--octaves", "2", "--capture-size", "320x180"]


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streamdream", "live", *words, *SETTINGS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={k: v for k, v in {**os.environ, **environment}.items() if v},
    )  # fmt: skip


def test_the_command_runs_and_ends_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    process = command("test", "--no-window", "--http", "0", "--seconds", "4", "--log", str(log))
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "page: http://127.0.0.1:" in text
    assert "pictures in" in text
    assert "page: http://127.0.0.1:" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(tmp_path: Path, number: int) -> None:
    process = command("test", "--no-window", "--record", str(tmp_path / "out.mp4"))
    assert waited(lambda: list(tmp_path.glob("*.part.mp4")), 40)
    time.sleep(2)
    process.send_signal(number)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 0, text
    (made,) = tmp_path.glob("out-*.mp4")
    assert ".part" not in made.name
    assert len(frame_times(made)) > 5


MISTAKES = [
    (("nothing.mp4", "--no-window", "--http", "0"), 3, "nothing.mp4: no such file"),
    (("test", "--no-window"), 2, "needs another output"),
    (("test",), 4, "there is no display here"),
    (("test", "--preset", "nothing"), 2, "no such preset"),
    (("test", "--no-window", "--http", "0", "--log", "/nowhere/x.log"), 4, "cannot be written"),
    (("test", "--strenth", "1"), 2, "strenth"),
    (("test", "--no-window", "--record", "out.xyz"), 2, "out.xyz"),
]


@pytest.mark.parametrize(("words", "code", "line"), MISTAKES[:3])
def test_what_is_wrong_ends_the_process_with_its_exit_code(
    words: tuple[str, ...], code: int, line: str
) -> None:
    process = command(*words, DISPLAY="", WAYLAND_DISPLAY="", SDL_VIDEODRIVER="")
    _, text = process.communicate(timeout=60)
    assert process.returncode == code, text
    (only,) = text.strip().splitlines()
    assert only.startswith("streamdream: error: ")
    assert line in only


@pytest.mark.parametrize(("words", "code", "line"), MISTAKES)
def test_what_is_wrong_is_told_in_one_line(
    words: tuple[str, ...], code: int, line: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from streamdream import cli

    for variable in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["live", *words, *SETTINGS])
    out, text = capfd.readouterr()
    assert (ended.value.code, out) == (code, ""), text
    (only,) = text.strip().splitlines()
    assert only.startswith("streamdream: error: ")
    assert line in only


@pytest.mark.slow
def test_a_killed_run_is_started_again_by_the_watchdog(tmp_path: Path) -> None:
    process = command("test", "--no-window", "--hls", str(tmp_path), "--watchdog")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def child() -> int | None:
        found = children.read_text().split()
        return int(found[0]) if found else None

    assert waited((tmp_path / "live.m3u8").exists, 60)
    first = child()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert waited(lambda: child() not in (None, first), 30)
    (tmp_path / "live.m3u8").unlink(missing_ok=True)
    assert waited((tmp_path / "live.m3u8").exists, 60)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=40)
    assert process.returncode == 0, text
    assert "SIGKILL" in text


# The window, on a real X server.


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    if not all(shutil.which(name) for name in ("Xvfb", "xdotool", "openbox")):
        pytest.skip("the window's tests need Xvfb, xdotool and openbox")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x720x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    environment = {**os.environ, "DISPLAY": f":{number}"}
    manager = subprocess.Popen(["openbox"], env=environment, stderr=subprocess.DEVNULL)
    yield f":{number}"
    for process in (manager, server):
        process.terminate()
        process.wait(10)


def screenshot(display: str) -> np.ndarray:
    given = {"video_size": "1280x720", "framerate": "30"}
    with av.open(f"{display}+0,0", format="x11grab", options=given) as grab:
        frame = next(grab.decode(video=0))
        return frame.to_ndarray(format="rgb24").astype(int)  # type: ignore[union-attr]


@pytest.fixture
def window(display: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    process = command(
        "test", "--folder", str(tmp_path), "--fade", "0.3",
        DISPLAY=display, SDL_VIDEODRIVER="", WAYLAND_DISPLAY="",
    )  # fmt: skip

    def tool(*words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env={**os.environ, "DISPLAY": display}, capture_output=True,
            text=True, check=False, timeout=20,
        )  # fmt: skip
        return done.stdout.strip()

    assert waited(lambda: tool("search", "--class", "streamdream"), 60)
    tool("search", "--class", "streamdream", "windowfocus", "--sync")
    assert waited(lambda: screenshot(display).max() > 100)
    yield tool
    if tool("search", "--class", "streamdream"):
        process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 0, text


@pytest.mark.alone
@pytest.mark.slow
def test_keys_do_what_the_help_says(
    display: str, window: Callable[..., str], tmp_path: Path
) -> None:
    def now() -> np.ndarray:
        return screenshot(display)

    def inside() -> np.ndarray:
        (number, *_) = window("search", "--class", "streamdream").split()
        told = window("getwindowgeometry", "--shell", number)
        x, y, w, h = (int(n) for n in re.findall(r"(?:X|Y|WIDTH|HEIGHT)=(\d+)", told))
        return now()[y + h // 4 : y + 3 * h // 4, x + w // 4 : x + 3 * w // 4]

    assert waited(lambda: np.abs(now() - now()).mean() > 0.2)  # it moves
    window("key", "z")
    assert waited(lambda: np.array_equal(now(), now()))  # frozen
    still = now()
    window("key", "h")
    assert waited(lambda: np.abs(now() - still).mean() > 0.5)  # the help lies on it
    window("key", "h")
    assert waited(lambda: np.abs(now() - still).mean() < 0.05)
    window("key", "s")
    assert waited(lambda: np.abs(now() - still).mean() > 0.1)
    window("key", "s")
    window("key", "z")
    window("key", "b")
    assert waited(lambda: inside().max() == 0)
    window("key", "b")
    assert waited(lambda: inside().max() > 100)
    windowed = (now().max(-1) > 8).mean()
    window("key", "f")
    assert waited(lambda: (now().max(-1) > 8).mean() > 4 * windowed)  # the whole screen
    window("key", "g")
    assert waited(lambda: np.array_equal(now(), now()) and now().max() > 200)  # test pattern
    window("key", "g")
    window("key", "f")
    assert waited(lambda: (now().max(-1) > 8).mean() < 2 * windowed)
    for _ in range(10):  # the window manager takes its time to give the keys back
        window("search", "--class", "streamdream", "windowfocus", "--sync")
        window("key", "c")
        if waited(lambda: list(tmp_path.glob("*.png")), 2):
            break
    assert list(tmp_path.glob("*.png"))
    window("key", "r")
    assert waited(lambda: list(tmp_path.glob("*.part.mp4")))
    assert waited(lambda: ((now()[..., 0] > 220) & (now()[..., 1] < 60)).sum() > 50)  # red mark
    window("key", "r")
    assert waited(lambda: [p for p in tmp_path.glob("*.mp4") if ".part" not in p.name])
    window("key", "Escape")
    assert waited(lambda: not window("search", "--class", "streamdream"))


@pytest.mark.alone
@pytest.mark.slow
def test_a_window_that_is_closed_ends_it(display: str, window: Callable[..., str]) -> None:
    def closed() -> bool:
        # A key is lost while the window manager is still giving the new window the keyboard.
        window("search", "--class", "streamdream", "windowfocus")
        window("key", "alt+F4")
        return waited(lambda: not window("search", "--class", "streamdream"), 3)

    assert waited(closed)
