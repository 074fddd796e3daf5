"""Networks of other libraries and weights of one's own, by the names that people type."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from hub import Hub
from running import Command, typing
from safetensors.torch import save_file
from skimage import data

from streamdream import backbone, models
from streamdream.errors import ModelError, OptionError
from streamdream.frame import Image
from streamdream.live.controls import Controls
from streamdream.live.options import LiveOptions
from streamdream.objectives.aimer import Aimer
from streamdream.options import Options
from streamdream.settings import made
from streamdream.zoo import networks, survey
from streamdream.zoo.store import Store
from streamdream.zoo.traced import Traced
from streamdream.zoo.weights import fitted

State = dict[str, torch.Tensor]
ONE_OF_EACH = (
    "googlenet", "inception_v3", "vgg11_bn", "alexnet", "squeezenet1_1", "resnet18", "densenet121",
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
)  # fmt: skip
SMALL = ("squeezenet1_1", "mobilenet_v3_small", "resnet18")
QUICK = ["--work-size", "64", "--octaves", "1", "--steps", "1", "--warm-steps", "1"]


def random_state(name: str, classes: int = 1000, seed: int = 0) -> State:
    """Weights of no use in the shapes of a network, such that its activations stay in bounds."""
    made = torch.Generator().manual_seed(seed)
    found = {}
    for key, like in networks.built(models.card(name).builder, classes).state_dict().items():
        if key.endswith("num_batches_tracked"):
            found[key] = torch.zeros((), dtype=torch.long)
        elif like.ndim > 1:
            fan = like[0].numel()
            found[key] = torch.randn(like.shape, generator=made) * (2 / fan) ** 0.5
        else:
            found[key] = torch.rand(like.shape, generator=made) * 0.2 + (
                0.9 if key.endswith(("weight", "var")) else 0.0
            )
    return found


@pytest.fixture(scope="module")
def states() -> Callable[[str], State]:
    made: dict[str, State] = {}

    def of(name: str) -> State:
        if name not in made:
            made[name] = random_state(name)
        return made[name]

    return of


def loaded(name: str, state: State) -> backbone.Backbone:
    device = torch.device("cpu")
    return networks.load(models.card(name), Path("weights"), state, device, torch.float32)


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, states: Callable[[str], State]
) -> Iterator[Hub]:
    """A hub that has weights of squeezenet1_1, and an empty cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STREAMDREAM_MODELS", str(tmp_path / "cache"))
    file = io.BytesIO()
    torch.save(states("squeezenet1_1"), file)
    with Hub() as opened:
        monkeypatch.setenv("STREAMDREAM_HUB", opened.url)
        name = opened.add(file.getvalue(), "squeezenet1_1")
        card = replace(models.card("squeezenet1_1"), file=name)
        monkeypatch.setitem(models.hosted(), "squeezenet1_1", card)
        yield opened


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str]) -> Command:
    return typing(capfd)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "photo.png"
    small = cv2.resize(data.coffee(), (96, 72), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small[..., ::-1])
    return path


# What is told of networks without building them


def test_the_listing_tells_what_the_networks_are() -> None:
    told = json.loads(survey.LISTING.read_text("utf-8"))
    assert survey.surveyed(ONE_OF_EACH) == {name: told[name] for name in ONE_OF_EACH}


@pytest.mark.slow
def test_the_whole_listing_is_as_it_would_be_written() -> None:
    assert survey.text_of(survey.surveyed()) == survey.LISTING.read_text("utf-8")


@pytest.mark.parametrize("name", [*models.CARDS, *models.hosted()])
def test_cards_are_whole(name: str) -> None:
    card = models.card(name)
    assert card.name == name
    assert len(set(card.layers)) == len(card.layers) == len(card.channels) == len(card.strides)
    assert set(card.default_layers) | set(card.walk) <= set(card.layers)
    depths = [card.layers.index(layer) for layer in card.walk]
    assert depths == sorted(depths)
    assert len(card.walk) >= 5
    assert name == "vgg19" or card.layers[-1] == "logits"
    assert card.licence


