"""How a dream is finished: each option does what it says, and nothing where it is not asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.dream import Dream, Recipe, dream, steepest
from streamdream.effects import idle
from streamdream.errors import OptionError
from streamdream.frame import Frame, Image, Pixels, composite, planes, resize, to_image, to_pixels
from streamdream.graphs import Replayed
from streamdream.live.chains import Chains
from streamdream.live.layers import layer_of
from streamdream.live.options import LiveOptions
from streamdream.motion import Movement
from streamdream.noises import grain, noise
from streamdream.objectives.aims import aim_at, response
from streamdream.options import Look, Options
from streamdream.pipeline import Carried, Effect, redraw
from streamdream.polish.gradient import (
    AXES,
    DEVIATIONS,
    PLAIN,
    Polish,
    blurred,
    decorrelated,
    smoothed,
)
from streamdream.polish.options import NOISES, Polished
from streamdream.polish.shown import contrast_held, luma, saturation_held, shown
from streamdream.polish.terms import steeper
from streamdream.reactions import Reaction, driven
from streamdream.run import dream_file
from streamdream.schedule import Moment
from streamdream.settings import build, recorded
from streamdream.zoom.fall import Plan, fall
from streamdream.zoom.options import ZoomOptions

AIM = aim_at("block5")
RECIPE = Recipe(
    AIM, octaves=2, octave_scale=1.4, steps=4, finest_steps=4, step_size=1.5, jitter=4, seed=(0, 0)
)
QUICK = {"layers": ("block5",), "octaves": 1, "steps": 4, "work_size": 64}
ONE = Fraction(1, 25)
NEUTRAL = {name: field.get_default() for name, field in Polished.model_fields.items()}


def dreamed(lite0: Backbone, image: Image, polish: Polish, **changes: object) -> Image:
    """The change that a first frame's dream makes, with octaves and all."""
    recipe = replace(RECIPE, polish=polish, **changes)  # type: ignore[arg-type]
    pictures = list(dream(lite0, image, torch.zeros_like(image), recipe))
    return pictures[-1]() - image


def fineness(x: Tensor) -> float:
    """The share of a picture's variance that a blur of one pixel takes away."""
    return float((x - blurred(x, 1.0)).square().mean() / (x - x.mean()).square().mean())


def variation(x: Tensor) -> float:
    return sum(float(torch.diff(x, dim=side).abs().mean()) for side in (-2, -1))


class Still:
    """Nothing moves, all is trusted."""

    def between(self, now: Image, before: Image, guess: Tensor | None = None) -> Movement:
        h, w = now.shape[-2:]
        return Movement(torch.zeros(2, h, w), torch.ones(1, h, w), cut=False)


class Pan(Still):
    """All moves `step` pixels to the right; what comes in is new."""

    def __init__(self, step: int) -> None:
        self.step = step

    def between(self, now: Image, before: Image, guess: Tensor | None = None) -> Movement:
        found = super().between(now, before)
        found.flow[0] = -self.step
        found.trust[..., : self.step] = 0
        return found


def shots(pixels: Pixels, count: int, step: int = 0) -> list[Frame]:
    """Frames of 64 x 96 pixels that see a picture move to the right."""
    at = [60 - step * i for i in range(count)]
    return [Frame(pixels[30:94, x : x + 96].copy(), i * ONE, i) for i, x in enumerate(at)]


def run(
    lite0: Backbone, frames: Sequence[Frame], motion: Still | None = None, **given: object
) -> list[Image]:
    options = build(QUICK, given)
    found = redraw(frames, options, Dream(lite0), motion or Still())
    return [to_image(frame.pixels, (64, 96)) for frame in found]


