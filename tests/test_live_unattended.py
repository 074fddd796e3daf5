from __future__ import annotations

import configparser
import itertools
import os
import plistlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streamdream import hardware, models
from streamdream.errors import OptionError
from streamdream.live import camera, doctor, watchdog
from streamdream.live.doctor import Finding, conclusion, examine, verdict
from streamdream.live.hours import Hours
from streamdream.live.options import LiveOptions
from streamdream.live.watchdog import Heart, supervise

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and groups of POSIX")

BEGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path
from streamdream.live.watchdog import Heart
place = Path(sys.argv[1])
starts = place / "starts"
with starts.open("a") as file:
    file.write(f"{os.getpid()}\\n")
count = len(starts.read_text().split())
heart = Heart()
def live(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not heart.orphaned:
        heart.beat()
        time.sleep(0.02)
"""


def child(place: Path, code: str) -> list[str]:
    return [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(place)]


def starts(place: Path) -> list[int]:
    found = place / "starts"
    return [int(pid) for pid in found.read_text().split()] if found.exists() else []


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(what: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def quick(seconds: float) -> None:
    time.sleep(seconds / 50)


def quick_clock() -> float:
    return time.monotonic() * 50


def test_what_crashes_is_started_again_until_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = """
        heart.beat()
        if count == 1: sys.exit(1)
        if count == 2: raise RuntimeError("as bad as it gets")
        if count == 3: os.kill(os.getpid(), signal.SIGKILL)
        live(0.3)
    """
    monkeypatch.setattr(watchdog, "QUIET", 1e9)  # what takes seconds here counts fifty times
    told: list[str] = []
    code = supervise(child(tmp_path, crashing), told.append, sleep=quick, clock=quick_clock,
                     stall=1000, begin=1000)  # fmt: skip
    assert code == 0
    assert len(starts(tmp_path)) == 4
    assert told[0] == "watchdog: the run ended with exit code 1; started again in 1 s"
    assert told[1] == "watchdog: the run works again"
    assert len(told) == 2, "the other failures came too soon after it"


@pytest.mark.alone
def test_what_hangs_is_killed_and_replaced_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = """
        stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" \\
            "print(flush=True); time.sleep(60)"
        if count == 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            other = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
            other.stdout.readline()
            (place / "other").write_text(str(other.pid))
            heart.beat()
            time.sleep(60)
        live(0.2)
    """
    monkeypatch.setattr(watchdog, "MERCY", 1.5)
    told: list[str] = []
    begun = time.monotonic()
    assert supervise(child(tmp_path, hanging), told.append, stall=0.6) == 0
    assert time.monotonic() - begun < 0.6 + watchdog.MERCY + 4
    first, second = starts(tmp_path)
    assert not runs(first)
    assert not runs(second)
    assert not runs(int((tmp_path / "other").read_text()))
    assert told[0] == "watchdog: the run gave no sign of life for 0.6 s; started again in 1 s"


@pytest.mark.alone
def test_what_never_begins_is_replaced_even_if_it_ends_well_when_told_to(tmp_path: Path) -> None:
    late = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        if count == 1: time.sleep(60)
    """
    told: list[str] = []
    assert supervise(child(tmp_path, late), told.append, begin=0.8) == 0
    assert len(starts(tmp_path)) == 2
    assert "no sign of life for 0.8 s" in told[0]


def test_what_others_started_ends_with_a_run_that_crashes(tmp_path: Path) -> None:
    crashing = """
        if count == 1:
            left = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" \\
                "print(flush=True); time.sleep(60)"
            other = subprocess.Popen([sys.executable, "-c", left], stdout=subprocess.PIPE)
            other.stdout.readline()
            (place / "other").write_text(str(other.pid))
            os._exit(1)
    """
    assert supervise(child(tmp_path, crashing), print) == 0
    assert not runs(int((tmp_path / "other").read_text()))


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5])
def test_an_error_right_at_the_start_ends_it(tmp_path: Path, code: int) -> None:
    told: list[str] = []
    assert supervise(child(tmp_path, f"sys.exit({code})"), told.append) == code
    assert len(starts(tmp_path)) == 1
    assert told == []


