"""Feeds damaged files to the command, and looks how it takes them.

    python benchmarks/fuzz.py [--count 2000] [--seed 0] [--jobs 2] [--keep FOLDER] [--only CASE]

Small files of six formats are made, and each case damages one of them: bytes flipped,
overwritten, deleted, doubled, inserted or zeroed, ends cut off, and numbers on the edge of
what fits written into the headers. What must never happen, whatever is in a file:

- an exit code that is not 0, 3 (cannot be read) or 4 (cannot be written), or death by a signal;
- a traceback, a warning, or anything else on the terminal but lines of streamdream's own, of
  which exactly one begins with `streamdream: error:` if the code is not 0, and none else;
- more than 60 s or 2 GiB;
- something written outside of the output's folder, or left in it that should not be there; a
  result, or a part of one, that does not play.

A case depends on nothing but the seed and its number: `--only CASE` repeats it and prints what
it said. `--keep` keeps the files of cases that failed. Each case runs in a fork of a process in
which everything is loaded, so its memory begins with that process's. Run it with
MALLOC_PERTURB_=85 in the environment as well: memory that nobody has filled is then never zero,
and an encoder that reads it is found out.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import io
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image
from rich.console import Console
from rich.progress import Progress

LIMIT = 60.0  # seconds
MOST = 2 << 30  # bytes

H, W, FRAMES, RATE = 64, 96, 8, 48000
HEAD = 2048  # bytes at the start, where headers lie
EDGES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

TINY = ("--frames", "6", "--work-size", "32", "--octaves", "1", "--steps", "1",
        "--encoder-preset", "ultrafast", "--max-pixels", "4000000", "--overwrite")  # fmt: skip
TARGETS = ("out.mp4", "out.mkv", "%03d.png", "out.mov", "out.webm")
# Most cases take the usual way; seeking and strictness have ways of their own.
ALSO = ((), (), (), ("--start", "0.1"), ("--strict",), ("--start", "0.1", "--end", "0.2"))

OWN = "fuzz: "  # begins what is found out about a result, among what is said
DREAMED, REFUSED, UNWRITTEN = 0, 3, 4


# ---------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class Kind:
    """A video file to be damaged: its ending, and what encodes it."""

    ending: str
    codec: str
    pixels: str
    sound: str = ""
    options: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)
    words: bool = False


# Broadcasts are interlaced and have headers in their sound's packets, AVI has B-frames without
# times: each takes another way.
KINDS = (
    Kind("mp4", "libx264", "yuv420p", "aac", {"preset": "fast"}, {"movflags": "faststart"}),
    Kind("mkv", "libx265", "yuv420p10le", "libopus", words=True,
         options={"x265-params": "log-level=none:pools=1:frame-threads=1"}),
    Kind("ts", "mpeg2video", "yuv420p", "aac", {"flags": "+ildct+ilme", "b": "500k"}),
    Kind("avi", "mpeg4", "yuv420p", "pcm_s16le", {"bf": "2", "b": "500k"}),
    Kind("gif", "gif", "rgb8"),
)  # fmt: skip
STILL = "jpg"
ENDINGS = (*(kind.ending for kind in KINDS), STILL)


def painted(index: int) -> np.ndarray:
    """A colourful picture that moves 2 px a frame."""
    y, x = np.mgrid[0:H, 0:W].astype(np.float64)
    u = x - 2 * index
    waves = [np.sin(u / 5) + np.cos(y / 7), np.sin((u + y) / 9), np.cos((u - y) / 6)]
    return np.stack([127 + 50 * wave for wave in waves], -1).round().astype(np.uint8)


def film(kind: Kind, folder: Path) -> bytes:
    """A film of a kind; the same bytes every time."""
    path = folder / f"film.{kind.ending}"
    # Matroska would give itself a random name.
    with av.open(str(path), "w", options={"fflags": "+bitexact", **kind.container}) as out:
        video = cast(Any, out.add_stream(kind.codec, rate=25))
        video.width, video.height, video.pix_fmt = W, H, kind.pixels
        video.options = {"threads": "1", **kind.options}
        video.codec_context.time_base = Fraction(1, 25)
        sound = cast(Any, out.add_stream(kind.sound, rate=RATE)) if kind.sound else None
        if sound is not None:
            sound.layout = "stereo"
        words = cast(Any, out.add_mux_stream("subrip")) if kind.words else None
        out.metadata["title"] = "Eight frames"
        if kind.words:
            out.set_chapters([
                {"id": i, "start": 160 * i, "end": 160 * i + 160, "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"Chapter {i}"}}
                for i in range(2)
            ])  # fmt: skip
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(painted(i), "rgb24").reformat(format=kind.pixels)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        if sound is not None:
            play(out, sound)
        if words is not None:
            packet = av.Packet(b"a word")
            packet.stream, packet.time_base = words, Fraction(1, 1000)
            packet.pts, packet.dts, packet.duration = 40, 40, 200
            out.mux(packet)
        out.mux(video.encode(None))
    return path.read_bytes()


def play(out: Any, sound: Any) -> None:
    """Write a tone as long as the pictures."""
    size = sound.codec_context.frame_size or 1024
    tone = np.sin(np.arange(RATE * FRAMES // 25) / 17) / 4
    kind = sound.codec_context.format.name
    to_own = av.AudioResampler(kind, "stereo", RATE, size)
    for start in range(0, len(tone), size):
        piece = np.stack([tone[start : start + size]] * 2).astype(np.float32)
        heard = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
        heard.sample_rate, heard.pts = RATE, start
        for ready in to_own.resample(heard):
            out.mux(sound.encode(ready))
    for ready in to_own.resample(None):
        out.mux(sound.encode(ready))
    out.mux(sound.encode(None))


def photo() -> bytes:
    """A photo that is mirrored by its EXIF data."""
    exif = Image.Exif()
    exif[0x112] = 5
    buffer = io.BytesIO()
    Image.fromarray(painted(0)).save(buffer, "JPEG", exif=exif, comment="one picture")
    return buffer.getvalue()


def originals() -> dict[str, bytes]:
    """The whole files, by their endings."""
    with tempfile.TemporaryDirectory() as folder:
        made = {kind.ending: film(kind, Path(folder)) for kind in KINDS}
    return {**made, STILL: photo()}


# ---------------------------------------------------------------------------------- the damage


@dataclass(frozen=True)
class Case:
    """A damaged file and what is asked of it; `damage` in words."""

    number: int
    ending: str
    data: bytes
    damage: tuple[str, ...] = ()
    target: str = TARGETS[0]
    also: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """What was asked, as on the command line."""
        return " ".join([f"in.{self.ending}", "-o", self.target, *self.also])


def case(number: int, seed: int, files: dict[str, bytes]) -> Case:
    """Case `number`, which depends on nothing else but the `seed`."""
    ending = ENDINGS[number % len(ENDINGS)]
    chance = random.Random(f"{seed} {number}")
    target, also = chance.choice(TARGETS), chance.choice(ALSO)
    data, damage = bytearray(files[ending]), []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 4))):
        damage.append(chance.choice(WAYS)(data, chance))
    return Case(number, ending, bytes(data), tuple(damage), target, also)


def _place(data: bytearray, chance: random.Random) -> int:
    """Somewhere in a file, and in its head as often as in all the rest."""
    return chance.randrange(min(HEAD, len(data)) + 1 if chance.random() < 0.5 else len(data) + 1)


def _length(chance: random.Random, bits: int = 9) -> int:
    """Short as often as long."""
    return chance.randint(1, 2 ** chance.randint(0, bits))


def flip(data: bytearray, chance: random.Random) -> str:
    """Turn single bits over."""
    places = [_place(data, chance) for _ in range(_length(chance, 5))]
    for place in places:
        if place < len(data):
            data[place] ^= 1 << chance.randrange(8)
    return f"bits flipped at {', '.join(map(str, places))}"


def overwrite(data: bytearray, chance: random.Random) -> str:
    """Write noise over a run of bytes."""
    at, n = _place(data, chance), _length(chance, 7)
    data[at : at + n] = chance.randbytes(len(data[at : at + n]))
    return f"{n} bytes overwritten at {at}"


def delete(data: bytearray, chance: random.Random) -> str:
    """Take a block out."""
    at, n = _place(data, chance), _length(chance)
    del data[at : at + n]
    return f"{n} bytes deleted at {at}"


def double(data: bytearray, chance: random.Random) -> str:
    """Put a block in a second time, behind itself or elsewhere."""
    at, n = _place(data, chance), _length(chance, 11)
    to = at + n if chance.random() < 0.5 else _place(data, chance)
    data[to:to] = data[at : at + n]
    return f"{n} bytes at {at} doubled at {to}"


def insert(data: bytearray, chance: random.Random) -> str:
    """Put noise in."""
    at, n = _place(data, chance), _length(chance)
    data[at:at] = chance.randbytes(n)
    return f"{n} bytes inserted at {at}"


def truncate(data: bytearray, chance: random.Random) -> str:
    """Cut the end off."""
    n = min(_length(chance, 14), len(data))
    del data[len(data) - n :]
    return f"cut off after {len(data)} bytes"


def zero(data: bytearray, chance: random.Random) -> str:
    """Write zeros over a block, as a disk does that lost it."""
    at, n = _place(data, chance), _length(chance, 10)
    data[at : at + n] = bytes(len(data[at : at + n]))
    return f"{n} bytes zeroed at {at}"


def edge(data: bytearray, chance: random.Random) -> str:
    """Write numbers on the edge of what fits into the head, in either order of bytes."""
    told: list[str] = []
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(max(1, min(HEAD, len(data)) - 3))
        number, order = chance.choice(EDGES), chance.choice(("big", "little"))
        data[at : at + 4] = number.to_bytes(4, cast(Any, order))[: len(data[at : at + 4])]
        told.append(f"{number:#x} at {at} ({order}-endian)")
    return ", ".join(told)


# Headers are where a few bytes do most.
WAYS = (flip, overwrite, delete, double, insert, truncate, zero, edge, edge)


# ---------------------------------------------------------------------------------- the runs

Child = Callable[[Path, Case], int]
"""What a case runs, in its output's folder, with the damaged file; gives the exit code."""


