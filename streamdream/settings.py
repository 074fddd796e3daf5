"""Where the values of options come from: presets, files, earlier results, the command line.

Each goes over the one before: the defaults, `--like`, `--preset`, `--config`, the flags. This
module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Self, TypeVar

from cyclopts import Parameter
from pydantic import ValidationError, model_validator

from streamdream.errors import OptionError, near
from streamdream.options import RECORD_MARK, SETTINGS, Look, Options


class Flags(Options):
    """Options from the command line alone: fields are checked, what they mean together is not.

    Whether they go together shows only when presets and files have been put under them.
    """

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        return self

    @model_validator(mode="after")
    def _one_loop(self) -> Self:
        return self


def preset_names() -> tuple[str, ...]:
    """The presets that come with the package."""
    folder = resources.files("streamdream") / "presets"
    return tuple(sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".toml")))


Preset = Annotated[
    str | None,
    Parameter(
        group=SETTINGS,
        help=f"A look: {', '.join(preset_names())}, or the path of a TOML file.",
    ),
]
Config = Annotated[
    Path | None,
    Parameter(group=SETTINGS, help="TOML file with any of the options, as: work-size = 180."),
]
Like = Annotated[
    Path | None,
    Parameter(group=SETTINGS, help="Use the look of this file, which streamdream made."),
]


def recorded(text: str, place: str) -> dict[str, object]:
    """The look that `Look.as_comment` wrote somewhere into a text; raises OptionError if none."""
    _, mark, rest = text.rpartition(RECORD_MARK)  # the last of several dreams
    try:
        values = json.JSONDecoder().raw_decode(rest)[0] if mark else None
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise OptionError(place, "holds no settings of streamdream", "name a file that it made")
    return values


def read_preset(name: str, kind: type[Look] = Options) -> dict[str, object]:
    """The values of a preset: one of the package's by name, or a TOML file by path."""
    if name.endswith(".toml") or "/" in name or "\\" in name:
        return read_toml(Path(name), "--preset", kind)
    if name not in preset_names():
        raise OptionError(
            f"--preset {name}", "no such preset", near(name, preset_names(), "presets")
        )
    text = (resources.files("streamdream") / "presets" / f"{name}.toml").read_text("utf-8")
    return _parsed_toml(text, f"preset {name}", kind)


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
    known = {key.replace("_", "-"): key for key in kind.model_fields}
    found: dict[str, object] = {}
    for key, value in values.items():
        if key.replace("_", "-") not in known:
            cure = near(key.replace("_", "-"), tuple(known), "options")
            raise OptionError(place, f"no option is named {key}", cure)
        found[known[key.replace("_", "-")]] = value
    return found


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
    given = {name: getattr(flags, name) for name in flags.model_fields_set} if flags else {}
    below = {} if preset is None else read_preset(preset, kind)
    file = {} if config is None else read_toml(config, "--config", kind)
    return made(kind, like or {}, below, file, given, place=place)


def made(kind: type[Kind], *layers: Mapping[str, object], place: str = "") -> Kind:
    """Options of a kind from mappings of values, each over the one before.

    Raises OptionError (or ModelError) that names the option as it is typed.
    """
    values = {key: value for layer in layers for key, value in layer.items()}
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
    given = ", ".join(map(str, given)) if isinstance(given, list | tuple) else given
    subject = f"{name} {given}" if not isinstance(given, dict) else name
    reason = reason.removeprefix("Input ")
    return OptionError(f"{place} {subject}".strip(), reason[:1].lower() + reason[1:])
