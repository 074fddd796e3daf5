from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from streamdream.backbone import PRECISIONS, Backbone, load
from streamdream.dream import (
    Dream,
    Recipe,
    ascent,
    dream,
    octave_sizes,
    steepest,
)
from streamdream.frame import Image, work_size
from streamdream.governor import Governor
from streamdream.objectives.aims import aim_at, excited
from streamdream.objectives.slopes import tiled_slope, whole_slope
from streamdream.options import Options
from streamdream.pipeline import Carried, Picture
from streamdream.polish.gradient import normalised
from streamdream.settings import build

RECIPE = Recipe(
    aim=aim_at("block5"), octaves=2, octave_scale=1.4, steps=3, finest_steps=3,
    step_size=1.5, jitter=4, seed=(0, 0),
)  # fmt: skip


def last(backbone: Backbone, image: Image, carried: Image, recipe: Recipe) -> Image:
    pictures: list[Picture] = list(dream(backbone, image, carried, recipe))
    return pictures[-1]()


@pytest.mark.parametrize("layers", [("block5",), ("block9", "block12"), ("block3.expand",)])
def test_lite0_sees_more_in_its_dream(
    lite0: Backbone, photo: Image, layers: tuple[str, ...]
) -> None:
    recipe = replace(RECIPE, aim=aim_at(*layers), octaves=1, finest_steps=10)
    result = last(lite0, photo, torch.zeros_like(photo), recipe)
    before = excited(lite0, photo, recipe.aim)
    assert excited(lite0, result, recipe.aim) > before + 0.1
    assert result.min() >= 0
    assert result.max() <= 1


def test_vgg19_sees_more_in_its_dream(vgg19: Backbone, photo: Image) -> None:
    recipe = replace(RECIPE, aim=aim_at("relu4_4"))
    result = last(vgg19, photo, torch.zeros_like(photo), recipe)
    before = excited(vgg19, photo, recipe.aim)
    assert excited(vgg19, result, recipe.aim) > before + 0.5


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
    here, there = (
        ascent(lite0, photo, aim_at("block3"), shift, 1024, steepest)
        for shift in ((0, 0), (16, -32))
    )
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
    ("warm", "uncovered", "pictures"),
    [(False, 1.0, 2 * 5), (True, 0.02, 4 + 2), (True, 0.1, 4 + 2 + 1), (True, 0.5, 4 + 2 + 4 + 2)],
)
def test_steps_are_spent_where_they_are_needed(
    lite0: Backbone, photo: Image, warm: bool, uncovered: float, pictures: int
) -> None:
    options = Options(octaves=2, steps=5, warm_steps=4)
    carried = Carried(
        torch.zeros_like(photo), torch.zeros(1, 120, 160), governor() if warm else None, uncovered
    )
    assert len(list(Dream(lite0)(photo, carried, options, 0))) == pictures


def governor() -> Governor:
    delta = torch.full((3, 32, 32), 0.05)
    return Governor.begin(delta + 0.4, delta, torch.tensor(1.0), torch.tensor(3.0), Fraction(0))


def test_the_response_tells_more_of_a_dream_from_less(lite0: Backbone, photo: Image) -> None:
    effect, options = Dream(lite0), Options(layers=("block5",))
    assert float(effect.response(photo, photo, options)) == 0
    delta = last(lite0, photo, torch.zeros_like(photo), RECIPE) - photo
    half, whole = (float(effect.response(photo, photo + k * delta, options)) for k in (0.5, 1))
    assert whole > 1.2 * half > 0.05


def test_less_effort_makes_smaller_steps_at_full_size(lite0: Backbone, photo: Image) -> None:
    recipe = replace(RECIPE, octaves=1, finest_steps=1, young=torch.zeros(1, 120, 160))
    full, third = (
        (last(lite0, photo, torch.zeros_like(photo), replace(recipe, effort=e)) - photo)
        for e in (1.0, 0.3)
    )
    assert float(third.abs().mean()) == pytest.approx(0.3 * float(full.abs().mean()), rel=0.05)


def test_warm_steps_zero_adds_nothing(lite0: Backbone, photo: Image) -> None:
    carried = Carried(torch.zeros_like(photo), torch.zeros(1, 120, 160), governor())
    assert list(Dream(lite0)(photo, carried, Options(warm_steps=0), 0)) == []


@pytest.mark.parametrize("layers", [("block5",), ("block9", "block12")])
@pytest.mark.parametrize("size", [(400, 700), (641, 390)])
def test_pieces_give_the_gradient_of_the_whole(
    lite0: Backbone, photo: Image, layers: tuple[str, ...], size: tuple[int, int]
) -> None:
    """No seams: where pieces meet, it is as near to the whole one as elsewhere."""
    large = torch.nn.functional.interpolate(photo[None], size, mode="bicubic")[0].clamp(0, 1)
    whole = normalised(whole_slope(lite0, large, aim_at(*layers)))
    pieces = normalised(tiled_slope(lite0, large, aim_at(*layers), 384))
    assert alike(whole, pieces) > 0.98
    across = -1 if size[1] > size[0] else -2
    error, usual = (torch.diff(x, dim=across).abs() for x in (pieces - whole, whole))
    for line in error.movedim(across, 0):
        assert float(line.mean()) < 0.5 * float(usual.mean())


def test_a_large_picture_in_pieces_is_the_same_dream(lite0: Backbone, photo: Image) -> None:
    large = torch.nn.functional.interpolate(photo[None], (360, 640), mode="bicubic")[0].clamp(0, 1)
    nothing = torch.zeros_like(large)
    recipe = replace(RECIPE, aim=aim_at("block9"), octaves=1, finest_steps=4)
    whole = last(lite0, large, nothing, recipe) - large
    pieces = last(lite0, large, nothing, replace(recipe, tile=384)) - large
    assert not torch.equal(whole, pieces)
    assert alike(whole, pieces) > 0.85  # after four steps, in the smallest pieces there are


def test_half_the_bits_give_nearly_the_same_direction(photo: Image) -> None:
    for model, layers, least in (
        ("efficientnet-lite0", ("block9",), 0.85),
        ("vgg19", ("relu4_1",), 0.97),
    ):
        exact, rough = (
            whole_slope(load(model, precision=p), photo, aim_at(*layers))
            for p in PRECISIONS.values()
        )
        assert exact.dtype == rough.dtype == torch.float32
        assert not torch.equal(exact, rough)
        assert alike(exact, rough) > least


def alike(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    ("quality", "source", "smallest", "octaves"),
    [
        ("draft", 1080, 98, 3),
        ("standard", 1080, 98, 4),
        ("fine", 1080, 98, 6),
        ("fine", 360, 94, 5),
        ("fine", 240, 87, 4),
    ],
)
def test_quality_changes_the_finest_octaves_only(
    quality: str, source: int, smallest: int, octaves: int
) -> None:
    options = build({"quality": quality})
    size = work_size((source, source * 16 // 9), options.lines)
    sizes = octave_sizes(size, options.octaves_at(size), options.octave_scale)
    assert sizes[0][0] == smallest
    assert len(sizes) == octaves
