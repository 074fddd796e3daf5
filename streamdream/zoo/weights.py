"""Weights from files: read without running what is in them, fitted to a network or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from torch import Tensor

from streamdream.errors import ModelError, words

Weights = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")
# What helps a network to learn and is nothing to a trained one.
UNUSED = re.compile(r"(aux\d?|AuxLogits)\..*|.*\.num_batches_tracked|num_batches_tracked")
# DenseNet's names before PyTorch 0.4, which torchvision's own files still have.
OLD_DENSE = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def read(path: Path) -> Weights:
    """The tensors of a state dict in a .safetensors or PyTorch file, on the CPU, by name.

    Wrappers as {"state_dict": ...} and the names that DataParallel gives are taken away. Raises
    ModelError for anything else, such as a whole pickled network: code in files is not run.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as fault:
        raise ModelError(path, f"cannot be read ({words(fault)})") from None
    except UnpicklingError as fault:
        told = "holds more than weights, and code in files is not run"
        unsafe = "GLOBAL" in str(fault)
        cure = "save the network's state_dict(), best as .safetensors"
        raise ModelError(path, told if unsafe else "holds no weights", cure) from None
    except Exception as fault:  # a damaged file shows in many ways
        if isinstance(fault, MemoryError):
            raise
        raise ModelError(path, f"holds no weights ({_said(fault)})") from None
    return _plain(path, found)


def _said(fault: Exception) -> str:
    """What a library says of a file, as far as it is a sentence, and only its first one."""
    text = words(fault).splitlines()[0].split(". ")[0]
    return text if " " in text else "it is something else, or damaged"


def _plain(path: Path, found: object) -> Weights:
    for _ in WRAPPERS:
        if not isinstance(found, Mapping):
            break
        # Files that Python 2 wrote, as those of Places365, have names in bytes.
        found = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in found.items()}
        inner = next((found[k] for k in WRAPPERS if isinstance(found.get(k), Mapping)), None)
        if inner is None:
            break
        found = inner
    tensors = cast(dict[str, Tensor], found) if isinstance(found, Mapping) else {}
    if not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ModelError(path, "holds no state dict", "it maps names to tensors")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(path, f"is damaged: not all of {name} are numbers", "get it anew")
    return dict(tensors)


def fitted(
    path: Path, found: Weights, wanted: Mapping[str, Any], name: str, head: str = ""
) -> dict[str, Tensor]:
    """The tensors of `found` by the names in `wanted`, whose shapes they have.

    Of the classifier (the module `head`) the number of classes may be another one, and all of it
    may be missing. Raises ModelError that names the first tensor that is missing, has another
    shape, or is of another network.
    """
    given = {OLD_DENSE.sub(r"\1\2", key): tensor for key, tensor in found.items()}
    given = _named_alike(given, wanted)
    result: dict[str, Tensor] = {}
    headless = bool(head) and not any(key.startswith(f"{head}.") for key in given)
    for key, like in wanted.items():
        if headless and key.startswith(f"{head}."):
            continue
        if key.endswith("num_batches_tracked"):
            result[key] = torch.zeros((), dtype=torch.long)
            continue
        if key not in given:
            raise _misfit(path, name, f"has no {key}, which {name} has ({_shape(like)})")
        shape, meant = tuple(given[key].shape), tuple(like.shape)
        free = 1 if head and key.startswith(f"{head}.") else 0
        if shape[free:] != meant[free:] or len(shape) != len(meant):
            told = f"{key} is {_shape(given[key])}, that of {name} is {_shape(like)}"
            raise _misfit(path, name, told)
        if like.is_floating_point() and not given[key].is_floating_point():
            raise _misfit(path, name, f"{key} holds whole numbers")
        result[key] = given[key].detach()
    foreign = [key for key in given if key not in wanted and not UNUSED.fullmatch(key)]
    if foreign:
        raise _misfit(path, name, f"has {foreign[0]}, which {name} has not")
    rows = {result[key].shape[0] for key in result if head and key.startswith(f"{head}.")}
    if len(rows) > 1:
        raise _misfit(path, name, f"{head} has {' and '.join(map(str, sorted(rows)))} classes")
    return result


def _named_alike(given: dict[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same without the prefixes that wrappers put before every name."""
    for _ in PREFIXES:
        prefix = next((p for p in PREFIXES if all(key.startswith(p) for key in given)), None)
        if prefix is None or any(key in wanted for key in given):
            break
        given = {key.removeprefix(prefix): tensor for key, tensor in given.items()}
    return given


def _misfit(path: Path, name: str, reason: str) -> ModelError:
    return ModelError(path, f"does not fit {name}: {reason}", "name its network with --model")


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