def test_cards_of_embedded_networks_tell_their_maps(lite0: Any, vgg19: Any, photo: Image) -> None:
    for network in (lite0, vgg19):
        card = models.card(network.name)
        with torch.no_grad():
            maps = network(torch.rand(3, 256, 256), card.layers)
        assert [y.shape[1] for y in maps.values()] == list(card.channels)
        strides = [256 // y.shape[-1] if y.shape[-1] > 1 else 0 for y in maps.values()]
        assert strides == list(card.strides)
        size = card.weights_path().stat().st_size
        assert size / 1e6 == pytest.approx(card.megabytes, abs=0.1)


def test_classes_have_names() -> None:
    names = models.classes_of(models.card("efficientnet-lite0"))
    assert (len(names), names[1], names[281]) == (1000, "goldfish", "tabby")
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    assert list(names) == weights.meta["categories"]
    assert models.classes_of(models.card("vgg19")) == ()


# What networks compute


@pytest.mark.parametrize("name", ["googlenet", "mobilenet_v3_small", "resnet18"])
def test_logits_are_those_of_torchvision(
    name: str, states: Callable[[str], State], photo: Image
) -> None:
    """With torchvision's own preparation of pictures, but its cropping."""
    state = states(name)
    extra = {"transform_input": True, "aux_logits": False} if name == "googlenet" else {}
    with torch.device("meta"):
        theirs = torchvision.models.get_model(
            name, weights=None, **extra, **({"init_weights": False} if extra else {})
        ).eval()
    theirs.load_state_dict(state, assign=True)
    meant = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    mean, deviation = (torch.tensor(c).view(3, 1, 1) for c in (meant.mean, meant.std))
    with torch.no_grad():
        expected = theirs(((photo - mean) / deviation)[None]).flatten()
        ours = loaded(name, state)(photo, ["logits"])["logits"]
    assert ours.shape == (1, 1000, 1, 1)
    torch.testing.assert_close(ours.flatten(), expected, rtol=1e-3, atol=1e-4)
    if name == "googlenet":
        found = fitted(Path("x"), {**state, "aux1.fc1.weight": torch.zeros(1)}, state, name, "fc")
        assert "aux1.fc1.weight" not in found


@pytest.mark.parametrize("name", SMALL)
def test_layers_are_the_same_alone_and_together(
    name: str, states: Callable[[str], State], photo: Image
) -> None:
    network = loaded(name, states(name))
    with torch.no_grad():
        together = network(photo, network.layers)
        assert tuple(together) == network.layers == models.card(name).layers
        for layer in network.layers:
            alone = network(photo, [layer])
            assert tuple(alone) == (layer,)
            assert torch.equal(alone[layer], together[layer]), layer


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer2.0"), ("squeezenet1_1", "fire4")])
def test_nothing_behind_the_deepest_layer_is_computed(
    name: str, layer: str, states: Callable[[str], State], photo: Image
) -> None:
    network = loaded(name, states(name))
    card = models.card(name)
    assert isinstance(network._read, Traced)
    ran: list[str] = []
    for path, module in network._read._module.named_modules():
        if path and not list(module.children()):
            module.register_forward_hook(lambda *_, path=path: ran.append(path))
    network(photo, ["stem", layer])
    depth = card.layers.index(layer)
    behind = card.paths[depth + 1 :]
    assert ran
    assert any(path.startswith(card.paths[depth]) for path in ran)
    assert not [p for p in ran if any(p == b or p.startswith(b + ".") for b in behind)]
    assert len(ran) == len(set(ran)) or name == "resnet18"  # whose ReLUs are used twice


def test_branches_beside_are_not_computed(states: Callable[[str], State], photo: Image) -> None:
    network = loaded("googlenet", states("googlenet"))
    assert isinstance(network._read, Traced)
    network(photo, ["inception3a.branch1"])
    (cut,) = network._read._readers.values()
    paths = [path for path, _ in cut.named_modules()]  # type: ignore[attr-defined]
    assert "inception3a.branch1.conv" in paths
    assert not [path for path in paths if path.startswith("inception3a.branch2")]


def test_weights_are_frozen_and_the_picture_has_a_gradient(
    states: Callable[[str], State], photo: Image
) -> None:
    network = loaded("mobilenet_v3_small", states("mobilenet_v3_small"))
    assert isinstance(network._read, Traced)
    assert not any(p.requires_grad for p in network._read._module.parameters())
    x = photo.clone().requires_grad_()
    network(x, ["block5"])["block5"].square().mean().backward()
    assert x.grad is not None
    assert float(x.grad.abs().mean()) > 0
    twice = [network(photo, ["block5"])["block5"] for _ in range(2)]
    assert torch.equal(*twice)


def test_gradient_matches_finite_differences(states: Callable[[str], State]) -> None:
    network = loaded("squeezenet1_1", states("squeezenet1_1"))
    x = torch.rand(3, 64, 64).requires_grad_()
    direction = torch.nn.functional.avg_pool2d(torch.randn(3, 64, 64), 3, 1, 1)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return network(x, ["fire5"])["fire5"].double().square().mean()

    (gradient,) = torch.autograd.grad(energy(x), x)
    with torch.no_grad():
        numeric = float((energy(x + 1e-3 * direction) - energy(x - 1e-3 * direction)) / 2e-3)
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=0.1)