def test_the_same_error_after_it_once_worked_does_not(tmp_path: Path) -> None:
    unplugged = """
        if count < 3: heart.beat()
        sys.exit(3 if count < 5 else 0)
    """
    told: list[str] = []
    code = supervise(child(tmp_path, unplugged), told.append, sleep=quick, clock=quick_clock,
                     stall=1000, begin=1000)  # fmt: skip
    assert code == 0
    assert len(starts(tmp_path)) == 5


def test_a_command_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such file"):
        supervise([str(tmp_path / "nothing")], print)


SUPERVISOR = """
import signal
import sys
from streamdream.live.watchdog import supervise
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # who runs the tests by nohup ignores it
sys.exit(supervise(sys.argv[1:], lambda text: print(text, flush=True)))
"""


@pytest.fixture
def supervisors() -> Iterator[list[subprocess.Popen[str]]]:
    begun: list[subprocess.Popen[str]] = []
    yield begun
    for process in begun:
        process.kill()
        process.communicate()


def supervisor(begun: list[subprocess.Popen[str]], place: Path, code: str) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, *child(place, code)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun.append(process)
    return process


@pytest.mark.alone
@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_end_both_in_good_order(
    tmp_path: Path, supervisors: list[subprocess.Popen[str]], name: str
) -> None:
    orderly = f"""
        def end(*_):
            (place / "ended").write_text("well")
            heart.close()
            sys.exit(7)
        signal.signal(signal.{name}, end)
        heart.beat()
        (place / "ready").touch()
        live(60)
    """
    process = supervisor(supervisors, tmp_path, orderly)
    wait_for((tmp_path / "ready").exists)
    begun = time.monotonic()
    process.send_signal(getattr(signal, name))
    assert process.wait(10) == 7, "the exit code is the run's"
    assert time.monotonic() - begun < 3
    assert (tmp_path / "ended").read_text() == "well"
    assert len(starts(tmp_path)) == 1
    assert not runs(starts(tmp_path)[0])


@pytest.mark.alone
@posix
def test_a_signal_while_it_waits_to_start_again_ends_it_at_once(
    tmp_path: Path, supervisors: list[subprocess.Popen[str]]
) -> None:
    process = supervisor(supervisors, tmp_path, "sys.exit(1)")
    wait_for(lambda: len(starts(tmp_path)) == 2)
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(5) == 128 + signal.SIGTERM
    assert time.monotonic() - begun < 1, "the pause was 2 seconds by then"
    assert len(starts(tmp_path)) == 2


