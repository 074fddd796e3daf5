"""Where the time of a frame goes, and what it grows with.

    python benchmarks/speed.py [VIDEO] [--model NAME] [--device cpu|cuda] [--frames 24]
                               [--only machine stages pace size length files] [--out DIR]

machine  the rate at which matrices are multiplied here, and how near a gradient step comes to it
stages   what every stage of a frame takes, as a table and as a picture with a lane a thread; on
         a GPU also its kernels' time, copies and waits a frame
pace     seconds a frame of the default, over dreaming every frame afresh and over the same
         without threads beside the dream, taken in turns
size     seconds a frame by work size
files    frames a second from file to file without a dream, of every codec and container, and
         that over the bare library's
length   late frames over early ones, and peak memory after 3000 frames over that after 300

Machines are shared: only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import av
import numpy as np
import torch
from av.video.frame import PictureType
from PIL import Image, ImageDraw
from torch.utils.flop_counter import FlopCounterMode

from streamdream import (
    backbone,
    colour,
    cuts,
    dream,
    motion,
    pipeline,
    reader,
    run,
    sources,
    video_sink,
)
from streamdream.codecs import CODECS, CONTAINERS
from streamdream.dream import octave_sizes
from streamdream.info import Counts, VideoInfo
from streamdream.objectives.aims import Aim, aim_at
from streamdream.objectives.slopes import whole_slope
from streamdream.options import Options
from streamdream.settings import build
from streamdream.threads import ahead

SAMPLE = Path(__file__).parent.parent / "samples" / "clip.mp4"
NETWORK = "network"  # the stage that everything else is compared with
SKIPPED = 2  # frames at the start: the first dreams ten times as much, the second warms up

# Where the stages of a frame are, in the order in which a frame meets them.
STAGES: tuple[tuple[str, object, str], ...] = (
    ("decode", reader.Reader, "pictures"),
    ("to RGB", colour.ToRGB, "__call__"),
    ("to work size", pipeline, "to_image"),
    ("cut test", cuts.Cuts, "between"),
    ("flow", motion, "estimate"),
    ("trust", motion, "trusted"),
    ("warp", pipeline, "warp"),
    (NETWORK, dream, "slope_of"),
    (NETWORK, dream.Dream, "response"),
    ("pyramid", dream, "normalised"),
    ("composite", pipeline, "composite"),
    ("encode", video_sink.VideoSink, "write"),
)
NAMES = tuple(dict.fromkeys(stage for stage, _, _ in STAGES))


class Stopwatch:
    """A listener that notes when every frame was finished."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.done: list[float] = []
        self.memory: dict[int, int] = {}

    def notice(self, text: str) -> None:
        """Nobody reads it."""

    def begin(self, info: VideoInfo) -> None:
        """Start counting."""
        self.done = [time.perf_counter()]

    def step(self, frames: int, counts: Counts) -> None:
        """Note time and memory when a frame has been finished since the last step."""
        if frames == len(self.done):
            self.done.append(time.perf_counter())
            self.memory[frames] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def finish(self, what: str) -> None:
        """Nobody watches."""

    def each(self, first: int = SKIPPED, last: int | None = None) -> list[float]:
        """Seconds of frames `first` (from 0) to `last`."""
        ends = self.done[first : last if last is None else last + 1]
        return [b - a for a, b in pairwise(ends)]


def timed_run(video: Path, options: Options) -> Stopwatch:
    """Run from file to file."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        run.dream_file(video, Path(folder) / "out.mp4", options, watch)
    return watch


class Stages:
    """Adds up the time inside the stages, a thread at a time, each without the ones within it."""

    def __init__(self, device: str) -> None:
        """Begin with nothing."""
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._open = threading.local()
        self._waits = device == "cuda"  # kernels run later, so what is timed has to wait

    @contextmanager
    def inside(self, stage: str) -> Iterator[None]:
        """Time what happens here as `stage`."""
        outer = getattr(self._open, "within", 0.0)
        self._open.within = 0.0
        began = time.perf_counter()
        try:
            yield
            if self._waits:
                torch.cuda.synchronize()
        finally:
            spent = time.perf_counter() - began
            self.seconds[threading.current_thread().name, stage] += spent - self._open.within
            self._open.within = outer + spent

    def wrapped(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed; if it makes an iterator, every item of it."""

        def call(*args: object, **options: object) -> object:
            with self.inside(stage):
                made = function(*args, **options)
            return self._items(stage, made) if isinstance(made, Iterator) else made

        return call

    def _items(self, stage: str, items: Iterator[object]) -> Iterator[object]:
        while True:
            with self.inside(stage):
                item = next(items, self)
            if item is self:
                return
            yield item