def test_small_pictures_are_shown_enlarged() -> None:
    assert models.card("inception_v3").smallest > 32
    shapes = networks.built("inception_v3").state_dict()
    network = loaded("inception_v3", {k: torch.zeros(t.shape) for k, t in shapes.items()})
    assert network(torch.rand(3, 32, 40), ["mixed7a"])["mixed7a"].shape[1] == 1280


def test_precision_is_that_of_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    names = ("vgg19", "vgg16", "googlenet", "efficientnet-lite0")
    found = [backbone.choose_precision("auto", name, torch.device("cpu")) for name in names]
    assert found == ["bf16", "bf16", "fp32", "fp32"]
    assert backbone.choose_precision("fp32", "vgg16", torch.device("cpu")) == "fp32"


def test_a_network_computes_in_bf16(states: Callable[[str], State], photo: Image) -> None:
    card, device = models.card("resnet18"), torch.device("cpu")
    found = networks.load(card, Path("x"), states("resnet18"), device, torch.bfloat16)
    coarse = found(photo, ["layer2.1"])["layer2.1"]
    exact = loaded("resnet18", states("resnet18"))(photo, ["layer2.1"])["layer2.1"]
    assert coarse.dtype == torch.bfloat16
    alike = torch.nn.functional.cosine_similarity(coarse.float().flatten(), exact.flatten(), 0)
    assert float(alike) > 0.99


# Weights of one's own