@posix
def test_what_does_not_end_when_asked_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getppid(), signal.SIGTERM)
        live(60)
    """
    monkeypatch.setattr(watchdog, "GOODBYE", 0.5)
    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    assert supervise(child(tmp_path, deaf), print) == 128 + signal.SIGKILL
    assert time.monotonic() - begun < 5
    assert signal.getsignal(signal.SIGTERM) is before


@posix
def test_a_run_notices_that_its_supervisor_was_killed(
    tmp_path: Path, supervisors: list[subprocess.Popen[str]]
) -> None:
    noticing = """
        heart.beat()
        (place / "ready").touch()
        live(60)
        (place / "noticed").write_text(str(heart.orphaned))
    """
    process = supervisor(supervisors, tmp_path, noticing)
    wait_for((tmp_path / "ready").exists)
    process.kill()
    wait_for(lambda: (tmp_path / "noticed").exists() and not runs(starts(tmp_path)[0]), 5)
    assert (tmp_path / "noticed").read_text() == "True"


def test_a_run_whose_supervisor_is_gone_before_it_begins_is_an_orphan() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    heart = Heart({watchdog.HEARTBEAT: f"{port}:word"})
    assert heart.orphaned
    heart.beat()
    heart.close()


def test_a_run_without_a_supervisor_is_no_orphan() -> None:
    heart = Heart({})
    heart.beat("nobody hears it")
    assert not heart.orphaned
    heart.close()
    heart.close()
    heart.beat()


def test_strangers_on_the_port_are_no_heartbeat() -> None:
    listener = watchdog._Listener()
    port, _, word = listener.renewed().partition(":")
    strangers = []
    for _ in range(30):
        strangers.append(socket.create_connection(("127.0.0.1", int(port))))
        strangers[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not listener.heard(0.05)
        assert not listener.heard(0.05)
    heart = Heart({watchdog.HEARTBEAT: f"{port}:{word}"})
    heart.beat()
    assert any(listener.heard(0.05) for _ in range(20)), "there is room for it"
    for stranger in strangers:
        stranger.close()
    listener.renewed()
    heart._last = -100
    heart.beat()
    assert not any(listener.heard(0.01) for _ in range(20)), "runs before are not listened to"
    heart.close()
    listener.close()


@pytest.mark.alone
def test_a_heartbeat_that_nobody_takes_never_blocks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        heart = Heart({watchdog.HEARTBEAT: f"{server.getsockname()[1]}:{'word' * 4000}"})
        begun = time.monotonic()
        for _ in range(2000):
            heart._last = -100
            heart.beat()
        assert time.monotonic() - begun < 2
        assert not heart.orphaned
        heart.close()


@pytest.mark.alone
def test_a_beat_costs_next_to_nothing() -> None:
    heart = Heart({})
    heart.beat()
    begun = time.perf_counter()
    for _ in range(10_000):
        heart.beat()
    assert (time.perf_counter() - begun) / 10_000 < 50e-6
    heart.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is of Linux")
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_that_it_is_ready_and_lives_and_ends(tmp_path: Path, abstract: bool) -> None:
    name = f"@streamdream-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name[1:] if abstract else name)
        server.settimeout(2)
        heart = Heart({"NOTIFY_SOCKET": name})
        heart.beat("30 pictures\na second")
        assert server.recv(999) == b"READY=1\nSTATUS=30 pictures a second"
        heart.beat("not yet")
        heart._last -= 1
        heart.beat("not yet")
        assert server.recv(999) == b"WATCHDOG=1", "one status in ten seconds"
        heart._last -= 1
        heart._status_sent -= 10
        heart.beat("now")
        assert server.recv(999) == b"WATCHDOG=1\nSTATUS=now"
        heart.close()
        assert server.recv(999) == b"STOPPING=1"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is of Linux")
def test_ready_is_said_again_until_systemd_takes_it(tmp_path: Path) -> None:
    heart = Heart({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    heart.beat()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(2)
        heart._last = -100
        heart.beat()
        assert server.recv(999) == b"READY=1"
    heart.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is of Linux")
def test_the_supervisor_speaks_to_systemd_while_its_run_is_away(tmp_path: Path) -> None:
    away = """
        assert "NOTIFY_SOCKET" not in os.environ
        if count == 1:
            heart.beat()
            time.sleep(0.3)
            os._exit(1)
        live(0.5)
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(1)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        assert supervise(child(tmp_path, away), print, environment=environment) == 0
        heard = []
        while not heard or heard[-1] != "STOPPING=1":
            heard.append(server.recv(999).decode())
    assert heard[0].startswith("READY=1")
    assert "WATCHDOG=1\nSTATUS=waiting to start again" in heard


def test_pauses_double_up_to_a_minute_and_begin_anew_after_good_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = [0.0] * 8 + [299.0, 300.0, 0.0]
    clock = [0.0]
    ended: list[float] = []
    began: list[float] = []

    def begin(_command: object, _environment: object) -> Any:
        began.append(clock[0])
        return None

    def watch(*_: object) -> watchdog._End:
        if len(ended) == len(lives):
            return watchdog._End(0, 0, "ended with exit code 0")
        clock[0] += lives[len(ended)]
        good = lives[len(ended)]
        ended.append(clock[0])
        return watchdog._End(1, good, "ended with exit code 1")

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(watchdog, "_started", begin)
    monkeypatch.setattr(watchdog, "_watch", watch)
    told: list[tuple[float, str]] = []
    code = supervise(
        ["x"], lambda text: told.append((clock[0], text)), sleep=sleep, clock=lambda: clock[0]
    )
    assert code == 0
    pauses = [again - end for end, again in zip(ended, began[1:], strict=True)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60, 1, 2])
    times = [moment for moment, _ in told]
    assert all(after - before >= 60 for before, after in itertools.pairwise(times))
    assert "(5 more failures before it)" in told[1][1]


