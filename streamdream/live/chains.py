"""The effects of a live run: loaded as they are asked for, and a few of them kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import torch

from streamdream.effects import idle
from streamdream.errors import Error, words
from streamdream.models import parted
from streamdream.options import Look
from streamdream.pipeline import Effect
from streamdream.style.cards import read_card
from streamdream.style.named import named

KEPT = 3  # chains; each holds networks
SLOW = (
    "style: a picture is painted like by optimising, which takes many seconds; "
    "--style-method fast and trained networks keep up with a camera"
)

Load = Callable[[Look, torch.device], tuple[Effect, ...]]
Tell = Callable[[str], None]
Names = frozenset[str]
Asked = TypeVar("Asked", bound=Look)


@dataclass(frozen=True)
class Key:
    """What decides which networks redraw a picture.

    `model` is empty where none dreams, `kinds` are those of the styles; `mixed` says whether a
    dream is laid on top of them.
    """

    model: str
    precision: str
    kinds: Names
    method: str
    mixed: bool

    def paints_as(self, other: Key) -> bool:
        """Whether the same networks paint, whatever is dreamed on top."""
        alike = replace(other, model=self.model, mixed=self.mixed)
        return bool(self.kinds) and self == alike


def key_of(options: Look) -> Key:
    """The key of options that do not move any more; raises Error for a style that is gone."""
    kinds = _kinds(names_of(options))
    mixed = bool(kinds) and options.dream_mix > 0
    model = f"{options.model} {options.weights or ''}".rstrip() if mixed or not kinds else ""
    method = options.style_method if kinds else ""
    return Key(model, options.precision, kinds, method, mixed)


def names_of(options: Look) -> Names:
    """The styles that options name, whatever their weights."""
    return frozenset(parted(text)[0] for text in options.style)


@lru_cache(maxsize=64)
def _kinds(names: Names) -> Names:
    found = set()
    for name in names:
        style = named(name)
        dreams = style.kind == "network" and style.path and read_card(style.path).kind == "dream"
        found.add("dream" if dreams else style.kind)
    return frozenset(found)


class Chains:
    """Gives the effects that options ask for; for one thread."""

    def __init__(self, device: torch.device, tell: Tell, load: Load) -> None:
        """Load by `load`, as `effects_of`, on this device."""
        self._device, self._tell, self._load = device, tell, load
        self._kept: OrderedDict[Key, tuple[Effect, ...]] = OrderedDict()
        self._exact: set[Key] = set()
        self._idle: set[str] = set()  # what was told of options that change nothing
        self._good: tuple[str, ...] | None = None
        self._refused: Names | None = None

    def of(self, options: Look) -> tuple[Key, tuple[Effect, ...]]:
        """The effects for options that do not move any more; raises Error if they cannot be.

        One with a dream on top stands for the same without: that takes no part then.
        """
        key = self._key(options)
        if key not in self._kept:
            if "picture" in key.kinds and key.method != "fast":
                self._tell(SLOW)
            exact = {"precision": "fp32"} if key in self._exact else {}
            self._kept[key] = self._load(options.model_copy(update=exact), self._device)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        effects = self._kept[key]
        if options.finishes():
            taking = [effect for effect in effects if effect.takes_part(options)]
            notices = set(idle(taking, options))
            for notice in notices - self._idle:
                self._tell(notice)
            self._idle = notices
        return key, effects

    def _key(self, options: Look) -> Key:
        key = key_of(options)
        if key.kinds and not key.mixed:
            return next((k for k in self._kept if k.mixed and k.paints_as(key)), key)
        return key

    def exact(self, options: Look) -> bool:
        """Load what these options ask for anew, in full precision; False if that was done."""
        key = self._key(options)
        self._kept.pop(key, None)
        known = key in self._exact
        self._exact.add(key)
        return not known

    def usable(self, options: Asked) -> Asked:
        """The options, with the style that worked last in place of one that does not."""
        if self._good is None or names_of(options) != self._refused:
            self._refused = None
            return options
        return options.model_copy(update={"style": self._good})

    def worked(self, options: Look) -> None:
        """Pictures come out with this style."""
        self._good = options.style

    def refuse(self, options: Look, fault: Exception) -> bool:
        """Whether a fault is that of a new style, so that the last one can go on in its place.

        It is told, and not tried again before another one was asked for.
        """
        names = names_of(options)
        if self._good is None or names in (self._refused, frozenset(map(_name, self._good))):
            return False
        self._refused = names
        text = str(fault) if isinstance(fault, Error) else f"{type(fault).__name__}: {words(fault)}"
        self._tell(f"style: {text}; {','.join(self._good) or 'the dream'} goes on")
        return True


def _name(text: str) -> str:
    return parted(text)[0]
