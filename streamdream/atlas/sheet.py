"""Contact sheets: many small pictures with their names under them, on one dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from streamdream.errors import SinkError
from streamdream.files import PICTURE_FORMATS
from streamdream.frame import Bytes, Pixels, Size, eight_bits
from streamdream.sinks import PartFile

GROUND, TEXT, MUTED = (17, 17, 19), (226, 222, 214), (134, 130, 124)
AREA = 300 * 225  # px of a small picture, whatever its shape
GAP, EDGE = 24, 56  # px between the pictures, and around them all
SHAPE = 1.5  # width over height of a whole sheet, about
CAPTION = 44  # px under a picture
QUALITY = 90


def shrunk(pixels: Pixels, most: int) -> Bytes:
    """Pixels in 8 bits of which neither side is longer than `most`."""
    h, w = pixels.shape[:2]
    scale = min(1.0, most / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return np.asarray(eight_bits(small), np.uint8)


def small_size(shape: Size) -> Size:
    """The size (h, w) that pictures of a size have on a sheet."""
    h, w = shape
    scale = min(1.0, math.sqrt(AREA / (h * w)))
    return max(1, round(h * scale)), max(1, round(w * scale))


def small(pixels: Pixels) -> Bytes:
    """Pixels as they are shown on a sheet."""
    h, w = small_size((pixels.shape[0], pixels.shape[1]))
    return np.asarray(eight_bits(cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)))


def columns_of(count: int, cell: Size) -> int:
    """In how many columns so many cells (h, w) make a sheet of a good shape, with no thin end."""
    h, w = cell
    ideal = math.sqrt(count * SHAPE * h / w)
    near = range(max(1, round(ideal) - 2), round(ideal) + 3)
    return min(near, key=lambda n: (-count % n) / n + abs(math.log(n / ideal)) * 1.5)


def drawn(title: str, told: str, pictures: Sequence[tuple[Bytes, str, str]]) -> Image.Image:
    """A sheet of pictures, all of one size, each with its name and a word about it."""
    h, w = pictures[0][0].shape[:2]
    cell = h + CAPTION, w
    columns = columns_of(len(pictures), cell)
    rows = -(-len(pictures) // columns)
    head = 96
    width = 2 * EDGE + columns * w + (columns - 1) * GAP
    height = 2 * EDGE + head + rows * cell[0] + (rows - 1) * GAP
    sheet = Image.new("RGB", (width, height), GROUND)
    pen = ImageDraw.Draw(sheet)
    large, usual, fine = (ImageFont.load_default(size) for size in (34, 16, 13))
    pen.text((EDGE, EDGE - 8), _fitting(title, large, width - 2 * EDGE), TEXT, large)
    pen.text((EDGE, EDGE + 40), _fitting(told, usual, width - 2 * EDGE), MUTED, usual)
    for number, (picture, name, note) in enumerate(pictures):
        row, column = divmod(number, columns)
        x, y = EDGE + column * (w + GAP), EDGE + head + row * (cell[0] + GAP)
        sheet.paste(Image.fromarray(picture), (x, y))
        named = _fitting(name, usual, w)
        pen.text((x, y + h + 8), named, TEXT, usual)
        begin = pen.textlength(named, usual) + 12
        if begin + pen.textlength(note, fine) <= w:
            pen.text((x + w, y + h + 11), note, MUTED, fine, anchor="ra")
        else:
            pen.text((x, y + h + 28), _fitting(note, fine, w), MUTED, fine)
    return sheet


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text that is no wider than so many pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def save(sheet: Image.Image, path: Path, complete: bool = True) -> None:
    """Write a sheet, by the ending of its path; unfinished as `name.part.ext`.

    Raises SinkError.
    """
    file, kind = PartFile(path), PICTURE_FORMATS[path.suffix.lower()]
    how = {"quality": QUALITY} | ({"subsampling": 0} if kind == "JPEG" else {})
    try:
        sheet.save(file.part, kind, **(how if kind != "PNG" else {}))
        if complete:
            file.complete()
    except (OSError, ValueError) as fault:  # WebP ends at 16383 pixels a side
        file.forget()
        raise SinkError(path, f"cannot be written ({str(fault)[:200]})", "use png") from None