def test_a_log_that_fails_does_not_end_the_watch(tmp_path: Path) -> None:
    def broken(text: str) -> None:
        raise OSError("no space left on device")

    assert supervise(child(tmp_path, "heart.beat(); sys.exit(count < 2)"), broken) == 0
    assert len(starts(tmp_path)) == 2


@posix
def test_a_run_that_cannot_be_started_again_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "run"
    script.write_text('#!/bin/sh\nmv "$0" "$0.away"; exit 1\n')
    script.chmod(0o755)
    told: list[str] = []

    def back(seconds: float) -> None:
        quick(seconds)
        if any("cannot be started" in line for line in told):
            script.write_text("#!/bin/sh\nexit 0\n")
            script.chmod(0o755)

    monkeypatch.setattr(watchdog, "QUIET", 0)
    code = supervise([str(script)], told.append, sleep=back, clock=quick_clock, begin=1000)
    assert code == 0
    assert "cannot be started (no such file or directory)" in told[1]


def test_thousand_listeners_leak_nothing() -> None:
    def once() -> None:
        listener = watchdog._Listener()
        heart = Heart({watchdog.HEARTBEAT: listener.renewed()})
        heart.beat()
        listener.heard(0)
        heart.close()
        listener.close()

    once()
    if sys.platform != "linux":
        return
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(1000):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


def at(text: str, zone: str | None = None, fold: int = 0) -> Callable[[], datetime]:
    moment = datetime.fromisoformat(text).replace(fold=fold)
    return lambda: moment.replace(tzinfo=ZoneInfo(zone) if zone else None)


def spans(text: str) -> tuple[tuple[int, int], ...]:
    return LiveOptions(hours=text).spans


@pytest.mark.parametrize(
    ("hours", "clock", "is_open", "changes_in"),
    [
        ("10:00-18:00", "2026-05-05 09:59:59", False, timedelta(seconds=1)),
        ("10:00-18:00", "2026-05-05 10:00", True, timedelta(hours=8)),
        ("10:00-18:00", "2026-05-05 17:59:59.5", True, timedelta(seconds=0.5)),
        ("10:00-18:00", "2026-05-05 18:00", False, timedelta(hours=16)),
        ("10:00-12:30,14:00-18:00", "2026-05-05 12:15", True, timedelta(minutes=15)),
        ("10:00-12:30,14:00-18:00", "2026-05-05 13:00", False, timedelta(hours=1)),
        ("10:00-14:00,12:00-18:00", "2026-05-05 13:00", True, timedelta(hours=5)),
        ("22:00-02:00", "2026-05-05 23:30", True, timedelta(hours=2.5)),
        ("22:00-02:00", "2026-05-06 01:30", True, timedelta(hours=0.5)),
        ("22:00-02:00", "2026-05-06 02:00", False, timedelta(hours=20)),
        ("18:00-24:00", "2026-05-05 23:59", True, timedelta(minutes=1)),
        ("18:00-00:00", "2026-05-05 23:59", True, timedelta(minutes=1)),
        ("18:00-24:00,00:00-02:00", "2026-05-05 23:00", True, timedelta(hours=3)),
        ("24:00-01:00", "2026-05-05 00:30", True, timedelta(minutes=30)),
        ("00:00-24:00", "2026-05-05 00:00", True, timedelta.max),
        ("10:00-10:00", "2026-05-05 03:00", True, timedelta.max),
        ("00:00-12:00,12:00-24:00", "2026-05-05 12:00", True, timedelta.max),
    ],
)
def test_opening_hours(hours: str, clock: str, is_open: bool, changes_in: timedelta) -> None:
    for zone in (None, "UTC", "Asia/Kathmandu"):
        found = Hours(spans(hours), at(clock, zone))
        assert found.open() == is_open
        assert found.until() == changes_in


