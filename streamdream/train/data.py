"""What a network practises on: pieces of pictures, each a moment of a made-up movement.

Any number of photographs and videos can be given: they are decoded no larger than needed, and
a bounded number is held. Which piece is seen when is decided by the seed and the step alone.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as Files
from PIL import ImageOps

from streamdream.errors import Error, SourceError, words
from streamdream.frame import Bytes, Flow, Image, Mask, eight_bits, on_black, planes
from streamdream.inputs import PICTURE_ENDINGS
from streamdream.sources import VideoSource

LINES = 540  # px; the shorter side that pictures are decoded at
HELD = 64  # decoded pictures; about 1.5 MB each
FROM_A_VIDEO = 48  # frames, spread over it
MOST_PIXELS = 2**28
SMALLEST = 48  # px; less of a picture teaches nothing


@dataclass(frozen=True)
class Place:
    """Where a picture is found: a file, and in a video a time in seconds from its beginning."""

    path: Path
    time: Fraction | None = None


class Pictures:
    """The pictures of folders and videos, by number.

    `notices` are what a person should know; `fingerprint` is another for other data.
    """

    def __init__(self, sources: Sequence[Path]) -> None:
        """Look what is there; raises SourceError where that is nothing that can be read."""
        self.notices: list[str] = []
        self._places: list[Place] = []
        self._held: OrderedDict[Place, Bytes] = OrderedDict()
        broken: list[Path] = []
        seen = hashlib.sha256()
        for source in sources:
            found = list(_folder(source, broken) if source.is_dir() else _video(source))
            if not found:
                reason = "holds no picture that can be read" if broken else "holds no pictures"
                raise SourceError(source, reason, "name a folder of photographs, or a video")
            for place in found:
                told = place.path.name, place.path.stat().st_size, str(place.time)
                seen.update(json.dumps(told).encode())
            self._places += found
        self.fingerprint = seen.hexdigest()
        if broken:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            self.notices.append(f"{broken[0]}{more} cannot be read, left out")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Bytes | None:
        """The pixels (h, w, 3) of one, at most LINES on its shorter side; None: undecodable."""
        place = self._places[index]
        if place not in self._held:
            try:
                pixels = _photograph(place.path) if place.time is None else _frame(place)
            except (Error, OSError, ValueError, SyntaxError):
                return None
            self._held[place] = pixels
            if len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(place)
        return self._held[place]


def _folder(folder: Path, broken: list[Path]) -> Iterator[Place]:
    try:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_ENDINGS)
    except OSError as fault:
        raise SourceError(folder, words(fault)) from None
    for path in files:
        try:
            with warnings.catch_warnings(action="ignore"), Files.open(path) as picture:
                fit = min(picture.size) >= SMALLEST
                fit = fit and picture.width * picture.height <= MOST_PIXELS
        except (OSError, ValueError, SyntaxError, Files.DecompressionBombError):
            fit = False
        if fit:
            yield Place(path)
        else:
            broken.append(path)


def _video(path: Path) -> Iterator[Place]:
    if path.suffix.lower() in PICTURE_ENDINGS:
        raise SourceError(path, "is one picture", "name the folder it is in")
    with VideoSource(path) as source:
        rate, count = source.info.rate or Fraction(25), source.info.frames or 1
    lasts = Fraction(count) / rate
    taken = min(count, FROM_A_VIDEO)
    for i in range(taken):
        yield Place(path, (lasts * i / taken).limit_denominator(1000))


def _photograph(path: Path) -> Bytes:
    with warnings.catch_warnings(action="ignore"), Files.open(path) as picture:
        picture.draft("RGB", (LINES, LINES))  # a JPEG is decoded smaller, at once
        upright = ImageOps.exif_transpose(picture).convert("RGB")
    return _smaller(np.asarray(upright))


def _frame(place: Place) -> Bytes:
    start = place.time or None
    with VideoSource(place.path, start=start, frames=1) as source:
        frame = next(iter(source))
    return _smaller(eight_bits(on_black(frame)))


def _smaller(pixels: Bytes) -> Bytes:
    h, w = pixels.shape[:2]
    scale = LINES / min(h, w)
    if scale >= 1:
        return pixels
    size = max(1, round(w * scale)), max(1, round(h * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


@dataclass(frozen=True)
class Moment:
    """A frame of a movement: its `image` (3, h, w), and how it follows from the one before.

    `flow` (2, h, w) is exactly known, `trust` (1, h, w) too; a first frame is trusted nowhere.
    """

    image: Image
    flow: Flow
    trust: Mask


def clip(pictures: Pictures, seed: tuple[int, ...], crop: int, length: int) -> list[Moment]:
    """So many frames (3, crop, crop) of a random piece that moves; the same for the same seed."""
    rng = np.random.default_rng(seed)
    picture = _picture(pictures, rng, crop)
    h, w = picture.shape[:2]
    grid = np.stack(np.meshgrid(np.arange(crop), np.arange(crop)), -1).astype(np.float32)
    place = grid + (rng.random(2) * (w - crop, h - crop)).round().astype(np.float32)
    flow, covered = np.zeros_like(grid), np.zeros((crop, crop), np.float32)
    light = 1 + 0.1 * rng.standard_normal()
    moves = rng.random() < 0.85
    moments: list[Moment] = []
    for _ in range(length):
        trust = np.zeros((crop, crop), np.float32)
        before = covered
        if moments:
            flow = _movement(rng, grid) if moves else np.zeros_like(grid)
            # now(x) = before(x + flow), so the places are looked up where the flow leads to.
            place = _looked_up(place, grid, flow)
        image = _sampled(picture, place)
        covered = _blobs(rng, crop)
        elsewhere = _sampled(picture, place[::-1, ::-1] + rng.normal(0, crop / 4, 2))
        image += covered[..., None] * (elsewhere.astype(np.float32) - image)
        if moments:
            trust = _trust(grid + flow, np.maximum(covered, _shifted(before, grid + flow)))
        image = image * (light * (1 + 0.03 * rng.standard_normal()) / 255)
        image += rng.random() * 0.03 * rng.standard_normal(image.shape)
        image = image.clip(0, 1).astype(np.float32)
        moments.append(Moment(planes(image), planes(flow), planes(trust[..., None])))
    return moments


def _picture(pictures: Pictures, rng: np.random.Generator, crop: int) -> np.ndarray:
    """A random picture of random size, at least as large as the piece."""
    for _ in range(100):
        pixels = pictures[int(rng.integers(len(pictures)))]
        if pixels is not None:
            break
    else:
        raise SourceError("--data", "hardly any of its pictures can be decoded", "give others")
    h, w = pixels.shape[:2]
    least = max(crop / min(h, w), 1e-6)
    most = max(least, min(1.0, 2.2 * crop / min(h, w)))
    scale = least * (most / least) ** rng.random()
    size = max(crop, round(w * scale)), max(crop, round(h * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, size, interpolation=how)
    return resized[:, ::-1] if rng.random() < 0.5 else resized


def _sampled(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    place = place.astype(np.float32)
    x, y = place[..., 0], place[..., 1]
    found = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return found.astype(np.float32)


def _shifted(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    x, y = place[..., 0], place[..., 1]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _looked_up(place: np.ndarray, grid: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Places a step later. Beyond the piece they go on as at its edge."""
    at = grid + flow
    inside = at.clip(0, len(grid) - 1)
    return _shifted(place, inside) + (at - inside)