def test_the_defaults_are_the_dream_without_any_of_this(lite0: Backbone, photo: Image) -> None:
    """Bit for bit what a bare ascent gives, and what neutral values give, frame by frame."""
    recipe = replace(RECIPE, octaves=1)
    rng, x = np.random.default_rng(recipe.seed), photo
    for _ in range(recipe.finest_steps):
        dy, dx = (int(s) for s in rng.integers(-4, 5, size=2))
        push = steepest(lite0, torch.roll(x, (dy, dx), (-2, -1)), AIM, 1024)
        push = torch.roll(push, (-dy, -dx), (-2, -1))
        x = (x + push / push.abs().mean() * (1.5 / 255)).clamp(0, 1)
    assert torch.equal(photo + dreamed(lite0, photo, PLAIN, octaves=1), photo + (x - photo))
    frames = shots(to_pixels(photo), 3, 2)
    plain, neutral = (run(lite0, frames, Pan(2), **given) for given in ({}, NEUTRAL))
    assert all(torch.equal(a, b) for a, b in zip(plain, neutral, strict=True))
    effect, options = Dream(lite0), Options()
    pixels, delta = frames[0].pixels, plain[0] - to_image(frames[0].pixels, (64, 96))
    laid = effect.laid_on(pixels, plain[0], delta, options)
    assert np.array_equal(laid, composite(pixels, delta, 1.0))


def test_smoothing_takes_away_what_is_fine(lite0: Backbone, photo: Image) -> None:
    found = [fineness(dreamed(lite0, photo, Polish(smooth=s))) for s in (0, 0.7, 2, 4)]
    assert all(b < 0.75 * a for a, b in pairwise(found)), found


def test_a_cascade_keeps_its_sum_and_something_of_every_size() -> None:
    dot = torch.zeros(3, 65, 65)
    dot[:, 32, 32] = 1
    found = smoothed(dot, 2.0)
    assert torch.allclose(found.sum((-2, -1)), torch.ones(3), atol=1e-5)
    spread = (found[0].sum(0) * (torch.arange(65) - 32) ** 2).sum()
    assert float(spread) == pytest.approx((1 + 4 + 16) / 3, rel=0.02)
    for sigma in (0.01, 5.0, 30.0):  # wider than the picture, too
        assert torch.allclose(blurred(torch.ones(1, 40, 64), sigma), torch.ones(1), atol=1e-5)
    wide = blurred(dot, 9.0)[0].sum(0)
    assert float((wide * (torch.arange(65) - 32) ** 2).sum()) == pytest.approx(81, rel=0.1)


def test_more_levels_are_softer(lite0: Backbone, photo: Image) -> None:
    found = [fineness(dreamed(lite0, photo, Polish(levels=n))) for n in range(1, 9)]
    assert all(b < a for a, b in pairwise(found[:4])), found
    assert found[3] < 0.5 * found[0]
    assert max(found[4:]) <= found[3]  # a small picture has no more
    assert PLAIN.levels == 4


def test_total_variation_is_lower_where_it_is_asked_for(lite0: Backbone, photo: Image) -> None:
    changes = [dreamed(lite0, photo, Polish(total_variation=v)) for v in (0, 0.3, 1, 2)]
    found = [variation(change) for change in changes]
    assert all(b < 0.95 * a for a, b in pairwise(found)), found
    assert found[2] < 0.7 * found[0]
    assert variation(photo + changes[2]) < variation(photo + changes[0])
    sharp = [fineness(photo + change) for change in (0 * photo, changes[3])]
    assert sharp[1] > 0.9 * sharp[0]  # the source stays as sharp as it is


@pytest.mark.parametrize("step", [1e-4, 0.01, 0.3])
def test_a_step_down_the_total_variation_never_leaps(step: float) -> None:
    x = torch.randn(3, 24, 32)
    for _ in range(20):
        after = x - steeper(x, step)
        assert variation(after) <= variation(x)
        assert torch.allclose(after.mean((1, 2)), x.mean((1, 2)), atol=1e-4)
        x = after


def test_a_dream_that_is_pulled_stays_near_its_source(lite0: Backbone, photo: Image) -> None:
    changes = [dreamed(lite0, photo, Polish(source_pull=p)) for p in (0, 0.05, 0.2, 0.5)]
    far = [float(change.square().mean().sqrt()) for change in changes]
    seen = [float(response(lite0, photo, photo + change, AIM)) for change in changes]
    assert all(b < 0.92 * a for a, b in pairwise(far)), far
    assert all(0 < b < a for a, b in pairwise(seen)), seen


