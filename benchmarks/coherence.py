"""Does the dream hold still? Ours beside other tools' recipes, at equal strength.

    python benchmarks/coherence.py [CLIP ...] [--frames 24] [--first 0] [--rows NAME ...]
    python benchmarks/coherence.py steady CLIP [--frames 300] [--rows NAME ...]
    python benchmarks/coherence.py cuts CLIP ...

The first compares all methods on clips (without any: on the sample, judged by its exactly known
flow), prints a table a clip and one over all, and writes for each clip a contact sheet and a
sheet of differences. The second plays a clip forwards and backwards and follows strength, light
and sharpness. The third lists the cuts that are found, and what happens after them. What the
columns mean is in docs/coherence.md and judge.py.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from judge import (
    Judge,
    Picture,
    Step,
    Verdict,
    estimated_steps,
    known_step,
    sharpness,
    small,
)
from methods import GOOGLE, OURS, REFERENCE, ROWS, Counted, Method, Row, lines, ours

from streamdream import backbone
from streamdream.backbone import Backbone
from streamdream.cuts import Turn, shots, small_of
from streamdream.frame import Frame
from streamdream.options import Options
from streamdream.settings import build
from streamdream.sources import VideoSource
from streamdream.video_sink import VideoSink

SAMPLE = Path(__file__).parent.parent / "samples" / "clip.mp4"
MOST_STEPS = 10  # that other tools' authors take
TUNED_OVER = 10  # frames
SHEET_FRAMES, SHEET_WIDTH = 8, 240
EXAGGERATED = 4  # differences on the sheet


@dataclass
class Found:
    """What came of a method on a clip: pictures at the judging size, and what it took."""

    pictures: list[Picture]
    seconds: float
    passes: float
    steps: int
    verdict: Verdict | None = None


@dataclass
class Clip:
    """A clip to be judged by: where it lies, how many frames, judged how wide, from which on."""

    path: Path
    frames: int
    width: int
    first: int = 0

    def open(self) -> VideoSource:
        """Its source."""
        return VideoSource(self.path, frames=self.first + self.frames)

    def wanted(self, source: VideoSource, frames: int = 0) -> Iterator[Frame]:
        """The frames of a source that count, or only so many of them."""
        return islice(source, self.first, self.first + (frames or self.frames))

    def pictures(self) -> list[Picture]:
        """Its frames at the judging size."""
        with self.open() as source:
            return [small(frame.pixels, self.width) for frame in self.wanted(source)]

    def steps(self, pictures: Sequence[Picture]) -> list[Step]:
        """How it moves: exactly, if it is the sample, else estimated."""
        if self.path != SAMPLE:
            return estimated_steps(pictures)
        import sys

        sys.path.insert(0, str(SAMPLE.parent))
        import make_clip

        size = pictures[0].shape[:2]
        nowhere = Step(np.zeros((*size, 2), np.float32), np.zeros(size, bool))
        return [
            nowhere
            if t in make_clip.SHOTS
            else known_step(make_clip.flow(t), make_clip.visible(t), size)
            for t in range(self.first + 1, self.first + len(pictures))
        ]


def run(clip: Clip, method: Method, net: Backbone, options: Options, frames: int = 0) -> Found:
    """Run a method from file to file; what its first frame takes is not counted."""
    counted, pictures, began, area = Counted(net), [], 0.0, 1
    with tempfile.TemporaryDirectory() as folder, clip.open() as source:
        with VideoSink(Path(folder) / "out.mp4", source.info, source.companions) as sink:
            for frame in method(clip.wanted(source, frames), counted, options):
                sink.write(frame)
                pictures.append(small(frame.pixels, clip.width))
                if len(pictures) == 1:
                    area = math.prod(lines(frame, options))
                    began, counted.pixels = time.perf_counter(), 0
        seconds = time.perf_counter() - began
    after = max(1, len(pictures) - 1)
    return Found(pictures, seconds / after, counted.pixels / area / after, 0)


def tune(clip: Clip, row: Row, judge: Judge, target: float, net: Backbone, options: Options) -> int:
    """The steps an octave that bring a method nearest to a strength."""
    strengths: list[float] = []
    for steps in range(1, MOST_STEPS + 1):
        pictures = run(clip, row.make(steps), net, options, TUNED_OVER).pictures
        strengths.append(_late_strength(judge, pictures))
        if strengths[-1] >= target:
            break
    return int(np.argmin(np.abs(np.array(strengths) - target))) + 1


def _late_strength(judge: Judge, pictures: Sequence[Picture]) -> float:
    late = range(min(len(pictures), TUNED_OVER) - 1, 3, -2)
    return float(np.mean([judge.strength(t, pictures[t]) for t in late]))


def compare(clip: Clip, rows: Iterable[Row], options: Options, out: Path) -> dict[str, Found]:
    """Run and judge every row on a clip, the reference first."""
    net = backbone.load(options.model)
    other = backbone.load("vgg19" if options.model != "vgg19" else "efficientnet-lite0")
    source = clip.pictures()
    judge = Judge(source, clip.steps(source), net, options.chosen_layers, other)
    found: dict[str, Found] = {}
    print(
        f"\n{clip.path.name}: {len(source)} frames, judged at {clip.width} px where the flow is "
        f"trusted ({judge.trusted:.0%});\nE of the source {judge.e_source * 1e3:.3f}e-3, "
        f"without the judge's flow {judge.e_still * 1e3:.3f}e-3",
        flush=True,
    )
    for row in rows:
        if row.of:
            begin = found[row.of]
            frames = (Frame(p, Fraction(0), i) for i, p in enumerate(begin.pictures))
            pictures = [f.pixels for f in row.make(0)(frames, net, options)]
            got = Found(pictures, np.nan, begin.passes, 0)
        else:
            steps = 0
            if row.tuned:
                reference = found[REFERENCE]
                target = _late_strength(judge, reference.pictures)
                steps = tune(clip, row, judge, target, net, options)
            got = run(clip, row.make(steps), net, options)
            got.steps = steps
        got.verdict = judge(got.pictures)
        found[row.name] = got
        print(line(row.name, figures(got, found[REFERENCE])), flush=True)
    write_sheets(clip, {"source": source} | {n: f.pictures for n, f in found.items()}, out)
    return found


COLUMNS = {
    "E": "E above the source's, in 1e-3",
    "E/ref": "the same over that of independent frames",
    "NDI": "incoherence from frame to frame",
    "NDI5": "over five frames",
    "ghost": "ghost minus that of independent frames",
    "S": "strength in bits on the layers dreamed on",
    "S/ref": "over that of independent frames",
    "held": "strength on another network, over that of independent frames",
    "new": "S where newly uncovered minus S around it, minus the same of independent frames",
    "HF": "sharpness over that of independent frames",
    "passes": "gradient passes a frame, full-size equivalents",
    "s": "seconds a frame, file to file",
    "s/ref": "over that of independent frames",
}


def figures(got: Found, reference: Found) -> dict[str, float]:
    """The columns of one row."""
    mine, other = got.verdict, reference.verdict
    assert mine is not None
    assert other is not None
    return {
        "E": mine.excess * 1e3,
        "E/ref": mine.excess / other.excess,
        "NDI": mine.ndi,
        "NDI5": mine.ndi_long,
        "ghost": mine.ghost - other.ghost,
        "S": mine.s,
        "S/ref": mine.s / other.s,
        "held": mine.s_held_out / other.s_held_out,
        "new": mine.s_new - other.s_new,
        "HF": mine.hf / other.hf,
        "passes": got.passes,
        "s": got.seconds,
        "s/ref": got.seconds / reference.seconds,
        "steps": got.steps,
    }


def disqualified(row: dict[str, float]) -> str:
    """Why a row does not count: it calms by blurring, or fools one network only."""
    if not 0.85 <= row["HF"] <= 1.15:
        return "HF"
    if not row["held"] >= 0.8 * row["S/ref"]:
        return "held-out S"
    if not row["S/ref"] >= 0.8:
        return "weak"
    return ""


def line(name: str, row: dict[str, float]) -> str:
    """A row as a line of a Markdown table."""
    cells = [f"{row[c]:.3f}".replace("nan", "-").rjust(7) for c in COLUMNS]
    why = disqualified(row)
    taken = f" ({row['steps']:.0f} steps)" if row["steps"] else ""
    return f"| {name + taken:30} | {' | '.join(cells)} | {why and 'out: ' + why} |"


def head() -> str:
    """The head of the table."""
    titles = " | ".join(c.rjust(7) for c in COLUMNS)
    rules = "|".join("-" * 8 + ":" for _ in COLUMNS)
    return f"| {'':30} | {titles} | |\n|{'-' * 32}|{rules}|---|"


def mean_over(clips: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean over clips; of what is over the reference, the geometric mean."""
    table: dict[str, dict[str, float]] = {}
    for name in clips[0]:
        table[name] = {}
        for column in clips[0][name]:
            values = np.array([clip[name][column] for clip in clips])
            values = values[~np.isnan(values)]
            if not values.size:
                table[name][column] = float("nan")
                continue
            geometric = column in ("E/ref", "s/ref") and (values > 0).all()
            mean = np.exp(np.log(values).mean()) if geometric else values.mean()
            table[name][column] = float(mean)
        table[name]["steps"] = 0
    return table