@dataclass
class Verdict:
    """How a case ended; `code` is negative for a signal, `faults` is empty if all was well."""

    case: Case
    code: int
    seconds: float
    peak: int
    text: str
    faults: list[str]


@dataclass
class Running:
    """A case in a process of its own, in a folder of its own."""

    case: Case
    folder: Path
    pid: int
    began: float
    late: bool = False

    @property
    def file(self) -> Path:
        """The damaged file."""
        return self.folder / f"in.{self.case.ending}"

    @property
    def log(self) -> Path:
        """What was said."""
        return self.folder / "log"

    @property
    def made(self) -> Path:
        """Where the output may be written."""
        return self.folder / "out"


def runs(
    cases: Iterable[Case], child: Child, jobs: int = 1, limit: float = LIMIT, most: int = MOST
) -> Iterator[Verdict]:
    """Run cases, so many at a time, and judge each as it ends."""
    waiting = iter(cases)
    running: list[Running] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            while True:
                while len(running) < jobs and (one := next(waiting, None)) is not None:
                    running.append(begin(one, Path(folder) / str(one.number), child, limit))
                if not running:
                    return
                for one in list(running):
                    verdict = ended(one, limit, most)
                    if verdict is not None:
                        running.remove(one)
                        shutil.rmtree(one.folder)
                        yield verdict
                time.sleep(0.004)
        finally:
            for one in running:
                os.kill(one.pid, signal.SIGKILL)
                os.waitpid(one.pid, 0)


