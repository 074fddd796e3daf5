"""How a live run keeps pace, and whether it lasts.

    python benchmarks/live.py pace [--seconds 20] [--models efficientnet-lite0,vgg19]
                                   [--source test]
    python benchmarks/live.py style --style STYLE [--method auto] [--seconds 20] [--source test]
                                    [--lines 180]
    python benchmarks/live.py soak [--minutes 10]

pace  pictures shown a second from the paced test source at 640x360, with the dream carried on
      each; dream steps a second at work height 180; how late pictures are shown. Beside it what
      this machine does in the same run if it has nothing else to do: pictures drawn a second
      without a dream, dream steps a second without pictures. On a shared machine only the shares
      mean anything.
style the same for a painting, as --style has it: pictures shown with a painting carried to them,
      and paintings, a second, all at so many lines however slow the machine is (0: the run
      chooses); beside it the paintings that the same networks make in the same run if they have
      the machine, at the lines that the run had at its end.
soak  a run under faults: its source killed and frozen, outputs that fail, presets, random OSC
      packets of which half are garbage, recordings begun and ended. Fails if anything was raised
      in any thread, if memory grows by 2% or more after warming up, if descriptors or threads
      are left over, or if a recording does not play.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np
import torch
from PIL import Image
from pythonosc.osc_message_builder import OscMessageBuilder

from streamdream import backbone
from streamdream.dream import ascent, steepest
from streamdream.effects import effects_of
from streamdream.live.camera import find
from streamdream.live.capture import Upright
from streamdream.live.controls import ACTIONS
from streamdream.live.dreamer import _leave_room
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Output, Shown
from streamdream.live.pacing import Pacing
from streamdream.live.session import Session, resident
from streamdream.live.stage import Stage
from streamdream.objectives.aims import aim_at
from streamdream.pipeline import Carried
from streamdream.settings import made
from streamdream.style.named import check_styles

WARM = 8.0  # seconds at the start that do not count: a scene grows, sizes settle
ALONE = 4.0  # seconds that each comparison takes


@dataclass
class Pace:
    """What a run did: rates a second, latencies in milliseconds, `carried` of 1.

    `steps_alone` are gradient steps of a dream, of a style paintings.
    """

    shown: float
    wanted: float
    carried: float
    steps: float
    dreams: float
    latency: tuple[float, float]
    lines: int
    dropped: int
    drawn_alone: float
    steps_alone: float


def pace(source: str, model: str, seconds: float) -> Pace:
    """A run of this model from this source, and what its parts do alone."""
    return _paced(source, seconds, {"model": model}, lambda _lines: steps_alone(model))


def pace_style(source: str, style: str, method: str, seconds: float, lines: int) -> Pace:
    """The same of a run that paints like a style, at so many lines (0: as it chooses)."""
    given: dict[str, str | int] = {"style": style, "style_method": method}
    if lines:
        given["work_size"] = lines
    options = made(LiveOptions, given)
    check_styles(options)
    return _paced(source, seconds, given, lambda at: paintings_alone(options, at), lines)


def _paced(
    source: str,
    seconds: float,
    look: Mapping[str, str | int],
    alone: Callable[[int], float],
    lines: int = 0,
) -> Pace:
    options = made(LiveOptions, {**look, "window": False, "http": 0, "size": "640x360"})
    told: list[str] = []
    session = Session(find(source, options), options, told.append)
    if lines:
        session.pacing.lines = lambda *_: lines  # type: ignore[method-assign]
    seen = _Seen(session)
    ending = threading.Event()
    runner = threading.Thread(target=session.run, args=(ending.is_set,))
    runner.start()
    try:
        time.sleep(WARM)
        begun, shown = time.monotonic(), seen.count
        steps, dreams = session.dreamer.steps, session.dreamer.dreams
        dropped, bare = session.capture.dropped, seen.bare
        time.sleep(seconds)
        passed = time.monotonic() - begun
        found = seen.count - shown
        latency = session.status.latency
        result = {
            "shown": found / passed,
            "wanted": session.status.wanted,
            "carried": 1 - (seen.bare - bare) / max(found, 1),
            "steps": (session.dreamer.steps - steps) / passed,
            "dreams": (session.dreamer.dreams - dreams) / passed,
            "latency": latency,
            "lines": session.status.lines,
            "dropped": session.capture.dropped - dropped,
        }
        ending.set()
        runner.join(20)
        frames = _frames(session)
    finally:
        ending.set()
        session.close()
    return Pace(**result, drawn_alone=drawn_alone(frames), steps_alone=alone(result["lines"]))


class _Seen:
    """Counts the pictures that a session's stage draws, and those without a dream on them."""

    def __init__(self, session: Session) -> None:
        self.count = self.bare = 0
        stage, draw = session.stage, session.stage.show

        def show(*given: Any, **named: Any) -> Shown | None:
            shown = draw(*given, **named)
            self.count += shown is not None
            self.bare += stage._layer is None
            return shown

        stage.show = show  # type: ignore[method-assign]