def write_sheets(clip: Clip, results: dict[str, list[Picture]], out: Path) -> None:
    """Write consecutive frames, a method a row, and how much each differs from the one before."""
    out.mkdir(parents=True, exist_ok=True)
    count = min(map(len, results.values()))
    shown = range(max(1, count - SHEET_FRAMES), count)

    def sheet(cell: object, name: str) -> None:
        rows = []
        for title, pictures in results.items():
            cells = [small(cell(pictures, t), SHEET_WIDTH) for t in shown]  # type: ignore[operator]
            label = np.full((cells[0].shape[0], 110, 3), 255, np.uint8)
            for i, word in enumerate(title.split()):
                cv2.putText(label, word, (4, 22 + 18 * i), 0, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
            rows.append(np.hstack([label, *cells]))
        path = out / f"{clip.path.stem}-{name}.jpg"
        cv2.imwrite(str(path), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        print(path)

    sheet(lambda p, t: p[t], "frames")
    sheet(
        lambda p, t: (
            (np.abs(p[t].astype(int) - p[t - 1]) * EXAGGERATED).clip(0, 255).astype(np.uint8)
        ),
        "differences",
    )


def back_and_forth(source: VideoSource, count: int) -> Iterator[Frame]:
    """Frames of a clip, played forwards, backwards and so on, as one shot without an end."""
    frames = list(source)
    step = frames[1].time - frames[0].time
    turning = cycle([*frames, *frames[-2:0:-1]])
    for i, frame in enumerate(islice(turning, count)):
        yield replace(frame, index=i, time=i * step)


def steady(clip: Clip, row: Row, count: int, options: Options) -> None:
    """Follow strength, light and sharpness over a long shot, and compare with independent frames.

    Methods of other tools take one step an octave, the least there is. Independent frames do
    not depend on each other, so only those looked at are dreamed.
    """
    net = backbone.load(options.model)
    with clip.open() as source:
        frames = list(back_and_forth(source, count))
    shown = [small(f.pixels, clip.width) for f in frames]
    judge = Judge(shown, [], net, options.chosen_layers, None)
    looked_at = sorted({int(t) for t in np.linspace(0, count - 1, 11)})
    alone: dict[int, Picture] = {}
    for t in looked_at:
        (result,) = ours(**GOOGLE)([frames[t]], net, options)
        alone[t] = small(result.pixels, clip.width)
    print(f"{row.name}: {clip.path.name}, back and forth, {count} frames")
    print("| frame | S | of independent | RMS | light | of independent | HF/ref | s a frame |")
    print("|------:|--:|--:|--:|--:|--:|--:|--:|")
    worst, light, sharp = [], [], []
    began, before = time.perf_counter(), 0
    for t, result in enumerate(row.make(1)(frames, net, options)):
        if t not in alone:
            continue
        spent = (time.perf_counter() - began) / max(1, t - before)
        picture = small(result.pixels, clip.width)
        s, s_alone = judge.strength(t, picture), judge.strength(t, alone[t])
        shift, shift_alone = (float(p.mean() - shown[t].mean()) for p in (picture, alone[t]))
        rms = float(np.sqrt(((picture.astype(np.float32) - shown[t]) ** 2).mean()))
        hf = sharpness([picture]) / sharpness([alone[t]])
        print(
            f"| {t} | {s:.3f} | {s_alone:.3f} | {rms:.1f} | {shift:+.2f} | {shift_alone:+.2f} "
            f"| {hf:.3f} | {spent:.3f} |",
            flush=True,
        )
        worst.append(s - s_alone)
        light.append(shift - shift_alone)
        sharp.append(hf)
        began, before = time.perf_counter(), t
    print(
        f"S minus that of independent frames, largest: {np.abs(worst).max():.3f}; "
        f"drift of light: {max(light) - min(light):.2f} levels; least HF/ref: {min(sharp):.3f}"
    )


def cuts(clip: Clip, options: Options) -> None:
    """List the cuts of a clip, and how alike and strong the dream is after each."""
    with clip.open() as source:
        frames = list(source)
    begun = [frame.index for frame, turn in shots(frames, small_of) if turn is Turn.BEGINS]
    found = begun[1:]
    print(f"{clip.path.name}: {len(frames)} frames, cuts at {found or 'none'}")
    net = backbone.load(options.model)
    for cut in found:
        piece = [f for f in frames if cut - 4 <= f.index < cut + 8]
        results = list(ours()(piece, net, options))
        deltas = [
            r.pixels.astype(np.float32) - f.pixels for r, f in zip(results, piece, strict=True)
        ]
        at = next(i for i, f in enumerate(piece) if f.index == cut)
        alike = float(np.corrcoef(deltas[at].ravel(), deltas[at - 1].ravel())[0, 1])
        strength = [float(np.sqrt((d**2).mean())) for d in deltas[at:]]
        print(
            f"  {cut}: correlation with the dream before {alike:+.3f}; strength by frame "
            + " ".join(f"{s:.1f}" for s in strength)
        )


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument("clips", nargs="*", help="steady or cuts, then video files")
    cli.add_argument("--frames", type=int, help="of each clip")
    cli.add_argument("--first", type=int, default=0, help="number of the first one")
    cli.add_argument("--width", type=int, default=480, help="judged at, in pixels")
    cli.add_argument("--model", default="efficientnet-lite0")
    cli.add_argument("--rows", nargs="*", help="only rows whose name contains one of these")
    cli.add_argument("--out", type=Path, default=Path("coherence"), help="folder for pictures")
    given = cli.parse_args()
    options = build({"model": given.model})
    task = given.clips.pop(0) if given.clips and given.clips[0] in ("steady", "cuts") else ""
    usual = {"steady": 300, "cuts": 100_000}.get(task, 24)
    paths = [Path(c) for c in given.clips] or [SAMPLE]
    count = given.frames or usual
    clips = [Clip(path.resolve(), count, given.width, given.first) for path in paths]
    if task == "steady":
        picked = [r for r in ROWS if any(w in r.name for w in given.rows or [OURS])]
        for clip in clips:
            for row in picked:
                steady(clip, row, clip.frames, options)
        return
    if task == "cuts":
        for clip in clips:
            cuts(clip, options)
        return
    wanted = [
        row
        for row in ROWS
        if row.name == REFERENCE or not given.rows or any(w in row.name for w in given.rows)
    ]
    print("\n".join(f"{name}: {what}" for name, what in COLUMNS.items()))
    print(head())
    tables, records = [], {}
    for clip in clips:
        found = compare(clip, wanted, options, given.out)
        tables.append({n: figures(f, found[REFERENCE]) for n, f in found.items()})
        records[clip.path.name] = {
            n: tables[-1][n] | {"verdict": asdict(f.verdict or Verdict())} for n, f in found.items()
        }
        (given.out / "figures.json").write_text(json.dumps(records, indent=1))
    if len(clips) > 1:
        print(f"\nmean over {len(clips)} clips\n{head()}")
        for name, row in mean_over(tables).items():
            print(line(name, row))


if __name__ == "__main__":
    main()
