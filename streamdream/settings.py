"""Where the values of options come from: presets, files, earlier results, the command line.

Each goes over the one before: the defaults, `--like`, `--preset`, `--config`, the flags. This
module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter
from pydantic import ValidationError

from streamdream.errors import OptionError, near
from streamdream.formulas import Mistake
from streamdream.keys import is_schedule, keyed
from streamdream.moving import takes_schedules
from streamdream.options import RECORD_MARK, SETTINGS, Look, Options
from streamdream.schedule import told
from streamdream.values import HIDDEN

FAINT = "0.000001"  # weight of what is not seen: of nothing at all there is no schedule


class Flags(Options):
    """Options from the command line alone: fields are checked, what they mean together is not.

    Whether they go together shows only when presets and files have been put under them.
    """

    def _check_together(self) -> None:
        """Nothing yet."""


def preset_names(kind: type[Look] = Options) -> tuple[str, ...]:
    """The presets that come with the package for such a run."""
    return tuple(sorted(p.name[:-5] for p in _presets(kind).iterdir() if p.name.endswith(".toml")))


def _presets(kind: type[Look]) -> Traversable:
    folder = resources.files("streamdream") / "presets"
    return folder / kind.command if kind.command else folder


def preset_text(name: str, kind: type[Look] = Options) -> str:
    """The file of one of the package's presets."""
    return (_presets(kind) / f"{name}.toml").read_text("utf-8")


def preset_told(name: str, kind: type[Look] = Options) -> str:
    """What a preset says of itself: the comment that its file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), preset_text(name, kind).splitlines())
    return " ".join(line.strip("# ") for line in lines)


def preset_picture(name: str, kind: type[Look] = Options) -> bytes:
    """A small picture of what one of the package's presets does, as WebP."""
    return (_presets(kind) / "thumbnails" / f"{name}.webp").read_bytes()


def preset_help(kind: type[Look]) -> str:
    """What `--help` says of presets."""
    names = ", ".join(preset_names(kind))
    first, *_, last = preset_names(kind)
    return (
        f"A look: {names}, or the path of a TOML file; several in turn as "
        f'"0: {first}, 10s: {last}".'
    )


Preset = Annotated[str | None, Parameter(group=SETTINGS, help=preset_help(Options))]
Config = Annotated[
    Path | None,
    Parameter(group=SETTINGS, help="TOML file with any of the options, as: work-size = 180."),
]
Like = Annotated[
    Path | None,
    Parameter(group=SETTINGS, help="Use the look of this file, which streamdream made."),
]


def recorded(text: str, place: str, kind: type[Look] = Options) -> dict[str, object]:
    """The look that `Look.as_comment` wrote somewhere into a text.

    Raises OptionError if there is none, or it is that of another kind of run.
    """
    values = _record_in(text)
    if values is None:
        raise OptionError(place, "holds no settings of streamdream", "name a file that it made")
    values.pop("job", None)
    command = values.pop("command", "")
    if command != kind.command:
        made_by = f"was made by streamdream {command}".rstrip()
        raise OptionError(
            place, made_by, f"name a file that streamdream {kind.command} made".rstrip()
        )
    return values


def job_in(text: str) -> str:
    """What `Look.as_comment` wrote of the job that made a file; "" if it was none."""
    return str((_record_in(text) or {}).get("job", ""))


def _record_in(text: str) -> dict[str, object] | None:
    _, mark, rest = text.rpartition(RECORD_MARK)  # the last of several dreams
    try:
        values = json.JSONDecoder().raw_decode(rest)[0] if mark else None
    except json.JSONDecodeError:
        return None
    return values if isinstance(values, dict) else None


def read_preset(name: str, kind: type[Look] = Options) -> dict[str, object]:
    """The values of a preset: one of the package's by name, or a TOML file by path.

    Several that follow each other, as "0: eyes, 10s: engraving ease", become schedules of all
    options that one of them names; raises OptionError where one of these cannot move.
    """
    if is_schedule(name):
        return _read_presets(" ".join(name.split()), kind)
    if name.endswith(".toml") or "/" in name or "\\" in name:
        return read_toml(Path(name), "--preset", kind)
    names = preset_names(kind)
    if name not in names:
        raise OptionError(f"--preset {name}", "no such preset", near(name, names, "presets"))
    return _parsed_toml(preset_text(name, kind), f"preset {name}", kind)


def _read_presets(text: str, kind: type[Look]) -> dict[str, object]:
    """Schedules that go from preset to preset."""
    subject = f"--preset {text}"
    try:
        keys = list(keyed(text))
    except Mistake as fault:
        raise told(subject, fault) from None
    for _, name in keys:
        if is_schedule(name):
            raise OptionError(subject, f"{name[:40]} is no preset", "each has one position")
    presets = _fading([read_preset(name, kind) for _, name in keys], kind)
    fields = kind.model_fields
    found: dict[str, object] = {}
    for option in dict.fromkeys(option for preset in presets for option in preset):
        values = [preset.get(option, fields[option].get_default()) for preset in presets]
        if all(value == values[0] for value in values):
            found[option] = values[0]
            continue
        typed = option.replace("_", "-")
        if not takes_schedules(fields[option]):
            several = " and ".join(dict.fromkeys(str(value) for value in values))
            raise OptionError(subject, f"{typed} differs ({several}), and it cannot move")
        if any(is_schedule(value) for value in values):
            raise OptionError(subject, f"{typed} has a schedule in one of them already")
        parts = [",".join(v) if isinstance(v, list | tuple) else str(v) for v in values]
        words = ["" if key.word == "linear" else f" {key.word}" for key, _ in keys]
        found[option] = ", ".join(
            f"{key.typed}: {part}{word}"
            for (key, _), part, word in zip(keys, parts, words, strict=True)
        )
    return found


