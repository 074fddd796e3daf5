from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from media import Film
from PIL import Image as Files
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamdream.cli import main
from streamdream.errors import Error, ModelError, OptionError, SourceError
from streamdream.frame import Image, to_pixels
from streamdream.motion import warp
from streamdream.sinks import Stopped
from streamdream.style.network import (
    Network,
    NetworkCard,
    load_network,
    read_card,
    save_network,
)
from streamdream.train.data import Moment, Pictures, clip, read_painting
from streamdream.train.options import TrainOptions, checkpoint_of
from streamdream.train.session import Silent, preview_of, train_network
from streamdream.train.trainer import Report, carried, painted

CARD = NetworkCard("style", 4, "a painting", 7, '{"seed": 0}')
TINY = {"crop": 64, "width": 4, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("coffee", "chelsea", "rocket"):
        whole = Files.fromarray(getattr(data, name)())
        whole.resize((180, 120)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(photographs: Path) -> Pictures:
    return Pictures((photographs,))


def lesson(photographs: Path, **more: object) -> TrainOptions:
    values = {"data": (photographs,), "dream": "block3", **TINY, "steps": 4, **more}
    return TrainOptions.model_validate(values)


class Watched(Silent):
    """Keeps what it is told, and stops a training after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.reports: list[Report] = []
        self.notices: list[str] = []
        self._stop_after = stop_after

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def step(self, report: Report) -> None:
        self.reports.append(report)
        if report.step == self._stop_after:
            raise Stopped


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (90, 61)])
def test_a_network_keeps_any_size(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    found = Network(4)(image, image, torch.zeros(1, 1, *size))
    assert found.shape == image.shape
    assert 0 <= found.min() <= found.max() <= 1


def test_a_new_network_gives_about_the_image(photo: Image) -> None:
    image = photo[None]
    found = Network(16)(image, image, torch.zeros_like(image[:, :1]))
    assert (found - image).abs().mean() < 0.1


def test_what_is_not_trusted_does_not_matter(photo: Image) -> None:
    image, network = photo[None], Network(4)
    nowhere = torch.zeros_like(image[:, :1])
    found = network(image, torch.rand_like(image), nowhere)
    assert torch.equal(found, network(image, image, nowhere))


def test_what_is_trusted_is_kept_for_the_most_part(photo: Image) -> None:
    image, network = photo[None], Network(4)
    before = image.flip(1)
    found = network(image, before, torch.ones_like(image[:, :1]))
    assert (found - before).abs().mean() < 0.5 * (found - image).abs().mean()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_network_is_the_same_when_it_is_read_back(
    tmp_path: Path, photo: Image, precision: torch.dtype
) -> None:
    network, path = Network(4).requires_grad_(False), tmp_path / "net.safetensors"
    save_network(path, network, CARD)
    assert read_card(path) == CARD
    read = load_network(path, precision=precision)
    trust = torch.zeros_like(photo[None, :1])
    wanted, found = (n(photo[None], photo[None], trust) for n in (network, read))
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < (0.01 if precision == torch.float32 else 0.1)
    assert path.stat().st_size < 2**20


def test_a_network_of_the_usual_width_is_small(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(), CARD)
    assert path.stat().st_size < 3 * 2**20


def header(metadata: object) -> bytes:
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


NOT_NETWORKS = {
    "nothing": (b"", "is not a safetensors file"),
    "short": (b"\x08", "is not a safetensors file"),
    "a pickle": (b"PK\x03\x04" + bytes(99), "is not a safetensors file"),
    "a long header": (struct.pack("<Q", 2**40) + b"{}", "is not a safetensors file"),
    "no JSON": (struct.pack("<Q", 4) + b"ouch" + bytes(9), "is not a safetensors file"),
    "other weights": (header({"format": "pt"}), "holds weights of another kind"),
    "no card": (header({"format": "streamdream network 1"}), "is damaged"),
    "a wrong kind": (header({**CARD.as_metadata(), "kind": "song"}), "is damaged"),
    "a giant": (header({**CARD.as_metadata(), "width": "100000"}), "is damaged"),
    "only a card": (header(CARD.as_metadata()), "is damaged"),
    "odd metadata": (header([1]), "is damaged"),
}


@pytest.mark.parametrize("name", NOT_NETWORKS)
def test_what_is_not_a_network_is_refused(tmp_path: Path, name: str) -> None:
    content, told = NOT_NETWORKS[name]
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        load_network(path)


def test_a_network_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(4), CARD)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="net.safetensors"):
        load_network(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "net.safetensors", Network(4)
    with torch.no_grad():
        network.detail.fill_(float("nan"))
    save_network(path, network, CARD)
    with pytest.raises(ModelError, match="is damaged"):
        load_network(path)


def test_a_missing_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "net.safetensors")


def test_cards_are_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(4), CARD)
    code = (
        "import sys; from pathlib import Path; from streamdream.style.cards import read_card;"
        f"print(read_card(Path({str(path)!r})).kind, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["style", "False"]
