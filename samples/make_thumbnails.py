"""Makes the small pictures of the presets, and `docs/presets.jpg`, the sheet of them in the README.

    python samples/make_thumbnails.py [NAME ...]

All are of one photograph that scikit-image ships: chelsea (Stefan van der Walt, CC0). Presets of
zoom movies are shown after some seconds of falling into it, or into noise. With names only these
are made anew.
"""

from __future__ import annotations

import sys
import tempfile
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

from streamdream.atlas import sheet
from streamdream.atlas.gallery import presets
from streamdream.atlas.plates import Plate, dream_plates
from streamdream.atlas.presets import SOURCE, ready
from streamdream.frame import Bytes, Frame
from streamdream.options import Options
from streamdream.run import choose_device
from streamdream.settings import made, preset_names, read_preset
from streamdream.zoom.movie import zoom_file
from streamdream.zoom.options import ZoomOptions

ROOT = Path(__file__).parent.parent
PRESETS = ROOT / "streamdream" / "presets"
SIZE = 288, 216  # px, width and height
MOST = 12_000  # bytes of one
SECONDS, RATE = 3, 12  # of falling, before a zoom movie's picture is taken
PHOTO = slice(0, 300), slice(25, 425)  # of chelsea: the face, at 4:3


def main() -> None:
    """Make all of them, and the sheet."""
    names = sys.argv[1:]
    photo = np.ascontiguousarray(data.chelsea()[PHOTO])
    save(PRESETS / "thumbnails" / f"{SOURCE}.webp", photo)
    plates = [
        Plate(name, made(Options, read_preset(name)), "")
        for name in preset_names()
        if not names or name in names
    ]
    going = dream_plates(
        plates, Frame(photo, Fraction(0), 0), choose_device("auto"),
        lambda _, done: save(PRESETS / "thumbnails" / f"{done.plate.name}.webp", done.pixels),
    )  # fmt: skip
    for done in going:
        print(f"\r{done} of {len(plates)}", end="", flush=True)
    print()
    for name in preset_names(ZoomOptions):
        if not names or name in names:
            save(PRESETS / "zoom" / "thumbnails" / f"{name}.webp", fallen(name, photo))
            print(name, flush=True)
    draw_sheet()


def fallen(name: str, photo: Bytes) -> Bytes:
    """A picture of a zoom movie by this preset."""
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "photo.png"
        Image.fromarray(photo).save(start)
        options = made(ZoomOptions, read_preset(name, ZoomOptions), {
            "size": "400x300", "rate": str(RATE), "duration": str(SECONDS),
        })  # fmt: skip
        zoom_file(start, Path(folder) / "frames" / "%05d.png", options)
        last = sorted((Path(folder) / "frames").iterdir())[-1]
        return np.asarray(Image.open(last).convert("RGB"))


def save(path: Path, pixels: Bytes) -> None:
    """Write a small picture, as good as fits into MOST bytes."""
    path.parent.mkdir(exist_ok=True)
    small = Image.fromarray(cv2.resize(pixels, SIZE, interpolation=cv2.INTER_AREA))
    for quality in range(88, 20, -4):
        file = BytesIO()
        small.save(file, "WEBP", quality=quality, method=6)
        if len(file.getvalue()) < MOST:
            path.write_bytes(file.getvalue())
            return
    raise AssertionError(f"{path} is too large at any quality")


def draw_sheet() -> None:
    """Draw the sheet of all presets for the README."""
    cards = [ready(preset) for preset in presets()]
    pictures = [(c.small, c.plate.name, "zoom" * (c.plate.kind == "zoom")) for c in cards]
    drawn = sheet.drawn("Presets", "streamdream presets", pictures)
    drawn.thumbnail((1400, 1400), Image.Resampling.LANCZOS)
    drawn.save(ROOT / "docs" / "presets.jpg", quality=72, optimize=True)


if __name__ == "__main__":
    main()