def test_decorrelated_colours_vary_as_those_of_photographs() -> None:
    axes = torch.tensor(AXES, dtype=torch.float32)
    axes = axes / axes.norm(dim=1, keepdim=True)
    assert torch.allclose(axes @ axes.T, torch.eye(3), atol=1e-6)
    gradient = torch.randn(3, 40, 50) * torch.tensor([1.0, 0.3, 2.0]).view(3, 1, 1)
    have = _along(gradient, axes)
    for amount in (0.0, 0.5, 1.0):
        found = _along(decorrelated(gradient, amount), axes)
        want = torch.tensor(DEVIATIONS) ** amount * (have / have[0]) ** (1 - amount)
        assert torch.allclose(found / found[0], want, rtol=1e-3)


def _along(colours: Tensor, axes: Tensor) -> Tensor:
    return (axes @ colours.flatten(1)).square().mean(1).sqrt()


def test_decorrelated_dreams_are_light_and_dark_more_than_colourful(
    lite0: Backbone, photo: Image
) -> None:
    shares, seen = [], []
    for amount in (0.0, 0.5, 1.0):
        change = dreamed(lite0, photo, Polish(decorrelate=amount))
        spread = torch.linalg.eigvalsh(torch.cov(change.flatten(1)))
        shares.append(float(spread[:2].sum() / spread.sum()))
        seen.append(float(response(lite0, photo, photo + change, AIM)))
    assert shares[0] > 1.5 * shares[1] > 2 * shares[2]
    # What photographs would have: .275 and .133 of the deviation.
    assert shares[2] < 0.15
    assert min(seen) > 0.5 * seen[0]


def test_frequencies_climb_higher_and_are_softer(
    lite0: Backbone, photo: Image, tmp_path: Path
) -> None:
    recipe = {"octaves": 1, "finest_steps": 8}
    pixels, waves = (
        dreamed(lite0, photo, Polish(levels=1, fourier=way), **recipe) for way in (False, True)
    )
    gained = [float(response(lite0, photo, photo + change, AIM)) for change in (pixels, waves)]
    assert gained[1] > 0.1
    assert fineness(waves) < 0.5 * fineness(pixels)
    options = build({"steps": 2, "octaves": 3, "layers": ("block5",), "fourier": True})
    nothing = Carried(torch.zeros_like(photo), torch.zeros_like(photo[:1]))
    assert len(list(Dream(lite0)(photo, nothing, options, 0))) == 4  # one octave, twice as many


def test_a_video_cannot_climb_by_frequencies(sample: Path, tmp_path: Path) -> None:
    options = Options(fourier=True, work_size=64)
    with pytest.raises(OptionError) as fault:
        dream_file(sample, tmp_path / "out.mp4", options)
    assert "single picture" in str(fault.value)
    assert "--frames 1" in str(fault.value)
    one = options.model_copy(update={"frames": 1, "steps": 1})
    assert dream_file(sample, tmp_path / "one.png", one).frames == 1
    for kind in (ZoomOptions, LiveOptions):
        with pytest.raises(ValueError, match="fourier"):
            kind.model_validate({"fourier": True})


def chroma(pixels: Pixels) -> np.ndarray:
    """What is left of colours without their luminance, in levels."""
    levels = pixels.astype(np.float64)
    return levels - (levels @ np.array([0.2126, 0.7152, 0.0722]))[..., None]


@pytest.mark.parametrize("strength", [0.6, 1.0, 2.0])
def test_the_sources_hue_is_kept_to_a_level(lite0: Backbone, photo: Image, strength: float) -> None:
    """At full size, where colours are that the image at work size has not."""
    pixels = to_pixels(photo)
    options = build(QUICK, {"dream_colours": "luminance", "strength": strength})
    (found,) = redraw([Frame(pixels, Fraction(0), 0)], options, Dream(lite0), Still())
    assert np.abs(chroma(found.pixels) - chroma(pixels)).max() <= 1.0
    assert np.abs(found.pixels.astype(float) - pixels).mean() > 2
    deep = pixels.astype(np.uint16) * 257
    (found,) = redraw([Frame(deep, Fraction(0), 0)], options, Dream(lite0), Still())
    assert found.pixels.dtype == np.uint16
    assert np.abs(chroma(found.pixels) - chroma(deep)).max() <= 1.0


