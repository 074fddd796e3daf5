"""Compare the detector of scenes with PySceneDetect's, by cuts that are known.

    python benchmarks/scenes.py
    python benchmarks/scenes.py clips --truth cuts.json

Without a folder, films are made with cuts, flashes, fades, whip pans, shakes and dim light, of
photographs that scikit-image has. Of a folder those videos are read that `--truth` names, a JSON
file with the first frame of every shot but the first: {"film.mp4": [30, 76]}. PySceneDetect
(`pip install scenedetect`) is left out where it is not installed. A cut is found if it is told
within a frame of where it is; what is told elsewhere is false.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av import logging as quiet
from skimage import data

from streamdream.frame import Bytes
from streamdream.inputs import PICTURE_ENDINGS
from streamdream.piece import Piece
from streamdream.scenes.listing import scenes_of

SIZE = (360, 640)
SHOT = 40  # frames
NEAR = 1  # frames

Detector = Callable[[Path], list[int]]


@dataclass
class Score:
    """How a detector did: cuts `found`, `missed`, told where none is (`false`); its time."""

    found: int = 0
    missed: int = 0
    false: int = 0
    frames: int = 0
    seconds: float = 0.0

    def add(self, told: list[int], cuts: list[int], frames: int, seconds: float) -> None:
        """One film more."""
        left = list(told)
        for cut in cuts:
            near = min((t for t in left if abs(t - cut) <= NEAR), default=None)
            if near is None:
                self.missed += 1
            else:
                self.found += 1
                left.remove(near)
        self.false += len(left)
        self.frames += frames
        self.seconds += seconds

    def __str__(self) -> str:
        """The line of a table."""
        precision = self.found / max(1, self.found + self.false)
        recall = self.found / max(1, self.found + self.missed)
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        speed = self.frames / max(1e-9, self.seconds)
        return (
            f"{self.found:5} {self.missed:6} {self.false:5}  {precision:9.3f} {recall:6.3f} "
            f"{f1:5.3f} {speed:8.0f}"
        )


def ours(path: Path) -> list[int]:
    """Ours; of several video streams it reads the first, as the others do."""
    with av.open(str(path)) as film:
        first = film.streams.video[0].index
    return [scene.begin for scene in scenes_of(path, Piece(video_stream=first))][1:]


def detectors() -> dict[str, Detector]:
    """All that there are here."""
    found: dict[str, Detector] = {"streamdream": ours}
    try:
        import scenedetect as library  # type: ignore[import-not-found]
    except ImportError:
        print("PySceneDetect is not installed: pip install scenedetect", file=sys.stderr)
        return found

    def theirs(name: str, **options: Any) -> Detector:
        def detect(path: Path) -> list[int]:
            video = library.open_video(str(path), backend="pyav")
            manager = library.SceneManager()
            manager.add_detector(getattr(library, name)(**options))
            manager.detect_scenes(video)
            return [begin.frame_num for begin, _ in manager.get_scene_list()][1:]

        return detect

    for name in ("ContentDetector", "AdaptiveDetector", "HistogramDetector", "HashDetector"):
        found[name] = theirs(name)
        found[f"{name}, 1 frame"] = theirs(name, min_scene_len=1)
    return found


def rendered(kind: str, seed: int) -> tuple[list[Bytes], list[int]]:
    """The frames of a film of a kind, and its cuts."""
    rng = np.random.default_rng(seed)
    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry", "retina")
    photos = [np.asarray(getattr(data, name)())[..., :3] for name in names]
    frames: list[Bytes] = []
    cuts: list[int] = []
    shots = 5
    for number in range(shots):
        photo = photos[(seed + number) % len(photos)]
        shot = _shot(photo, rng, fast=kind == "whip pans", shaking=kind == "shaking")
        shot = _lit(shot, kind, rng)
        if kind == "short shots":
            shot = shot[:8]
        if frames and kind == "dissolves":
            for i in range(12):  # which are no cuts, and no shot of the list either
                share = (i + 1) / 13
                frames.append(_mixed(frames[-1 - i], shot[i], share))
            shot = shot[12:]
        elif frames and kind != "fades":
            cuts.append(len(frames))
        frames += shot
    return frames, cuts


def _shot(photo: Bytes, rng: np.random.Generator, fast: bool, shaking: bool) -> list[Bytes]:
    """A camera that moves over a photograph."""
    h, w = SIZE
    scale = 1.5 * max(h / photo.shape[0], w / photo.shape[1])
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    most = np.array([large.shape[1] - w, large.shape[0] - h], float)
    begin, end = rng.uniform(0, 0.3, 2) * most, rng.uniform(0.7, 1, 2) * most
    if not fast:
        end = begin + (end - begin) * 0.25
    frames = []
    for i in range(SHOT):
        way = i / (SHOT - 1)
        if fast:  # still, then over in six frames, then still
            way = float(np.clip((i - 17) / 6, 0, 1))
        x, y = begin + (end - begin) * way + (rng.normal(0, 7, 2) if shaking else 0)
        shift = np.array([[1, 0, -np.clip(x, 0, most[0])], [0, 1, -np.clip(y, 0, most[1])]])
        frame = cv2.warpAffine(large, shift, (w, h), flags=cv2.INTER_LINEAR)
        frames.append(np.asarray(frame, np.uint8))
    return frames


def _lit(shot: list[Bytes], kind: str, rng: np.random.Generator) -> list[Bytes]:
    light = np.ones(len(shot))
    if kind == "dim light":
        light *= 0.35
    if kind == "fades":  # through black, without a cut
        light = np.clip(np.minimum(np.arange(SHOT), SHOT - 1 - np.arange(SHOT)) / 12, 0, 1)
    shot = [np.asarray(f * k, np.uint8) for f, k in zip(shot, light, strict=True)]
    if kind == "flashes":
        for at in (12, 25):
            for i in range(at, at + int(rng.integers(1, 4))):
                shot[i] = np.asarray(np.minimum(shot[i] * 0.3 + 190.0, 255), np.uint8)
    if kind == "strobe":
        for i in range(10, 30, 2):
            shot[i] = np.zeros_like(shot[i])
    return shot


def _mixed(one: Bytes, other: Bytes, share: float) -> Bytes:
    return np.asarray(cv2.addWeighted(one, 1 - share, other, share, 0), np.uint8)


def write(frames: list[Bytes], path: Path) -> None:
    """Write a film as cameras do."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25, options={"crf": "20", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode(None))