def begin(case: Case, folder: Path, child: Child, limit: float) -> Running:
    """Start a case in a fork of this process."""
    one = Running(case, folder, 0, time.monotonic())
    one.made.mkdir(parents=True)
    one.file.write_bytes(case.data)
    one.log.touch()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; what waits in them is not used by a child.
        warnings.simplefilter("ignore", DeprecationWarning)
        one.pid = os.fork()
    if one.pid == 0:
        _be_child(one, child, limit)
    return one


def _be_child(one: Running, child: Child, limit: float) -> None:
    code = 1
    gc.freeze()  # decoders in the parent's garbage would wait for threads that no fork has
    try:
        said = os.open(one.log, os.O_WRONLY | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w"), "utf-8", "backslashreplace", write_through=True
        )
        faulthandler.enable(2)
        faulthandler.dump_traceback_later(limit * 0.9, file=2)  # to know where it hung
        warnings.resetwarnings()
        warnings.simplefilter("default")
        os.environ["TMPDIR"] = str(one.folder)  # so that what is left there is found
        tempfile.tempdir = None
        os.chdir(one.made)
        code = child(one.file, one.case)
        gc.collect()  # what libav frees too late is a fault as well
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(one: Running, limit: float, most: int) -> Verdict | None:
    """The verdict on a case, or None if it still runs; what takes too long is killed."""
    pid, status, used = os.wait4(one.pid, os.WNOHANG)
    seconds = time.monotonic() - one.began
    if not pid:
        if seconds > limit and not one.late:
            one.late = True
            os.kill(one.pid, signal.SIGKILL)
        return None
    code = os.waitstatus_to_exitcode(status)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    text = one.log.read_text("utf-8", "backslashreplace")
    faults = [f"took more than {limit:g} s"] if one.late else list(_faults_of_code(code))
    if peak > most:
        faults.append(f"took {peak >> 20} MiB")
    faults += [] if one.late or code < 0 else _faults_of_words(code, text)
    faults += _faults_of_files(one, code)
    return Verdict(one.case, code, seconds, peak, text, faults)


