"""What renders with --resume cost beside plain ones, and whether very long ones hold.

    python benchmarks/jobs.py cost [--film FILE] [--frames 48] [--pairs 3] [OPTION=VALUE ...]
    python benchmarks/jobs.py long [--frames 20000] [OPTION=VALUE ...]

cost  the same film plain and as a job, in turn, in one process in which everything is loaded:
      time on the wall and on the processors, and the share of writing segments and points, of
      joining and of the rest. Fails where a job takes over 3% more, by the median of the pairs.
long  a film of so many frames at a tiny work size, stopped after a tenth: memory is sampled
      all the time. Fails where it is larger in the last quarter than in the second, or
      where a frame, its time or a packet of sound is not the source's.

Options are those of the command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

import av
import numpy as np

from streamdream.info import Counts
from streamdream.jobs import segments, session
from streamdream.options import Options
from streamdream.run import Silent, dream_file
from streamdream.settings import made
from streamdream.sinks import Stopped

ALLOWED = 0.03  # of a plain run's time
GROWTH = 0.03  # of memory, and a little
SLACK = 16  # MiB
TINY = {
    "work_size": "32", "octaves": "1", "steps": "1", "warm_steps": "1", "layers": "block1",
    "encoder_preset": "ultrafast", "precision": "fp32",
}  # fmt: skip
SIZE = (48, 64)


class Spent:
    """Seconds that functions take, by name; the threads they run in are not asked."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def noted(self, owner: Any, name: str, what: str) -> Iterator[None]:
        """Note how long a function of `owner` takes."""
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*arguments, **named)
            finally:
                taken = time.perf_counter() - began
                self.seconds[what] = self.seconds.get(what, 0.0) + taken

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, plain)


def cost(arguments: argparse.Namespace, given: dict[str, str]) -> bool:
    """Whether a job takes little more than a plain run."""
    ratios: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="streamdream-jobs-") as folder:
        options = made(Options, {"frames": arguments.frames, **given})
        warm = options.model_copy(update={"frames": 2})
        dream_file(arguments.film, Path(folder) / "warm.mp4", warm)
        for pair in range(arguments.pairs):
            took: dict[bool, tuple[float, float]] = {}
            spent = Spent()
            for resume in (pair % 2 == 0, pair % 2 == 1):  # none is always the first
                target = Path(folder) / f"{pair}{resume}.mp4"
                wall, processors = time.perf_counter(), time.process_time()
                with (
                    spent.noted(segments.SegmentsSink, "_close", "closing segments"),
                    spent.noted(session._Session, "_join", "joining"),
                    spent.noted(session._Session, "begin", "looking at the job"),
                ):
                    dream_file(
                        arguments.film, target, options.model_copy(update={"resume": resume})
                    )
                took[resume] = (time.perf_counter() - wall, time.process_time() - processors)
            ratio = (took[True][0] / took[False][0], took[True][1] / took[False][1])
            ratios.append(ratio)
            parts = ", ".join(f"{what} {s:.2f} s" for what, s in spent.seconds.items())
            print(
                f"pair {pair + 1}: plain {took[False][0]:.2f} s, job {took[True][0]:.2f} s on the "
                f"wall ({ratio[0] - 1:+.1%}); {took[False][1]:.2f} and {took[True][1]:.2f} s of "
                f"processors ({ratio[1] - 1:+.1%}); {parts}",
                flush=True,
            )
    wall, processors = (statistics.median(r[i] for r in ratios) - 1 for i in (0, 1))
    print(f"a job takes {wall:+.1%} on the wall, {processors:+.1%} of processors (median)")
    return wall <= ALLOWED


def make_film(path: Path, frames: int) -> None:
    """A film in which shots of some seconds follow each other, and a tone goes on."""
    h, w = SIZE
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    with av.open(str(path), "w") as out:
        video = cast(Any, out.add_stream("libx264", rate=25))
        video.width, video.height, video.pix_fmt = w, h, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "20"}
        sound = cast(Any, out.add_stream("aac", rate=48000, layout="mono"))
        samples = 0
        for i in range(frames):
            shot = i // 130
            u, v = x - (1 + shot % 3) * i / 2, y + shot % 5 * i / 4
            waves = np.sin(u / (4 + shot % 4)), np.cos(v / 6), np.sin((u + v) / 9)
            pixels = np.stack([60 + 90 * (shot % 2) + 40 * wave for wave in waves], -1)
            frame = av.VideoFrame.from_ndarray(pixels.round().clip(0, 255).astype(np.uint8))
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
            while samples < (i + 1) * 1920:
                wave = (0.2 * np.sin(np.arange(samples, samples + 1024) / 20)).astype(np.float32)
                heard = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
                heard.sample_rate, heard.pts, heard.time_base = 48000, samples, Fraction(1, 48000)
                out.mux(sound.encode(heard))
                samples += 1024
        for stream in (sound, video):
            out.mux(stream.encode(None))


