"""Which files a batch reads, and where each result goes. Loads nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from streamdream.codecs import CONTAINERS
from streamdream.errors import OptionError, SinkError, SourceError, near, words
from streamdream.files import ANIMATIONS, PICTURE_FORMATS
from streamdream.inputs import PICTURE_ENDINGS, PIPE, URL, check_file

VIDEO_ENDINGS = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".wmv", ".flv", ".ogv", ".3gp", ".mxf", ".y4m", ".dv", ".vob", ".gif", ".apng",
)  # fmt: skip
PHOTO_ENDINGS = (*PICTURE_ENDINGS, ".heic", ".avif", ".jp2", ".tga", ".ppm")
SAME = "same"
VIDEO, PICTURE = ".mp4", ".png"  # what becomes of kinds that can be read and not written


@dataclass(frozen=True)
class Item:
    """A file to dream, and where the result goes."""

    source: Path
    target: Path

    @property
    def renamed(self) -> bool:
        """Whether the result has another name because its own was taken."""
        return self.target.stem != self.source.stem


@dataclass(frozen=True)
class Found:
    """A file, and the folder inside the output that its result goes to."""

    path: Path
    below: Path


def endings(text: str) -> tuple[str, str]:
    """What `--to` says videos and pictures become: endings, or "same"; raises OptionError."""
    video = picture = SAME
    known = [e[1:] for e in dict.fromkeys([*CONTAINERS, ".gif", ".apng", *PICTURE_FORMATS])]
    given = [word.strip().lower().lstrip(".") for word in text.split(",")]
    for word in given:
        if word not in (*known, SAME):
            cure = near(word, tuple(known), "kinds")
            raise OptionError(f"--to {text}", f"{word or 'nothing'} cannot be written", cure)
        if f".{word}" in PICTURE_FORMATS:
            picture = f".{word}"
        elif word != SAME:
            video = f".{word}"
    if len(given) > (video != SAME) + (picture != SAME) + (SAME in given):
        raise OptionError(f"--to {text}", "names one kind twice", "as mp4, png or mp4,png")
    return video, picture


def planned(
    inputs: Sequence[str], folder: Path, to: str = SAME, recursive: bool = False
) -> list[Item]:
    """The items of a batch, in order; names that meet are numbered.

    `inputs` are files, folders and globs. Of folders the files are taken that end like videos or
    pictures. Raises errors.Error for what is named and is not there, and where a result would lie
    among the inputs.
    """
    video, picture = endings(to)
    if folder.exists() and not folder.is_dir():
        raise SinkError(folder, "is a file", "name a folder")
    found = list(_each_once(_found(inputs, folder, recursive)))
    if not found:
        cure = "" if recursive else "--recursive looks through the folders in it"
        raise SourceError(" ".join(inputs), "holds no videos or pictures", cure)
    sources = {_alike(each.path) for each in found}
    taken: set[str] = set()
    items = []
    for each in found:
        wanted = folder / each.below / f"{each.path.stem}{_ending(each.path, video, picture)}"
        if _alike(wanted) in sources:
            raise SinkError(folder, f"{wanted.name} in it is an input", "name another folder")
        target, number = wanted, 1
        while _alike(target) in taken or (number > 1 and _alike(target) in sources):
            number += 1
            target = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        taken.add(_alike(target))
        items.append(Item(each.path, target))
    return items


def _ending(path: Path, video: str, picture: str) -> str:
    own = path.suffix.lower()
    if own in PHOTO_ENDINGS:
        if picture != SAME:
            return picture
        return path.suffix if own in PICTURE_FORMATS else PICTURE
    if video != SAME:
        return video
    return path.suffix if own in (*CONTAINERS, *ANIMATIONS) else VIDEO


def _found(inputs: Sequence[str], folder: Path, recursive: bool) -> Iterator[Found]:
    for text in inputs:
        if text in ("-", PIPE) or URL.match(text):
            raise OptionError(text, "a batch reads files", "dream it alone, without batch")
        path = Path(text)
        try:
            if path.is_dir():
                yield from _inside(path, folder, recursive)
            elif not path.exists() and any(mark in text for mark in "*?["):
                yield from _matching(text)
            else:
                check_file(path)
                yield Found(path, Path())
        except OSError as fault:
            raise SourceError(path, words(fault)) from None


def _inside(path: Path, folder: Path, recursive: bool) -> Iterator[Found]:
    if folder.resolve() == path.resolve():
        raise SinkError(folder, "is the folder that is read", "name another one")
    there = sorted(path.rglob("*") if recursive else path.iterdir(), key=_natural)
    for one in there:
        inside = one.relative_to(path)
        if any(part.startswith(".") for part in inside.parts) or not one.is_file():
            continue
        if one.suffix.lower() not in (*VIDEO_ENDINGS, *PHOTO_ENDINGS):
            continue
        if _is_part(one) or one.resolve().is_relative_to(folder.resolve()):
            continue  # what a batch has written
        yield Found(one, inside.parent)


def _matching(text: str) -> Iterator[Found]:
    there = sorted(map(Path, glob(text, recursive=True)), key=_natural)
    files = [one for one in there if one.is_file() and not _is_part(one)]
    if not files:
        raise SourceError(text, "matches no file")
    yield from (Found(one, Path()) for one in files)


def _is_part(path: Path) -> bool:
    """Whether a file is what an interrupted run left."""
    return path.stem.endswith(".part")


def _each_once(found: Iterable[Found]) -> Iterator[Found]:
    seen: set[str] = set()
    for each in found:
        place = str(each.path.absolute())
        if place not in seen:
            seen.add(place)
            yield each


def _alike(path: Path) -> str:
    """A place, as systems see it that do not tell capitals from small letters."""
    return str(path.absolute().parent.resolve() / path.name).casefold()


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts clip2 before clip10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]
