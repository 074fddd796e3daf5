"""Scenes on a terminal: a table, with thumbnails where there are colours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.console import Console, Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from streamdream.frame import Bytes
from streamdream.scenes.formats import clock
from streamdream.scenes.listing import Scene

LINES = 6  # of text that a thumbnail takes, each two pixels high
WIDEST = 26  # characters


def as_text(scenes: Sequence[Scene]) -> str:
    """A plain table."""
    rows = [("scene", "frame", "begins", "ends", "seconds", "frames")]
    rows += [
        (
            str(scene.number), str(scene.begin), clock(scene.time), clock(scene.until),
            f"{float(scene.seconds):.3f}", str(scene.frames),
        )
        for scene in scenes
    ]  # fmt: skip
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.rjust(w) for cell, w in zip(row, wide, strict=True)) + "\n" for row in rows
    )


def show(scenes: Sequence[Scene], console: Console) -> None:
    """The same with thumbnails: first frame, and last one where there is room."""
    several = console.width >= 3 * WIDEST + 24
    for scene in scenes:
        pictures = [scene.pictures[i] for i in ((0, 1, 2) if several else (0,))]
        row = Table.grid(padding=(0, 1))
        row.add_row(*(_drawn(picture) for picture in pictures), _told(scene))
        console.print(row)
        console.print()


def _told(scene: Scene) -> Group:
    flashes = len(scene.flashes)
    also = f"{flashes} flash{'es' * (flashes > 1)}" if flashes else ""
    return Group(
        Text(f"{scene.number}", style="bold"),
        Text(clock(scene.time)),
        Text(f"{float(scene.seconds):.2f} s", style="cyan"),
        Text(f"frame {scene.begin}", style="dim"),
        Text(f"{scene.frames} frames", style="dim"),
        Text(also, style="yellow"),
    )


def _drawn(picture: Bytes) -> Text:
    """A picture of half blocks: the upper pixel is the ink, the lower one the paper."""
    h, w = picture.shape[:2]
    wide = min(WIDEST, max(1, round(2 * LINES * w / h)))
    small = cv2.resize(picture, (wide, 2 * LINES), interpolation=cv2.INTER_AREA)
    lines = []
    for above, below in list(pairwise(small))[::2]:
        line = Text()
        for ink, paper in zip(above.tolist(), below.tolist(), strict=True):
            style = Style(
                color=Color.from_triplet(ColorTriplet(*ink)),
                bgcolor=Color.from_triplet(ColorTriplet(*paper)),
            )
            line.append("▀", style)
        lines.append(line)
    return Text("\n").join(lines)
