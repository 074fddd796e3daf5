"""Options of renders that outlast interruptions. Like `options`, imports nothing heavy."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from cyclopts import Group, Parameter
from pydantic import BaseModel, Field

from streamdream.codecs import STDOUT
from streamdream.errors import OptionError
from streamdream.inputs import Input
from streamdream.zoo.options import PLACES

if TYPE_CHECKING:
    from streamdream.options import Options

ADDRESS = re.compile(r"auto|(ray://)?[^\s/:]+:\d+")
LASTING = Group("Long renders", sort_key=4.5)


class Lasting(BaseModel):
    """What a run can do to outlast interruptions."""

    resume: Annotated[bool, Parameter(group=LASTING, negative=())] = Field(
        default=False,
        description="Render in segments, in a folder beside the output; after any interruption "
        "the same command goes on behind the last finished one.",
    )
    segment: Annotated[int, Parameter(group=LASTING, metavar="FRAMES")] = Field(
        default=48,
        ge=1,
        le=100_000,
        description="Longest segment: what an interruption can cost at most.",
    )
    workers: Annotated[int, Parameter(group=LASTING)] = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that dream scenes at the same time, each with its part of the "
        "cores, on a GPU each where there are several; implies --resume.",
    )
    split: Annotated[float | None, Parameter(group=LASTING, metavar="SECONDS")] = Field(
        default=None,
        ge=4,
        le=86_400,
        description="Dream shots that are longer than this (4 seconds or more) in parts, which "
        "several workers can make at the same time: each begins two seconds early, unseen, and "
        "the part before turns into its dream in the second of them; implies --resume.",
    )
    threads: Annotated[int | None, Parameter(group=LASTING)] = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of every process. Frames differ in their last bits between numbers "
        "of threads, so a job keeps its own.",
    )

    cluster: Annotated[str | None, Parameter(group=LASTING, metavar="ADDRESS")] = Field(
        default=None,
        description="Dream scenes on all machines of a Ray cluster that is there: "
        "ray://HEAD:10001, or auto for the one that this machine is in; implies --resume.",
    )
    storage: Annotated[str | None, Parameter(group=LASTING, metavar="URL")] = Field(
        default=None,
        description="Where machines of a cluster get the input from, as s3://bucket/folder; "
        "without it they read it at the same path as here.",
    )

    @property
    def lasts(self) -> bool:
        """Whether it is made in segments."""
        return self.resume or self.shared

    @property
    def shared(self) -> bool:
        """Whether parts of it are made apart from each other."""
        return self.workers > 1 or self.cluster is not None or self.split is not None

    @property
    def lasting_flag(self) -> str:
        """The option by which it is."""
        asked = {
            "--resume": self.resume,
            "--workers": self.workers > 1,
            "--cluster": self.cluster is not None,
            "--split": self.split is not None,
        }
        return next(flag for flag, is_so in asked.items() if is_so)

    # What may differ when a job goes on: it changes nothing about the result.
    free: ClassVar[frozenset[str]] = frozenset(
        {"resume", "overwrite", "workers", "cluster", "storage", *PLACES}
    )


def check_lasting(options: Options, given: Input, target: Path | None) -> None:
    """Raise OptionError where nothing could be gone on with."""
    if options.storage is not None and options.cluster is None:
        raise OptionError("--storage", "is for machines of a cluster", "add --cluster")
    if not options.lasts:
        return
    _check_cluster(options)
    flag = options.lasting_flag
    if target is None:
        raise OptionError(flag, "a window cannot be gone on with", "name a file with -o")
    if target == STDOUT:
        told = "standard output cannot be gone on with"
        raise OptionError(flag, told, "name a file with -o")
    if options.loop_kind is not None:
        told = f"{options.loop_kind} reads its source twice, which cannot be gone on with"
        raise OptionError(flag, told, "leave one of them out")
    if not given.all_files:
        raise OptionError(flag, f"{given.label} comes only once", "save it as a file first")


def _check_cluster(options: Lasting) -> None:
    if options.cluster is None:
        return
    flag = f"--cluster {options.cluster}"
    if not ADDRESS.fullmatch(options.cluster):
        raise OptionError(flag, "is no address of a cluster", "write ray://HEAD:10001 or auto")
    if options.workers > 1:
        told = "are processes of this machine, a cluster has its own"
        raise OptionError("--workers", told, "leave out --workers or --cluster")
    if options.storage is not None:
        kind, colon, _ = options.storage.partition("://")
        if not colon or kind == "memory":
            told = "is no URL of files that all machines reach"
            cure = "write s3://bucket/folder, gs://bucket/folder or file:///folder"
            raise OptionError(f"--storage {options.storage}", told, cure)
    if any(importlib.util.find_spec(name) is None for name in ("ray", "fsspec", "filelock")):
        raise OptionError(flag, "needs Ray, which is missing", "pip install 'streamdream[cluster]'")