def _faults_of_code(code: int) -> Iterator[str]:
    if code < 0:
        yield f"killed by {signal.Signals(-code).name}"
    elif code not in (DREAMED, REFUSED, UNWRITTEN):
        yield f"exit code {code}"


def _faults_of_words(code: int, text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.startswith(OWN)]
    own = [line.removeprefix(OWN) for line in text.splitlines() if line.startswith(OWN)]
    return own + _faults_of_lines(code, lines)


def _faults_of_lines(code: int, lines: list[str]) -> list[str]:
    errors = sum(line.startswith("streamdream: error:") for line in lines)
    strange = [line for line in lines if not line.startswith("streamdream: ")]
    if any("Traceback (most recent call last)" in line for line in lines):
        return [f"traceback: {lines[-1].strip()}"]
    if strange:
        named = "a warning" if "Warning: " in strange[0] else "something strange"
        return [f"{named} was said: {strange[0][:200]}"]
    if errors != (code != DREAMED):
        return [f"{errors} lines of error"]
    return []


def _faults_of_files(one: Running, code: int) -> list[str]:
    faults: list[str] = []
    around = {path.name for path in one.folder.iterdir()}
    strange = around ^ {one.file.name, one.log.name, one.made.name}
    if strange:
        faults.append(f"outside of the output's folder: {', '.join(sorted(strange))}")
    if one.file.is_file() and one.file.read_bytes() != one.case.data:
        faults.append("the input was changed")
    made = {path.name for path in one.made.iterdir()}
    target = Path(one.case.target)
    if "%" in target.name:
        # Pictures in a row are each complete for themselves.
        whole, kept = {n for n in made if re.fullmatch(r"\d{3}\.\w+", n)}, set[str]()
        left = made - whole
    else:
        whole, kept = made & {target.name}, {f"{target.stem}.part{target.suffix}"}
        left = made - (whole if code == DREAMED else kept)
    if code == DREAMED and not whole:
        faults.append("no output")
    if left:
        faults.append(f"left in the output's folder: {', '.join(sorted(left))}")
    return faults


# ---------------------------------------------------------------------------------- the dream