def seen(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("form", ["plain", "wrapped", "parallel", "both", "safetensors", "bytes"])
def test_forms_of_files(
    form: str, states: Callable[[str], State], tmp_path: Path, photo: Image
) -> None:
    state = states("squeezenet1_1")
    parallel = {f"module.{key}": tensor for key, tensor in state.items()}
    path = tmp_path / "own.pth"
    if form == "safetensors":
        path = tmp_path / "own.safetensors"
        save_file(state, path)
    else:
        saved(
            {
                "plain": state,
                "wrapped": {"epoch": 90, "arch": "squeezenet1_1", "state_dict": state},
                "parallel": parallel,
                "both": {"state_dict": parallel},
                "bytes": {b"state_dict": {key.encode(): t for key, t in state.items()}},
            }[form],
            path,
        )
    found = backbone.load("squeezenet1_1", weights=path)(photo, ["fire3"])["fire3"]
    assert torch.equal(found, loaded("squeezenet1_1", state)(photo, ["fire3"])["fire3"])


def test_another_number_of_classes(tmp_path: Path, photo: Image) -> None:
    path = saved(random_state("resnet18", classes=365), tmp_path / "places.pth.tar")
    network = backbone.load("resnet18", weights=path)
    assert network(photo, ["logits"])["logits"].shape == (1, 365, 1, 1)


def test_weights_without_classes(
    states: Callable[[str], State], tmp_path: Path, photo: Image
) -> None:
    state = {k: t for k, t in states("resnet18").items() if not k.startswith("fc.")}
    network = backbone.load("resnet18", weights=saved(state, tmp_path / "headless.pth"))
    assert network.layers == models.card("resnet18").layers[:-1]
    assert torch.equal(
        network(photo, ["layer3.1"])["layer3.1"],
        loaded("resnet18", states("resnet18"))(photo, ["layer3.1"])["layer3.1"],
    )
    with pytest.raises(ModelError, match="tell no classes"):
        network(photo, ["logits"])


def test_classes_of_own_weights_go_by_number(lite0: Any, tmp_path: Path, photo: Image) -> None:
    own = torch.load(models.card("efficientnet-lite0").weights_path(), weights_only=True)
    ten = {k: (t[:10] if k.startswith("_fc.") else t).clone() for k, t in own.items()}
    none = {k: t for k, t in own.items() if not k.startswith("_fc.")}
    paths = saved(ten, tmp_path / "ten.pth"), saved(none, tmp_path / "none.pth")

    def aim(path: Path, classes: str) -> object:
        options = made(Options, {"classes": classes, "weights": path})
        return Aimer(backbone.load(options.model, weights=path)).aim(photo, options, {})

    assert aim(paths[0], "7")
    for wrong, told in (("goldfish", "names are not known"), ("10", "0 to 9"), ("2000", "0 to 9")):
        with pytest.raises(ModelError, match=told):
            aim(paths[0], wrong)
    with pytest.raises(ModelError, match="tell no classes"):
        aim(paths[1], "goldfish")
    headless = backbone.load("efficientnet-lite0", weights=paths[1])
    assert headless.layers == lite0.layers[:-1]


def test_old_names_of_densenet() -> None:
    wanted = networks.built("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): t for k, t in wanted.items()}
    assert old.keys() != wanted.keys()
    assert fitted(Path("x"), old, wanted, "densenet121", "classifier").keys() == wanted.keys()


def changed(state: State, key: str, tensor: torch.Tensor | None) -> State:
    found = dict(state)
    if tensor is None:
        del found[key]
    else:
        found[key] = tensor
    return found


@pytest.mark.parametrize(
    ("key", "tensor", "told"),
    [
        ("layer1.0.conv2.weight", None, r"has no layer1\.0\.conv2\.weight, which .*64x64x3x3"),
        (
            "conv1.weight",
            torch.zeros(64, 1, 7, 7),
            r"conv1\.weight is 64x1x7x7, .*64x3x7x7",
        ),
        (
            "layer1.2.conv1.weight",
            torch.zeros(1),
            r"has layer1\.2\.conv1\.weight, .* has not",
        ),
        ("fc.bias", torch.zeros(7), r"fc has 7 and 1000 classes"),
        ("fc.weight", torch.zeros(1000, 9), r"fc\.weight is 1000x9"),
    ],
)
def test_what_does_not_fit_is_told(
    key: str, tensor: torch.Tensor | None, told: str, states: Callable[[str], State], tmp_path: Path
) -> None:
    path = saved(changed(states("resnet18"), key, tensor), tmp_path / "own.pth")
    with pytest.raises(ModelError, match=f"own.pth: does not fit resnet18: {told}"):
        backbone.load("resnet18", weights=path)


class Malice:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return pytest.fail, ("code in a file was run",)


def test_what_is_no_weights_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("not weights either")
    saved({"state_dict": Malice()}, tmp_path / "code.pth")
    saved([1, 2, 3], tmp_path / "list.pth")
    saved({"epoch": 3}, tmp_path / "numbers.pth")
    state = random_state("resnet18")
    saved({**state, "conv1.weight": state["conv1.weight"] / 0}, tmp_path / "infinite.pth")
    saved({**state, "conv1.weight": state["conv1.weight"].int()}, tmp_path / "whole.pth")
    for name, told in (
        ("text.pth", "holds no weights"),
        ("empty.pth", r"holds no weights \(it is something else, or damaged\)"),
        ("infinite.pth", "not all of conv1.weight are numbers"),
        ("whole.pth", "conv1.weight holds whole numbers"),
        ("text.safetensors", "holds no weights"),
        ("code.pth", "code in files is not run"),
        ("list.pth", "holds no state dict"),
        ("numbers.pth", "holds no state dict"),
        ("gone.pth", "cannot be read"),
    ):
        with pytest.raises(ModelError, match=told):
            backbone.load("resnet18", weights=tmp_path / name)


def test_own_weights_for_embedded_networks(
    lite0: backbone.Backbone, vgg19: backbone.Backbone, tmp_path: Path, photo: Image
) -> None:
    own = torch.load(models.card("efficientnet-lite0").weights_path(), weights_only=True)
    path = tmp_path / "lite0.safetensors"
    save_file({k: t.contiguous() for k, t in own.items()}, path)
    again = backbone.load("efficientnet-lite0", weights=path)
    for layer in ("block9", "logits"):  # where weights lie in memory decides the last bits
        torch.testing.assert_close(again(photo, [layer])[layer], lite0(photo, [layer])[layer])
    packed = torch.load(models.card("vgg19").weights_path(), weights_only=True)
    _, names = backbone._vgg19_elsewhere()
    plain = {}
    for there, here in names.items():
        whole = here.endswith("_b")
        plain[there] = (
            packed[here] if whole else packed[f"{here}_table"][packed[f"{here}_q"].long()]
        )
    again = backbone.load("vgg19", weights=saved(plain, tmp_path / "vgg19.pth"))
    assert torch.equal(again(photo, ["relu3_1"])["relu3_1"], vgg19(photo, ["relu3_1"])["relu3_1"])
    with pytest.raises(ModelError, match="does not fit vgg19: has no features"):
        backbone.load("vgg19", weights=path)


# By the names that people type


def test_a_dream_fetches_its_model(
    hub: Hub, typed: Command, picture: Path, tmp_path: Path, states: Callable[[str], State]
) -> None:
    target, words = tmp_path / "out.png", ["--model", "squeezenet1_1", *QUICK, "--overwrite"]
    code, _, told = typed(picture, "-o", target, *words, "--offline")
    assert (code, target.exists()) == (5, False)
    assert "its weights are not here, and --offline is given; efficientnet-lite0" in told
    code, _, told = typed(picture, "-o", target, *words)
    assert code == 0, told
    assert told.startswith("streamdream: fetching squeezenet1_1 (5 MB) from 127.0.0.1")
    first = seen(target)
    assert not np.array_equal(first, seen(picture))
    code, _, told = typed(picture, "-o", target, *words, "--offline")
    assert (code, told) == (0, "")
    assert np.array_equal(seen(target), first)
    assert hub.asked == [""]
    own = saved(states("squeezenet1_1"), tmp_path / "own.pth")
    code, _, told = typed(picture, "-o", tmp_path / "own.png", *words, "--weights", own)
    assert (code, told) == (0, "")
    assert np.array_equal(seen(tmp_path / "own.png"), first)
    code, _, told = typed(picture, "-o", target, "--like", tmp_path / "own.png", "--overwrite")
    assert (code, told) == (0, ""), "the weights are part of the look"
    assert np.array_equal(seen(target), first)


def test_what_lies_in_the_cache_is_proven(hub: Hub, tmp_path: Path) -> None:
    file = next(iter(hub.files))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / file).write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"SHA-256 is .* expected .* remove it"):
        backbone.load("squeezenet1_1")


