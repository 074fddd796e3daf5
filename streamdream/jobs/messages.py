"""What a crew and its workers say to each other, beside shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamdream.jobs.manifest import Fingerprint
from streamdream.options import Options


@dataclass(frozen=True)
class Work:
    """What all shares of a job have in common; `files` as manifest.check_files takes them."""

    source: str | Path
    target: Path
    options: Options
    files: Mapping[str, Sequence[Path]]
    known: Mapping[str, Fingerprint]


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


Message = Far | Done | Fault
