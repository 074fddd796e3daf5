"""What `--style` names: pictures, networks that were trained, networks that come ready-made.

This module imports neither torch nor OpenCV, so that a name that is wrong is answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from streamdream.errors import OptionError, SourceError, near
from streamdream.inputs import check_file
from streamdream.models import parted
from streamdream.style.cards import ENDING, read_card
from streamdream.style.lite_files import check_installed, number_of
from streamdream.style.options import Painted

Kind = Literal["picture", "network", "lite"]

LITE = "lite:"
LEAST = 32  # px; a picture that is smaller has no style


@dataclass(frozen=True)
class Named:
    """A style: of this `kind`, called `name`, and where it lies if it is a file."""

    kind: Kind
    name: str
    path: Path | None = None


def shipped() -> dict[str, Path]:
    """The trained networks that come with the package, by name."""
    folder = Path(str(resources.files("streamdream") / "style" / "networks"))
    return {path.name.removesuffix(ENDING): path for path in sorted(folder.glob(f"*{ENDING}"))}


def named(text: str) -> Named:
    """What a name, without weight, stands for; raises SourceError, or OptionError for none."""
    if text.startswith(LITE):
        number_of(text.removeprefix(LITE))
        return Named("lite", text.removeprefix(LITE))
    if text in (ready := shipped()):
        return Named("network", text, ready[text])
    path = Path(text)
    if not path.exists() and not path.suffix and "/" not in text and "\\" not in text:
        cure = f"{near(text, tuple(ready), 'styles')}; or name a picture"
        raise OptionError(f"--style {text}", "no such file, and no style of that name", cure)
    check_file(path)
    return Named("network" if path.suffix == ENDING else "picture", text, path)


def sets_of(options: Painted) -> tuple[Mapping[str, float], ...]:
    """The sets of styles that follow each other, by name with their weights; one without schedule.

    Raises OptionError where one weighs nothing, or names a style twice.
    """
    schedule = options.schedules.get("style")
    if schedule is not None:
        keys = (key.value for key in schedule.keys)
        found = tuple(dict(value) for value in keys if isinstance(value, Mapping))
    elif options.style:
        pairs = [_weighed(text) for text in options.style]
        found = (dict(pairs),)
        if len(found[0]) < len(pairs):
            raise OptionError(f"--style {','.join(options.style)}", "names a style twice")
    else:
        return ()
    for weights in found:
        if any(weight < 0 for weight in weights.values()):
            raise OptionError("--style", "has a weight below 0", "a style cannot be taken away")
        if not any(weights.values()):
            typed = ",".join(weights)
            raise OptionError(f"--style {typed}", "weighs nothing", "let one be above 0")
    return found


def _weighed(text: str) -> tuple[str, float]:
    try:
        return parted(text)
    except ValueError:
        cure = "write it as a.jpg*0.4; a path has no * and no comma"
        raise OptionError(f"--style {text}", "has no weight from 0 to 1000", cure) from None


def styles_of(options: Painted) -> tuple[Named, ...]:
    """All styles that the options name, now or in a schedule; raises as `sets_of` and `named`."""
    names = dict.fromkeys(name for weights in sets_of(options) for name in weights)
    return tuple(named(name) for name in names)


def optimises(styles: tuple[Named, ...], options: Painted) -> bool:
    """Whether these styles are painted by optimisation, see `optimised`."""
    return bool(styles) and styles[0].kind == "picture" and options.style_method != "fast"


def files_of(options: Painted) -> tuple[Path, ...]:
    """The files that the options name for styles and their masks."""
    found = [style.path for style in styles_of(options) if style.path is not None]
    return (*found, *(Path(mask) for mask in options.style_mask))


def check_styles(options: Painted) -> None:
    """Raise an Error if the styles cannot be used, as far as that shows without loading them."""
    styles = styles_of(options)
    if not styles:
        return
    kinds = {style.kind for style in styles}
    if len(kinds) > 1:
        words = {"picture": "pictures", "network": "networks", "lite": f"{LITE} styles"}
        mixed = " and ".join(words[kind] for kind in sorted(kinds))
        raise OptionError("--style", f"{mixed} do not mix", "name styles of one kind")
    method = options.style_method
    if method == "gatys" and kinds != {"picture"}:
        raise OptionError("--style-method gatys", "needs pictures as styles", "leave it out")
    check_masks(options)
    for style in styles:
        if style.kind == "picture" and style.path is not None:
            check_picture(style.path, "--style")
    networks = {read_card(s.path).kind for s in styles if s.kind == "network" and s.path}
    if len(networks) > 1:
        raise OptionError("--style", "paintings and dreams do not mix", "use --dream-mix")
    if networks == {"dream"} and options.style_colours != "painting":
        told = "is for paintings, and this network dreams"
        raise OptionError(f"--style-colours {options.style_colours}", told, "leave it out")
    for mask in options.style_mask:
        check_file(Path(mask))
        check_picture(Path(mask), "--style-mask", least=1)
    if kinds == {"lite"} or (method == "fast" and kinds == {"picture"}):
        check_installed()


def check_masks(options: Painted) -> None:
    """Raise OptionError if masks and styles do not go together."""
    sets, count = sets_of(options), len(options.style_mask)
    if not sets or count in (0, 1):
        return
    first, *others = sets
    if others:
        told = "several masks do not go with styles that change"
        raise OptionError("--style-mask", told, "give one for all")
    if count != len(first):
        told = f"{count} masks for {len(first)} styles"
        raise OptionError("--style-mask", told, "give one for all, or one for each")
    if not all(first.values()):
        raise OptionError("--style", "one of them weighs nothing", "leave it and its mask out")


def check_picture(path: Path, option: str, least: int = LEAST) -> None:
    """Raise SourceError if there is no picture of at least so many pixels either way."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            size = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SourceError(f"{option} {path}", "is not a picture") from None
    if min(size) < least:
        told = f"is {size[0]}x{size[1]}, too small for a style or guide"
        raise SourceError(f"{option} {path}", told, f"give one of at least {least} pixels")
