"""Options of renders that outlast interruptions. Like `options`, imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from cyclopts import Group, Parameter
from pydantic import BaseModel, Field

from streamdream.codecs import STDOUT
from streamdream.errors import OptionError, SinkError
from streamdream.inputs import Input
from streamdream.jobs.folder import JobFolder

if TYPE_CHECKING:
    from streamdream.options import Options

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
    threads: Annotated[int | None, Parameter(group=LASTING)] = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of every process. Frames differ in their last bits between numbers "
        "of threads, so a job keeps its own.",
    )

    @property
    def lasts(self) -> bool:
        """Whether it is made in segments."""
        return self.resume or self.workers > 1

    # What may differ when a job goes on: it changes nothing about the result.
    free: ClassVar[frozenset[str]] = frozenset({"resume", "overwrite", "workers"})


def check_lasting(options: Options, given: Input, target: Path | None) -> None:
    """Raise OptionError where nothing could be gone on with, SinkError where all is done."""
    if not options.lasts:
        return
    if target is None:
        raise OptionError("--resume", "a window cannot be gone on with", "name a file with -o")
    if target == STDOUT:
        told = "standard output cannot be gone on with"
        raise OptionError("--resume", told, "name a file with -o")
    if options.loop_kind is not None:
        told = f"{options.loop_kind} reads its source twice, which cannot be gone on with"
        raise OptionError("--resume", told, "leave one of them out")
    if not given.all_files:
        raise OptionError("--resume", f"{given.label} comes only once", "save it as a file first")
    if not options.overwrite and target.exists() and not JobFolder.of(target).path.exists():
        cure = "give another name, or --overwrite"
        raise SinkError(target, "exists already, and no job of it is unfinished", cure)