def test_a_zoom_walks_through_a_fetched_model(hub: Hub, typed: Command, tmp_path: Path) -> None:
    target = tmp_path / "walk.mp4"
    code, _, told = typed(
        "zoom", "noise", "-o", target, "--layers-walk", "--model", "squeezenet1_1",
        "--size", "96x64", "--frames", "3", "--octaves", "1", "--steps", "1",
    )  # fmt: skip
    assert code == 0, told
    assert target.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "resnet5"], "--model resnet5: no such model; did you mean resnet50"),
        (["--model", "zzz"], "--model zzz: no such model; streamdream models lists them"),
        (["--layers", "inception4c"], "it is a layer of --model googlenet"),
        (
            ["--model", "resnet50", "--layers", "layer3.9"],
            "has no such layer; did you mean",
        ),
        (["--weights", "gone.pth"], "--weights gone.pth: there is no such file"),
    ],
)
def test_wrong_names_are_told(words: list[str], told: str, typed: Command, picture: Path) -> None:
    code, _, err = typed(picture, "-o", picture.with_name("no.png"), *words)
    assert code == 5
    assert told in err
    assert err.count("\n") == 1


def test_models_are_listed(hub: Hub, typed: Command, tmp_path: Path) -> None:
    code, out, _ = typed("models")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert set(rows) >= {*models.CARDS, *models.hosted()}
    assert re.search(
        r"4\.7 M +19 MB +Apache-2\.0 +embedded +block9,block12", rows["efficientnet-lite0"]
    )
    assert re.search(r"1\.2 M +5 MB +BSD-3-Clause +to be fetched +fire8", rows["squeezenet1_1"])
    assert str(tmp_path / "cache") in out
    code, out, told = typed("models", "squeezenet1_1", "--fetch")
    assert (code, told.count("fetching")) == (0, 1)
    assert "cached" in out.splitlines()[0]
    assert re.search(r"^fire8 +512 +16 +default$", out, re.MULTILINE)
    assert "cached" in typed("models")[1]


