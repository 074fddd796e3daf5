"""The command `batch`: arguments to options to many runs, and a report of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from streamdream import options as opts
from streamdream import settings
from streamdream.batch.display import Display
from streamdream.batch.plan import SAME, Item, planned
from streamdream.codecs import check_codec, is_video
from streamdream.display import say
from streamdream.errors import OptionError, SinkError, words
from streamdream.files import check_folder
from streamdream.inputs import check_file
from streamdream.masks.options import check_mask, mask_files
from streamdream.objectives.named import check_guides, guide_files
from streamdream.style.named import check_styles, files_of
from streamdream.zoo.commands import provide

if TYPE_CHECKING:
    from streamdream.batch.report import Report

FILES = Group("The files", sort_key=-0.5)


def batch(
    inputs: Annotated[
        tuple[str, ...],
        Parameter(
            name="inputs",
            group=opts.INPUT,
            negative=(),
            help="Files, folders, and globs in quotes: films, photo.jpg, 'clips/*.mp4'.",
        ),
    ],
    /,
    *,
    output: Annotated[
        Path,
        Parameter(alias="-o", group=opts.INPUT, help="Folder for the results; it is made."),
    ],
    to: Annotated[
        str,
        Parameter(
            group=FILES,
            help="What videos and pictures become: endings, as mp4 or png or mkv,jpg. same keeps "
            "each one's own, as far as it can be written.",
        ),
    ] = SAME,
    recursive: Annotated[
        bool, Parameter(group=FILES, negative=(), help="Look through folders in folders too.")
    ] = False,
    skip_existing: Annotated[
        bool, Parameter(group=FILES, negative=(), help="Leave out files whose result is there.")
    ] = False,
    json: Annotated[
        Path | None,
        Parameter(
            group=FILES,
            metavar="REPORT",
            help="File that tells what became of each file; kept up to date meanwhile.",
        ),
    ] = None,
    preset: settings.Preset = None,
    config: settings.Config = None,
    like: settings.Like = None,
    flags: Annotated[settings.Flags | None, Parameter(name="*")] = None,
) -> int:
    """Dream many files, one after the other: folders and globs in, a folder out."""
    chosen = settings.chosen(opts.Options, flags, preset, config)
    if skip_existing and chosen.overwrite:
        raise OptionError("--skip-existing", "means nothing beside --overwrite", "give one of them")
    items = planned(inputs, output, to, recursive)
    songs = () if chosen.audio is None else (chosen.audio,)
    for song in songs:
        check_file(song)
    check_styles(chosen)
    check_guides(chosen)
    check_mask(chosen)
    for ending in dict.fromkeys(item.target.suffix for item in items if is_video(item.target)):
        check_codec(Path(f"name{ending}"), chosen.codec, chosen.crf)
    if json is not None:
        named = (*files_of(chosen), *guide_files(chosen), *mask_files(chosen))
        _check_report(json, items, (*songs, *named))
    if like is not None:
        from streamdream.run import read_settings

        recorded = settings.recorded(read_settings(like), f"--like {like}")
        place = f"with --like {like}:"
        chosen = settings.chosen(opts.Options, flags, preset, config, recorded, place)
    if chosen.dreams:
        provide(chosen)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise SinkError(output, f"cannot be made ({words(fault)})") from None
    for item in items:
        if item.renamed:
            say(f"{item.source}: goes to {item.target}, its own name is taken")
    from streamdream.batch.report import Report
    from streamdream.batch.session import dream_all
    from streamdream.run import choose_device

    choose_device(chosen.device)
    report = Report(items, json, _as_given(chosen))
    with Display(len(items)) as display:
        complete = dream_all(report, chosen, skip_existing, display)
    return _told(report, complete, display)


def _as_given(chosen: opts.Options) -> dict[str, object]:
    values: dict[str, object] = chosen.model_dump(mode="json", include=set(chosen.given()))
    for name, schedule in chosen.schedules.items():
        values[name] = schedule.text
    return values


def _check_report(path: Path, items: list[Item], read: tuple[Path, ...]) -> None:
    """Raise SinkError if the report would do harm; an older one is replaced."""
    if path.suffix.lower() != ".json":
        raise SinkError(path, "a report is a file of kind .json", "give it that ending")
    check_folder(path)
    if path.resolve() in {p.resolve() for p in (*read, *(item.source for item in items))}:
        raise SinkError(path, "is an input itself", "give the report another name")


def _told(report: Report, complete: bool, display: Display) -> int:
    """Tell how a batch ended; the exit code."""
    failed = [entry for entry in report.entries if entry.status == "failed"]
    for entry in failed:
        say(f"error: {entry.error}")
    counted = [f"{report.count('done')} dreamed"]
    for status, told in (("skipped", "there already"), ("failed", "failed")):
        if report.count(status):
            counted.append(f"{report.count(status)} {told}")
    left = len(report.entries) - sum(map(report.count, ("done", "skipped", "failed")))
    if left:
        counted.append(f"{left} left")
    if not complete:
        counted[-1] += "; --skip-existing goes on"
    if display.terminal or failed or not complete:
        begin = "" if complete else "interrupted: "
        count = len(report.entries)
        say(f"{begin}{count} file{'s' * (count > 1)}: {', '.join(counted)}")
    if not complete:
        return 128 + (display.signal or signal.SIGINT)
    return failed[0].exit_code if failed else 0
