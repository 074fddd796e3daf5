"""Options and commands as a person types them into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import PurePath

from streamdream.inputs import PIPE
from streamdream.options import Look


def flags(options: Look, left_out: Collection[str] = ()) -> list[str]:
    """The words that give a command these options: those that are not the default."""
    values = options.model_dump(mode="json")
    words: list[str] = []
    for name, field in type(options).model_fields.items():
        moving = options.schedules.get(name)
        if name in left_out or (moving is None and getattr(options, name) == field.get_default()):
            continue
        value = values[name] if moving is None else moving.text
        flag = "--" + name.replace("_", "-")
        if value is True or value is False:
            words.append(flag if value else flag.replace("--", "--no-", 1))
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text.removesuffix(".0") if isinstance(value, float) else text
        # After a space the shell's parser would take a leading dash for another option.
        words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return words


def command(source: str, target: str, *options: str, before: str = "") -> str:
    """The command, quoted for a POSIX shell, that makes `target` of `source`.

    `before` is the name of one of the commands that streamdream has.
    """
    words = ["-" if source == PIPE else _named(source), "-o", _named(target), *options]
    return shlex.join(["streamdream", *([before] if before else []), *words])


def _named(path: str) -> str:
    """A file's name as an argument that nothing takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def stem(source: str) -> str:
    """What files made of a source are called after; nothing in it stands for a number."""
    named = "" if source == PIPE else re.sub(r"%0?\d*d|[*?%\[\]]", "", PurePath(source).stem)
    return named.strip(" .-_") or "picture"