def stages(video: Path, options: Options, out: Path) -> None:
    """Time every stage of a frame while a whole run goes on."""
    clock = Stages(options.device)
    with ExitStack() as patches:
        for stage, owner, name in STAGES:
            function = getattr(owner, name)
            patches.enter_context(patch.object(owner, name, clock.wrapped(stage, function)))
        watch = Stopwatch()
        counted: dict[tuple[str, str], float] = {}

        def begin_counting(frames: int, counts: Counts) -> None:
            Stopwatch.step(watch, frames, counts)
            if frames == SKIPPED and not counted:
                counted.update(clock.seconds)

        watch.step = begin_counting  # type: ignore[method-assign]
        with tempfile.TemporaryDirectory() as folder:
            run.dream_file(video, Path(folder) / "out.mp4", options, watch)
    frames = len(watch.done) - 1 - SKIPPED
    wall = (watch.done[-1] - watch.done[SKIPPED]) / frames
    each = {key: (clock.seconds[key] - counted.get(key, 0)) / frames for key in clock.seconds}
    threads = sorted({thread for thread, _ in each}, key=lambda t: t != "MainThread")
    lanes = {
        thread: [(s, each[thread, s]) for s in NAMES if (thread, s) in each] for thread in threads
    }
    print(f"\nstages of a frame at {options.lines} lines, {frames} frames, ms")
    print("| thread | stage | ms | of the frame |\n|---|---|--:|--:|")
    for thread, lane in lanes.items():
        for stage, seconds in lane:
            print(f"| {thread} | {stage} | {seconds * 1e3:.1f} | {seconds / wall:.1%} |")
        rest = wall - sum(seconds for _, seconds in lane)
        print(f"| {thread} | the rest, waiting included | {rest * 1e3:.1f} | {rest / wall:.1%} |")
    network = sum(seconds for (_, stage), seconds in each.items() if stage == NETWORK)
    print(f"| all | frame | {wall * 1e3:.1f} | 100% |")
    print(f"outside the network: {1 - network / wall:.1%} of a frame's time")
    print(draw(lanes, wall, out / f"stages-{options.model}.png"))
    if options.device == "cuda":
        print(on_gpu(video, options))


COLOURS = {
    "decode": "#4c72b0", "to RGB": "#6f8fc4", "to work size": "#93add8", "cut test": "#ccb974",
    "flow": "#dd8452", "trust": "#e5a47f", "warp": "#937860", NETWORK: "#55a868",
    "pyramid": "#8cc79a", "composite": "#8172b3", "encode": "#da8bc3",
}  # fmt: skip


def draw(lanes: dict[str, list[tuple[str, float]]], wall: float, path: Path) -> Path:
    """Draw a lane a thread, as long as a frame takes, with the stages in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left, width, high, gap = 150, 900, 44, 30
    image = Image.new("RGB", (left + width + 20, 40 + len(lanes) * (high + gap)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((left, 8), f"one frame: {wall * 1e3:.0f} ms; white is waiting and the rest", "black")
    for i, (thread, lane) in enumerate(lanes.items()):
        top = 30 + i * (high + gap)
        pen.text((8, top + high // 2 - 6), thread, "black")
        pen.rectangle((left, top, left + width, top + high), outline="black")
        x, label = float(left), left
        for stage, seconds in lane:
            wide = seconds / wall * width
            pen.rectangle((x, top, x + wide, top + high), fill=COLOURS[stage])
            text = f"{stage} {seconds * 1e3:.1f}"
            pen.rectangle((label, top + high + 6, label + 8, top + high + 14), fill=COLOURS[stage])
            pen.text((label + 11, top + high + 4), text, "black")
            label += 20 + round(pen.textlength(text))
            x += wide
    image.save(path)
    return path


def on_gpu(video: Path, options: Options, frames: int = 6) -> str:
    """Kernels' time, copies and waits a frame, from the profiler."""
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profile:
        timed_run(video, options.model_copy(update={"frames": frames}))
    names: Counter[str] = Counter()
    kernels = 0.0
    for event in profile.events() or ():
        kernels += event.self_device_time_total
        for what in ("Memcpy HtoD", "Memcpy DtoH", "Synchronize"):
            names[what] += what in event.name
    counts = ", ".join(f"{what} {count / frames:.1f}" for what, count in names.items())
    return (
        "on the GPU a frame (the first one is among them): "
        f"kernels {kernels / frames / 1e3:.1f} ms, {counts}"
    )