def _fading(presets: list[dict[str, object]], kind: type[Look]) -> list[dict[str, object]]:
    """The presets, those without layers, classes or a mask of the others' with these at nothing.

    So they can fade in and out. Layers that a preset does not name are its model's.
    """
    looks = [made(kind, preset) for preset in presets]
    named = ("layers" in preset for preset in presets)
    if any(named) or any(look.classes for look in looks):
        layers = [
            look.layers if look.classes and not look.guide else look.chosen_layers for look in looks
        ]
        presets = _each("layers", presets, layers)
        presets = _each("classes", presets, [look.classes for look in looks])
    masks = list(dict.fromkeys(look.mask for look in looks if look.mask))
    if len(masks) == 1:
        presets = [
            {**preset, "mask": masks[0], **({} if look.mask else {"mask_strength": 0.0})}
            for preset, look in zip(presets, looks, strict=True)
        ]
    return presets


def _each(
    option: str, presets: list[dict[str, object]], values: list[tuple[str, ...]]
) -> list[dict[str, object]]:
    """The presets with names as an option; those that have none get all the others', at FAINT."""
    if not any(values):
        return presets
    names = dict.fromkeys(name.partition("*")[0].strip() for value in values for name in value)
    none = tuple(f"{name}*{FAINT}" for name in names)
    return [
        preset if is_schedule(preset.get(option)) else {**preset, option: value or none}
        for preset, value in zip(presets, values, strict=True)
    ]


def read_toml(path: Path, option: str, kind: type[Look] = Options) -> dict[str, object]:
    """The values of a TOML file whose keys are option names, with dashes or underscores."""
    try:
        text = path.read_text("utf-8")
    except OSError as fault:
        raise OptionError(f"{option} {path}", fault.strerror or str(fault)) from None
    except UnicodeDecodeError:
        raise OptionError(f"{option} {path}", "is not a text file in UTF-8") from None
    return _parsed_toml(text, f"{option} {path}", kind)


def _parsed_toml(text: str, place: str, kind: type[Look]) -> dict[str, object]:
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise OptionError(place, f"not valid TOML: {fault}") from None
    known = {key.replace("_", "-"): key for key in kind.model_fields if not is_hidden(kind, key)}
    found: dict[str, object] = {}
    for key, value in values.items():
        if key.replace("_", "-") not in known:
            cure = near(key.replace("_", "-"), tuple(known), "options")
            raise OptionError(place, f"no option is named {key}", cure)
        found[known[key.replace("_", "-")]] = value
    return found


def is_hidden(kind: type[Look], key: str) -> bool:
    """Whether an option has one value only in this kind of run, so that it is not typed."""
    return HIDDEN in kind.model_fields[key].metadata


def build(*layers: Mapping[str, object], place: str = "") -> Options:
    """Options of a run from mappings of values; see `made`."""
    return made(Options, *layers, place=place)


Kind = TypeVar("Kind", bound=Look)


def chosen(
    kind: type[Kind],
    flags: Look | None,
    preset: str | None = None,
    config: Path | None = None,
    like: Mapping[str, object] | None = None,
    place: str = "",
) -> Kind:
    """Options of a kind from what was typed: `like`, a preset, a file, flags over one another.

    `place` says where `like` is from. Raises OptionError (or ModelError).
    """
    given = flags.given() if flags else {}
    below = {} if preset is None else read_preset(preset, kind)
    file = {} if config is None else read_toml(config, "--config", kind)
    return made(kind, like or {}, below, file, given, place=place)


def made(kind: type[Kind], *layers: Mapping[str, object], place: str = "") -> Kind:
    """Options of a kind from mappings of values, each over the one before.

    Raises OptionError (or ModelError) that names the option as it is typed.
    """
    values: dict[str, object] = {}
    for layer in layers:
        for key, value in layer.items():
            if (other := kind.excludes.get(key)) is not None and other not in layer:
                values.pop(other, None)
            values[key] = value
    try:
        return kind.model_validate(values)
    except ValidationError as fault:
        raise one_line(fault, place) from None


def one_line(fault: ValidationError, place: str = "") -> OptionError:
    """What is wrong with the first wrong option, by its name as it is typed."""
    first = fault.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    reason = {
        "int_parsing": "should be a whole number",
        "float_parsing": "should be a number",
    }.get(first["type"], reason)
    if not first["loc"]:
        return OptionError(place or "options", reason)
    name = "--" + str(first["loc"][0]).replace("_", "-")
    given = first["input"]
    if is_schedule(given) and not first["type"].startswith("value_error"):
        reason = "holds for a whole run, it cannot move"
    given = ", ".join(map(str, given)) if isinstance(given, list | tuple) else given
    subject = f"{name} {given}" if not isinstance(given, dict) else name
    reason = reason.removeprefix("Input ")
    return OptionError(f"{place} {subject}".strip(), reason[:1].lower() + reason[1:])
