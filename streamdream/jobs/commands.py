"""`streamdream jobs`: what is unfinished, and the command that goes on with each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from streamdream.errors import Error, SourceError
from streamdream.jobs.folder import ENDING, JobFolder


def jobs(
    folder: Annotated[
        Path, Parameter(help="Where to look: for jobs in it, and in folders right below it.")
    ] = Path(),
    /,
) -> int:
    """List renders with --resume that are not finished, and the command that goes on with each."""
    if not folder.is_dir():
        raise SourceError(folder, "is no folder", "name the one that the outputs are in")
    found = sorted([*folder.glob(f"*{ENDING}"), *folder.glob(f"*/*{ENDING}")])
    lines = [line for path in found if (path / "manifest").exists() for line in _told(path)]
    print("\n".join(lines) if lines else "no unfinished jobs", flush=True)
    return 0


def _told(path: Path) -> list[str]:
    from streamdream.jobs.manifest import Manifest
    from streamdream.jobs.segments import record_of

    job = JobFolder.of(path.with_name(path.name.removesuffix(ENDING)))
    try:
        manifest = Manifest.read(job)
    except Error as fault:
        return [f"{path}: {fault.reason}; {fault.cure}"]
    if manifest is None:
        return []
    records = (record_of(job.segment(begin), whole=False) for begin in job.begun())
    done = sum(record.end - record.begin for record in records if record is not None)
    of = "" if manifest.frames is None else f" of {manifest.frames}"
    state = ", being worked on" if job.is_held() else ""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.begun))
    return [f"{job.target}: {done}{of} frames, begun {begun}{state}", f"    {manifest.line}"]
