"""What a zoom movie can start from, by name. Imports nothing heavy."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from streamdream.errors import SourceError
from streamdream.inputs import check_file, locate
from streamdream.masks.options import mask_files
from streamdream.objectives.named import check_guides, guide_files
from streamdream.polish.options import NOISES
from streamdream.zoom.options import ZoomOptions

NAMES = ("noise", *NOISES)


def files_read(source: str, options: ZoomOptions) -> list[Path]:
    """The files that a movie of this start reads; raises SourceError where one is not there."""
    found = [path for text in (source, *options.through) for path in _files_of(text)]
    if options.audio is not None:
        check_file(options.audio)
        found.append(options.audio)
    check_guides(options)
    return [*found, *guide_files(options), *mask_files(options)]


def _files_of(text: str) -> tuple[Path, ...]:
    if text in NAMES:
        return ()
    try:
        return locate(text).all_files
    except SourceError as fault:
        meant = get_close_matches(text, NAMES, n=1)
        cure = f"did you mean {meant[0]}?" if meant else f"noise is called {', '.join(NAMES)}"
        if not meant and len(Path(text).parts) + bool(Path(text).suffix) > 1:
            raise
        raise SourceError(text, fault.reason, cure) from None