def test_all_colours_are_turned_into_the_sources(lite0: Backbone, photo: Image) -> None:
    delta = dreamed(lite0, photo, PLAIN) * 2
    covariance, histogram = (
        photo + shown(photo, delta, build({"dream_colours": how}))
        for how in ("covariance", "histogram")
    )
    before, after = (
        float((torch.cov(x.flatten(1)) - torch.cov(photo.flatten(1))).abs().max())
        for x in ((photo + delta).clamp(0, 1), covariance)
    )
    assert after < 0.1 * before
    ranked = [x.flatten(1).sort(dim=1).values for x in (histogram, photo)]
    assert torch.allclose(ranked[0], ranked[1], atol=1e-5)
    for result in (covariance, histogram):
        assert float((result - photo).abs().mean()) * 255 > 2


def test_contrast_and_saturation_are_held(lite0: Backbone, photo: Image) -> None:
    """Where a strong dream takes both away from the source's, within a few percent of them."""
    delta = dreamed(lite0, photo, PLAIN, step_size=6.0)
    pale = 0.5 + (photo - 0.5) * 0.4  # it has room for both
    for image in (photo, pale):
        bare, held = (
            (image + shown(image, delta, options)).clamp(0, 1)
            for options in (Options(), Options(hold_contrast=1, hold_saturation=1))
        )
        (light, colour), (light0, colour0), (light1, colour1) = map(_measured, (image, bare, held))
        assert light1 == pytest.approx(light, rel=0.04)
        assert colour1 == pytest.approx(colour, rel=0.04)
        assert abs(light0 - light) + abs(colour0 - colour) > 0.02
        half = _measured(image + shown(image, delta, Options(hold_saturation=0.5)))[1]
        assert abs(half - colour) < abs(colour0 - colour)


def _measured(image: Image) -> tuple[float, float]:
    """The deviation of luminance, and the RMS of what is left of the colours."""
    light = luma(image)
    return float(light.std()), float((image - light).square().mean().sqrt())


def test_what_is_held_is_wide_light_and_every_place_of_grey(photo: Image) -> None:
    result = (photo + 0.2 * torch.linspace(-1, 1, 160)).clamp(0, 1)  # one side lit up
    held = contrast_held(result, photo, 1.0)
    for x in (held, result):
        assert torch.allclose(x - luma(x), result - luma(result), atol=1e-5)
    left, right = (
        [float((luma(x) - luma(photo))[..., part].mean()) for x in (result, held)]
        for part in (slice(0, 60), slice(100, 160))
    )
    assert abs(left[1]) < 0.3 * abs(left[0])
    assert abs(right[1]) < 0.3 * abs(right[0])
    grey = luma(photo).expand(3, 120, 160)
    colourful = (grey + 0.1 * torch.randn(3, 1, 1)).clamp(0, 1)
    assert _measured(saturation_held(colourful, grey, 1.0))[1] < 0.25 * _measured(colourful)[1]


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_as_strong_as_asked_for_and_the_seeds(lite0: Backbone, name: str) -> None:
    one, again, other = (grain(name, (64, 96), seed) for seed in ((1, 7), (1, 7), (1, 8)))
    assert np.array_equal(one, again)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.2
    assert float(np.sqrt(np.square(one).mean())) == pytest.approx(1, rel=1e-4)
    assert np.corrcoef(one.ravel(), noise(name, (64, 96), (1, 7)).ravel())[0, 1] > 0.999
    grey = Frame(np.full((64, 96, 3), 128, np.uint8), Fraction(0), 5)
    options = build(QUICK, {"steps": 1, "step_size": 0.01, "noise": 12, "noise_kind": name})
    (found,) = redraw([grey], options, Dream(lite0), Still())
    assert float((found.pixels.astype(float) - 128).std()) == pytest.approx(12, rel=0.05)