def machine(options: Options) -> None:
    """Print the matrix rate, and the share of it that a gradient step reaches."""
    device = run.choose_device(options.device)
    rates: dict[str, float] = {}
    for name, precision in backbone.PRECISIONS.items():
        size = 1024
        a, b = (torch.rand(size, size, device=device, dtype=precision) for _ in range(2))
        rates[name] = 2 * size**3 / quickest(lambda a=a, b=b: a @ b, device, times=4)
    print(f"\nthis machine: {torch.get_num_threads()} threads, {device}")
    print("matrix product: " + ", ".join(f"{n} {r / 1e9:.0f} GFLOP/s" for n, r in rates.items()))
    print(
        "| precision | gradient step at | GFLOP | ms | of the matrix rate |\n|---|---|--:|--:|--:|"
    )
    for name, precision in backbone.PRECISIONS.items():
        if rates[name] < max(rates.values()) / 2:
            print(f"| {name} | not tried: this machine has no fast arithmetic for it | | | |")
            continue
        net = backbone.load(options.model, device, precision)
        full = options.lines, round(options.lines * 16 / 9)
        for h, w in reversed(octave_sizes(full, options.octaves, options.octave_scale)):
            x = torch.rand(3, h, w, device=device)
            aim = aim_at(*options.chosen_layers, device=device)

            def step(x: torch.Tensor = x, net: backbone.Backbone = net, aim: Aim = aim) -> None:
                whole_slope(net, x, aim)

            with FlopCounterMode(display=False) as counter:
                step()
            flops, seconds = counter.get_total_flops(), quickest(step, device)
            share = flops / seconds / rates[name]
            print(
                f"| {name} | {w}x{h} | {flops / 1e9:.1f} | {seconds * 1e3:.1f} | {share:.0%} |",
                flush=True,
            )


