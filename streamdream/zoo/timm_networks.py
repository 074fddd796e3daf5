"""timm's networks (an optional extra), read by the names of their modules.

Weights come through timm and stay in its cache, which is Hugging Face's: as safetensors where
there are such, else as PyTorch files out of which no code is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from timm.layers._fx import get_notrace_functions, get_notrace_modules
from torch import nn

from streamdream.backbone import Backbone
from streamdream.errors import ModelError, near, words
from streamdream.models import TIMM, ModelCard
from streamdream.zoo.fetch import PATIENCE
from streamdream.zoo.networks import placed
from streamdream.zoo.store import Store
from streamdream.zoo.traced import Traced
from streamdream.zoo.weights import fitted, read

OTHER = 96, 160  # px; pictures of any size have to be readable
SIDES = 32, 48, 64, 96, 128, 192, 256  # px


@lru_cache(maxsize=32)
def card_of(name: str) -> ModelCard:
    """The card of one of timm's networks, which is built for it, without weights.

    Raises ModelError where there is none of that name, or it cannot be read by layer.
    """
    subject = f"--model {TIMM}{name}"
    if ":" in name or "/" in name or not timm.is_model(name):
        known = tuple(timm.list_models())
        raise ModelError(subject, "timm has no such network", near(name, known, "networks"))
    network = _built(name)
    config: dict[str, Any] = network.pretrained_cfg
    paths = {path: path for path, module in network.named_modules() if path and _runs(module)}
    try:
        traced = Traced(network, {**paths, "logits": "output"}, *_kept_whole(), lenient=True)
        traced.to(torch.device("meta"), torch.float32)
        side = _smallest(traced)
        maps = traced(torch.empty(1, 3, 256, 256, device="meta"), traced.layers)
    except Exception as fault:  # whatever a network does that a graph cannot tell
        reason = f"cannot be read by layer ({words(fault).splitlines()[0][:80]})"
        raise ModelError(subject, reason, "convolutional networks can") from None
    layers = tuple(n for n, y in maps.items() if y.ndim == 4 and (y.shape[-1] > 1 or n == "logits"))
    stages = [stage for stage in _stages(network) if stage in layers]
    stages = stages or [layers[i * (len(layers) - 2) // 6] for i in range(7)]
    parameters = sum(p.numel() for p in network.parameters())
    return ModelCard(
        name=TIMM + name,
        layers=layers,
        default_layers=(stages[max(0, len(stages) - 2)],),
        walk=tuple(stages),
        package="",
        distribution="timm",
        file="",
        sha256="",
        licence=str(config.get("license") or "unknown"),
        megabytes=round(parameters * 4 / 1e6, 1),
        parameters=parameters,
        channels=tuple(maps[n].shape[1] for n in layers),
        strides=tuple(0 if n == "logits" else round(256 / maps[n].shape[-1]) for n in layers),
        builder=name,
        paths=tuple("output" if n == "logits" else n for n in layers),
        head=str(config.get("classifier") or ""),
        smallest=side,
    )


def load(
    card: ModelCard, path: Path | None, store: Store, device: torch.device, precision: torch.dtype
) -> Backbone:
    """A network with timm's weights, or those of a file; raises ModelError."""
    if path is None:
        network = _pretrained(card, store)
        weights: dict[str, torch.Tensor] | None = None
    else:
        weights = fitted(path, read(path), _built(card.builder).state_dict(), card.name, card.head)
        head = [t.shape[0] for key, t in weights.items() if key.startswith(f"{card.head}.")]
        network = _built(card.builder, classes=head[0] if head else None)
        network.load_state_dict(weights, strict=bool(head))
    paths = dict(zip(card.layers, card.paths, strict=True))
    if weights is not None and not any(key.startswith(f"{card.head}.") for key in weights):
        del paths["logits"]
    colours = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    return placed(card, network, paths, colours, device, precision, *_kept_whole())


def _built(name: str, pretrained: bool = False, classes: int | None = None) -> Any:
    network: Any = timm.create_model(name, pretrained=pretrained, num_classes=classes).eval()
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # any module's result can be asked for
    return network


def _pretrained(card: ModelCard, store: Store) -> Any:
    config = timm.get_pretrained_cfg(card.builder)
    cure = "name a file with --weights; efficientnet-lite0 and vgg19 need no download"
    if config is None or not config.hf_hub_id or config.custom_load:
        raise ModelError(card.name, "timm has no weights for it that can be read safely", cure)
    reason = "its weights are not in timm's cache, and --offline is given"
    # What is there is taken without asking, and a hub that is out of reach is told at once:
    # Hugging Face's library tries it ten times, with a line on stderr each, for a minute.
    for offline in (True,) if store.offline else (True, False):
        if not offline and (gone := _out_of_reach()):
            reason = f"its weights cannot be fetched ({gone})"
            break
        try:
            with _offline(offline):
                return _built(card.builder, pretrained=True)
        except Exception as fault:  # requests', Hugging Face's and timm's own
            if not offline:
                told = words(fault).strip().splitlines()[0][:100]
                reason = f"its weights cannot be fetched ({told})"
    raise ModelError(card.name, reason, cure)


def _out_of_reach() -> str:
    """Why Hugging Face's hub gives no answer; nothing if it does."""
    import requests
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=PATIENCE)
    except requests.ConnectionError:
        return f"{urlsplit(constants.ENDPOINT).netloc} cannot be reached"
    except requests.RequestException as fault:
        return words(fault)
    return ""


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or wanted
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _kept_whole() -> tuple[tuple[type, ...], tuple[Any, ...]]:
    """The modules and functions that are not looked into."""
    return tuple(get_notrace_modules()), tuple(get_notrace_functions())


def _runs(module: nn.Module) -> bool:
    return type(module).__name__ not in ("Dropout", "Identity")


def _stages(network: Any) -> list[str]:
    return [str(info["module"]) for info in getattr(network, "feature_info", ())]


def _smallest(traced: Traced) -> int:
    """The least side of a picture of which all layers can be read; raises RuntimeError."""
    traced(torch.empty(1, 3, *OTHER, device="meta"), traced.layers[:-2])
    for side in SIDES[:-1]:
        try:
            traced(torch.empty(1, 3, side, side, device="meta"), traced.layers)
            return side
        except (RuntimeError, ValueError):
            continue
    return SIDES[-1]
