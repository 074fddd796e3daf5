"""How torchvision's networks are read: which of their modules make which layer.

The names are those of streamdream; `survey` writes them into the listing, so that nothing has to
be built to know them. What a layer gives is what comes after its activation, where it has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

Layers = Iterator[tuple[str, str]]  # names, and paths of modules


@dataclass(frozen=True)
class Family:
    """Networks of one kind: torchvision's `builders`, how to read them, what to dream of them.

    `head` is the module whose weights tell the number of classes; `defaults` and `walk` are told
    for each builder, or for all ("").
    """

    read: Callable[[nn.Module], Layers]
    head: str
    defaults: dict[str, str]
    walk: dict[str, str]
    builders: tuple[str, ...]


def _inner(network: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    return list(network.get_submodule(path).named_children())


def _googlenet(network: nn.Module) -> Layers:
    for name, _ in network.named_children():
        if name.startswith("inception"):
            yield from ((f"{name}.branch{i}", f"{name}.branch{i}") for i in range(1, 5))
        if name.startswith(("conv", "inception", "maxpool")):
            yield name.replace("maxpool", "pool"), name


def _inception(network: nn.Module) -> Layers:
    for name, _ in network.named_children():
        if name.startswith(("Conv2d", "Mixed", "maxpool")):
            kind, _, rest = name.partition("_")
            short = kind.replace("Conv2d", "conv").replace("maxpool", "pool").lower()
            yield short + rest.split("_")[0], name


def _vgg(network: nn.Module) -> Layers:
    block, row = 1, 1
    for name, module in _inner(network, "features"):
        if isinstance(module, nn.ReLU):
            yield f"relu{block}_{row}", f"features.{name}"
            row += 1
        elif isinstance(module, nn.MaxPool2d):
            yield f"pool{block}", f"features.{name}"
            block, row = block + 1, 1
    yield from (("fc6", "classifier.1"), ("fc7", "classifier.4"))


def _alexnet(network: nn.Module) -> Layers:
    row = 0
    for name, module in _inner(network, "features"):
        row += isinstance(module, nn.Conv2d)
        if not isinstance(module, nn.Conv2d):
            kind = "relu" if isinstance(module, nn.ReLU) else "pool"
            yield f"{kind}{row}", f"features.{name}"
    yield from (("fc6", "classifier.2"), ("fc7", "classifier.5"))


def _squeezenet(network: nn.Module) -> Layers:
    fires, pools = count(2), count(1)
    for name, module in _inner(network, "features"):
        if isinstance(module, nn.ReLU):
            yield "stem", f"features.{name}"
        elif isinstance(module, nn.MaxPool2d):
            yield f"pool{next(pools)}", f"features.{name}"
        elif not isinstance(module, nn.Conv2d):
            yield f"fire{next(fires)}", f"features.{name}"


def _resnet(network: nn.Module) -> Layers:
    yield from (("stem", "relu"), ("pool", "maxpool"))
    for i in range(1, 5):
        yield from ((f"layer{i}.{j}", f"layer{i}.{j}") for j, _ in _inner(network, f"layer{i}"))


def _densenet(network: nn.Module) -> Layers:
    yield from (("stem", "features.relu0"), ("pool", "features.pool0"))
    for name, _ in _inner(network, "features"):
        if name.startswith("denseblock"):
            for inner, _ in _inner(network, f"features.{name}"):
                row = inner.removeprefix("denselayer")
                yield f"block{name[-1]}.{row}", f"features.{name}.{inner}.relu2"
            yield f"block{name[-1]}", f"features.{name}"
        elif name.startswith("transition"):
            yield name, f"features.{name}"
    yield "top", "relu"


def _mobile(network: nn.Module) -> Layers:
    """Inverted bottlenecks, in one row or in stages: MobileNet and EfficientNet."""
    rows = count()
    parts = _inner(network, "features")
    yield "stem", "features.0"
    for name, part in parts[1:-1]:
        path = f"features.{name}"
        staged = type(part) is nn.Sequential
        blocks = [f"{path}.{i}" for i, _ in _inner(network, path)] if staged else [path]
        for block in blocks:
            here = f"block{next(rows)}"
            inner = next(n for n, _ in _inner(network, block))  # conv, or block
            steps = [
                f"{block}.{inner}.{i}"
                for i, step in _inner(network, f"{block}.{inner}")
                if isinstance(step, Conv2dNormActivation) and len(step) == 3
            ]
            yield from ((f"{here}.{_step(network, step)}", step) for step in steps)
            yield here, block
    yield "head", f"features.{parts[-1][0]}"


def _step(network: nn.Module, path: str) -> str:
    conv = network.get_submodule(f"{path}.0")
    return "depthwise" if isinstance(conv, nn.Conv2d) and conv.groups > 1 else "expand"


def _convnext(network: nn.Module) -> Layers:
    yield "stem", "features.0"
    for name, part in _inner(network, "features")[1:]:
        stage, path = int(name) // 2 + 1, f"features.{name}"
        if int(name) % 2 == 0:
            yield f"down{stage - 1}", path
        else:
            yield from ((f"stage{stage}.{i}", f"{path}.{i}") for i, _ in part.named_children())


_EFFICIENT_WALK = {
    "efficientnet_b0": "block1 block3 block5 block7 block9 block11 block13",
    "efficientnet_b1": "block2 block5 block7 block10 block13 block16 block20",
    "efficientnet_b2": "block2 block5 block7 block10 block13 block16 block20",
    "efficientnet_b3": "block2 block5 block8 block11 block15 block18 block22",
    "efficientnet_b4": "block3 block7 block11 block15 block18 block22 block27",
    "efficientnet_v2_s": "block1 block4 block8 block12 block15 block20 block30",
}

FAMILIES = (
    Family(
        _googlenet, "fc", {"": "inception4c"},
        {"": "conv1 conv3 inception3a inception3b inception4b inception4c inception4e"},
        ("googlenet",),
    ),
    Family(
        _inception, "fc", {"": "mixed6a mixed6c"},
        {"": "conv2b conv4a mixed5b mixed5d mixed6a mixed6c mixed6e"}, ("inception_v3",),
    ),
    Family(
        _vgg, "classifier.6", {"": "relu5_1"},
        {
            "": "relu1_2 relu2_2 relu3_2 relu3_3 relu4_2 relu4_3 relu5_2",
            "vgg11": "relu1_1 relu2_1 relu3_1 relu3_2 relu4_1 relu4_2 relu5_2",
            "vgg13": "relu1_2 relu2_2 relu3_1 relu3_2 relu4_1 relu4_2 relu5_2",
            "vgg11_bn": "relu1_1 relu2_1 relu3_1 relu3_2 relu4_1 relu4_2 relu5_2",
            "vgg13_bn": "relu1_2 relu2_2 relu3_1 relu3_2 relu4_1 relu4_2 relu5_2",
            "vgg19": "relu1_2 relu2_2 relu3_2 relu3_4 relu4_2 relu4_4 relu5_2",
            "vgg19_bn": "relu1_2 relu2_2 relu3_2 relu3_4 relu4_2 relu4_4 relu5_2",
        },
        ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    ),
    Family(
        _alexnet, "classifier.6", {"": "relu4"}, {"": "relu1 relu2 relu3 relu4 relu5"},
        ("alexnet",),
    ),
    Family(
        _squeezenet, "classifier.1", {"": "fire8"},
        {"": "stem fire2 fire3 fire4 fire5 fire7 fire9"}, ("squeezenet1_0", "squeezenet1_1"),
    ),
    Family(
        _resnet, "fc",
        {
            "": "layer3.2", "resnet18": "layer3.1", "resnet34": "layer3.3",
            "resnet101": "layer3.11", "resnet152": "layer3.17", "resnext101_32x8d": "layer3.11",
        },
        {
            "": "stem layer1.2 layer2.1 layer2.3 layer3.1 layer3.3 layer4.0",
            "resnet18": "stem layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0",
            "resnet101": "stem layer1.2 layer2.1 layer2.3 layer3.5 layer3.14 layer4.0",
            "resnet152": "stem layer1.2 layer2.3 layer2.7 layer3.9 layer3.23 layer4.0",
            "resnext101_32x8d": "stem layer1.2 layer2.1 layer2.3 layer3.5 layer3.14 layer4.0",
        },
        (
            "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
            "resnext101_32x8d", "wide_resnet50_2",
        ),
    ),
    Family(
        _densenet, "classifier", {"": "block3.16"},
        {"": "stem block1 block2.6 block2 block3.8 block3.16 block3"},
        ("densenet121", "densenet161", "densenet169", "densenet201"),
    ),
    Family(
        _mobile, "classifier.1", {"": "block11"},
        {"": "block1 block3 block5 block7 block9 block11 block14"}, ("mobilenet_v2",),
    ),
    Family(
        _mobile, "classifier.3", {"": "block10", "mobilenet_v3_small": "block7"},
        {
            "": "block1 block3 block5 block7 block9 block11 block13",
            "mobilenet_v3_small": "block0 block1 block2 block4 block6 block7 block9",
        },
        ("mobilenet_v3_small", "mobilenet_v3_large"),
    ),
    Family(
        _mobile, "classifier.1",
        {
            "": "block13 block18", "efficientnet_b0": "block9 block12",
            "efficientnet_b3": "block15 block20", "efficientnet_b4": "block18 block24",
            "efficientnet_v2_s": "block17 block22",
        },
        _EFFICIENT_WALK,
        tuple(_EFFICIENT_WALK),
    ),
    Family(
        _convnext, "classifier.2", {"": "stage3.4", "convnext_small": "stage3.13"},
        {
            "": "stage1.0 stage1.2 stage2.0 stage2.2 stage3.2 stage3.5 stage4.0",
            "convnext_small": "stage1.0 stage1.2 stage2.0 stage2.2 stage3.6 stage3.16 stage4.0",
        },
        ("convnext_tiny", "convnext_small"),
    ),
)  # fmt: skip


def logits_path(family: Family) -> str:
    """The path of what makes the classes."""
    return family.head.split(".")[0]