def test_noise_is_carried_along_and_does_not_flicker(lite0: Backbone, photo: Image) -> None:
    """Along the motion a frame differs from the last hardly more than without any noise."""
    large = to_pixels(resize(photo, (240, 320)))
    frames = shots(large, 5, 4)
    plain, noisy = (run(lite0, frames, Pan(4), noise=n, noise_kind="band-limited") for n in (0, 16))
    assert variation(noisy[0]) > 1.05 * variation(plain[0])
    bare, found = (_error(pictures, 4) for pictures in (plain, noisy))
    flickering = 2 * (16 / 255) ** 2
    assert found < 1.6 * bare
    assert found < 0.2 * flickering
    # What came in at the left has noise of its own.
    calm = run(lite0, frames, Pan(4), steps=1, warm_steps=1, step_size=0.01, noise=16)
    new = calm[1][:, :, :4] - to_image(frames[1].pixels, (64, 96))[:, :, :4]
    assert float(new.std()) * 255 > 8
    still = calm[1][:, :, 8:] - calm[0][:, :, 4:-4]
    assert float(still.abs().mean()) * 255 < 4


def _error(pictures: Sequence[Image], step: int) -> float:
    """The mean squared difference of frames to the ones before, which lie `step` pixels left."""
    found = [
        float((b[..., step + 4 :] - a[..., 4:-step]).square().mean()) for a, b in pairwise(pictures)
    ]
    return float(np.mean(found))


def test_strength_and_stillness_hold_with_all_of_it(lite0: Backbone, photo: Image) -> None:
    """As well as without."""
    frames = shots(to_pixels(photo), 8)
    every = {"smooth": 0.7, "total_variation": 0.3, "decorrelate": 0.5, "source_pull": 0.02}
    source = to_image(frames[0].pixels, (64, 96))
    grown, moved = [], []
    for given in ({}, every):
        pictures = run(lite0, frames, None, steps=10, octaves=2, **given)
        first, last = (
            float(response(lite0, source, picture, AIM)) for picture in (pictures[0], pictures[-1])
        )
        grown.append(last / first)
        late = (pictures[-1] - pictures[-2]).square().mean().sqrt()
        moved.append(float(late / (pictures[-1] - source).square().mean().sqrt()))
    assert grown[1] == pytest.approx(1, abs=max(0.3, 1.3 * abs(grown[0] - 1))), grown
    assert moved[1] < max(0.25, 1.3 * moved[0]), moved


def test_numbers_move_with_time_with_sound_and_by_hand() -> None:
    numbers = [
        name for name, field in Polished.model_fields.items() if field.annotation in (int, float)
    ]
    assert len(numbers) == 8
    sliders = LiveOptions.sliders()
    for name in numbers:
        low, high = sliders[name]
        moving = build({name: f"0s: {low:g}, 1s: {high:g}"})
        assert getattr(moving.at(Moment(Fraction(1), 25)), name) == pytest.approx(high)
        reaction = Reaction.read(f"{name.replace('_', '-')}: bass", Options)
        assert getattr(driven(Options(), [reaction], {"bass": 1.0}), name) == high
    assert {"dream_colours", "noise_kind"} <= {
        name
        for name, field in LiveOptions.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and "slides" in field.json_schema_extra
    }


def test_a_look_is_recorded_with_how_it_was_finished() -> None:
    given = {"smooth": "0: 0, 2s: 1", "levels": 6, "dream_colours": "luminance", "noise": 3.5}
    found = build(recorded(build(given).as_comment(), "x"))
    assert found.given(all_fields=True) == build(given).given(all_fields=True)


def test_levels_are_recordings_of_their_own(lite0: Backbone, photo: Image) -> None:
    made = []

    def record(function: object, x: Tensor) -> object:
        made.append(1)
        return function

    slope = Replayed(steepest, record, "cpu")  # type: ignore[arg-type]
    found = [slope(lite0, photo, AIM, 1024, levels) for levels in (4, 1, 4)]
    assert len(made) == 2
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], steepest(lite0, photo, AIM, 1024, 1))
    assert not torch.equal(found[0], found[1])


