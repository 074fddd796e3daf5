"""What can be said of input and output files before anything heavy is loaded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from streamdream.codecs import CONTAINERS, STDOUT
from streamdream.errors import OptionError, SinkError, words

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = (".gif", ".webp", ".apng")  # pictures that can move


def is_picture(path: Path) -> bool:
    """Whether the ending is that of a picture file."""
    return path.suffix.lower() in PICTURE_FORMATS


NUMBER = re.compile(r"%0?(\d*)d")  # where a pattern for pictures in a row has its number
FIRST = 1  # the number of the first picture of a row


def is_row(path: Path) -> bool:
    """Whether a path is the pattern of pictures in a row, as `frames/%05d.png`."""
    return is_picture(path) and NUMBER.search(path.name) is not None


def numbered(pattern: Path, number: int) -> Path:
    """The path of one picture of a row."""
    found = NUMBER.search(pattern.name)
    assert found is not None
    digits = f"{number:0{int(found[1] or 0)}d}"
    return pattern.with_name(pattern.name[: found.start()] + digits + pattern.name[found.end() :])


def row_of(pattern: Path) -> list[Path]:
    """The pictures that are there of a row, by their numbers."""
    found = NUMBER.search(pattern.name)
    assert found is not None
    head, tail = pattern.name[: found.start()], pattern.name[found.end() :]
    one = re.compile(re.escape(head) + r"(\d+)" + re.escape(tail))
    there = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    numbers = {int(m[1]): p for p in there if (m := one.fullmatch(p.name))}
    return [numbers[number] for number in sorted(numbers)]


def part_of(path: Path) -> Path:
    """Where a file is written before it is complete: `out.mp4` at `out.part.mp4`."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


def spool_of(path: Path) -> Path:
    """Where an animation's frames lie until all are there: `out.gif` at `out.gif.part.mkv`."""
    return path.with_name(f"{path.name}.part.mkv")


def check_size(path: Path, most: int | None, moving: bool = True) -> None:
    """Raise OptionError if a file's size is limited that cannot be."""
    if most is not None and not (moving and path.suffix.lower() in ANIMATIONS):
        cure = "make others smaller with --size, videos also with --crf"
        reason = f"is for {', '.join(ANIMATIONS)} that move"
        raise OptionError(f"--max-size {most}", reason, cure)


def check_target(
    path: Path,
    sources: Sequence[Path] = (),
    overwrite: bool = False,
    endings: Sequence[str] = (),
) -> None:
    """Raise SinkError if nothing can or should be written at `path`.

    Looks at the ending (`endings` are those that can be written, none stands for those of
    videos and pictures), the folder, files already there, and that the input is not the output.
    """
    if path == STDOUT:
        if sys.stdout is not None and sys.stdout.isatty():
            raise SinkError("standard output", "is a terminal", "pipe it into a program or a file")
        return
    _check_name(path, endings or list(dict.fromkeys([*CONTAINERS, *PICTURE_FORMATS, *ANIMATIONS])))
    check_folder(path)
    parts = [part_of(path)]
    if path.suffix.lower() in ANIMATIONS:
        parts.append(spool_of(path))
    mine = row_of(path) if is_row(path) else [p for p in (path, *parts) if p.exists()]
    read = {source.resolve() for source in sources}
    for one in mine:
        if one.resolve() in read:
            raise SinkError(one, "is the input itself", "give the output another name")
    if overwrite:
        return
    if is_row(path) and (there := row_of(path)):
        raise SinkError(there[0], "exists already", "give another name or --overwrite")
    if path.exists():
        raise SinkError(path, "exists already", "give another name or --overwrite")
    for part in parts:
        if part.exists():
            told = "is left from an interrupted run"
            raise SinkError(part, told, "move it away, or give --overwrite")


def _check_name(path: Path, known: Sequence[str]) -> None:
    with suppress(OSError):
        if path.is_dir():
            raise SinkError(path, "is a folder", "name a file in it")
    if path.suffix.lower() not in known:
        ending = f"files of kind {path.suffix}" if path.suffix else "files without an ending"
        raise SinkError(path, f"{ending} cannot be written", "use one of " + " ".join(known))
    if NUMBER.search(path.name) and path.suffix.lower() in (".gif", ".apng"):
        raise SinkError(path, "holds all frames in one file", "leave out the number")


def check_folder(path: Path) -> None:
    """Raise SinkError if no file can be made at `path` for its folder."""
    folder = path.parent
    try:
        part_of(path).exists()  # whose name is longer, maybe too long
        folder.exists()
    except OSError as fault:
        raise SinkError(path, words(fault)) from None
    if is_row(path) and not folder.exists():
        folder = folder.parent  # a row's own folder is made
    if not folder.exists():
        raise SinkError(path, f"there is no folder {folder}", "make it first")
    if not folder.is_dir():
        raise SinkError(path, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise SinkError(path, f"the folder {folder} may not be written to")
    if path.is_dir():
        raise SinkError(path, "is a folder", "name a file in it")