def warm_up(files: dict[str, bytes]) -> None:
    """Load all that a dream needs, so that no fork has to, and leave no thread behind."""
    import cv2
    import torch

    torch.set_num_threads(1)  # before anything starts the threads, which no fork would have
    cv2.setNumThreads(1)
    from streamdream import backbone

    backbone.load = cache(backbone.load)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # rich would take a file for a terminal
        os.environ.pop(name, None)
    whole = Case(0, "mp4", files["mp4"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"in.{whole.ending}"
        path.write_bytes(whole.data)
        here = Path.cwd()
        os.chdir(folder)
        try:
            code = dream(path, whole)
        finally:
            os.chdir(here)
    if code:
        sys.exit(f"fuzz: the whole {path.name} gives exit code {code}")
    gc.collect()
    gc.freeze()


def dream(file: Path, case: Case) -> int:
    """Dream a damaged file, and say which files of the result do not play."""
    from streamdream import cli

    code = cli._main([str(file), "-o", case.target, *TINY, *case.also])
    for made in sorted(Path().glob("out.*")):
        try:
            with av.open(str(made), metadata_errors="replace") as result:
                if next(result.decode(video=0), None) is None:
                    print(f"{OWN}{made} has no picture")
        except (FFmpegError, IndexError) as fault:
            print(f"{OWN}{made} does not play: {fault}")
    return code


# ---------------------------------------------------------------------------------- the report


def report(verdicts: list[Verdict], seed: int, seconds: float) -> str:
    """What was found, as text."""
    lines = ["| format | cases | dreamed | refused | not written | failed |",
             "|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for ending in (*ENDINGS, "all"):
        some = [v for v in verdicts if ending in (v.case.ending, "all")]
        codes = Counter(v.code for v in some if not v.faults)
        counts = [codes[code] for code in (DREAMED, REFUSED, UNWRITTEN)]
        counts.append(sum(bool(v.faults) for v in some))
        lines.append(f"| {ending} | {len(some)} | {' | '.join(map(str, counts))} |")
    slowest = max(verdicts, key=lambda v: v.seconds)
    largest = max(verdicts, key=lambda v: v.peak)
    lines += [
        "",
        f"{len(verdicts)} cases in {seconds:.0f} s, {len(verdicts) / seconds:.1f} a second",
        f"slowest: case {slowest.case.number} ({slowest.case.ending}), {slowest.seconds:.1f} s",
        f"largest: case {largest.case.number} ({largest.case.ending}), {largest.peak >> 20} MiB "
        f"(of which {min(v.peak for v in verdicts) >> 20} MiB are what every case has)",
    ]
    for verdict in verdicts:
        if verdict.faults:
            lines += ["", *_told(verdict, seed)]
        elif verdict.code == UNWRITTEN:
            # Allowed, but seldom what somebody with a damaged file hopes for.
            lines += ["", f"not written: case {verdict.case.number}: {verdict.case.asked}"]
            lines += [f"  {verdict.text.splitlines()[-1]}"]
    return "\n".join(lines)


def _told(verdict: Verdict, seed: int) -> list[str]:
    one = verdict.case
    where = re.findall(r'File ".*?(streamdream/\w+\.py)", line (\d+)', verdict.text)
    return [
        f"FAILED: case {one.number}: {'; '.join(verdict.faults)}",
        *([f"  at {where[-1][0]}:{where[-1][1]}"] if where else []),
        f"  asked: {one.asked}",
        f"  damage: {'; '.join(one.damage)}",
        f"  again: python benchmarks/fuzz.py --seed {seed} --only {one.number}",
    ]


def keep(verdict: Verdict, seed: int, folder: Path) -> None:
    """Keep the file of a case, and what was said about it."""
    folder.mkdir(parents=True, exist_ok=True)
    one = verdict.case
    path = folder / f"{seed}-{one.number}.{one.ending}"
    path.write_bytes(one.data)
    told = "\n".join([*_told(verdict, seed), "", verdict.text])
    path.with_suffix(f".{one.ending}.txt").write_text(told)


def main() -> None:
    """Feed and print; exit with 1 if anything failed."""
    cli = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument("--count", type=int, default=2000)
    cli.add_argument("--seed", type=int, default=0)
    cli.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    cli.add_argument("--keep", type=Path, help="folder for the files of cases that failed")
    cli.add_argument("--only", type=int, help="repeat this case, and print what it says")
    given = cli.parse_args()
    files = originals()
    warm_up(files)
    numbers = range(given.count) if given.only is None else [given.only]
    began = time.monotonic()
    found: list[Verdict] = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("feeding", total=len(numbers))
        cases = (case(number, given.seed, files) for number in numbers)
        for verdict in runs(cases, dream, given.jobs):
            found.append(verdict)
            failed = sum(bool(v.faults) for v in found)
            progress.update(task, advance=1, description=f"{failed} failed")
            if verdict.faults and given.keep is not None:
                keep(verdict, given.seed, given.keep)
    if given.only is not None:
        print(found[0].text, f"exit code {found[0].code}\n", sep="")
    found.sort(key=lambda v: v.case.number)
    print(report(found, given.seed, time.monotonic() - began))
    sys.exit(any(v.faults for v in found))


if __name__ == "__main__":
    main()
