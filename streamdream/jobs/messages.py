"""What a crew and its workers say to each other, beside shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamdream.jobs.manifest import Fingerprint
from streamdream.options import Options


@dataclass(frozen=True)
class Work:
    """What all shares of a job have in common; `files` as manifest.check_files takes them.

    `comment` is what pictures of a row tell of how they were made.
    """

    source: str | Path
    target: Path
    options: Options
    files: Mapping[str, Sequence[Path]]
    known: Mapping[str, Fingerprint]
    comment: str


@dataclass(frozen=True)
class Ready:
    """A worker has begun; its `machine` as manifest.machine_told has it."""

    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Far:
    """So many frames of the share are done."""

    frames: int


@dataclass(frozen=True)
class Done:
    """All of the share is."""


@dataclass(frozen=True)
class Fault:
    """An Error of this kind, see `errors`, that other workers would meet as well."""

    kind: str
    subject: str
    reason: str
    cure: str


@dataclass(frozen=True)
class Made:
    """A finished segment that begins with frame `index`, or a point from which it is made."""

    index: int
    data: bytes
    point: bool = False


@dataclass(frozen=True)
class Unfit:
    """A worker takes no part, because of what it is or where."""

    reason: str


Message = Ready | Far | Made | Done | Fault | Unfit