def test_without_opening_hours_it_is_always_open() -> None:
    found = Hours(())
    assert found.open()
    assert found.until() == timedelta.max


@pytest.mark.parametrize(
    ("hours", "clock", "fold", "is_open", "changes_in"),
    [
        # In the night of 29 March 2026 the clock jumps from 2:00 to 3:00,
        ("10:00-18:00", "2026-03-28 20:00", 0, False, timedelta(hours=13)),
        ("22:00-04:00", "2026-03-28 23:00", 0, True, timedelta(hours=4)),
        ("02:30-05:00", "2026-03-29 01:30", 0, False, timedelta(minutes=30)),
        ("02:10-02:50", "2026-03-29 01:30", 0, False, timedelta(hours=23, minutes=40)),
        # in that of 25 October back from 3:00 to 2:00.
        ("10:00-18:00", "2026-10-24 20:00", 0, False, timedelta(hours=15)),
        ("22:00-04:00", "2026-10-24 23:00", 0, True, timedelta(hours=6)),
        ("01:00-02:30", "2026-10-25 02:15", 0, True, timedelta(minutes=15)),
        ("01:00-02:30", "2026-10-25 02:45", 0, False, timedelta(minutes=15)),
        ("01:00-02:30", "2026-10-25 02:45", 1, False, timedelta(hours=22, minutes=15)),
    ],
)
def test_opening_hours_when_clocks_change(
    hours: str, clock: str, fold: int, is_open: bool, changes_in: timedelta
) -> None:
    found = Hours(spans(hours), at(clock, "Europe/Berlin", fold))
    assert found.open() == is_open
    assert found.until() == changes_in


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the time zone cannot be set here")
def test_opening_hours_go_by_the_machine_and_its_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        assert Hours(spans("10:00-18:00"), at("2026-03-28 20:00")).until() == timedelta(hours=13)
        assert Hours(spans("10:00-18:00"), at("2026-10-24 20:00")).until() == timedelta(hours=15)
        now = datetime.now().hour * 60
        assert Hours(((now, now + 60),)).open()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_was_announced_is_when_it_changes() -> None:
    zone = ZoneInfo("Europe/Berlin")
    text = "01:00-02:30,22:15-23:45"
    moment = datetime(2026, 10, 23, 12, 0, 30, tzinfo=zone)
    for _ in range(12):
        before = Hours(spans(text), lambda now=moment: now)
        then = datetime.fromtimestamp(moment.timestamp() + before.until().total_seconds(), zone)
        just_before = datetime.fromtimestamp(then.timestamp() - 1, zone)
        assert Hours(spans(text), lambda now=just_before: now).open() == before.open()
        assert Hours(spans(text), lambda now=then: now).open() != before.open()
        moment = then


def on(topic: str, found: list[Finding]) -> list[Finding]:
    chosen = [finding for finding in found if finding.topic == topic]
    assert chosen, f"nothing is told on {topic}"
    return chosen


def test_the_doctor_looks_at_one_thing_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(topic: str) -> Callable[[], Iterator[Finding]]:
        def check() -> Iterator[Finding]:
            looked.append(topic)
            yield Finding(topic, "good", "as it should be")

        return check

    monkeypatch.setattr(doctor, "_system", look("system"))
    monkeypatch.setattr(doctor, "_libraries", look("libraries"))
    findings = examine(tmp_path, quick=True)
    assert looked == []
    next(findings)
    assert looked == ["system"]
    next(findings)
    assert looked == ["system", "libraries"]