def _frames(session: Session) -> list[np.ndarray]:
    found = []
    upright = Upright(0, (360, 640))
    until = time.monotonic() + 5
    while len(found) < 30 and time.monotonic() < until:
        captured = session.capture.newest(0.5)
        if captured is not None:
            found.append(upright(captured.frame, False))
    return found


class _Nothing:
    """A dreamer that never dreams."""

    idle, ceiling, each = False, 1.0, 0.0

    def ready(self) -> list[Any]:
        return []

    def drop(self) -> None:
        pass


def drawn_alone(frames: list[np.ndarray]) -> float:
    """Pictures drawn a second by a stage that has the machine to itself."""
    from streamdream.live.controls import Controls

    controls = Controls(LiveOptions())
    stage = Stage(controls, _Nothing(), Pacing(1 / 30))  # type: ignore[arg-type]
    stage.show(frames[0])
    begun, count = time.monotonic(), 0
    while time.monotonic() - begun < ALONE:
        stage.show(frames[count % len(frames)])
        count += 1
    return count / (time.monotonic() - begun)


def steps_alone(model: str) -> float:
    """Gradient steps a second at 320x180 by one thread that has the machine to itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    options = LiveOptions(model=model)
    device = torch.device("cpu")
    precision = backbone.choose_precision("auto", model, device)
    network = backbone.load(model, device, backbone.PRECISIONS[precision])
    picture = torch.rand(3, 180, 320)
    begun, count = time.monotonic(), 0
    while count < 2 or time.monotonic() - begun < ALONE:
        ascent(network, picture, aim_at(*options.chosen_layers), (0, 0), 1024, steepest)
        count += 1
    torch.set_num_threads(threads)
    return count / (time.monotonic() - begun)


def paintings_alone(options: LiveOptions, lines: int) -> float:
    """Paintings a second of so many lines by a thread like a run's, that has the machine."""
    device = torch.device("cpu")

    def paint() -> float:
        effects = effects_of(options, device)
        image = torch.rand(3, lines, round(lines * 16 / 9))
        everywhere = torch.ones_like(image[:1])
        carried = Carried(torch.zeros_like(image), everywhere, uncovered=0.0, trust=everywhere)
        begun, count = time.monotonic(), 0
        while count < 2 or time.monotonic() - begun < ALONE:
            for effect in effects:
                for picture in effect(image, carried, options, count):
                    picture()
            count += 1
        return count / (time.monotonic() - begun)

    with ThreadPoolExecutor(1, initializer=_leave_room, initargs=(device,)) as alone:
        return alone.submit(paint).result()


# Lasting.


class Camera:
    """An MJPEG camera of its own that can be killed and frozen."""

    def __init__(self, port: int = 0, paint: Callable[[int], np.ndarray] | None = None) -> None:
        """Serve at this port, 0 for any, what `paint` gives for each number: (h, w, 3) uint8."""
        paint = paint or scene
        self.frozen, self.ending = threading.Event(), threading.Event()
        self._open: set[socket.socket] = set()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._open.add(self.connection)
                try:
                    self.send_response(200)
                    kind = "multipart/x-mixed-replace; boundary=frame"
                    self.send_header("Content-Type", kind)
                    self.end_headers()
                    number = 0
                    while not camera.ending.is_set():
                        if not camera.frozen.is_set():
                            number += 1
                            self.wfile.write(_part(paint(number)))
                        camera.ending.wait(1 / 30)
                except OSError:
                    pass
                finally:
                    camera._open.discard(self.connection)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/cam.mjpg"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def kill(self) -> None:
        """Be gone."""
        self.ending.set()
        for connection in list(self._open):
            connection.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _scene() -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (30, 60, 3)).astype(np.float32)
    return np.asarray(cv2.resize(noise, (960, 480), interpolation=cv2.INTER_CUBIC)).clip(0, 255)


SCENE = _scene().astype(np.uint8)


def scene(number: int) -> np.ndarray:
    """A view (180, 320, 3) that wanders to and fro."""
    x = round(160 + 150 * np.sin(number / 40))
    return SCENE[100:280, x : x + 320]


