"""What long renders are made of, and what several workers gain.

    python benchmarks/scale.py parts [--size 3840x2160] [--frames 12] [OPTION=VALUE ...]
    python benchmarks/scale.py workers [--workers 2] [--frames 120] [--rounds 2] [OPTION=VALUE ...]

parts    of one frame of a film of this size the processor seconds of each part on one thread:
         reading, the search for cuts, motion, the dream, laying it on, encoding. What a film
         costs on many machines follows from these, see docs/scale.md.
workers  a film of two halves, each by a plain process of its own at the same time, and the same
         film with --workers: both with one thread a process. Gain is how many times faster than
         one process doing all of it. Fails where the workers gain less than 0.9 of what the
         independent processes do, by the median of the rounds.

Options are those of the command.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import numpy as np
import torch

from streamdream.cuts import Cuts, small_of
from streamdream.effects import effects_of
from streamdream.encoding import Encoding
from streamdream.frame import to_image, work_size
from streamdream.jobs.coders import VideoCoder
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import advance, carry
from streamdream.processors import using_threads
from streamdream.settings import made
from streamdream.sources import Glimpse, VideoSource
from streamdream.values import sides

GAIN = 0.9  # of what independent processes gain
T = TypeVar("T")


def make_film(path: Path, size: tuple[int, int], frames: int, shots: int) -> None:
    """A film of textures that drift, in so many shots that have nothing in common."""
    h, w = size
    with av.open(str(path), "w") as out:
        video = cast(Any, out.add_stream("libx264", rate=24))
        video.width, video.height, video.pix_fmt = w, h, "yuv420p"
        video.options = {"preset": "veryfast", "crf": "20"}
        for i in range(frames):
            shot = i * shots // frames
            rough = np.random.default_rng(shot).integers(0, 256, (h // 40 + 1, w // 40 + 1, 3))
            pixels = np.kron(rough.astype(np.uint8), np.ones((40, 40, 1), np.uint8))[:h, :w]
            pixels = np.ascontiguousarray(np.roll(pixels, 2 * i, 1))
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = i, Fraction(1, 24)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))


class Spent:
    """Processor seconds by part."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Note what is spent within."""
        began = time.process_time()
        yield
        self.seconds.setdefault(part, []).append(time.process_time() - began)

    def each(self, part: str, made: Callable[[], T]) -> T:
        """Note what a call spends."""
        with self.on(part):
            return made()


def parts(arguments: argparse.Namespace, given: dict[str, str]) -> bool:
    """Tell what each part of a frame costs."""
    options = made(Options, {"precision": "fp32", **given})
    size = sides(arguments.size)
    assert size is not None
    spent = Spent()
    with tempfile.TemporaryDirectory(prefix="streamdream-scale-") as folder, using_threads(1):
        path = Path(folder) / "film.mp4"
        make_film(path, size, arguments.frames, 1)
        (effect, *_) = effects_of(options, torch.device("cpu"))
        motion, cuts = OpticalFlow(options.flow), Cuts()
        target = Path(folder) / "out.mp4"
        with VideoSource(path) as source:
            how = options.codec, options.crf, options.encoder_preset
            coder = VideoCoder(target, Encoding(target, source.info, *how, threads=1))
            coder.begin(None)
            before = state = None
            glimpses = source.skim()
            while (glimpse := _next(spent, glimpses)) is not None:
                frame = spent.each("reading", glimpse.frame)
                lines = work_size(frame.pixels.shape[:2], options.lines)
                with spent.on("reading"):
                    image = to_image(frame.pixels, lines)
                movement = None
                if before is not None:
                    then, small = before
                    with spent.on("cuts"):
                        cuts.between(small_of(frame), small)
                    with spent.on("motion"):
                        movement = motion.between(image, then)
                with spent.on("the dream" if state is not None else "the dream of a first frame"):
                    carried = carry(state, image, frame.time, movement, options.memory)
                    carried = effect.prepared(image, carried, options)
                    *_, picture = effect(image, carried, options, frame.index)
                    state = advance(carried, image, picture(), frame.time, effect, options)
                with spent.on("laying on"):
                    pixels = effect.laid_on(frame.pixels, state.image, state.delta, options)
                redrawn = type(frame)(pixels, frame.time, frame.index, frame.duration)
                with spent.on("encoding"):
                    coder.packets(redrawn)
                before = image, small_of(frame)
            spent.each("encoding", coder.rest)
    total = 0.0
    for part, found in spent.seconds.items():
        mean = sum(found) / (1 if "first" in part else arguments.frames)
        total += mean if "first" not in part else 0
        print(f"{part:28s} {mean:7.3f} s", flush=True)
    print(f"{'a frame, but for the first':28s} {total:7.3f} s")
    return True


def _next(spent: Spent, glimpses: Iterator[Glimpse]) -> Glimpse | None:
    return spent.each("reading", lambda: next(glimpses, None))


def workers(arguments: argparse.Namespace, given: dict[str, str]) -> bool:
    """Whether workers gain nearly what independent processes do."""
    shares: list[float] = []
    words = [w for name, value in given.items() for w in (f"--{name.replace('_', '-')}", value)]
    with tempfile.TemporaryDirectory(prefix="streamdream-scale-") as name:
        folder, count = Path(name), arguments.workers
        whole, piece = folder / "whole.mp4", folder / "piece.mp4"
        make_film(whole, (270, 480), arguments.frames * count, count)
        make_film(piece, (270, 480), arguments.frames, 1)
        for number in range(arguments.rounds):

            def run(source: Path, target: str, *more: str) -> subprocess.Popen[bytes]:
                line = [sys.executable, "-m", "streamdream", str(source), "-o", target]
                line += ["--overwrite", "--threads", "1", *words, *more]
                return subprocess.Popen(line, cwd=folder)

            took: list[float] = []
            for kind in ("alone", "apart", "together"):
                began = time.perf_counter()
                if kind == "alone":
                    running = [run(whole, "alone.mp4")]
                elif kind == "apart":
                    running = [run(piece, f"{i}.mp4") for i in range(count)]
                else:
                    running = [run(whole, "together.mp4", "--workers", str(count))]
                if any(process.wait() for process in running):
                    raise SystemExit(f"a run failed ({kind})")
                took.append(time.perf_counter() - began)
            alone, apart, together = took
            gains = alone / apart, alone / together
            shares.append(gains[1] / gains[0])
            print(
                f"round {number + 1}: alone {alone:.1f} s, apart {apart:.1f} s (gain "
                f"{gains[0]:.2f}), workers {together:.1f} s (gain {gains[1]:.2f}): "
                f"{shares[-1]:.2f} of it",
                flush=True,
            )
    share = statistics.median(shares)
    print(f"{count} workers gain {share:.2f} of what {count} processes do (median)")
    return share >= GAIN


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("what", choices=("parts", "workers"))
    parser.add_argument("--size", default="3840x2160")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE")
    arguments = parser.parse_intermixed_args()
    arguments.frames = arguments.frames or {"parts": 12, "workers": 120}[arguments.what]
    given = dict(word.split("=", 1) for word in arguments.options)
    given = {name.replace("-", "_"): value for name, value in given.items()}
    holds = {"parts": parts, "workers": workers}[arguments.what](arguments, given)
    print("holds" if holds else "DOES NOT HOLD")
    sys.exit(0 if holds else 1)


_Formatter = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
