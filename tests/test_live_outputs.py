from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from av.error import InvalidDataError
from media import frame_times, pictures
from PIL import Image

from streamdream.colour import Colour, ToRGB
from streamdream.errors import OptionError, SinkError
from streamdream.frame import Bytes, Size
from streamdream.live import devices, outputs, recording, streams
from streamdream.live.outputs import Output, Shown

SIZE = 72, 128
BITS = 16


def numbered(index: int, size: Size = SIZE) -> Bytes:
    """A picture that holds its number: 16 bits from left to right, white is 1."""
    h, w = size
    bits = [(index >> (BITS - 1 - k)) & 1 for k in range(BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 200 + 25, -(-w // BITS))[:w]
    return np.broadcast_to(row[None, :, None], (h, w, 3)).copy()


def number(pixels: np.ndarray) -> int:
    means = [pixels[:, 8 * k + 2 : 8 * k + 6].mean() for k in range(BITS)]
    return int("".join("1" if mean > 125 else "0" for mean in means), 2)


def shown(index: int, rate: int = 25, size: Size = SIZE) -> Shown:
    return Shown(numbered(index, size), Fraction(index, rate), index)


def noise(index: int, size: Size = SIZE) -> Shown:
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Shown(pixels, Fraction(index, 25), index)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def until(holds: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform.startswith("linux") else 0


class Kept:
    """A target that keeps what it gets; `fault` and `wait` are what its calls do."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.opened: list[tuple[float, Size]] = []
        self.closed = 0
        self.fault: Exception | None = None
        self.opening_fault: Exception | None = None
        self.wait = 0.0

    def __call__(self, size: Size, rate: float) -> Kept:
        self.opened.append((time.monotonic(), size))
        if self.opening_fault:
            raise self.opening_fault
        return self

    def write(self, picture: Shown) -> None:
        time.sleep(self.wait)
        if self.fault:
            raise self.fault
        self.got.append(picture.index)

    def close(self) -> None:
        self.closed += 1


@contextmanager
def fed(output: Output, rate: float = 25, paint: Callable[[int], Shown] = shown) -> Iterator[None]:
    """Offers pictures in real time from a thread of its own."""
    ending = threading.Event()

    def work() -> None:
        index = 0
        while not ending.wait(1 / rate):
            output.offer(paint(index))
            index += 1

    feeder = threading.Thread(target=work)
    feeder.start()
    try:
        yield
    finally:
        ending.set()
        feeder.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "SHORTEST", 0.05)
    monkeypatch.setattr(outputs, "LONGEST", 0.4)
    monkeypatch.setattr(outputs, "STEADY", 0.3)


# Output


@pytest.mark.alone
def test_slow_target_drops_old_pictures_and_never_delays_the_offer() -> None:
    target = Kept()
    target.wait = 0.03
    output = Output("slow", target, 25, lambda _: None, depth=2)
    pixels = numbered(0)
    waits = []
    for index in range(200):
        began = time.perf_counter()
        output.offer(Shown(pixels, Fraction(index, 25), index))
        waits.append(time.perf_counter() - began)
        time.sleep(0.002)
    output.close()
    assert sorted(waits)[180] < 0.001
    assert target.got == sorted(target.got)
    assert target.got[-1] == 199
    assert output.written == len(target.got) < 40
    assert output.written + output.dropped == 200


def test_target_in_time_gets_every_picture_in_order() -> None:
    target = Kept()
    output = Output("good", target, 25, lambda _: None, depth=300)
    for index in range(300):
        output.offer(shown(index))
    output.close()
    assert target.got == list(range(300))
    assert target.closed == len(target.opened) == 1
    assert output.dropped == 0


@pytest.mark.alone
@pytest.mark.usefixtures("quick")
def test_what_cannot_be_opened_is_tried_with_growing_pauses_and_told_of_once() -> None:
    target, told = Kept(), list[str]()
    target.opening_fault = OSError(111, "Connection refused")
    output = Output("stream", target, 25, told.append)
    with fed(output, 200):
        until(lambda: len(target.opened) >= 6)
        assert not output.running
        assert output.trouble == "connection refused"
        target.opening_fault = None
        until(lambda: output.running)
        until(lambda: "stream: goes on" in told)
    output.close()
    times = [when for when, _ in target.opened]
    gaps = np.diff(times[:6])
    assert all(gaps[:4] > np.array([0.05, 0.1, 0.2, 0.4]) - 0.005)
    assert gaps.max() < 0.7
    assert told == ["stream: connection refused; tried again in 0.05 s", "stream: goes on"]


@pytest.mark.usefixtures("quick")
def test_failing_write_closes_the_target_and_opens_it_again() -> None:
    target, told = Kept(), list[str]()
    output = Output("stream", target, 25, told.append)
    with fed(output, 100):
        until(lambda: len(target.got) > 3)
        target.fault = SinkError("rtmp://host", "gone", "start it")
        until(lambda: target.closed >= 3)
        target.fault = None
        until(lambda: output.running)
    output.close()
    assert output.failures >= 3
    assert target.closed == len(target.opened)
    told_of = [line for line in told if "gone" in line]
    assert told_of == ["stream: rtmp://host: gone; start it; tried again in 0.05 s"]


def test_another_size_closes_the_target_and_opens_one_for_it() -> None:
    target = Kept()
    output = Output("any", target, 25, lambda _: None, depth=9)
    for index, size in enumerate([(10, 20), (10, 20), (30, 20), (10, 20)]):
        output.offer(shown(index, size=size))
    output.close()
    assert [size for _, size in target.opened] == [(10, 20), (30, 20), (10, 20)]
    assert target.closed == 3
    assert target.got == [0, 1, 2, 3]


@pytest.mark.alone
def test_close_keeps_its_limit_though_the_target_hangs() -> None:
    let_go = threading.Event()

    class Hanging(Kept):
        def write(self, picture: Shown) -> None:
            let_go.wait(20)

    output = Output("hanging", Hanging(), 25, lambda _: None)
    output.offer(shown(0))
    began = time.monotonic()
    output.close(0.3)
    assert time.monotonic() - began < 1
    let_go.set()
    output.close()


@pytest.mark.alone
def test_close_does_not_wait_for_a_pause_to_end() -> None:
    target = Kept()
    target.opening_fault = OSError("no")
    output = Output("failing", target, 25, lambda _: None)
    for _ in range(3):
        output.offer(shown(0))
        until(lambda: output.failures > 0)
    began = time.monotonic()
    output.close()
    assert time.monotonic() - began < 0.3


def test_200_outputs_leave_no_thread_behind() -> None:
    before = threading.active_count()
    for index in range(200):
        output = Output("short", Kept(), 25, lambda _: None)
        if index % 2:
            output.offer(shown(index))
        output.close()
    assert threading.active_count() == before


# URLs

READER = """
import sys, av
import numpy as np
BITS = 16
exec(sys.argv[3])
while True:
    try:
        with av.open(sys.argv[1], options=dict(listen="1") if sys.argv[2] == "listen" else {},
                     timeout=20) as source:
            sys.argv[2] = sys.argv[2].replace("again", "")
            for frame in source.decode(video=0):
                print(number(frame.to_ndarray(format="rgb24")), flush=True)
    except av.error.FFmpegError:
        if sys.argv[2] != "again":
            break
"""


class Reader:
    """Another process that reads a URL and says the numbers of the pictures it gets."""

    def __init__(self, url: str, how: str = "listen") -> None:
        args = [sys.executable, "-c", READER, url, how, inspect.getsource(number)]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
        self.got: list[int] = []
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.times.append(time.monotonic())
            self.got.append(int(line))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def reading(url: str, how: str = "listen") -> Iterator[Reader]:
    reader = Reader(url, how)
    try:
        yield reader
    finally:
        reader.kill()


@pytest.mark.usefixtures("quick")
def test_rtmp_server_that_dies_and_comes_back_gets_pictures_again() -> None:
    url, told = f"rtmp://127.0.0.1:{free_port()}/live/SECRET", list[str]()
    output = Output("stream", streams.stream(url), 25, told.append)
    with fed(output, 50):
        for _ in range(2):
            with reading(url) as server:
                until(lambda server=server: len(server.got) > 20)
                assert server.got == sorted(set(server.got))
            until(lambda: not output.running)
    output.close()
    assert sum("goes on" in line for line in told) >= 1
    assert any("rtmp://127.0.0.1" in line for line in told)
    assert not any("SECRET" in line for line in told)


def test_rtmp_server_that_freezes_holds_nothing_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "RICHEST", 20)  # fills what lies between sooner
    public = f"rtmp://127.0.0.1:{free_port()}"
    url = public + "/live/key"
    with reading(url) as server:
        target = until_open(streams.stream(url), (180, 320))
        server.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(SinkError, match=re.escape(public)):
            write_many(target, lambda index: noise(index, (180, 320)), 3000)
        target.close()
        assert time.monotonic() - began < 10  # some pictures fit into buffers before


def write_many(target: outputs.Target, paint: Callable[[int], Shown], count: int) -> None:
    for index in range(count):
        target.write(paint(index))


def until_open(opening: outputs.Opening, size: Size = SIZE) -> outputs.Target:
    """Has written picture 0."""
    for _ in range(100):
        target = opening(size, 25)
        try:
            target.write(shown(0, size=size))
        except SinkError:
            target.close()
            time.sleep(0.1)
        else:
            return target
    raise AssertionError("nobody listened")


def first_fault(opening: outputs.Opening) -> str:
    target = opening(SIZE, 25)
    try:
        with pytest.raises(SinkError) as caught:
            target.write(shown(0))
    finally:
        target.close()
    return str(caught.value)


@pytest.mark.alone
def test_server_that_says_nothing_is_an_error_in_time_and_stops_no_other_thread() -> None:
    ticks = list[float]()
    ending = threading.Event()

    def tick() -> None:
        while not ending.wait(0.01):
            ticks.append(time.monotonic())

    ticker = threading.Thread(target=tick)
    ticker.start()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        public = f"rtmp://127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        assert first_fault(streams.stream(public + "/live/key")) == f"{public}: does not answer"
        assert time.monotonic() - began < 7
    ending.set()
    ticker.join()
    assert len(ticks) > 200
    assert np.diff(ticks).max() < 0.5


def test_tcp_reader_gets_every_picture() -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with reading(url + "?listen=1", "") as reader:
        target = until_open(streams.stream(url))
        write_many(target, lambda index: shown(index + 1), 59)
        target.close()
        until(lambda: len(reader.got) == 60)
        assert reader.got == list(range(60))


def test_tcp_stream_waits_for_one_who_fetches() -> None:
    url = f"tcp://127.0.0.1:{free_port()}?listen=1"
    target = streams.stream(url)(SIZE, 25)
    with reading(url.removesuffix("?listen=1"), "again") as reader:
        write_many(target, shown, 40)
        target.close()
        until(lambda: len(reader.got) == 40)


@pytest.mark.alone
@pytest.mark.parametrize("scheme", ["udp", "rtp"])
def test_udp_and_rtp_arrive_in_less_than_a_second_though_fetched_late(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    sent: dict[int, float] = {}

    def paint(index: int) -> Shown:
        sent[index] = time.monotonic()
        return shown(index)

    output = Output("stream", streams.stream(url), 25, lambda _: None)
    with fed(output, 25, paint):
        until(lambda: output.written > 5)
        with reading(url, "") as reader:
            until(lambda: len(reader.got) > 40, 15)
            late = [at - sent[k] for k, at in zip(reader.got, reader.times, strict=True)]
            assert np.median(late[-15:]) < 1
            assert reader.got == sorted(set(reader.got))
        assert output.failures == 0
    output.close()


def test_udp_with_nobody_there_is_no_failure() -> None:
    target = streams.stream(f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}")(SIZE, 25)
    write_many(target, shown, 50)
    target.close()


class RTSPServer:
    """Takes a push over one connection; freezes after so many packets."""

    def __init__(self, most: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.packets, self.asked, self._most = 0, list[str](), most
        self.ending = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        self._server.settimeout(10)
        client, _ = self._server.accept()
        with client, client.makefile("rb") as lines:
            while (first := lines.read(1)) and self.packets < self._most:
                if first == b"$":
                    head = lines.read(3)
                    lines.read(int.from_bytes(head[1:], "big"))
                    self.packets += 1
                    continue
                head = first
                while not head.endswith(b"\r\n\r\n"):
                    head += lines.readline()
                length = re.search(rb"Content-Length: (\d+)", head, re.IGNORECASE)
                lines.read(int(length[1]) if length else 0)
                self.asked.append(head.split()[0].decode())
                found = re.search(rb"CSeq: (\d+)", head)
                assert found is not None
                more = b"Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
                client.sendall(b"RTSP/1.0 200 OK\r\nCSeq: " + found[1] + b"\r\n" + more)
                if self.asked[-1] == "TEARDOWN":
                    return
            self.ending.wait(20)

    def close(self) -> None:
        self.ending.set()
        self._thread.join()
        self._server.close()


def test_rtsp_push_speaks_with_the_server() -> None:
    server = RTSPServer(10**9)
    target = streams.stream(f"rtsp://127.0.0.1:{server.port}/live")(SIZE, 25)
    write_many(target, shown, 25)
    target.close()
    server.close()
    assert server.asked == ["OPTIONS", "ANNOUNCE", "SETUP", "RECORD", "TEARDOWN"]
    assert server.packets >= 25


@pytest.mark.slow
def test_rtsp_server_that_freezes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RICHEST", 20)
    server = RTSPServer(20)
    target = streams.stream(f"rtsp://127.0.0.1:{server.port}/live")((180, 320), 25)
    with pytest.raises(SinkError, match="does not answer"):
        write_many(target, lambda index: noise(index, (180, 320)), 5000)
    target.close()
    server.close()


def test_failed_connections_leave_no_descriptor() -> None:
    opening = streams.stream(f"rtmp://user:SECRET@127.0.0.1:{free_port()}/live/SECRET")
    before = descriptors()
    for _ in range(6):
        told = first_fault(opening)
        assert re.fullmatch(r"rtmp://127\.0\.0\.1:\d+: connection refused", told)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("srt://host:9000", "libav here does not write to srt"),
        ("rist://host:9000", "does not write to rist"),
        ("nonsense://host/x.ts", "does not write to nonsense"),
        ("concat://host/x.ts", "does not write to concat"),
        ("out.mp4", "no URL"),
        ("rtmp://", "no URL"),
        ("rtmp:///live/key", "names no host"),
        ("udp://host", "names no port"),
        ("tcp://host:99999", "[Pp]ort"),
        ("http://host/live", "tells no format"),
    ],
)
def test_urls_that_cannot_be_written_are_told_before_the_run(url: str, told: str) -> None:
    with pytest.raises(OptionError, match=told) as caught:
        streams.check_stream(url)
    assert "\n" not in str(caught.value)
    assert "live" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["rtmp://a.invalid/live/key", "rtmps://u:p@a.invalid/k", "udp://239.0.0.1:5000?ttl=2",
     "udp://[::1]:5000", "tcp://a.invalid:1", "rtp://a.invalid:2", "rtsp://a.invalid/x",
     "http://a.invalid/x.ts", "RTMP://a.invalid/live/k|'\\[x]"],
)  # fmt: skip
def test_urls_that_can_be_written_are_checked_without_touching_the_network(url: str) -> None:
    began = time.monotonic()
    streams.check_stream(url)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("rtmp://user:pass@host/live/key?token=x", "rtmp://host"),
        ("udp://[::1]:5000?ttl=2", "udp://[::1]:5000"),
        ("tcp://host:notaport/key", "tcp"),
    ],
)
def test_what_is_shown_of_a_url_is_no_secret(url: str, seen: str) -> None:
    assert streams.public(url) == seen


@pytest.mark.parametrize("size", [(91, 161), (720, 1280)])
@pytest.mark.parametrize("colour", [(255, 0, 0), (20, 200, 60), (128, 128, 128), (10, 30, 220)])
def test_colours_come_through(tmp_path: Path, size: Size, colour: tuple[int, int, int]) -> None:
    pixels = np.full((*size, 3), colour, np.uint8)
    target = streams.stream(f"file:{tmp_path}/a.mkv")(size, 25)
    for index in range(4):
        target.write(Shown(pixels, Fraction(index, 25), index))
    target.close()
    with av.open(f"{tmp_path}/a.mkv") as source:
        frame = list(source.decode(video=0))[-1]
    assert (frame.height, frame.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    found = Colour.of(frame)
    assert frame.colorspace == found.matrix == (1 if size[0] >= 720 else 6)
    seen, _ = ToRGB(found, (frame.height, frame.width), deep=False, alpha=False)(frame)
    assert np.abs(seen.astype(int) - colour).max() <= 3


def test_times_are_those_of_the_pictures_and_key_frames_come_every_two_seconds(
    tmp_path: Path,
) -> None:
    times = [Fraction(k * k, 300) + 7 for k in range(60)]  # slower and slower, to 11.6 s
    target = streams.stream(f"file:{tmp_path}/a.mkv")(SIZE, 25)
    for index, when in enumerate(times):
        target.write(Shown(numbered(index), when, index))
    target.close()
    with av.open(f"{tmp_path}/a.mkv") as source:
        frames = list(source.decode(video=0))
    seen = [float(cast(int, f.pts) * cast(Fraction, f.time_base)) for f in frames]
    assert np.allclose(seen, [float(t - times[0]) for t in times], atol=0.0011)
    assert [number(f.to_ndarray(format="rgb24")) for f in frames] == list(range(60))
    keys = [t for t, f in zip(seen, frames, strict=True) if f.key_frame]
    assert len(keys) == 6
    assert np.diff(keys).max() < 2.4


def test_times_that_do_not_grow_are_made_to(tmp_path: Path) -> None:
    target = streams.stream(f"file:{tmp_path}/a.mkv")(SIZE, 25)
    for index, when in enumerate([1.0, 1.0, 0.5, 1.0001, 2.0]):
        target.write(Shown(numbered(index), Fraction(when), index))
    target.close()
    times = frame_times(tmp_path / "a.mkv")
    assert len(times) == 5
    assert all(b > a for a, b in pairwise(times))


# HLS


def listed(folder: Path) -> list[str]:
    lines = (folder / "live.m3u8").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def segments(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.ts")}


def read_live(folder: Path, most: int) -> list[tuple[int, float]]:
    found = []
    with av.open(str(folder / "live.m3u8"), options={"live_start_index": "0"}) as source:
        for frame in source.decode(video=0):
            when = float(cast(int, frame.pts) * cast(Fraction, frame.time_base))
            found.append((number(frame.to_ndarray(format="rgb24")), when))
            if len(found) == most:
                break
    return found


def test_hls_is_played_while_it_is_written_and_old_segments_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "web"
    target = streams.hls(folder)(SIZE, 25)
    write_many(target, shown, 300)
    found = read_live(folder, 200)
    assert [n for n, _ in found] == list(range(200))
    assert np.allclose(np.diff([t for _, t in found]), 0.04, atol=0.001)
    first = set(listed(folder))
    for index in range(300, 1500):
        target.write(shown(index))
    assert len(listed(folder)) == 8
    assert len(segments(folder)) <= 11
    assert not first & segments(folder)
    text = (folder / "live.m3u8").read_text()
    lengths = [float(x) for x in re.findall(r"#EXTINF:([\d.]+)", text)]
    assert all(1.9 < length < 2.3 for length in lengths)
    assert "#EXT-X-PROGRAM-DATE-TIME" in text
    assert "#EXT-X-INDEPENDENT-SEGMENTS" in text
    target.close()
    assert "ENDLIST" not in (folder / "live.m3u8").read_text()
    assert not list(folder.glob("*.tmp"))


def test_hls_of_a_new_run_removes_what_was_left_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = streams.hls(tmp_path)(SIZE, 25)
    write_many(target, shown, 120)
    target.close()
    old = segments(tmp_path)
    (tmp_path / "live-0000000001.ts.tmp").touch()
    others = {"live-notes.ts", "index.html", "live.m3u8.bak", "other-0000000001.ts"}
    for name in others:
        (tmp_path / name).write_text("mine")
    later = time.time() + 1000
    monkeypatch.setattr(streams.time, "time", lambda: later)
    target = streams.hls(tmp_path)(SIZE, 25)
    for index in range(200, 320):
        target.write(shown(index))
    target.close()
    names = {path.name for path in tmp_path.iterdir()}
    assert not old & names
    assert others < names
    assert names == others | set(listed(tmp_path)) | {"live.m3u8"}
    assert "#EXT-X-DISCONTINUITY" in (tmp_path / "live.m3u8").read_text()
    assert [n for n, _ in read_live(tmp_path, 50)] == list(range(200, 250))


def test_hls_goes_on_in_the_same_list_when_it_is_opened_again(tmp_path: Path) -> None:
    opening = streams.hls(tmp_path)
    for part, size in enumerate([SIZE, (74, 128)] * 6):
        target = opening(size, 25)
        for index in range(part * 60, part * 60 + 60):
            target.write(shown(index, size=size))
        target.close()
    text = (tmp_path / "live.m3u8").read_text()
    assert text.count("#EXT-X-DISCONTINUITY\n") >= 3
    assert len(listed(tmp_path)) == len(set(listed(tmp_path))) == 8
    numbers = [int(re.findall(r"\d+", name)[0]) for name in listed(tmp_path)]
    assert numbers == list(range(numbers[0], numbers[0] + 8))
    assert f"#EXT-X-MEDIA-SEQUENCE:{numbers[0]}\n" in text
    assert len(segments(tmp_path)) <= 11


def test_hls_folder_that_is_taken_away_is_an_error_and_made_again(tmp_path: Path) -> None:
    opening = streams.hls(tmp_path / "web")
    target = opening(SIZE, 25)
    write_many(target, shown, 60)
    shutil.rmtree(tmp_path / "web")
    with pytest.raises(SinkError, match="web: no such file"):
        write_many(target, lambda index: shown(60 + index), 300)
    target.close()
    target = opening(SIZE, 25)
    write_many(target, shown, 100)
    target.close()
    assert listed(tmp_path / "web")


def test_hls_folders_that_cannot_be_are_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    streams.check_folder(tmp_path / "new" / "er")
    assert not (tmp_path / "new").exists()
    for name, told in (("file", "is a file"), ("file/in", "is a file"), ("a%d", "takes % for")):
        with pytest.raises(OptionError, match=told):
            streams.check_folder(tmp_path / name)
    with pytest.raises(SinkError, match="file"):
        streams.hls(tmp_path / "file" / "in")(SIZE, 25)


# Recordings


def record(
    named: Path, count: int, minutes: float = 1.0, first: int = 0, rate: int = 25
) -> list[str]:
    told: list[str] = []
    target = recording.recording(named, minutes, "what it was", told.append)(SIZE, rate)
    for index in range(first, first + count):
        target.write(shown(index, rate))
    target.close()
    return told


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_files_of_a_recording_join_without_loss_or_doubles(tmp_path: Path, ending: str) -> None:
    told = record(tmp_path / f"out{ending}", 130, minutes=2 / 60, first=1000)
    files = sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    assert len(files) == 3
    assert all(re.fullmatch(rf"out-\d{{8}}-\d{{6}}(-\d)?\{ending}", p.name) for p in files)
    found = [number(p) for path in files for p in pictures(path)]
    assert found == list(range(1000, 1130))
    assert [len(pictures(path)) for path in files] == [50, 50, 30]
    for path in files:
        times = frame_times(path)
        assert times[0] == 0
        assert np.allclose([float(t) for t in times], np.arange(len(times)) / 25, atol=0.001)
        with av.open(str(path)) as source:
            assert "what it was" in {k.lower(): v for k, v in source.metadata.items()}["comment"]
    assert told == [f"recorded {path}" for path in files]


def test_recording_keeps_times_as_they_were_shown(tmp_path: Path) -> None:
    times = [Fraction(k * k, 90) + 3 for k in range(30)]
    target = recording.recording(tmp_path / "out.mp4", 10, "", lambda _: None)(SIZE, 25)
    for index, when in enumerate(times):
        target.write(Shown(numbered(index), when, index))
    target.close()
    (path,) = tmp_path.iterdir()
    assert frame_times(path) == [t - times[0] for t in times]


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(recording.datetime):
        @classmethod
        def now(cls, tz: object = None) -> Any:
            return cls(2026, 1, 31, 18, 0, 0)

    monkeypatch.setattr(recording, "datetime", Stopped)
    for index in range(3):
        record(tmp_path / "out.mp4", 5, first=index * 10)
        recording.snapshot(shown(index), tmp_path, "how it was made")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(
        [f"out-20260131-180000{more}.mp4" for more in ("", "-2", "-3")]
        + [f"streamdream-20260131-180000{more}.png" for more in ("", "-2", "-3")]
    )
    for index, more in enumerate(("", "-2", "-3")):
        found = pictures(tmp_path / f"out-20260131-180000{more}.mp4")
        assert [number(p) for p in found] == list(range(index * 10, index * 10 + 5))


def test_two_recordings_at_once_take_two_names(tmp_path: Path) -> None:
    opening = recording.recording(tmp_path / "out.mp4", 1, "", lambda _: None)
    both = [opening(SIZE, 25), opening(SIZE, 25)]
    for index in range(5):
        for k, target in enumerate(both):
            target.write(shown(index + 10 * k))
    for target in both:
        target.close()
    found = sorted([number(p) for p in pictures(path)] for path in tmp_path.iterdir())
    assert found == [list(range(5)), list(range(10, 15))]


def test_snapshot_holds_the_picture_and_the_settings(tmp_path: Path) -> None:
    picture = noise(3, (51, 77))
    path = recording.snapshot(picture, tmp_path, "strength=1\nlayers=mixed4c")
    assert re.fullmatch(r"streamdream-\d{8}-\d{6}\.png", path.name)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), picture.pixels)
        assert "strength=1\nlayers=mixed4c" in cast(Any, image).text.values()
    with pytest.raises(SinkError, match="missing"):
        recording.snapshot(picture, tmp_path / "missing", "")
    assert len(list(tmp_path.iterdir())) == 1


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_live_outputs import recording, shown
target = recording.recording(Path(sys.argv[1]), 10, "", print)((72, 128), 25)
for index in range(100000):
    target.write(shown(index))
    print(index, flush=True)
"""


def test_killed_recording_leaves_a_part_that_plays(tmp_path: Path) -> None:
    args = [sys.executable, "-c", KILLED, str(tmp_path / "out.mp4"), str(Path(__file__).parent)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 300:
                process.kill()
                break
    (part,) = tmp_path.iterdir()
    assert re.fullmatch(r"out-\d{8}-\d{6}\.part\.mp4", part.name)
    found = [number(p) for p in pictures(part)]
    assert found == list(range(len(found)))
    assert len(found) > 225


def test_nearly_full_disk_ends_the_file_whole_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, free = namedtuple("usage", "free"), [10**12]
    monkeypatch.setattr(streams.shutil, "disk_usage", lambda _: usage(free[0]))
    monkeypatch.setattr(outputs, "SHORTEST", 0.05)
    told: list[str] = []
    opening = recording.recording(tmp_path / "out.mp4", 10, "", told.append)
    output = Output("recording", opening, 1, told.append, depth=500)
    for index in range(150):
        output.offer(shown(index, 1))
    until(lambda: output.written == 150)
    free[0] = 199_000_000
    output.offer(shown(300, 1))
    until(lambda: not output.running)
    (path,) = tmp_path.iterdir()
    until(lambda: "part" not in path.name)
    assert [number(p) for p in pictures(path)] == list(range(150))
    free[0] = 10**12
    with fed(output, 50, lambda index: shown(400 + index, 1)):
        until(lambda: output.running)
    output.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert any("less than 200 MB are left on the disk; make room" in line for line in told)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_full_disk_is_an_error_and_what_was_written_plays(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LEAST", 0)
    target = recording.recording(tiny / "out.mp4", 10, "", lambda _: None)(SIZE, 25)
    with pytest.raises(SinkError, match="the disk is full"):
        write_many(target, noise, 2000)
    target.close()
    (part,) = tiny.iterdir()
    found = []
    with av.open(str(part)) as source, suppress(InvalidDataError):  # the last is cut off
        found.extend(source.decode(video=0))
    assert len(found) > 10


def test_full_disk_is_an_error_of_hls(tiny: Path) -> None:
    target = streams.hls(tiny)((360, 640), 25)
    with pytest.raises(SinkError, match="less than 20 MB are left on the disk; make room"):
        target.write(shown(0, size=(360, 640)))
    target.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("out.avi", "files of kind .avi cannot be recorded"),
        ("out", "without an ending"),
        ("out.png", "cannot be recorded"),
        ("missing/out.mp4", "there is no folder"),
        ("file/out.mp4", "is not a folder|there is no folder"),
    ],
)
def test_names_that_cannot_be_recorded_are_told_before_the_run(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OptionError, match=told):
        recording.check_recording(tmp_path / name)
    recording.check_recording(tmp_path / "good.webm")


# Devices


def test_rgb_becomes_opaque_rgba_in_the_same_places() -> None:
    pixels = noise(1, (5, 7)).pixels
    made = devices.with_alpha(pixels)
    assert made.flags.c_contiguous
    assert np.array_equal(made[..., :3], pixels)
    assert (made[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("check", "module", "platform", "extra"),
    [
        (devices.check_virtual_camera, "pyvirtualcam", sys.platform, "camera"),
        (devices.check_ndi, "cyndilib", sys.platform, "ndi"),
        (devices.check_spout, "SpoutGL", "win32", "spout"),
        (devices.check_syphon, "syphon", "darwin", "syphon"),
    ],
)
def test_missing_library_is_told_before_the_run_with_its_cure(
    check: Callable[[str], None], module: str, platform: str, extra: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(devices.sys, "platform", platform)
    with pytest.raises(OptionError) as caught:
        check("auto")
    line = str(caught.value)
    assert module in line
    assert line.endswith(f"pip install 'streamdream[{extra}]'")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("check", "name"), [(devices.check_spout, "Windows"), (devices.check_syphon, "macOS")]
)
def test_wrong_platform_is_told_before_the_run(check: Callable[[str], None], name: str) -> None:
    if sys.platform == {"Windows": "win32", "macOS": "darwin"}[name]:
        pytest.skip("this is the right one")
    with pytest.raises(OptionError, match=f"works on {name} only"):
        check("dream")


def test_virtual_camera_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("pyvirtualcam")
    if not sys.platform.startswith("linux"):
        pytest.skip("names of devices are Linux's")
    with pytest.raises(SinkError) as caught:
        devices.virtual_camera("/dev/video9876")(SIZE, 25)
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith("sudo modprobe v4l2loopback exclusive_caps=1")
    with pytest.raises(OptionError, match=r"^--virtual-camera /dev/video9876: .*modprobe"):
        devices.check_virtual_camera("/dev/video9876")


def test_ndi_takes_pictures_of_odd_sizes_and_can_be_opened_again() -> None:
    pytest.importorskip("cyndilib")
    for size in [(91, 161), SIZE, SIZE]:
        target = devices.ndi("streamdream test")(size, 29.97)
        for index in range(3):
            target.write(shown(index, size=size))
        target.close()
