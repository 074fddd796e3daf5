"""Whether zoom movies last, close and keep pace.

    python benchmarks/zoom.py long [--frames 3000] [--start noise] [--size 320x180] [--sheet f.png]
    python benchmarks/zoom.py seam [--start noise] [--size 320x180] [--sheet f.png]
    python benchmarks/zoom.py speed [--size 640x360]

long   a movie that feeds on itself for thousands of frames: mean and deviation of each colour and
       sharpness (RMS of what a blur of one pixel takes away) against frame 300, or a tenth of
       the movie; how much every frame changes after the camera's motion. Fails where a colour
       leaves 15%, sharpness 20%, or the movie freezes or explodes.
seam   a loop's last frame to its first: the difference after the camera's motion and the change
       in strength, among those of all other neighbours. Fails outside the central 90%.
speed  frames a second, and what share of the time is not the network's gradient.

All take `--model`, and any other option as `option=value`. The sheet shows 30 frames.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from streamdream import backbone
from streamdream.backbone import Backbone
from streamdream.dream import Dream
from streamdream.frame import Frame, Pixels, planes, to_image
from streamdream.objectives.aims import BIT, aim_at, excited
from streamdream.settings import made
from streamdream.zoom.camera import Matrix, places, resampled
from streamdream.zoom.fall import Plan, fall
from streamdream.zoom.movie import begun, planned
from streamdream.zoom.options import ZoomOptions

COLOURS, SHARPNESS = 0.15, 0.20  # how far a movie may go from where it was
SHOWN = 30  # frames of a sheet
RIM = 8  # px that are not compared

Row = NDArray[np.float64]


@dataclass
class Seen:
    """What is noted of every frame.

    `tone` (6) mean and deviation of each colour, of 255; `sharpness`; `changes` the mean
    difference to the frame before, moved to where its things are now, in grey levels.
    """

    tone: list[Row] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)


def change(now: Pixels, before: Pixels, step: Matrix) -> float:
    """The mean difference in grey levels after the camera's motion, but for the rim."""
    x, y = places(step, now.shape[:2])
    moved = resampled(planes(before.astype(np.float32)), x, y)
    off = (planes(now.astype(np.float32)) - moved)[:, RIM:-RIM, RIM:-RIM]
    return float(off.abs().mean())


def sharpness(pixels: Pixels) -> float:
    """The RMS of what a blur of one pixel takes away, in grey levels."""
    image = pixels.astype(np.float32)
    return float(np.sqrt(np.square(image - cv2.GaussianBlur(image, (0, 0), 1)).mean()))


def strength(network: Backbone, pixels: Pixels, layers: tuple[str, ...]) -> float:
    """How strongly layers respond to a picture, in bits."""
    with torch.no_grad():
        found = excited(network, to_image(pixels, pixels.shape[:2]), aim_at(*layers))
    return float(found) / (BIT * len(layers))


def watched(frames: Iterator[Frame], plan: Plan, seen: Seen) -> Iterator[Frame]:
    """Note what every frame is like."""
    before: Frame | None = None
    for frame in frames:
        pixels = frame.pixels.reshape(-1, 3).astype(np.float64)
        seen.tone.append(np.concatenate([pixels.mean(0), pixels.std(0)]))
        seen.sharpness.append(sharpness(frame.pixels))
        if before is not None:
            seen.changes.append(change(frame.pixels, before.pixels, plan.steps[frame.index]))
        before = frame
        yield frame