def test_models_are_listed_for_programs(hub: Hub, typed: Command) -> None:
    found = json.loads(typed("models", "--json")[1])
    assert [one["name"] for one in found] == [*models.CARDS, *models.hosted()]
    one = json.loads(typed("models", "resnet50", "--json")[1])
    assert {"name": "layer3.2", "channels": 1024, "stride": 16} in one["layers"]
    assert one["weights"] == "to be fetched"
    assert one["url"].endswith("/resnet50-0676ba61.pth")


def test_a_live_run_chooses_among_models_that_are_there(hub: Hub, tmp_path: Path) -> None:
    controls = Controls(LiveOptions())
    assert controls.table["model"].choices == ("efficientnet-lite0", "vgg19")
    with pytest.raises(OptionError, match="not here; fetch it with: streamdream models resnet50"):
        controls.set("model", "resnet50")
    with pytest.raises(ModelError, match="no such model"):
        controls.set("model", "resnet5")
    backbone.proven(models.card("squeezenet1_1"), Store())
    controls.set("model", "squeezenet1_1")
    assert controls.goal.model == "squeezenet1_1"
    assert "fire8" in controls.table["layers"].choices
    controls.nudge("layers", 1)
    assert controls.goal.chosen_layers[0].startswith("fire")


def test_own_weights_stay_with_their_model_in_a_live_run(tmp_path: Path) -> None:
    controls = Controls(LiveOptions(weights=tmp_path / "own.pth"))
    controls.set("model", "vgg19")
    assert controls.goal.weights is None
    controls.set("model", "efficientnet-lite0")
    assert controls.goal.weights == tmp_path / "own.pth"


# timm


@pytest.fixture(scope="module")
def timm() -> Any:
    return pytest.importorskip("timm")


def test_timm_networks_are_read_by_module(timm: Any, tmp_path: Path, photo: Image) -> None:
    card = models.card("timm:resnet18")
    assert {"layer3", "layer3.1", "layer2.0.act1", "logits"} <= set(card.layers)
    assert card.default_layers == ("layer3",)
    theirs = timm.create_model("resnet18").eval()
    path = saved(theirs.state_dict(), tmp_path / "own.pth")
    network = backbone.load("timm:resnet18", weights=path)
    mean, deviation = (
        torch.tensor(theirs.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std")
    )
    x = ((photo - mean) / deviation)[None]
    with torch.no_grad():
        found = network(photo, ["layer2.0.act1", "layer3", "logits"])
        expected = theirs.forward_intermediates(x, indices=[3], intermediates_only=True)[0]
        torch.testing.assert_close(found["layer3"], expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            found["logits"].flatten(), theirs(x).flatten(), rtol=1e-3, atol=1e-4
        )


def test_what_timm_has_not_and_cannot_fetch(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with pytest.raises(ModelError, match="timm has no such network; did you mean"):
        models.card("timm:resnet19")
    with pytest.raises(ModelError, match="cannot be read by layer"):
        models.card("timm:vit_tiny_patch16_224")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ModelError, match=r"127\.0\.0\.1:\d+ cannot be reached\); name a file"):
            backbone.load("timm:resnet18")
    with pytest.raises(ModelError, match="timm's cache, and --offline"):
        backbone.load("timm:resnet18", store=Store(offline=True))


def test_without_timm_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    models._timm_card.cache_clear()
    real = models.importlib.util.find_spec
    monkeypatch.setattr(
        models.importlib.util, "find_spec", lambda name: None if name == "timm" else real(name)
    )
    with pytest.raises(ModelError, match=r"pip install 'streamdream\[timm\]'"):
        models.card("timm:resnet18")


def test_classes_are_listed_by_number_and_name(capfd: pytest.CaptureFixture[str]) -> None:
    typed = typing(capfd)
    code, out, _ = typed("models", "--classes")
    lines = out.splitlines()
    assert (code, len(lines), lines[1]) == (0, 1000, "   1 goldfish")
    assert typed("models", "resnet50", "--classes")[1] == out
    code, _, told = typed("models", "vgg19", "--classes")
    assert (code, "tells no classes apart; use efficientnet-lite0" in told) == (5, True)