class Halfway(Silent):
    """Shows how far a run is, and stops it after so many frames."""

    def __init__(self, stop: int | None, frames: int) -> None:
        """Stop there, of so many."""
        self._stop, self._frames, self._next = stop, frames, 0

    def step(self, frames: int, counts: Counts) -> None:
        if frames >= self._next:
            print(f"{frames} of {self._frames} frames, {resident():.0f} MiB", flush=True)
            self._next = frames + max(1, self._frames // 20)
        if self._stop is not None and frames >= self._stop:
            raise Stopped


def resident() -> float:
    """The memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def sampled() -> Iterator[list[float]]:
    """Memory of this process in MiB, again and again."""
    found: list[float] = []
    ended = Event()

    def sample() -> None:
        while not ended.wait(0.2):
            found.append(resident())

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def long(arguments: argparse.Namespace, given: dict[str, str]) -> bool:
    """Whether a long job ends with flat memory, and with all frames, times and sound."""
    frames = arguments.frames
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="streamdream-jobs-") as folder:
        source, target = Path(folder) / "in.mp4", Path(folder) / "out.mp4"
        make_film(source, frames)
        print(f"a film of {frames} frames is made: {frames / 25:.0f} s", flush=True)
        options = made(Options, {**TINY, **given, "resume": True})
        began = time.perf_counter()
        dream_file(source, target, options, Halfway(frames // 10, frames))
        with sampled() as memory:
            done = dream_file(source, target, options, Halfway(None, frames))
        took = time.perf_counter() - began
        quarter = len(memory) // 4
        second, last = memory[quarter : 2 * quarter], memory[3 * quarter :]
        grown = max(last) - max(second)
        print(
            f"{frames} frames in {took:.0f} s; memory at most {max(second):.0f} MiB in the second "
            f"quarter, {max(last):.0f} MiB in the last, joining in it"
        )
        if grown > GROWTH * max(second) + SLACK:
            wrong.append(f"memory grew by {grown:.0f} MiB")
        if done.frames != frames:
            wrong.append(f"{done.frames} frames are told of")
        wrong += list(differences(source, target))
        left = [path.name for path in Path(folder).iterdir() if path not in (source, target)]
        if left:
            wrong.append(f"left behind: {', '.join(left)}")
    for what in wrong:
        print(f"WRONG: {what}")
    if not wrong:
        print("every frame has its time, every packet of sound is the source's, memory is flat")
    return not wrong


def differences(source: Path, target: Path) -> Iterator[str]:
    """In what a result is not its source: times of frames, packets of sound."""

    def times(path: Path) -> Iterator[Fraction]:
        with av.open(str(path)) as film:
            for frame in film.decode(video=0):
                assert frame.time_base
                yield (frame.pts or 0) * Fraction(frame.time_base)

    def sound(path: Path) -> Iterator[tuple[Fraction, bytes]]:
        with av.open(str(path)) as film:
            for packet in film.demux(audio=0):
                if packet.size:
                    yield (packet.pts or 0) * packet.time_base, bytes(packet)

    for what, found in (("frame", times), ("packet of sound", sound)):
        one, other = found(source), found(target)
        for count in range(10**9):
            here, there = next(one, None), next(other, None)
            if here != there:
                yield f"{what} {count} is another one"
                break
            if here is None:
                print(f"{count} {what}s are the source's")
                break


def main(words: Sequence[str] | None = None) -> int:
    """Run one of them; 1 where it fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("cost", "long"))
    sample = Path(__file__).parent.parent / "samples" / "clip.mp4"
    parser.add_argument("--film", type=Path, default=sample)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args(words)
    given = dict(each.split("=", 1) for each in arguments.options)
    if arguments.frames is None:
        arguments.frames = 48 if arguments.what == "cost" else 20_000
    return 0 if (cost if arguments.what == "cost" else long)(arguments, given) else 1


if __name__ == "__main__":
    sys.exit(main())