def sheet(pictures: Sequence[Pixels], columns: int) -> Pixels:
    """Pictures of one size in rows."""
    rows = [np.hstack(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]
    return np.vstack(rows).astype(np.uint8)


def movie(
    arguments: argparse.Namespace, given: dict[str, object]
) -> tuple[Plan, Iterator[Frame], Backbone]:
    """The frames of a movie, its plan, and the network that dreams."""
    values = {"size": arguments.size, "model": arguments.model, **given, **arguments.options}
    options = made(ZoomOptions, values)
    start = begun(arguments.start, options)
    plan = planned(start, options)
    network = backbone.load(options.model, torch.device("cpu"), torch.float32)
    return plan, fall(start.image, plan, Dream(network)), network


def long(arguments: argparse.Namespace) -> bool:
    """Whether a long movie stays as it was."""
    count = arguments.frames
    plan, frames, _ = movie(arguments, {"duration": f"{count / 24:.6f}"})
    seen, shown = Seen(), []
    began = time.perf_counter()
    for frame in watched(frames, plan, seen):
        if frame.index * SHOWN // count > (frame.index - 1) * SHOWN // count:
            shown.append(frame.pixels)
            each = (time.perf_counter() - began) / (frame.index + 1)
            print(
                f"{frame.index:6d} {seen.tone[-1].round(1)} {seen.sharpness[-1]:.2f} {each:.2f} s"
            )
    if arguments.sheet:
        cv2.imwrite(arguments.sheet, sheet(shown[:SHOWN], 5)[..., ::-1])
    return lasting(seen, min(300, count // 10))


def lasting(seen: Seen, settled: int) -> bool:
    """Whether nothing has gone far from where it was at the frame `settled`; says what it finds."""
    tone = np.array(seen.tone[settled:]) / seen.tone[settled] - 1
    sharp = np.array(seen.sharpness[settled:]) / seen.sharpness[settled] - 1
    changes = np.array(seen.changes[settled:])
    names = [f"{what} of {colour}" for what in ("mean", "deviation") for colour in ("R", "G", "B")]
    for name, column in zip(names, tone.T, strict=True):
        print(f"{name}: {column.min():+.1%} to {column.max():+.1%} of frame {settled}")
    print(f"sharpness: {sharp.min():+.1%} to {sharp.max():+.1%}")
    low, middle, high = np.quantile(changes, [0, 0.5, 1])
    print(f"change a frame: {low:.2f} to {high:.2f}, median {middle:.2f} grey levels")
    calm = 0.3 * middle < low and high < 3 * middle
    good = np.abs(tone).max() <= COLOURS and np.abs(sharp).max() <= SHARPNESS and calm
    print("lasts" if good else "DOES NOT LAST")
    return bool(good)


def seam(arguments: argparse.Namespace) -> bool:
    """Whether a loop closes without being seen."""
    plan, frames, network = movie(arguments, {"duration": "6", "loop": True})
    seen = Seen()
    pictures = [frame.pixels for frame in watched(frames, plan, seen)]
    if arguments.sheet:
        chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, 20).round().astype(int)]
        cv2.imwrite(arguments.sheet, sheet([*chosen, *pictures[-5:], *pictures[:5]], 5)[..., ::-1])
    last = change(pictures[0], pictures[-1], plan.steps[len(pictures)])
    layers = made(ZoomOptions, {"model": arguments.model}, arguments.options).chosen_layers
    bits = [strength(network, picture, layers) for picture in pictures]
    jumps = [abs(float(jump)) for jump in np.diff(bits)]
    good = among("change, grey levels", last, seen.changes)
    return among("change of strength, bits", abs(bits[0] - bits[-1]), jumps, least=False) and good


def among(name: str, last: float, others: Sequence[float], least: bool = True) -> bool:
    """Whether the last to the first is as the others are: within the central 90%."""
    low, high = np.quantile(others, [0.05, 0.95])
    good = last <= high and (last >= low or not least)
    print(f"{name}: {last:.3f} at the seam, central 90% {low:.3f} to {high:.3f}")
    return bool(good)


def speed(arguments: argparse.Namespace) -> bool:
    """How long a frame takes, with the dream and without."""
    took = {}
    for strength in (1.0, 0.0):
        _plan, frames, _ = movie(arguments, {"duration": "2", "strength": strength})
        next(frames)
        next(frames)
        began = time.perf_counter()
        count = sum(1 for _ in zip(frames, range(20), strict=False))
        took[strength] = (time.perf_counter() - began) / count
    print(f"{took[1.0]:.3f} s a frame; without the dream {took[0.0]:.3f}, a share of "
          f"{took[0.0] / took[1.0]:.2f}")  # fmt: skip
    return True


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("long", "seam", "speed"))
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--start", default="noise")
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--sheet", default="")
    parser.add_argument("options", nargs="*", metavar="option=value")
    arguments = parser.parse_intermixed_args()
    arguments.options = dict(
        one.replace("-", "_", one.count("-")).split("=", 1) for one in arguments.options
    )
    run = {"long": long, "seam": seam, "speed": speed}[arguments.what]
    sys.exit(0 if run(arguments) else 1)


if __name__ == "__main__":
    main()
