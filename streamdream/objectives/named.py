"""Which files guides are; this module imports no torch."""

from __future__ import annotations

from pathlib import Path

from streamdream.errors import OptionError, SourceError
from streamdream.files import PICTURE_FORMATS
from streamdream.inputs import check_file
from streamdream.models import parted, weighed
from streamdream.moving import Moving
from streamdream.objectives.options import Aimed
from streamdream.style.named import check_picture


def guides_of(options: Aimed) -> tuple[str, ...]:
    """The guides that options name, now or in a schedule; raises OptionError for a wrong weight."""
    return named_in(options, "guide")


def named_in(options: Moving, field: str) -> tuple[str, ...]:
    """All names (without weights) of a field, now or in a schedule; raises OptionError."""
    schedule = options.schedules.get(field)
    texts = getattr(options, field) if schedule is None else schedule.layers
    found = []
    for text in texts:
        try:
            found.append(parted(text)[0])
        except ValueError:
            cure = "write it as a.jpg*0.4; a path has no * and no comma"
            reason = "has no weight from -1000 to 1000"
            raise OptionError(f"--{field} {text}", reason, cure) from None
    return tuple(dict.fromkeys(found))


def guide_files(options: Aimed) -> tuple[Path, ...]:
    """The files that the options name as guides."""
    return tuple(map(Path, guides_of(options)))


def check_guides(options: Aimed) -> None:
    """Raise an Error if a guide cannot be read, as far as that shows without decoding it."""
    files = guide_files(options)
    if files and not weighed(options.guide)[0]:
        subject = f"--guide {','.join(options.guide)}"
        raise OptionError(subject, "weighs nothing", "let one be other than 0")
    for path in files:
        check_file(path)
        if path.suffix.lower() in PICTURE_FORMATS:
            check_picture(path, "--guide")
        else:
            _check_video(path)


def _check_video(path: Path) -> None:
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path.absolute())) as container:
            there = bool(container.streams.video)
    except (OSError, ValueError, FFmpegError):
        there = False
    if not there:
        raise SourceError(f"--guide {path}", "is neither a picture nor a video")
