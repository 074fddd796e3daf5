"""What a person names as input, and how libav is to open it.

A file; pictures in a row by pattern (`frames/%05d.png`), by wildcard (`frames/*.png`) or by
their folder; a URL that libav reads; `-` for what is piped in.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from glob import escape, glob
from pathlib import Path

from streamdream.errors import SourceError, words
from streamdream.files import NUMBER, row_of

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".dpx", ".exr")
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SECRET = re.compile(r"(?<=://)[^/?#]*@")
PIPE = "pipe:0"  # as libav says it
WAIT = "15000000"  # microseconds that a server may be silent


@dataclass(frozen=True)
class Input:
    """Something to read: `label` for people, `name` and the rest for libav.

    `path` is the one file that is read, None if it is not one; `files` the pictures of a row;
    `notices` what a person should know.
    """

    label: str
    name: str
    path: Path | None = None
    kind: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def count(self) -> int | None:
        """How many pictures a row has, None if it is not one."""
        return len(self.files) or None

    @property
    def all_files(self) -> tuple[Path, ...]:
        """The files that are read, as far as they are files."""
        return self.files if self.path is None else (self.path,)

    @property
    def piped(self) -> bool:
        """Whether what is read comes once, from front to end."""
        return self.name == PIPE


def locate(text: str | Path, rate: Fraction = Fraction(25)) -> Input:
    """Find what `text` names; pictures in a row get `rate` a second. Raises SourceError."""
    named = str(text)
    if named in ("-", PIPE):
        return Input("standard input", PIPE)
    if URL.match(named) and not isinstance(text, Path):
        return Input(SECRET.sub("", named), named, options=_for_url(named))
    path = Path(text)
    try:
        if path.is_dir():
            return _folder(path, rate)
        if not path.exists() and NUMBER.search(path.name):
            return _pattern(path, rate)
        if not path.exists() and any(mark in named for mark in "*?["):
            return _row(named, sorted(glob(named), key=_natural), rate)
    except OSError as fault:
        raise SourceError(path, words(fault)) from None
    check_file(path)
    # An absolute path, because libav takes "a:b.mp4" for a protocol.
    return Input(str(path), str(path.absolute()), path)


def check_file(path: Path) -> None:
    """Raise SourceError if there is no file to read at `path`."""
    try:
        there = path.exists()
    except OSError as fault:
        raise SourceError(path, words(fault)) from None
    if not there:
        raise SourceError(path, "no such file")
    if path.is_dir():
        raise SourceError(path, "is a folder", "name a file in it")
    if not os.access(path, os.R_OK):
        raise SourceError(path, "may not be read", "check its permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(path, "is empty")


def _for_url(url: str) -> dict[str, str]:
    if url.lower().startswith(("http", "tcp", "tls")):
        return {"rw_timeout": WAIT}
    return {"timeout": WAIT} if url.lower().startswith("rtsp") else {}


def _folder(path: Path, rate: Fraction) -> Input:
    found = [p for p in path.iterdir() if p.suffix.lower() in PICTURE_ENDINGS]
    kinds: dict[str, list[str]] = defaultdict(list)
    for picture in found:
        kinds[picture.suffix.lower()].append(str(picture))
    if not kinds:
        raise SourceError(path, "is a folder without pictures", "name a video or picture file")
    if len(kinds) > 1:
        endings = " and ".join(sorted(kinds))
        raise SourceError(path, f"holds {endings} files", f"say which, as {path}/*{min(kinds)}")
    return _row(str(path), sorted(next(iter(kinds.values())), key=_natural), rate)


def _row(label: str, pictures: list[str], rate: Fraction) -> Input:
    """Pictures named one by one; libav wants a pattern that means exactly them."""
    if not pictures:
        raise SourceError(label, "matches no file")
    first = Path(pictures[0])
    if len(pictures) == 1:
        return locate(first)
    for match in reversed(list(re.finditer(r"\d+", first.name))):
        head, digits, tail = first.name[: match.start()], match[0], first.name[match.end() :]
        start = int(digits)
        wide = len(digits) if digits.startswith("0") or len(digits) > 1 else 1
        meant = [f"{head}{start + i:0{wide}d}{tail}" for i in range(len(pictures))]
        if [Path(p).name for p in pictures] == meant and len(
            {Path(p).parent for p in pictures}
        ) == 1:
            pattern = first.with_name(f"{_plain(head)}%0{wide}d{_plain(tail)}")
            return _sequence(label, pattern, start, [Path(p) for p in pictures], rate)
    around = f"{escape(str(first.parent.absolute()))}/*{first.suffix}"
    meant = [str(Path(p).absolute()) for p in pictures]
    if sorted(glob(around)) == sorted(meant):
        if sorted(meant) != meant:  # libav would put 10 before 9
            raise SourceError(
                label, "the numbers of its pictures have gaps", "give them leading zeros"
            )
        options = {"pattern_type": "glob", "framerate": str(rate)}
        return Input(label, around, None, "image2", options, tuple(Path(p) for p in pictures))
    raise SourceError(label, "these pictures are not numbered in a row", "put them into a folder")


def _pattern(path: Path, rate: Fraction) -> Input:
    found = row_of(path)
    if not found:
        raise SourceError(path, "matches no file")
    first = _number(found[0], path)
    numbers = [_number(picture, path) for picture in found]
    count = next((i for i, n in enumerate(numbers) if n != first + i), len(numbers))
    left = len(found) - count
    notices = (f"{left} pictures behind the gap at {first + count} are left out",) if left else ()
    return _sequence(str(path), path, first, found[:count], rate, notices)


def _number(picture: Path, pattern: Path) -> int:
    match = NUMBER.search(pattern.name)
    assert match is not None
    return int(picture.name[match.start() : len(picture.name) - len(pattern.name) + match.end()])


def _sequence(
    label: str,
    pattern: Path,
    start: int,
    files: list[Path],
    rate: Fraction,
    notices: tuple[str, ...] = (),
) -> Input:
    name = str(_plain(str(pattern.parent.absolute()))) + "/" + pattern.name
    options = {"framerate": str(rate), "start_number": str(start)}
    return Input(label, name, None, "image2", options, tuple(files), notices)


def _plain(text: str) -> str:
    return text.replace("%", "%%")


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