def test_live_shows_and_movies_carry_the_same_colours(lite0: Backbone, photo: Image) -> None:
    delta = dreamed(lite0, photo, PLAIN)
    options = LiveOptions(dream_colours="luminance")
    layer = layer_of([(Dream(lite0), photo, delta)], (120, 160), options)
    assert np.abs(layer - layer[..., :1]).max() < 1e-6
    assert np.abs(layer).mean() > 1 / 255
    plain = layer_of([(Dream(lite0), photo, delta)], (120, 160), LiveOptions())
    assert np.abs(plain - plain[..., :1]).max() > 0.01

    def movie(**given: object) -> list[Pixels]:
        look = ZoomOptions.model_validate({"octaves": 1, "layers": ("block5",), **given})
        step = np.eye(3)
        plan = Plan(3, 0, ONE, [step] * 4, step, lambda _: look)
        return [frame.pixels for frame in fall(photo, plan, Dream(lite0))]

    bare, kept, noisy = (movie(), movie(dream_colours="luminance"), movie(noise=20))
    drift = [np.abs(chroma(m[-1]) - chroma(m[0])).mean() for m in (bare, kept, noisy)]
    assert drift[1] < 0.5 * drift[0]
    assert drift[2] > 1.3 * drift[0]


class Painter:
    """Paints nothing."""

    def __init__(self, replaces: bool) -> None:
        self.replaces = replaces

    def takes_part(self, options: Look) -> bool:
        return True

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[object]:
        yield from ()

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(
        self, image: Image, result: Image, options: Look, carried: Carried | None = None
    ) -> None:
        return None

    def laid_on(self, pixels: Pixels, image: Image, delta: Image, options: Look) -> Pixels:
        return pixels


def told(options: Look, *effects: object) -> list[str]:
    return list(idle(effects, options))  # type: ignore[arg-type]


def test_what_changes_nothing_is_told(lite0: Backbone) -> None:
    look = build({"smooth": "0: 0, 1s: 2", "noise": 3, "hold_contrast": 1})
    (notice,) = told(look, Painter(replaces=True))
    assert notice.startswith("--smooth, --hold-contrast, --noise: a style has no such thing")
    (notice,) = told(look, Painter(replaces=False))  # a dream that was trained is shown as one
    assert notice.startswith("--smooth, --noise: ")
    mixed = Dream(lite0, mixed=True)
    assert told(look, Painter(replaces=True), mixed) == []
    assert told(look, Dream(lite0)) == []
    assert told(Options(), Painter(replaces=True)) == []
    assert told(Options(fourier=True, levels=2), mixed) == ["--levels: --fourier has no pyramid"]
    assert "--noise" in told(Options(noise_kind="pink"), mixed)[0]
    lonely = {"guide_weight": "0: 0.2, 1s: 1", "mask_invert": True, "channel_count": 3}
    assert told(build(lonely, {"style_scale": 2}), mixed) == [
        "--guide-weight: nothing without --guide",
        "--channel-count: nothing without --channels",
        "--mask-invert: nothing without --mask",
        "--style-scale: nothing without --style",
    ]
    partners = {"guide": "a.png", "mask": "motion", "channels": "weakest", "style": "scream"}
    assert told(build(lonely, partners, {"style_scale": 2}), mixed) == []
    hue = Options(dream_colours="luminance", hold_saturation=1)
    assert told(hue, mixed)[0].startswith("--hold-saturation: ")


def test_live_tells_it_once() -> None:
    heard: list[str] = []

    def load(options: Look, device: torch.device) -> tuple[Effect, ...]:
        return (Painter(replaces=True),)  # type: ignore[return-value]

    chains = Chains(torch.device("cpu"), heard.append, load)
    for smooth in (0, 1, 2, 0, 3):  # as a slider goes
        chains.of(LiveOptions(smooth=smooth, style=("lite:1",)))
    assert len(heard) == 1
    assert heard[0].startswith("--smooth: ")


def test_a_shown_dream_is_of_planes_in_memory(photo: Image) -> None:
    """What composites wants: the same layout as any delta."""
    delta = planes(np.full((120, 160, 3), 0.1, np.float32))
    held = shown(photo, delta, Options(hold_contrast=1))
    assert held.shape == delta.shape
    assert held.dtype == delta.dtype