def test_the_doctor_on_this_machine(tmp_path: Path) -> None:
    found = list(examine(tmp_path, quick=True))
    assert [f.text for f in found if f.state == "bad"] == []
    assert verdict(found) == 0
    assert on("models", found) == [Finding("models", "good", name) for name in models.CARDS]
    assert on("encoders", found)[-1].text == "H.264, VP9, HEVC, AV1"
    assert "torch" in on("libraries", found)[0].text
    assert on("display", found)[0].state == "note", "tests run without one"
    assert all(f.cure for f in found if f.topic == "extras" and f.state == "note")
    assert "speed" not in {f.topic for f in found}


@pytest.mark.slow
def test_the_doctor_measures_and_comes_to_a_conclusion(tmp_path: Path) -> None:
    *_, first, _, _, last = examine(tmp_path, device="cpu")
    assert first.text.startswith("120 lines: ")
    assert re.search(r"pictures a second at 640x360 .*at (up to )?(120|180|270) lines$", last.text)


def test_what_a_machine_can_do_goes_by_its_speed() -> None:
    fast = conclusion({120: (900, 200), 180: (500, 100), 270: (300, 50)})
    assert fast.state == "good"
    assert "about 45 dream steps" in fast.text
    assert fast.text.endswith("270 lines")
    usual = conclusion({120: (90, 30), 180: (45, 14), 270: (20, 6)})
    assert usual.state == "good"
    assert usual.text.endswith("120 lines")
    weak = conclusion({120: (40, 12), 180: (20, 5), 270: (9, 2)})
    assert weak.state == "note"
    assert "about 3 dream steps" in weak.text
    slow = conclusion({120: (20, 4), 180: (9, 2), 270: (4, 1)})
    assert slow.state == "note"
    assert slow.text.startswith("about 10.0 pictures a second")
    assert verdict([fast, usual, weak, slow]) == 0


def quick_look(folder: Path, topic: str) -> list[Finding]:
    return on(topic, list(examine(folder, quick=True)))


def only(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    """Leave out the other checks, which take their time."""
    names = "system libraries processor models encoders display cameras extras sound disk clock"
    for name in set(names.split()) - set(checks):
        monkeypatch.setattr(doctor, f"_{name}", lambda *_: iter(()))


def test_the_doctor_misses_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "libraries")
    monkeypatch.setitem(sys.modules, "av", None)
    missing, others = quick_look(tmp_path, "libraries")
    assert missing.state == "bad"
    assert missing.text.startswith("av cannot be loaded")
    assert "pip install" in missing.cure
    assert "torch" in others.text
    assert verdict([others, missing]) == 1


def test_the_doctor_misses_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "models")
    wrong = tmp_path / "weights"
    wrong.write_bytes(b"something else")
    monkeypatch.setattr(models.ModelCard, "weights_path", lambda _: wrong)
    for finding in quick_look(tmp_path, "models"):
        assert finding.state == "bad"
        assert "pip install --force-reinstall" in finding.cure
    monkeypatch.undo()
    only(monkeypatch, "models")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda _: None)
    found = quick_look(tmp_path, "models")
    assert [f.state for f in found] == ["bad", "bad"]
    assert "not installed" in found[0].text


def test_the_doctor_misses_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "encoders")
    real = doctor._trial
    monkeypatch.setattr(doctor, "_trial", lambda c: "gone" if c.name == "h264" else real(c))
    monkeypatch.setattr(hardware, "find", lambda *_: (hardware.Found("h264_x", "nv12", {}), ""))
    first, others = quick_look(tmp_path, "encoders")
    assert (first.state, first.text) == ("bad", "H.264 does not work: gone")
    assert others.text == "VP9, HEVC, AV1"
    assert quick_look(tmp_path, "hardware encoder")[0].text == "h264_x works"
    monkeypatch.setattr(doctor, "_trial", real)
    import av

    def create(*_: object) -> Any:
        raise OSError(12, "no memory left for it")

    monkeypatch.setattr(av.CodecContext, "create", create, raising=False)
    failing = quick_look(tmp_path, "encoders")
    assert [f.state for f in failing] == ["bad", "note", "note", "note"]
    assert failing[0].text == "H.264 does not work: no memory left for it"