def _movement(rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
    """A backward flow (h, w, 2): shift, zoom, rotation and something smooth."""
    size = len(grid)
    zoom, turn = rng.normal(0, 0.012), rng.normal(0, 0.012)
    away = grid - (rng.random(2) * size)
    flow = away @ np.array([[zoom, turn], [-turn, zoom]])
    flow += rng.normal(0, 1, 2) * rng.choice([0.5, 3.0, 9.0])
    smooth = rng.normal(0, 0.7, (4, 4, 2)).astype(np.float32)
    flow += cv2.resize(smooth, (size, size), interpolation=cv2.INTER_CUBIC)
    return flow.astype(np.float32)


def _blobs(rng: np.random.Generator, size: int) -> np.ndarray:
    """Things in the way (h, w): 1 where they are, in half of all frames nowhere."""
    if rng.random() < 0.5:
        return np.zeros((size, size), np.float32)
    rough = rng.normal(0, 1, (5, 5)).astype(np.float32)
    smooth = cv2.resize(rough, (size, size), interpolation=cv2.INTER_CUBIC)
    return ((smooth - 1.0) * size / 20).clip(0, 1).astype(np.float32)


def _trust(place: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """1 where what is seen was seen before, with the soft edges of `motion.trusted`."""
    inside = ((place >= 0) & (place <= len(place) - 1)).all(-1)
    good = (inside & (covered < 0.02)).astype(np.uint8)
    good = cv2.erode(good, np.ones((3, 3), np.uint8)).astype(np.float32)
    return cv2.GaussianBlur(good, (0, 0), 0.8).astype(np.float32)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def on(device: torch.device, moment: Moment) -> Moment:
    """The same on a device."""
    return Moment(moment.image.to(device), moment.flow.to(device), moment.trust.to(device))