def _part(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    jpeg = buffer.getvalue()
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
    return head.encode() + jpeg + b"\r\n"


class Fragile:
    """A target that fails when it is told to."""

    def __init__(self, failing: threading.Event) -> None:
        """Fail while this is set."""
        self._failing = failing

    def write(self, picture: Shown) -> None:
        """Take it, or not."""
        if self._failing.is_set():
            raise OSError("the other side is gone")

    def close(self) -> None:
        """Nothing to finish."""


@dataclass
class Soaked:
    """What came out: RSS in MiB, and `wrong`, one line for everything that must not be."""

    memory: tuple[float, float]
    descriptors: tuple[int, int]
    threads: tuple[int, int]
    reconnects: int
    failures: int
    shown: int
    dreams: int
    recordings: int
    wrong: list[str] = field(default_factory=list)


def soak(  # noqa: PLR0915 - a story told from beginning to end
    minutes: float, say: Callable[[str], None], seed: int = 0
) -> Soaked:
    """Run for so long under faults; ten minutes have 30 of the source and 10 of outputs."""
    rng = random.Random(seed)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as place, _watched(wrong):
        folder = Path(place)
        camera = Camera()
        free = _free_port()
        options = made(
            LiveOptions,
            {
                "window": False, "http": 0, "osc": free, "hls": folder / "hls", "folder": folder,
                "work_size": 96, "stream": f"udp://127.0.0.1:{_free_port()}", "fade": 0.5,
                "record": folder / "soak.mp4", "segment": max(0.1, minutes / 20),
            },
        )  # fmt: skip
        source = find(camera.url, options)
        session = Session(source, options, lambda _text: None)
        failing = threading.Event()
        session._outputs["fragile"] = Output("fragile", lambda *_: Fragile(failing), 30, _silent)
        ending = threading.Event()
        runner = threading.Thread(target=session.run, args=(ending.is_set,), name="soaked")
        runner.start()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as osc:
                osc.connect(("127.0.0.1", free))
                for name in session.controls.presets:  # all networks once
                    session.controls.take_preset(name)
                    time.sleep(2)
                session.controls.take_preset("eyes")
                for scale in (1.2, 1.3, 1.5, 1.6, 1.7, 1.8):  # libraries keep kernels for sizes
                    session.controls.set("octave-scale", scale)
                    time.sleep(1.5)
                session.controls.take_preset("eyes")
                plan = _planned(minutes, rng)
                seen: list[tuple[float, int, int]] = []
                begun = time.monotonic()
                length = minutes * 60
                reports = iter(range(1, 100))
                report = next(reports)
                while (now := time.monotonic() - begun) < length:
                    while plan and plan[0][0] <= now:
                        camera = _strike(plan.pop(0)[1], session, camera, failing, osc, rng)
                    if now > length * 0.3:
                        seen.append((resident(), _descriptors(), threading.active_count()))
                    if now > report * max(5.0, length / 10):
                        s = session.status
                        say(
                            f"{now:.0f} s: {s.shown:.0f} pictures, {s.steps:.0f} steps a second, "
                            f"{resident():.0f} MiB, {_descriptors()} descriptors, "
                            f"{threading.active_count()} threads, {s.camera}"
                        )
                        report = next(reports)
                    time.sleep(0.02)
                    if not runner.is_alive():
                        wrong.append("the run ended by itself")
                        break
        finally:
            ending.set()
            runner.join(30)
            reconnects, dreams = session.capture.reconnects, session.dreamer.dreams
            failures = sum(o.failures for o in session._outputs.values())
            session.close()
            camera.kill()
        third = max(1, len(seen) // 3)
        memory, descriptors, threads = (
            (median(row[i] for row in seen[:third]), median(row[i] for row in seen[-third:]))
            for i in range(3)
        )
        found = Soaked(
            memory, (int(descriptors[0]), int(descriptors[1])), (int(threads[0]), int(threads[1])),
            reconnects, failures, session._count, dreams, 0, wrong,
        )  # fmt: skip
        _judge(found, folder, session)
    return found


def _judge(found: Soaked, folder: Path, session: Session) -> None:
    before, after = found.memory
    if after > before * 1.02:
        found.wrong.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
    for name, (first, last) in (("descriptors", found.descriptors), ("threads", found.threads)):
        if last > first + 2:
            found.wrong.append(f"{name} grew from {first} to {last}")
    if session.dreamer.faults:
        found.wrong.append(f"{session.dreamer.faults} faults of the dream")
    recordings = list(folder.glob("soak-*.mp4"))
    found.recordings = len(recordings)
    for path in recordings:
        try:
            with av.open(str(path)) as film:
                if not sum(1 for _ in film.decode(video=0)):
                    found.wrong.append(f"{path.name} has no picture")
        except (OSError, av.error.FFmpegError) as fault:  # type: ignore[attr-defined]
            found.wrong.append(f"{path.name} does not play ({fault})")
    if not recordings:
        found.wrong.append("there are no recordings")


def _planned(minutes: float, rng: random.Random) -> list[tuple[float, str]]:
    """What happens when, in seconds; as much of each as ten minutes have."""
    length = minutes * 60
    much = {"kill": 15, "freeze": 15, "fail": 10, "preset": 200, "osc": 2000, "record": 20}
    plan = []
    for name, ten in much.items():
        count = max(1, round(ten * minutes / 10))
        plan += [(length * (i + rng.random()) / count * 0.9, name) for i in range(count)]
    return sorted(plan)


def _strike(
    what: str, session: Session, camera: Camera, failing: threading.Event, osc: socket.socket,
    rng: random.Random,
) -> Camera:  # fmt: skip
    if what == "kill":
        camera.kill()
        return Camera(camera.port)
    if what == "freeze":
        camera.frozen.set()
        threading.Timer(7.5, camera.frozen.clear).start()  # longer than a reader waits
    elif what == "fail":
        failing.set()
        threading.Timer(1.0, failing.clear).start()
    elif what == "preset":
        names = [n for n in session.controls.presets if n != "classic"]
        session.controls.take_preset(rng.choice(names))
    elif what == "record":
        session.controls.act("record")
    elif what == "osc":
        _send(
            osc,
            _message(session, rng) if rng.random() < 0.5 else rng.randbytes(rng.randint(0, 400)),
        )
    return camera


def _message(session: Session, rng: random.Random) -> bytes:
    """One that makes sense, more or less."""
    table = session.controls.table
    stopping = ("quit", "record", "snapshot", "freeze", "blackout")
    harmless = [a for a in ACTIONS if a not in stopping]
    name = rng.choice([*table, *harmless, "nothing-like-it"])
    built = OscMessageBuilder(f"/streamdream/{name}")
    if name not in ("model",):
        given: Any = rng.choice([rng.uniform(-1, 5), rng.randint(-2, 40), "eyes", "block9", True])
        if name in ("work-size", "octaves", "steps", "warm-steps"):
            given = rng.choice([0.5, -3, 4, "many"])
        built.add_arg(given)
    return built.build().dgram


def _send(osc: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # nobody listened to the last one
        osc.send(data)


@contextmanager
def _watched(wrong: list[str]) -> Iterator[None]:
    """Notes what is raised in any thread."""
    before = threading.excepthook

    def note(given: threading.ExceptHookArgs) -> None:
        name = given.thread.name if given.thread else "?"
        wrong.append(f"{given.exc_type.__name__} in {name}: {given.exc_value}")
        before(given)

    threading.excepthook = note
    try:
        yield
    finally:
        gc.collect()
        threading.excepthook = before


def _silent(_text: str) -> None:
    """Tell nobody."""


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("pace", "style", "soak"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--source", default="test")
    parser.add_argument("--style", default="")
    parser.add_argument("--method", default="auto")
    parser.add_argument("--lines", type=int, default=180)
    parser.add_argument("--models", default="efficientnet-lite0,vgg19")
    given = parser.parse_args()
    if given.what == "style" and not given.style:
        parser.error("style needs --style")
    if given.what == "soak":
        found = soak(given.minutes, lambda text: print(text, flush=True))
        print(found)
        sys.exit(1 if found.wrong else 0)
    if given.what == "style":
        look = given.style, given.method
        told(given.style, pace_style(given.source, *look, given.seconds, given.lines), True)
        return
    for model in given.models.split(","):
        told(model, pace(given.source, model, given.seconds))


def told(name: str, p: Pace, painted: bool = False) -> None:
    """Print what a run did."""
    what, results = ("paintings", "painting") if painted else ("steps", "dream")
    lines = p.lines if painted else 180
    made_now = p.dreams if painted else p.steps
    share = f"{p.shown:.1f} of {p.wanted:.1f} pictures a second ({p.shown / p.wanted:.0%})"
    print(f"{name}: {share}, the {results} on {p.carried:.1%} of them, {p.dropped} dropped")
    print(f"  {p.latency[0]:.0f} ms late (95%: {p.latency[1]:.0f})")
    if painted:
        carried = p.shown * p.carried
        print(f"  {carried:.1f} pictures a second with a painting carried to them")
        print(f"  {p.dreams:.1f} paintings a second at {p.lines} lines")
    else:
        print(f"  {p.steps:.1f} steps, {p.dreams:.2f} dreams a second at up to {p.lines} lines")
    print(
        f"  alone: {p.drawn_alone:.0f} pictures drawn, {p.steps_alone:.1f} {what} at {lines} lines"
    )
    beside = f"{p.shown / p.drawn_alone:.2f} of the pictures"
    print(f"  so {made_now / p.steps_alone:.2f} of the {what} beside {beside}", flush=True)


if __name__ == "__main__":
    main()