def test_the_doctor_tries_encoders_for_real() -> None:
    from dataclasses import replace

    from streamdream.codecs import CODECS

    assert doctor._trial(CODECS["h264"]) == ""
    assert doctor._trial(replace(CODECS["h264"], encoder="nothing")) != ""
    assert doctor._trial(replace(CODECS["h264"], pixels="bgr0")) != ""


def test_the_doctor_on_displays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    only(monkeypatch, "display")
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "x11")
    monkeypatch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1920, 1080), (1280, 720)])
    good = quick_look(tmp_path, "display")[0]
    assert good.state == "good"
    assert "--monitor 1: 1280x720" in good.text
    monkeypatch.setattr(pygame.display, "get_driver", lambda: "offscreen")
    assert "nobody sees" in quick_look(tmp_path, "display")[0].text
    assert not pygame.display.get_init()
    monkeypatch.setenv("SDL_VIDEODRIVER", "nothing")
    unknown = quick_look(tmp_path, "display")[0]
    assert unknown.state == "note"
    assert unknown.text.startswith("cannot be opened")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    none = quick_look(tmp_path, "display")[0]
    assert none.text == "there is none here"
    assert "--no-window" in none.cure


def test_the_doctor_on_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "cameras")
    monkeypatch.setattr(doctor.Path, "glob", lambda *_: iter(()))
    monkeypatch.setattr(camera, "devices", list)
    assert quick_look(tmp_path, "cameras")[0].state == "note"
    found = [camera.Device("/dev/v4l/by-id/usb-brio", "BRIO")]
    monkeypatch.setattr(camera, "devices", lambda: found)
    good = quick_look(tmp_path, "cameras")[0]
    assert (good.state, good.text) == ("good", "BRIO (/dev/v4l/by-id/usb-brio)")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor.Path, "glob", lambda *_: iter([tmp_path / "video0"]))
    refused = quick_look(tmp_path, "cameras")[0]
    assert refused.state == "bad"
    assert "usermod -aG video" in refused.cure

    def broken() -> list[camera.Device]:
        raise RuntimeError("the driver\nsays no")

    monkeypatch.setattr(camera, "devices", broken)
    last = quick_look(tmp_path, "cameras")[-1]
    assert last.text == "could not be examined: RuntimeError: the driver says no"


def test_the_doctor_misses_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "extras", "sound")
    monkeypatch.setattr(doctor, "_there", lambda _: False)
    found = list(examine(tmp_path, quick=True))
    assert {f.state for f in found} == {"note"}
    cures = {f.cure for f in found}
    assert "pip install 'streamdream[midi]'" in cures
    assert "pip install 'streamdream[sound]'" in cures
    monkeypatch.setattr(sys, "platform", "darwin")
    assert any("Syphon" in f.text for f in examine(tmp_path, quick=True))


def test_the_doctor_on_microphones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "sound")
    monkeypatch.setattr(doctor, "_there", lambda _: True)

    class Library:
        @staticmethod
        def query_devices() -> list[dict[str, int]]:
            return [{"max_input_channels": 2}, {"max_input_channels": 0}]

    monkeypatch.setattr(doctor.importlib, "import_module", lambda _: Library)
    assert quick_look(tmp_path, "sound")[0] == Finding("sound", "good", "1 microphone")

    def fails(_: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    monkeypatch.setattr(sys, "platform", "linux")
    missing = quick_look(tmp_path, "sound")[0]
    assert "portAudio library not found" in missing.text
    assert missing.cure == "sudo apt install libportaudio2"


def test_the_doctor_on_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "disk")
    nowhere = quick_look(tmp_path / "nowhere", "disk")[0]
    assert nowhere.state == "bad"
    assert "cannot be written to" in nowhere.text
    for free, state in ((500e6, "bad"), (5e9, "note"), (50e9, "good")):
        usage = shutil._ntuple_diskusage(10**11, 1, int(free))
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        found = quick_look(tmp_path, "disk")[0]
        assert found.state == state
        assert bool(found.cure) == (state != "good")


