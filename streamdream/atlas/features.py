"""Feature maps: what every layer of a network sees in a picture, as pictures and as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from streamdream.errors import SinkError
from streamdream.frame import Bytes
from streamdream.sinks import PartFile

Maps = Float[np.ndarray, "c h w"]

GROUND, TEXT = (17, 17, 19), (151, 146, 138)
ABOVE, BELOW = (255, 224, 176), (96, 158, 255)  # colours of the strongest, and the most negative
LEAST_CELL, MOST_SIDE = 64, 4096  # px of a map's longer side, of a whole picture
GAP, LABEL = 6, 14  # px between maps, and for a number above one
NUMBERED = 40  # px; narrower maps have no numbers
FAINTEST = 0.1  # of the strongest channel; weaker ones are not shown brighter for that


def check_maps_folder(folder: Path, overwrite: bool) -> None:
    """Raise SinkError if feature maps cannot or should not be written into `folder`."""
    if folder.exists() and not folder.is_dir():
        raise SinkError(folder, "is a file", "name a folder")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise SinkError(folder, f"there is no folder {folder.parent}", "make it first")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise SinkError(folder, "is not empty", "name another folder, or give --overwrite")


def write_features(
    maps: Mapping[str, Maps], folder: Path, data: str, waiting: Callable[[], None]
) -> None:
    """Write the maps (c, h, w) of every layer, in order of depth, as `01-name.png`.

    With `data` "npz" or "safetensors" they are all written as numbers too, in float32.
    `waiting` is called between two files. Raises SinkError.
    """
    try:
        folder.mkdir(exist_ok=True)
        digits = len(str(len(maps)))
        for number, (layer, found) in enumerate(maps.items(), start=1):
            file = PartFile(folder / f"{number:0{digits}d}-{layer}.png")
            grid(found).save(file.part)
            file.complete()
            waiting()
        if data != "none":
            file = PartFile(folder / f"features.{data}")
            _save_numbers(maps, file.part, data)
            file.complete()
    except OSError as fault:
        raise PartFile(folder).fault(fault, None) from None


def _save_numbers(maps: Mapping[str, Maps], path: Path, data: str) -> None:
    arrays = {layer: np.ascontiguousarray(found) for layer, found in maps.items()}
    if data == "npz":
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        return
    from safetensors.numpy import save_file

    save_file(arrays, path)


def grid(maps: Maps) -> Image.Image:
    """All channels of a layer (c, h, w) beside each other, with their numbers.

    Black is 0; each channel is as bright as it is strong, but faint ones are brightened up to
    ten times. What is negative is blue.
    """
    count, h, w = maps.shape
    columns = max(1, round(math.sqrt(count * h / w)))
    rows = -(-count // columns)
    room = MOST_SIDE // max(columns, rows) - GAP
    larger = max(1, -(-LEAST_CELL // max(h, w))) if max(h, w) > 1 else 8
    scale = min(float(larger), max(room, 4) / max(h, w))
    high, wide = max(1, round(h * scale)), max(1, round(w * scale))
    label = LABEL if wide >= NUMBERED else 0
    sheet = Image.new(
        "RGB", (columns * (wide + GAP) + GAP, rows * (high + label + GAP) + GAP), GROUND
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    how = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    for channel, picture in enumerate(coloured(maps)):
        row, column = divmod(channel, columns)
        x, y = GAP + column * (wide + GAP), GAP + row * (high + label + GAP)
        if label:
            pen.text((x, y - 1), str(channel), TEXT, font)
        resized = picture if scale == 1 else cv2.resize(picture, (wide, high), interpolation=how)
        sheet.paste(Image.fromarray(resized), (x, y + label))
    return sheet


def coloured(maps: Maps) -> list[Bytes]:
    """Each channel (c, h, w) as pixels (h, w, 3)."""
    strongest = np.abs(maps).max(axis=(1, 2))
    scale = np.maximum(strongest, FAINTEST * strongest.max(initial=1e-12))
    shares = maps / scale[:, None, None]
    pictures = []
    for share in shares:
        up, down = share.clip(0, 1)[..., None], (-share).clip(0, 1)[..., None]
        pictures.append(np.rint(up * ABOVE + down * BELOW).astype(np.uint8))
    return pictures
