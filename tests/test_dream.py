from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamdream.backbone import Backbone
from streamdream.dream import Dream, Recipe, ascent, dream, excitement, normalised, octave_sizes
from streamdream.frame import Image
from streamdream.options import Options
from streamdream.pipeline import Carried, Picture

RECIPE = Recipe(
    layers=("block5",), octaves=2, octave_scale=1.4, steps=3, finest_steps=3,
    step_size=1.5, jitter=4, seed=(0, 0),
)  # fmt: skip


def last(backbone: Backbone, image: Image, carried: Image, recipe: Recipe) -> Image:
    pictures: list[Picture] = list(dream(backbone, image, carried, recipe))
    return pictures[-1]()


@pytest.mark.parametrize("layers", [("block5",), ("block9", "block12"), ("block3.expand",)])
def test_lite0_sees_more_in_its_dream(
    lite0: Backbone, photo: Image, layers: tuple[str, ...]
) -> None:
    recipe = replace(RECIPE, layers=layers, octaves=1, finest_steps=10)
    result = last(lite0, photo, torch.zeros_like(photo), recipe)
    assert excitement(lite0(result, layers)) > excitement(lite0(photo, layers)) + 0.1
    assert result.min() >= 0
    assert result.max() <= 1


def test_vgg19_sees_more_in_its_dream(vgg19: Backbone, photo: Image) -> None:
    recipe = replace(RECIPE, layers=("relu4_4",))
    result = last(vgg19, photo, torch.zeros_like(photo), recipe)
    assert excitement(vgg19(result, ["relu4_4"])) > excitement(vgg19(photo, ["relu4_4"])) + 0.5


def test_one_step_changes_by_the_step_size(lite0: Backbone, photo: Image) -> None:
    grey = photo * 0.5 + 0.25  # nothing is clipped
    recipe = replace(RECIPE, octaves=1, finest_steps=1, step_size=2.0)
    result = last(lite0, grey, torch.zeros_like(grey), recipe)
    assert float((result - grey).abs().mean()) * 255 == pytest.approx(2.0, rel=0.01)


def test_same_seed_same_dream(lite0: Backbone, photo: Image) -> None:
    nothing = torch.zeros_like(photo)
    first, again = (last(lite0, photo, nothing, RECIPE) for _ in range(2))
    other = last(lite0, photo, nothing, replace(RECIPE, seed=(1, 0)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_jitter_moves_the_grid_not_the_picture(lite0: Backbone, photo: Image) -> None:
    """The same direction from wherever the grid lies, but for the grid's own doing."""
    here, there = (ascent(lite0, photo, ("block3",), shift) for shift in ((0, 0), (16, -32)))
    inner = (slice(None), slice(24, -24), slice(40, -40))
    a, b = here[inner].flatten(), there[inner].flatten()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.95


def test_bands_of_the_gradient_are_equally_strong() -> None:
    torch.manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.randn(1, 3, 12, 16), (96, 128), mode="bicubic")
    lopsided = 6 * coarse[0] + 0.5 * torch.randn(3, 96, 128)
    level = normalised(lopsided)

    def fineness(x: torch.Tensor) -> float:
        blurred = torch.nn.functional.avg_pool2d(x[None], 5, 1, 2)[0]
        return float((x - blurred).square().mean() / x.square().mean())

    assert fineness(lopsided) < 0.05
    assert 0.07 < fineness(level) < 0.6


def test_octaves_go_from_small_to_full_and_leave_out_the_tiny() -> None:
    assert octave_sizes((270, 480), 4, 1.4) == [(98, 175), (138, 245), (193, 343), (270, 480)]
    assert octave_sizes((40, 60), 4, 1.4) == [(40, 60)]
    assert octave_sizes((20, 20), 4, 1.4) == [(20, 20)]


def test_every_step_shows_a_picture_of_full_size(lite0: Backbone, photo: Image) -> None:
    seen = [p() for p in dream(lite0, photo, torch.zeros_like(photo), RECIPE)]
    assert len(seen) == 6
    assert all(p.shape == photo.shape and p.min() >= 0 and p.max() <= 1 for p in seen)
    # The dream grows from picture to picture.
    changes = [float((p - photo).abs().mean()) for p in seen]
    assert changes[-1] > changes[0] > 0


def test_what_was_carried_stays_where_nothing_is_added(lite0: Backbone, photo: Image) -> None:
    carried = 0.1 * torch.sin(torch.arange(160) / 5).expand(3, 120, 160)
    recipe = replace(RECIPE, steps=0, finest_steps=1, step_size=0.01)
    result = last(lite0, photo, carried, recipe)
    assert torch.allclose(result, (photo + carried).clamp(0, 1), atol=5e-3)


def test_fill_steps_act_where_the_dream_is_young(lite0: Backbone, photo: Image) -> None:
    young = torch.zeros(1, 120, 160)
    young[:, :, 80:] = 1
    recipe = replace(RECIPE, steps=0, finest_steps=0, fill_steps=3, young=young)
    change = (last(lite0, photo, torch.zeros_like(photo), recipe) - photo).abs().mean(0)
    assert change[:, 90:].mean() > 10 * change[:, :70].mean()


@pytest.mark.parametrize(
    ("reference", "age", "pictures"),
    [(None, 0, 2 * 5), (0.05, 9, 4 + 2), (0.05, 0, 4 + 2 + 1)],
)
def test_steps_are_spent_where_they_are_needed(
    lite0: Backbone, photo: Image, reference: float | None, age: int, pictures: int
) -> None:
    options = Options(octaves=2, steps=5, warm_steps=4)
    carried = Carried(torch.zeros_like(photo), torch.full((1, 120, 160), float(age)), reference)
    assert len(list(Dream(lite0)(photo, carried, options, 0))) == pictures


def test_warm_steps_zero_adds_nothing(lite0: Backbone, photo: Image) -> None:
    carried = Carried(torch.zeros_like(photo), torch.zeros(1, 120, 160), 0.05)
    assert list(Dream(lite0)(photo, carried, Options(warm_steps=0), 0)) == []
