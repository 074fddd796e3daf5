"""That what makes networks of styles fast changes nothing but the time."""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from streamdream.frame import Frame, Image, Mask, to_image, to_pixels
from streamdream.motion import OpticalFlow
from streamdream.options import Look
from streamdream.pipeline import redraw
from streamdream.processors import alone, using
from streamdream.settings import build
from streamdream.style.cards import Kind
from streamdream.style.convolutions import Doubling, Narrow, mirrored, normed, repeated
from streamdream.style.forward import Forward
from streamdream.style.network import Network, Swift


def maps(channels: int, high: int, wide: int) -> Tensor:
    found = torch.randn(1, channels, high, wide, generator=torch.Generator().manual_seed(1))
    return found.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("margin", [1, 4])
@pytest.mark.parametrize("rectified", [False, True])
def test_margins_are_as_padding_makes_them(margin: int, rectified: bool) -> None:
    x = maps(5, 7, 9)
    given = x.relu() if rectified else x
    assert torch.equal(mirrored(x, margin, rectified), F.pad(given, (margin,) * 4, "reflect"))
    assert torch.equal(repeated(x, rectified), F.pad(given, (1,) * 4, "replicate"))


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
@pytest.mark.parametrize("bias", [None, torch.tensor([0.5, -1.0])])
def test_a_doubling_is_the_convolution_of_the_enlarged_picture(
    size: tuple[int, int], bias: Tensor | None
) -> None:
    x, kernels = maps(3, *size), maps(3, 3, 3).repeat(2, 1, 1, 1) * torch.ones(2, 1, 1, 1)
    kernels[1] *= torch.arange(9.0).view(1, 3, 3)
    large = F.interpolate(x, scale_factor=2.0, mode="nearest")
    wanted = F.conv2d(F.pad(large, (1,) * 4, "reflect"), kernels, bias)
    found = Doubling(kernels, bias)(x)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("side", "across"), [(9, 4), (3, 2), (5, 4)])
def test_neighbours_as_channels_are_the_same_convolution(side: int, across: int) -> None:
    kernels = torch.randn(3, 2, side, side, generator=torch.Generator().manual_seed(2))
    x, bias = mirrored(maps(2, 12, 16), side // 2), torch.tensor([0.1, 0.2, -0.3])
    wanted = F.conv2d(x, kernels, bias)
    assert torch.allclose(Narrow(kernels, bias, across)(x), wanted, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 4, 16])
def test_channels_are_normed_as_by_instance_norm(channels: int) -> None:
    x, gain, shift = maps(channels, 12, 20) * 3 + 2, torch.rand(channels), torch.rand(channels)
    wanted = F.instance_norm(x, weight=gain, bias=shift)
    assert torch.allclose(normed(x, gain, shift), wanted, atol=1e-5)
    flat = normed(torch.full_like(x, 5.0), gain, shift)
    assert torch.allclose(flat, shift.view(1, -1, 1, 1).expand_as(flat), atol=1e-2)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (90, 61)])
@pytest.mark.parametrize("kind", ["style", "dream"])
def test_a_swift_network_gives_what_the_trained_one_does(size: tuple[int, int], kind: Kind) -> None:
    network = Network(kind, 4).requires_grad_(False)
    network.load_state_dict(
        {n: t + 0.1 * torch.randn_like(t) for n, t in network.state_dict().items()}
    )
    image, carried, trust = (
        torch.rand(1, 3, *size),
        torch.rand(1, 3, *size),
        torch.rand(1, 1, *size),
    )
    wanted = network(image, carried, trust)
    assert torch.allclose(Swift(network)(image, carried, trust), wanted, atol=1e-4)


class Slow:
    """A painter that remembers which threads it painted in, and on how many processors."""

    reads_carried = False

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.processors: list[int] = []

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        self.threads.append(threading.current_thread().name)
        self.processors.append(torch.get_num_threads())
        return (image * options.style_weight).clamp(0, 1)


def filmed(count: int, high: int = 48) -> list[Frame]:
    seed = torch.Generator().manual_seed(4)
    images = torch.rand(count, 3, high, 64, generator=seed)
    return [Frame(to_pixels(image), Fraction(i, 25), i) for i, image in enumerate(images)]


@pytest.mark.parametrize("limit", [10**6, 100])
def test_frames_are_painted_side_by_side_and_the_same(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamdream.style.forward.LARGE", limit)
    options = build({"style": "lite:mosaic", "style_weight": "0: 0.5, 4: 1", "work_size": 96})
    found, painters = [], []
    for processors in (1, 2):
        painters.append(Slow())
        with using(processors):
            stream = redraw(filmed(6), options, Forward(painters[-1]), OpticalFlow())
            found.append([to_image(frame.pixels, (48, 64)) for frame in stream])
            assert torch.get_num_threads() == processors
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    aside = [name.startswith("streamdream-paint") for name in painters[1].threads]
    assert all(aside) if limit > 100 else not any(aside)
    assert set(painters[1].processors) == ({1} if limit > 100 else {2})
    assert not any(name.startswith("streamdream-paint") for name in painters[0].threads)
    assert not [t for t in threading.enumerate() if t.name.startswith("streamdream-paint")]


def test_a_painter_that_fails_aside_is_heard() -> None:
    class Broken(Slow):
        def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
            raise OSError("no paint")

    options = build({"style": "lite:mosaic", "work_size": 96})
    stream = redraw(filmed(3), options, Forward(Broken()), OpticalFlow())
    with using(2), pytest.raises(OSError, match="no paint"):
        list(stream)


def test_threads_that_begin_later_have_all_processors() -> None:
    seen: list[int] = []
    with using(3):
        with alone(2, 1) as pool:
            assert list(pool.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
            later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            later.start()
            later.join(10)
        assert torch.get_num_threads() == 3
    assert seen == [3]
