"""What nodes of a cluster read: the same files, at the same paths or fetched from storage.

In storage, and in the cache of a node, files lie by what is in them:
  DIGEST/0/film.mp4    a file, or each of those that were read together (pictures in a row)
  DIGEST/complete      is written when all of them are there
So what was once there is not sent again, whoever asks, and a file that has changed is another one.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import streamdream
from streamdream.errors import SinkError, SourceError, words
from streamdream.jobs.folder import read_sealed, write_sealed
from streamdream.jobs.manifest import Fingerprint, identity_of
from streamdream.jobs.messages import Work
from streamdream.options import Options
from streamdream.settings import build

COMPLETE = "complete"
CURE = "see that it can be reached from here, and that its package for fsspec is installed"


@dataclass(frozen=True)
class Parcel:
    """Work for nodes: all its paths are absolute, each group of `files` has its own fingerprint.

    `storage` is where files are fetched from, None where they are read in their own places.
    """

    work: Work
    storage: str | None


def parcel_of(work: Work) -> Parcel:
    """Make work ready to be sent, and its files to be fetched; raises SinkError, SourceError."""
    files: dict[str, Sequence[Path]] = {}
    known: dict[str, Fingerprint] = {}
    for name, paths in work.files.items():
        if name == "the input":
            files[name], known[name] = [path.absolute() for path in paths], work.known[name]
            continue
        sent = [path for path in dict.fromkeys(paths) if not _comes_along(path)]
        for folder in dict.fromkeys(path.parent for path in sent):
            group = [path.absolute() for path in sent if path.parent == folder]
            files[f"{name} in {folder}"] = group
            known[f"{name} in {folder}"] = Fingerprint.of(group)
    read = [path for paths in work.files.values() for path in paths]
    where = {str(path): path.absolute() for path in read}
    for folder in {path.parent for path in read} - {Path()}:  # as rows of masks are named
        where[str(folder)] = folder.absolute()
    storage = work.options.storage
    work = replace(
        work,
        source=os.path.abspath(work.source),
        target=Path(work.target.name),
        options=_with_paths(work.options, where),
        files=files,
        known=known,
    )
    if storage is not None:
        for name, paths in files.items():
            _send(storage, known[name].digest, paths)
    return Parcel(work, storage)


def unpacked(parcel: Parcel, cache: Path, target: Path) -> Work:
    """The work as this node does it, into `target`, what it lacks fetched into its `cache`.

    Raises SourceError.
    """
    work = replace(parcel.work, target=target)
    if parcel.storage is None:
        return work
    files: dict[str, Sequence[Path]] = {}
    known: dict[str, Fingerprint] = {}
    where: dict[str, Path] = {}
    for name, paths in work.files.items():
        found = _fetched(parcel.storage, work.known[name].digest, paths, cache)
        files[name], known[name] = found
        where |= {str(there): here for there, here in zip(paths, files[name], strict=True)}
        if len(paths) > 1:
            where[str(paths[0].parent)] = files[name][0].parent
    first = Path(files["the input"][0])
    # A folder of pictures is named itself, a row of them by what their names have in common.
    folder = Path(work.source) == Path(work.files["the input"][0]).parent
    source = first.parent if folder else str(first.with_name(Path(work.source).name))
    options = _with_paths(work.options, where)
    return replace(work, source=source, options=options, files=files, known=known)


def _comes_along(path: Path) -> bool:
    """Whether it is a file of streamdream, which nodes have as well."""
    return path.absolute().is_relative_to(Path(streamdream.__file__).parent.absolute())


def _with_paths(options: Options, where: Mapping[str, Path]) -> Options:
    """The same options with files in other places; several are in a text, maybe of a schedule."""
    places = {path: str(place) for path, place in where.items() if path != str(place)}
    if not places:
        return options
    longest = sorted(places, key=len, reverse=True)
    any_of = "|".join(map(re.escape, longest))
    name = re.compile(rf"(?<![^\s,:])(?:\./)?({any_of})(?![^\s,*/])")

    def moved(value: Any) -> Any:
        if isinstance(value, Path):
            return Path(places.get(str(value), str(value)))
        if isinstance(value, list | tuple):
            return tuple(moved(each) for each in value)
        text = getattr(value, "text", value)  # a schedule's
        return name.sub(lambda found: places[found[1]], text) if isinstance(text, str) else value

    given = options.given()
    paths = {"audio", "weights", "guide", "mask", "style", "style_mask"} & set(given)
    return build({**given, **{field: moved(given[field]) for field in paths}})


def _names(paths: Sequence[Path]) -> list[str]:
    """Where files of a group lie: those of a folder beside each other."""
    folders = list(dict.fromkeys(path.parent for path in paths))
    return [f"{folders.index(path.parent)}/{path.name}" for path in paths]


def _opened(url: str) -> tuple[Any, str]:
    try:
        return importlib.import_module("fsspec.core").url_to_fs(url)
    except Exception as fault:  # of any of many packages
        raise SinkError(f"--storage {url}", words(fault), CURE) from None


def _send(url: str, digest: str, paths: Sequence[Path]) -> None:
    system, root = _opened(url)
    try:
        folder = f"{root.rstrip('/')}/{digest}"
        if system.exists(f"{folder}/{COMPLETE}"):
            return
        for path, name in zip(paths, _names(paths), strict=True):
            system.makedirs(f"{folder}/{name.partition('/')[0]}", exist_ok=True)
            system.put_file(str(path), f"{folder}/{name}")
        system.pipe_file(f"{folder}/{COMPLETE}", digest.encode())
    except Exception as fault:  # of any of many packages
        raise SinkError(f"--storage {url}", words(fault), CURE) from None


def _fetched(
    url: str, digest: str, paths: Sequence[Path], cache: Path
) -> tuple[list[Path], Fingerprint]:
    folder = cache / digest
    here = [folder / name for name in _names(paths)]
    cache.mkdir(parents=True, exist_ok=True)
    # Of all workers of this node one fetches, and the others wait for it.
    with importlib.import_module("filelock").FileLock(f"{folder}.lock"):
        try:
            identity = read_sealed(folder / COMPLETE)
            if identity is not None and identity == identity_of(here):
                return here, Fingerprint(identity, digest)
        except (ValueError, SourceError):
            pass  # it is damaged, or cleared away: fetched again
        try:
            system, root = _opened(url)
            for path, name in zip(here, _names(paths), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f"{path.name}.{uuid4().hex}.part")
                system.get_file(f"{root.rstrip('/')}/{digest}/{name}", str(part))
                part.replace(path)
        except Exception as fault:  # of any of many packages
            raise SourceError(f"--storage {url}", words(fault), CURE) from None
        found = Fingerprint.of(here)
        if found.digest != digest:
            told = f"{digest} in it is not what was sent"
            raise SourceError(f"--storage {url}", told, "remove it, to be sent again")
        write_sealed(folder / COMPLETE, found.identity)
        return here, found
