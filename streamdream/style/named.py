"""What `--style` names: pictures, networks that were trained, networks that come ready-made.

This module imports neither torch nor OpenCV, so that a name that is wrong is answered at once.
"""

from __future__ import annotations

from collections.abc import Iterable
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
        cure = near(text, tuple(ready), "styles") if ready else "name a picture"
        raise OptionError(f"--style {text}", "no such file, and no style of that name", cure)
    check_file(path)
    return Named("network" if path.suffix == ENDING else "picture", text, path)


def styles_of(options: Painted) -> tuple[Named, ...]:
    """All styles that the options name, now or in a schedule; raises as `named`."""
    schedule = options.schedules.get("style")
    texts: Iterable[str] = options.style if schedule is None else schedule.layers
    return tuple(named(name) for name in dict.fromkeys(parted(text)[0] for text in texts))


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
    if len(options.style_mask) not in (0, 1, len(styles)):
        told = f"{len(options.style_mask)} masks for {len(styles)} styles"
        raise OptionError("--style-mask", told, "give one for all, or one for each")
    for style in styles:
        if style.kind == "picture" and style.path is not None:
            check_picture(style.path, "--style")
    networks = {read_card(s.path).kind for s in styles if s.kind == "network" and s.path}
    if len(networks) > 1:
        raise OptionError("--style", "paintings and dreams do not mix", "use --dream-mix")
    for mask in options.style_mask:
        check_file(Path(mask))
        check_picture(Path(mask), "--style-mask", least=1)
    if kinds == {"lite"} or (method == "fast" and kinds == {"picture"}):
        check_installed()


def check_picture(path: Path, option: str, least: int = LEAST) -> None:
    """Raise SourceError if there is no picture of at least so many pixels either way."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            size = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise SourceError(f"{option} {path}", "is not a picture") from None
    if min(size) < least:
        told = f"is {size[0]}x{size[1]}, too small for a style"
        raise SourceError(f"{option} {path}", told, f"give one of at least {least} pixels")