def test_the_doctor_on_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "clock")
    monkeypatch.setattr(shutil, "which", lambda _: "timedatectl")

    def told(text: str) -> Callable[..., Any]:
        return lambda *_, **__: subprocess.CompletedProcess([], 0, text, "")

    monkeypatch.setattr(subprocess, "run", told("yes\n"))
    assert quick_look(tmp_path, "clock")[0].state == "good"
    monkeypatch.setattr(subprocess, "run", told("no\n"))
    assert quick_look(tmp_path, "clock")[0].state == "note"
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert quick_look(tmp_path, "clock")[0].state == "bad"


def test_a_device_that_is_not_there_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    only(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (found,) = examine(tmp_path, device="cuda")
    assert found.state == "bad"
    assert found.text.startswith("--device cuda:")
    assert found.cure == "use auto or cpu"


def test_the_doctor_on_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def available() -> bool:
        warnings.warn("the driver is too old", stacklevel=1)
        return False

    only(monkeypatch, "processor")
    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert quick_look(tmp_path, "GPU")[0].text == "PyTorch finds none (the driver is too old)"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert quick_look(tmp_path, "processor")[0].state == "good"


GUIDE = ROOT / "docs" / "installation.md"
SERVICE = ROOT / "docs" / "streamdream.service"
OTHERS = ("systemctl", "journalctl", "loginctl", "pip", "sudo", "mkdir", "launchctl", "ssh")


def options_in(text: str) -> set[str]:
    code = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in code for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", text)
    ours = [line for line in lines if not line.strip().startswith(OTHERS)]
    return {name for line in ours for name in re.findall(r"--([a-z][a-z-]*)", line)}


def known_options() -> set[str]:
    names = {name.replace("_", "-") for name in LiveOptions.model_fields}
    return names | {f"no-{name}" for name in names} | {"preset", "config", "like"}


def test_the_guide_names_only_options_that_exist() -> None:
    named = options_in(GUIDE.read_text())
    assert len(named) > 20
    assert named - known_options() == set()
    assert options_in("`--no-such-option`") == {"no-such-option"}


def test_the_guide_s_configuration_works() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    values = {name.replace("-", "_"): value for name, value in tomllib.loads(block).items()}
    options = LiveOptions(**values)
    assert options.spans == ((600, 1080),)
    assert options.fullscreen


def test_the_guide_s_links_and_launch_agent_are_right() -> None:
    text = GUIDE.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (GUIDE.parent / link).exists()
    (agent,) = re.findall(r"^```xml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = plistlib.loads(agent.encode())
    assert found["RunAtLoad"] is True
    assert "--watchdog" in found["ProgramArguments"]


def service() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SERVICE)
    return parser


def test_the_service_fits_what_the_heart_says() -> None:
    found = service()["Service"]
    assert found["Type"] == "notify"
    assert int(found["WatchdogSec"]) >= 30
    assert found["Restart"] == "always"
    assert found["RestartPreventExitStatus"] == str(OptionError.exit_code)
    assert int(found["TimeoutStopSec"]) > watchdog.GOODBYE
    command = found["ExecStart"].split()
    assert command[1] == "live"
    named = {word.removeprefix("--") for word in command if word.startswith("--")}
    assert named <= known_options()
    assert "watchdog" not in named
    families = found["RestrictAddressFamilies"].split()
    assert {"AF_INET", "AF_UNIX"} <= set(families)
    for breaks in ("PrivateDevices", "DevicePolicy", "MemoryDenyWriteExecute", "PrivateTmp"):
        assert breaks not in found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_the_service(tmp_path: Path) -> None:
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", SERVICE.read_text(), flags=re.M)
    (tmp_path / "streamdream.service").write_text(text)
    (tmp_path / "run").mkdir()

    def complaints(file: Path) -> str:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", str(file)],
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)},
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        return "\n".join(line for line in done.stderr.splitlines() if file.name in line)

    assert complaints(tmp_path / "streamdream.service") == ""
    wrong = tmp_path / "streamdream-wrong.service"
    wrong.write_text(text.replace("Restart=always", "Restart=ever"))
    assert complaints(wrong) != ""