KINDS = (
    "cuts", "whip pans", "shaking", "dim light", "fades", "dissolves", "flashes", "strobe",
    "short shots",
)  # fmt: skip


def count(path: Path) -> int:
    """How many frames a film has."""
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


def compare(films: list[tuple[str, Path, list[int]]], loud: bool) -> None:
    """Print how every detector did."""
    known = detectors()
    quiet.set_level(quiet.ERROR)  # PySceneDetect turns all messages on
    scores = {name: Score() for name in known}
    for label, path, cuts in films:
        frames = count(path)
        told = {}
        for name, detect in known.items():
            began = time.perf_counter()
            told[name] = detect(path)
            scores[name].add(told[name], cuts, frames, time.perf_counter() - began)
        if loud:
            print(f"{label}: {frames} frames, cuts at {cuts}")
            for name, found in told.items():
                if found != cuts:
                    print(f"  {name}: {found}")
    print(f"\n{'':29} found missed false  precision recall    F1 frames/s")
    for name, score in scores.items():
        print(f"{name:29} {score}")


def main() -> None:
    """Measure and print."""
    cli = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_argument("folder", nargs="?", type=Path, help="with videos")
    cli.add_argument("--truth", type=Path, help="JSON file with their cuts")
    cli.add_argument("--films", type=int, default=3, help="made of each kind")
    cli.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    given = cli.parse_args()
    if given.folder is not None:
        if given.truth is None:
            cli.error("name the file with the folder's cuts: --truth cuts.json")
        truth: dict[str, list[int]] = json.loads(given.truth.read_text("utf-8"))
        films = [
            (path.name, path, truth[path.name])
            for path in sorted(given.folder.iterdir())
            if path.name in truth and path.suffix.lower() not in PICTURE_ENDINGS
        ]
        if not films:
            cli.error(f"{given.folder}: holds none of the videos that {given.truth} names")
        compare(films, loud=True)
        return
    with tempfile.TemporaryDirectory() as place:
        for kind in given.kinds:
            films = []
            for seed in range(given.films):
                frames, cuts = rendered(kind, seed)
                path = Path(place) / f"{kind} {seed}.mp4"
                write(frames, path)
                films.append((path.name, path, cuts))
            print(f"\n## {kind}")
            compare(films, loud=False)


if __name__ == "__main__":
    main()
