"""Seconds a frame of the default dream, and its ratio to dreaming every frame afresh.

    python benchmarks/pace.py [VIDEO] [--frames N]

Both are measured in one run, from file to file, first frames left out (they are alike).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from streamdream.options import build
from streamdream.run import dream_file
from streamdream.sources import Counts, VideoInfo

SAMPLE = Path(__file__).parent.parent / "samples" / "clip.mp4"


class Stopwatch:
    """Notes when every frame was finished."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.done: list[float] = []

    def notice(self, text: str) -> None:
        """Nobody reads it."""

    def begin(self, info: VideoInfo) -> None:
        """Start counting."""
        self.done = [time.perf_counter()]

    def step(self, frames: int, counts: Counts) -> None:
        """Note the time when a frame has been finished since the last step."""
        if frames == len(self.done):
            self.done.append(time.perf_counter())

    def seconds_a_frame(self) -> float:
        """The median over all frames but the first."""
        return median(b - a for a, b in zip(self.done[1:], self.done[2:], strict=False))


def measure(video: Path, frames: int, **options: object) -> float:
    """Seconds a frame with these options."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mp4"
        dream_file(video, target, build({"frames": frames, **options}), watch)
    return watch.seconds_a_frame()


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(description="Seconds a frame.")
    cli.add_argument("video", type=Path, nargs="?", default=SAMPLE)
    cli.add_argument("--frames", type=int, default=24)
    given = cli.parse_args()
    carried = measure(given.video, given.frames)
    afresh = measure(given.video, max(4, given.frames // 3), memory=0)
    print(f"default          {carried:.3f} s a frame")
    print(f"every frame new  {afresh:.3f} s a frame (--memory 0)")
    print(f"ratio            {afresh / carried:.2f}")


if __name__ == "__main__":
    main()
