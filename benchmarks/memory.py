"""Peak memory of a long run over that of a short one.

    python benchmarks/memory.py [--short 150] [--long 1500]

Each run is a process of its own on a made film with sound, at a tiny work size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

RUN = """
import resource, sys
from streamdream.options import build
from streamdream.run import dream_file
look = {"work_size": 32, "octaves": 1, "steps": 1, "warm_steps": 1, "layers": "block1",
        "encoder_preset": "ultrafast"}
dream_file(sys.argv[1], sys.argv[2], build({**look, "frames": int(sys.argv[3])}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_film(path: Path, frames: int) -> None:
    """Write a film of moving noise with a tone."""
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 1280, 720, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "35"}
        sound = out.add_stream("aac", rate=48000)
        sound.layout = "mono"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, i, 1), format="rgb24")
            frame.pts = i
            out.mux(video.encode(frame))
            tone = np.sin(np.arange(i * 1920, (i + 1) * 1920) / 17, dtype=np.float32)[None] / 4
            heard = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            heard.sample_rate, heard.pts = 48000, i * 1920
            out.mux(sound.encode(heard))
        out.mux(video.encode(None))
        out.mux(sound.encode(None))


def peak(film: Path, target: Path, frames: int) -> int:
    """Peak resident memory in KiB of a run over so many frames."""
    command = [sys.executable, "-c", RUN, str(film), str(target), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def ratio(short: int, long: int) -> float:
    """The long run's peak memory over the short one's."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        make_film(film, long)
        few = peak(film, Path(folder) / "short.mp4", short)
        many = peak(film, Path(folder) / "long.mp4", long)
    print(f"{short} frames  {few / 1024:.0f} MiB")
    print(f"{long} frames  {many / 1024:.0f} MiB")
    return many / few


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(description="Does memory grow with length?")
    cli.add_argument("--short", type=int, default=150)
    cli.add_argument("--long", type=int, default=1500)
    given = cli.parse_args()
    print(f"ratio  {ratio(given.short, given.long):.3f}")


if __name__ == "__main__":
    main()