def quickest(work: Callable[[], object], device: torch.device, times: int = 9) -> float:
    """The least of several times that work takes, in seconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


def pace(video: Path, options: Options, rounds: int = 2) -> None:
    """Compare with dreaming afresh, and with no threads beside the dream, in turns."""
    few = options.frames or 12

    def alone(items: Iterable[Any], depth: int = 0) -> Iterator[Any]:
        yield from items

    def changed(**changes: object) -> Options:
        return build(options.model_dump(exclude_unset=True), {"frames": few, **changes})

    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        times["default"] += timed_run(video, options).each()
        with patch.object(pipeline, "ahead", alone), patch.object(run, "Behind", lambda sink: sink):
            times["without threads beside"] += timed_run(video, options).each()
        times["quality draft"] += timed_run(video, changed(quality="draft")).each()
        times["quality fine"] += timed_run(video, changed(quality="fine")).each()
        afresh = changed(memory=0, frames=max(SKIPPED + 2, few // 3))
        times["every frame afresh"] += timed_run(video, afresh).each()
    print("\n| pace | s a frame | over the default |\n|---|--:|--:|")
    usual = median(times["default"])
    for name, found in times.items():
        print(f"| {name} | {median(found):.3f} | {median(found) / usual:.2f} |")


def by_size(video: Path, options: Options) -> None:
    """Seconds a frame by work size."""
    print("\n| work size | s a frame | ns a pixel of it |\n|--:|--:|--:|")
    for lines in (135, 190, 270, 380, 540):
        changed = build(options.model_dump(exclude_unset=True), {"work_size": lines})
        seconds = median(timed_run(video, changed).each())
        print(
            f"| {lines} | {seconds:.3f} | {seconds / (lines**2 * 16 / 9) * 1e9:.0f} |", flush=True
        )


def make_film(path: Path, frames: int) -> None:
    """Write a film of moving noise with a tone."""
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 640, 360, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "35"}
        sound = out.add_stream("aac", rate=48000)
        sound.layout = "mono"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, i, 1), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
            tone = np.sin(np.arange(i * 1920, (i + 1) * 1920) / 17, dtype=np.float32)[None] / 4
            heard = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            heard.sample_rate, heard.pts = 48000, i * 1920
            out.mux(sound.encode(heard))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))


TINY = {"work_size": 32, "octaves": 1, "steps": 1, "warm_steps": 1, "layers": "block1",
        "encoder_preset": "ultrafast"}  # fmt: skip


def by_length(frames: int = 3000) -> tuple[float, float]:
    """Late frames' time over early ones', and peak memory at the end over that at a tenth.

    At a tiny work size: what could grow does not depend on it.
    """
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        make_film(film, frames)
        watch = timed_run(film, build(TINY, {"frames": frames}))
    tenth = frames // 10
    early, late = watch.each(tenth // 2, tenth), watch.each(frames - tenth // 2, frames)
    slower = median(late) / median(early)
    larger = watch.memory[frames] / watch.memory[tenth]
    print(f"\nframe {frames} over frame {tenth}: time {slower:.3f}, peak memory {larger:.3f}")
    return slower, larger


def by_file(video: Path, frames: int) -> dict[str, float]:
    """Frames a second from file to file without a dream, of every kind of file.

    The baseline is the bare library with the same encoder: decoded frames go into it as they
    are, in one thread, and nothing else is copied.
    """
    print("\n| file | frames a second | over the library alone |")
    print("|---|--:|--:|")
    found: dict[str, float] = {}
    for ending, kind in CONTAINERS.items():
        for codec in kind.codecs:
            rate, bare = _copying(video, f"out{ending}", codec, frames)
            found[f"{ending} {codec}"] = rate
            print(f"| {ending} {codec} | {rate:.0f} | {rate / bare:.2f} |", flush=True)
    for name in ("out.gif", "out.webp", "out.apng", "%04d.png", "%04d.jpg"):
        rate, _ = _copying(video, name, "auto", frames)
        found[name] = rate
        print(f"| {name} | {rate:.0f} | |", flush=True)
    return found


def _copying(video: Path, name: str, codec: str, frames: int) -> tuple[float, float]:
    """Frames a second of our way and of the library's, None where it has no such way."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / name
        options = build({"codec": codec, "frames": frames})
        began = time.perf_counter()
        with sources.VideoSource(video, frames=frames) as source:
            count = 0
            with run.open_sink(target, source.info, source.companions, options, "")() as sink:
                for frame in ahead(source):
                    sink.write(frame)
                    count += 1
        rate = count / (time.perf_counter() - began)
        if codec == "auto":
            return rate, math.nan
        began = time.perf_counter()
        kind = CONTAINERS[target.suffix].name
        with av.open(str(video)) as given, av.open(str(target), "w", format=kind) as out:
            known = CODECS[codec]
            stream: Any = out.add_stream(known.encoder, rate=given.streams.video[0].average_rate)
            first = given.streams.video[0]
            stream.width, stream.height = first.width, first.height
            stream.pix_fmt = known.pixels
            stream.options = known.options(known.crf or 0, options.encoder_preset, 25)
            for index, frame in enumerate(given.decode(video=0)):
                if index == frames:
                    break
                frame.pict_type = PictureType.NONE
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return rate, count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument("video", nargs="?", type=Path, default=SAMPLE)
    cli.add_argument("--model", default="efficientnet-lite0")
    cli.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    cli.add_argument("--frames", type=int, default=24)
    cli.add_argument(
        "--only", nargs="*", default=("machine", "stages", "pace", "size", "length", "files")
    )
    cli.add_argument("--out", type=Path, default=Path("speed"), help="folder for the picture")
    given = cli.parse_args()
    if not given.video.is_file():
        sys.exit(f"speed: {given.video}: no such file")
    options = build({"model": given.model, "device": given.device, "frames": given.frames})
    tasks: dict[str, Callable[[], object]] = {
        "machine": lambda: machine(options),
        "stages": lambda: stages(given.video, options, given.out),
        "pace": lambda: pace(given.video, options),
        "size": lambda: by_size(given.video, options),
        "length": by_length,
        "files": lambda: by_file(given.video, max(given.frames, 120)),
    }
    for name in given.only:
        if name not in tasks:
            sys.exit(f"speed: --only {name}: it is one of {', '.join(tasks)}")
        tasks[name]()


if __name__ == "__main__":
    main()
