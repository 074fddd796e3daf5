"""torchvision's networks with weights, as backbones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from streamdream.backbone import Backbone
from streamdream.models import ModelCard
from streamdream.zoo.traced import Traced
from streamdream.zoo.weights import Weights, fitted

# Of ImageNet's colours, by which torchvision's networks were trained (channels RGB in [0, 1]).
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# These two came from TensorFlow, and were trained on pixels from -1 to 1.
FROM_TENSORFLOW, HALF = ("googlenet", "inception_v3"), (0.5, 0.5, 0.5)


def built(builder: str, classes: int = 1000) -> nn.Module:
    """One of torchvision's networks without weights, in evaluation mode, on no device."""
    plain = {"init_weights": False, "aux_logits": False, "transform_input": False}
    extra = plain if builder in FROM_TENSORFLOW else {}
    with torch.device("meta"):
        make = getattr(torchvision.models, builder)
        return make(weights=None, num_classes=classes, **extra).eval()


def traced(network: nn.Module, paths: dict[str, str]) -> Traced:
    """Such a network, read by layer."""
    return Traced(network, paths, (StochasticDepth,))


def load(
    card: ModelCard, path: Path, found: Weights, device: torch.device, precision: torch.dtype
) -> Backbone:
    """A network with the weights `found` in a file; raises ModelError where they do not fit."""
    wanted = built(card.builder).state_dict()
    weights = fitted(path, found, wanted, card.name, card.head)
    classes = next((t.shape[0] for key, t in weights.items() if key.startswith(f"{card.head}.")), 0)
    network = built(card.builder, classes or 1000)
    paths = dict(zip(card.layers, card.paths, strict=True))
    if not classes:
        del paths["logits"]
        parent, _, name = card.head.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
    network.load_state_dict(weights, strict=True, assign=True)
    colours = (HALF, HALF) if card.builder in FROM_TENSORFLOW else (MEAN, DEVIATION)
    return placed(card, network, paths, colours, device, precision)


def placed(
    card: ModelCard,
    network: nn.Module,
    paths: dict[str, str],
    colours: tuple[tuple[float, ...], tuple[float, ...]],
    device: torch.device,
    precision: torch.dtype,
    leaves: tuple[type, ...] = (StochasticDepth,),
    functions: tuple[Callable[..., Any], ...] = (),
) -> Backbone:
    """A frozen network on a device, that takes pixels less a mean colour over a deviation.

    Pictures smaller than the network can read are shown to it enlarged.
    """
    network.requires_grad_(False)
    read = Traced(network.float(), paths, leaves, functions)
    read.to(device, precision)
    return Backbone(card.name, read, _preparing(colours, card.smallest, device, precision))


def _preparing(
    colours: tuple[tuple[float, ...], tuple[float, ...]],
    smallest: int,
    device: torch.device,
    precision: torch.dtype,
) -> Callable[[Tensor], Tensor]:
    mean, deviation = (torch.tensor(c, device=device).view(1, 3, 1, 1) for c in colours)

    def prepare(x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < smallest:
            size = [max(smallest, side) for side in x.shape[-2:]]
            x = F.interpolate(x, size, mode="bilinear")
        return ((x - mean) / deviation).to(precision)

    return prepare
