"""Style by optimisation: its losses, the picture, the video, its colours, what may be typed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import make_clip
import numpy as np
import pytest
import torch
from PIL import Image as Pictures

from streamdream import stills
from streamdream.backbone import Backbone
from streamdream.dream import Dream
from streamdream.effects import effects_of
from streamdream.errors import Error, ModelError
from streamdream.frame import Frame, Image, interleaved, planes, resize, to_image, to_pixels
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import Carried, redraw
from streamdream.run import dream_file
from streamdream.settings import build
from streamdream.style.cards import read_card
from streamdream.style.colours import painted_on, recoloured
from streamdream.style.losses import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    content_loss,
    gram,
    style_loss,
    temporal_loss,
    total_variation,
)
from streamdream.style.named import check_styles, shipped
from streamdream.style.optimised import Goal, Optimised, Wanted, descend
from streamdream.style.paintings import mixed
from streamdream.style.trained import SHIPPED, check


def waves(size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A painting with colours and strokes of its own."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    bent = np.sin((x + 6 * np.sin(y / 9)) / 2.5)
    other, third = np.sin(y / 4 + x / 9), np.cos(y / 3 - x / 7)
    found = np.stack([0.2 + 0.1 * other, 0.4 + 0.2 * bent + 0.1 * third, 0.7 + 0.3 * bent], -1)
    return (found.clip(0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paintings") / "waves.png"
    Pictures.fromarray(waves()).save(path)
    return path


def styled(painting: Path, **values: object) -> Options:
    some = {"style": str(painting), "work_size": 64, "style_steps": 12, "style_warm_steps": 3}
    return build({**some, **values})


def numpy_gram(features: np.ndarray) -> np.ndarray:
    flat = features.reshape(features.shape[0], -1).astype(np.float64)
    return np.einsum("ip,jp->ij", flat, flat) / flat.shape[1]


def test_losses_are_what_numpy_finds(vgg19: Backbone, photo: Image) -> None:
    other = torch.from_numpy(waves((120, 160)).astype(np.float32) / 255).permute(2, 0, 1)
    layers = (*STYLE_LAYERS, *CONTENT_LAYERS)
    with torch.no_grad():
        a, b = vgg19(photo, layers), vgg19(other, layers)
    style, wanted = [], {}
    for layer in STYLE_LAYERS:
        wanted[layer] = gram(b[layer])
        mine, theirs = numpy_gram(a[layer][0].numpy()), numpy_gram(b[layer][0].numpy())
        assert wanted[layer].numpy() == pytest.approx(theirs, rel=1e-3, abs=1e-2)
        style.append(((mine - theirs) ** 2).sum() / (theirs**2).sum())
    assert float(style_loss(a, wanted)) == pytest.approx(np.mean(style), rel=1e-3)
    f, g = (x[CONTENT_LAYERS[0]].numpy().astype(np.float64) for x in (a, b))
    found = float(content_loss(a, {layer: b[layer] for layer in CONTENT_LAYERS}))
    assert found == pytest.approx(((f - g) ** 2).mean() / (g**2).mean(), rel=1e-3)
    pixels, trust = interleaved(photo).astype(np.float64), torch.rand(1, 120, 160)
    steps = (np.diff(pixels, axis=0) ** 2).mean() + (np.diff(pixels, axis=1) ** 2).mean()
    assert float(total_variation(photo)) == pytest.approx(steps, rel=1e-3)
    off = (trust.numpy() * (photo.numpy() - other.numpy()) ** 2).mean()
    assert float(temporal_loss(photo, other, trust)) == pytest.approx(off, rel=1e-3)


def test_a_mask_is_as_if_only_its_places_were_there() -> None:
    features, mask = torch.randn(1, 5, 8, 12), torch.zeros(1, 8, 12)
    mask[..., :4] = 1
    assert torch.allclose(gram(features, mask), gram(features[..., :4]), atol=1e-5)
    assert torch.isfinite(gram(features, mask * 0)).all()


def test_the_gradient_of_the_whole_loss_is_its_slope(vgg19: Backbone, photo: Image) -> None:
    image = photo[:, :48, :64].contiguous()
    with torch.no_grad():
        found = vgg19(waves_image((48, 64)), STYLE_LAYERS)
        content = vgg19(image, CONTENT_LAYERS)
    mask = torch.linspace(0, 1, 64).expand(1, 48, 64)
    wanted = Wanted({layer: gram(found[layer]) for layer in STYLE_LAYERS}, 0.7, mask)
    goal = Goal(image, [wanted], 20.0, image.flip(-1), torch.rand(1, 48, 64), 100.0)
    x = (image + 0.05 * torch.randn_like(image)).clamp(0.1, 0.9).requires_grad_(True)
    loss = goal.loss(vgg19, x, content)
    (slope,) = torch.autograd.grad(loss, x)
    way = slope.sign() + 0.3 * torch.randn_like(slope)
    step = 2e-3
    with torch.no_grad():
        up, down = (float(goal.loss(vgg19, x + s * step * way, content)) for s in (1, -1))
    assert (up - down) / (2 * step) == pytest.approx(float((slope * way).sum()), rel=0.05)


def waves_image(size: tuple[int, int]) -> Image:
    return planes(waves(size).astype(np.float32) / 255)


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_steps_descend(vgg19: Backbone, photo: Image, optimiser: str) -> None:
    image = photo[:, :64, :80].contiguous()
    with torch.no_grad():
        found = vgg19(waves_image((64, 80)), STYLE_LAYERS)
        content = vgg19(image, CONTENT_LAYERS)
    goal = Goal(image, [Wanted({layer: gram(found[layer]) for layer in found}, 1.0)], 20.0)
    last = list(descend(vgg19, image, goal, 16, 1.0, optimiser))[-1]
    with torch.no_grad():
        before, after = (float(goal.loss(vgg19, x, content)) for x in (image, last))
    assert after < 0.7 * before
    assert 0 <= float(last.min()) <= float(last.max()) <= 1


def test_a_painting_comes_nearer_in_style_and_keeps_what_is_seen(
    vgg19: Backbone, painting: Path, photo: Image
) -> None:
    options = styled(painting, style_steps=20)
    (result,) = redraw([frame_of(photo)], options, Optimised(vgg19), OpticalFlow())
    assert nearness(vgg19, result) < 0.5 * nearness(vgg19, frame_of(photo))
    seen = (cv2.cvtColor(f.pixels, cv2.COLOR_RGB2GRAY) for f in (result, frame_of(photo)))
    a, b = (cv2.GaussianBlur(np.asarray(g, np.float32), (0, 0), 3).ravel() for g in seen)
    assert float(np.corrcoef(a, b)[0, 1]) > 0.6


def frame_of(image: Image, index: int = 0) -> Frame:
    return Frame(to_pixels(image), Fraction(index, 25), index)


def nearness(vgg19: Backbone, frame: Frame) -> float:
    with torch.no_grad():
        wanted = vgg19(resize(waves_image((96, 128)), (64, 85)), STYLE_LAYERS)
        found = vgg19(to_image(frame.pixels, (64, 85)), STYLE_LAYERS)
        return float(style_loss(found, {layer: gram(wanted[layer]) for layer in wanted}))


def test_on_video_it_holds_still_with_a_quarter_of_the_steps(
    vgg19: Backbone, painting: Path
) -> None:
    """Judged with the true flow of the sample clip; the same start, frame by frame."""
    frames = [Frame(make_clip.render(10 + n), Fraction(n, 24), n) for n in range(5)]

    def excess(results: list[Frame]) -> float:
        return mean_error([r.pixels for r in results]) - mean_error([f.pixels for f in frames])

    each = styled(painting, memory=0, style_steps=12)
    carried = styled(painting, style_steps=12, style_warm_steps=3)
    loose, held = (
        list(redraw(frames, options, Optimised(vgg19), OpticalFlow()))
        for options in (each, carried)
    )
    assert excess(held) < 0.25 * excess(loose)


def mean_error(pictures: list[np.ndarray]) -> float:
    found = []
    for n in range(1, len(pictures)):
        flow, seen = make_clip.flow(10 + n), make_clip.visible(10 + n)
        h, w = flow.shape[1:]
        x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
        was = cv2.remap(pictures[n - 1], x + flow[0], y + flow[1], cv2.INTER_CUBIC)
        found.append(((was.astype(np.float32) - pictures[n]) ** 2)[seen].mean())
    return float(np.mean(found))


def test_same_seed_same_bits_and_nothing_crosses_a_cut(vgg19: Backbone, painting: Path) -> None:
    options = styled(painting, style_steps=3, style_warm_steps=1)
    scenes = [make_clip.render(20), make_clip.render(21), make_clip.render(make_clip.SHOTS[1])]
    frames = [Frame(pixels, Fraction(n, 24), n) for n, pixels in enumerate(scenes)]
    runs = [list(redraw(frames, options, Optimised(vgg19), OpticalFlow())) for _ in range(2)]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(*runs, strict=True))
    (alone,) = redraw([frames[2]], options, Optimised(vgg19), OpticalFlow())
    assert np.array_equal(alone.pixels, runs[0][2].pixels)


def test_two_styles_each_where_its_mask_is_white(
    vgg19: Backbone, painting: Path, photo: Image, tmp_path: Path
) -> None:
    red = tmp_path / "red.png"
    Pictures.fromarray(waves()[:, :, ::-1]).save(red)
    for name, columns in (("left", slice(0, 32)), ("right", slice(32, 64))):
        mask = np.zeros((48, 64), np.uint8)
        mask[:, columns] = 255
        Pictures.fromarray(mask).save(tmp_path / f"{name}.png")
    masks = [str(tmp_path / "left.png"), str(tmp_path / "right.png")]
    options = styled(painting, style=f"{painting},{red}", style_mask=masks, style_steps=15)
    (result,) = redraw([frame_of(photo)], options, Optimised(vgg19), OpticalFlow())
    change = result.pixels.astype(float) - frame_of(photo).pixels
    left, right = change[:, :60].mean((0, 1)), change[:, -60:].mean((0, 1))
    assert left[2] - left[0] > right[2] - right[0] + 20  # blue here, red there


def test_outside_of_its_mask_the_source_is_untouched(painting: Path, tmp_path: Path) -> None:
    mask = np.zeros((90, 160), np.uint8)
    mask[20:60, 40:100] = 255
    Pictures.fromarray(mask).save(tmp_path / "mask.png")
    options = styled(painting, style_mask=str(tmp_path / "mask.png"))
    pixels = make_clip.render(0)
    image = to_image(pixels, (90, 160))
    found = painted_on(pixels, image, torch.full_like(image, 0.3), options)
    far = cv2.dilate(cv2.resize(mask, pixels.shape[1::-1]), np.ones((9, 9), np.uint8)) == 0
    assert np.array_equal(found[far], pixels[far])
    assert not np.array_equal(found[~far], pixels[~far])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_strength_goes_from_the_source_to_the_painting(painting: Path, depth: type) -> None:
    pixels = (make_clip.render(0)[:90, :160].astype(depth)) * (257 if depth == np.uint16 else 1)
    image = to_image(pixels, (90, 160))
    delta = 0.4 - image  # an even grey
    options = styled(painting)
    at = {s: options.model_copy(update={"strength": s}) for s in (0.0, 0.5, 1.0)}
    assert np.array_equal(painted_on(pixels, image, delta, at[0.0]), pixels)
    whole = painted_on(pixels, image, delta, at[1.0])
    assert whole.dtype == depth
    assert whole == pytest.approx(round(0.4 * np.iinfo(depth).max), abs=1)
    half = painted_on(pixels, image, delta, at[0.5])
    assert half == pytest.approx((pixels.astype(float) + whole) / 2, abs=1)


def test_colours_are_those_of_the_source(photo: Image) -> None:
    painted = waves_image((120, 160))
    weights = torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)
    grey = recoloured(painted, photo, "luminance")
    assert torch.allclose((grey * weights).sum(0), (painted * weights).sum(0), atol=1e-4)
    assert torch.allclose(grey - grey[:1], photo - photo[:1], atol=1e-5)
    linear = recoloured(painted, photo, "covariance")
    assert torch.allclose(linear.flatten(1).mean(1), photo.flatten(1).mean(1), atol=1e-4)
    assert torch.allclose(linear.flatten(1).cov(), photo.flatten(1).cov(), atol=1e-3)
    ranked = recoloured(painted, photo, "histogram")
    assert torch.equal(ranked.flatten(1).sort(1).values, photo.flatten(1).sort(1).values)
    order = painted[0].flatten().argsort(stable=True)
    assert (ranked[0].flatten()[order].diff() >= 0).all()
    assert recoloured(painted, photo, "painting") is painted


def test_a_single_colour_has_no_covariance_and_does_no_harm(photo: Image) -> None:
    for flat in (torch.full_like(photo, 0.5), torch.zeros_like(photo)):
        for how in ("covariance", "histogram", "luminance"):
            assert torch.isfinite(recoloured(flat, photo, how)).all()
            assert torch.isfinite(recoloured(photo, flat, how)).all()


def test_a_dream_is_mixed_on_top_and_carried_on_its_own(
    vgg19: Backbone, lite0: Backbone, painting: Path
) -> None:
    frames = [Frame(make_clip.render(10 + n), Fraction(n, 24), n) for n in range(2)]
    some = {"style_steps": 2, "style_warm_steps": 1, "steps": 4, "octaves": 1, "work_size": 96}
    both = (Optimised(vgg19), Dream(lite0, mixed=True))
    results = {}
    for mix in (0.0, 0.5, 1.0):
        options = styled(painting, **some, dream_mix=mix)
        found = list(redraw(frames, options, both, OpticalFlow()))
        results[mix] = np.stack([r.pixels for r in found]).astype(float)
    alone = list(redraw(frames, styled(painting, **some), both[:1], OpticalFlow()))
    assert np.array_equal(np.stack([r.pixels for r in alone]), results[0.0])
    whole, half = results[1.0] - results[0.0], results[0.5] - results[0.0]
    assert whole.std() > 4
    assert np.corrcoef(whole.ravel(), half.ravel())[0, 1] > 0.9
    assert half.std() == pytest.approx(whole.std() / 2, rel=0.2)


def test_a_style_can_fade_over_into_another(vgg19: Backbone, painting: Path, photo: Image) -> None:
    options = styled(painting, style=f"0: {painting}, 2: {painting}*0.5", style_steps=2)
    frames = [frame_of(photo, n) for n in range(3)]
    assert len(list(redraw(frames, options, Optimised(vgg19), OpticalFlow()))) == 3
    assert options.schedules["style"].layers == (str(painting),)


def test_a_file_is_painted_with_its_sound_and_look_recorded(
    painting: Path, film: Path, tmp_path: Path
) -> None:
    from streamdream.run import read_settings
    from streamdream.settings import recorded
    from streamdream.sources import VideoSource

    out = tmp_path / "out.mp4"
    options = styled(painting, style_steps=1, style_warm_steps=1, work_size=32)
    assert dream_file(film, out, options).frames == 10
    look = recorded(read_settings(out), "out")
    assert look["style"] == str(painting)
    with VideoSource(out) as source:
        assert any(s.type == "audio" for s in source.companions.streams)


def test_networks_that_come_along_are_those_meant(tmp_path: Path) -> None:
    assert shipped().keys() == SHIPPED.keys()
    for name, path in shipped().items():
        check(path, SHIPPED[name])
        assert path.stat().st_size < 3 * 2**20
        assert read_card(path).trained_on
    other = tmp_path / "other.safetensors"
    other.write_bytes(shipped()["scream"].read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="SHA-256"):
        check(other, SHIPPED["scream"])


def painted_by(name: str, photo: Image) -> Image:
    (effect,) = effects_of(build({"style": name}), torch.device("cpu"))
    nothing = Carried(torch.zeros_like(photo), torch.zeros_like(photo[:1]))
    (picture,) = effect(photo, nothing, build({"style": name}), 0)
    return picture()


def test_trained_paintings_have_colours_of_their_own(photo: Image) -> None:
    night, scream = (painted_by(name, photo) for name in ("starry-night", "scream"))
    assert float(night[2].mean() - night[0].mean()) > 0.05  # blue
    assert float(scream[0].mean() - scream[2].mean()) > 0.1  # red
    for painting in (night, scream):
        grey = np.corrcoef(painting.mean(0).ravel(), photo.mean(0).ravel())
        assert grey[0, 1] > 0.4  # and show what is there


def test_a_trained_dream_is_one(lite0: Backbone, photo: Image) -> None:
    result = painted_by("creatures", photo)
    gained = Dream(lite0).response(photo, result, build({"layers": "block9"}))
    noise = (photo + (result - photo).std() * torch.randn_like(photo)).clamp(0, 1)
    assert float(gained) > 0.1
    assert float(gained) > float(Dream(lite0).response(photo, noise, build({"layers": "block9"})))


@pytest.mark.parametrize("name", ["starry-night", "creatures"])
def test_a_trained_network_holds_still_by_itself(name: str) -> None:
    """Judged with the true flow of the sample clip."""
    frames = [Frame(make_clip.render(10 + n), Fraction(n, 24), n) for n in range(6)]
    found = []
    for memory in (0.0, 3.0):
        options = build({"style": name, "work_size": 120, "memory": memory})
        effects = effects_of(options, torch.device("cpu"))
        results = list(redraw(frames, options, effects, OpticalFlow()))
        found.append(mean_error([r.pixels for r in results]))
    source = mean_error([f.pixels for f in frames])
    assert found[1] - source < 0.5 * (found[0] - source)


def test_several_networks_mix_by_weight_or_mask(photo: Image, tmp_path: Path) -> None:
    both = [painted_by(name, photo) for name in ("starry-night", "scream")]
    mean = painted_by("starry-night*0.25,scream*0.75", photo)
    assert torch.allclose(mean, 0.25 * both[0] + 0.75 * both[1], atol=1e-4)
    names = []
    for side in ("left", "right"):
        mask = np.zeros((120, 160), np.uint8)
        mask[:, slice(0, 80) if side == "left" else slice(80, 160)] = 255
        Pictures.fromarray(mask).save(tmp_path / f"{side}.png")
        names.append(str(tmp_path / f"{side}.png"))
    options = build({"style": "starry-night,scream", "style_mask": names})
    found = mixed(both, None, options)
    assert torch.allclose(found[..., :80], both[0][..., :80], atol=1e-3)
    assert torch.allclose(found[..., 80:], both[1][..., 80:], atol=1e-3)


Make = Callable[[Path], dict[str, object]]


def small_picture(folder: Path) -> dict[str, object]:
    Pictures.fromarray(waves((16, 200))).save(folder / "small.png")
    return {"style": str(folder / "small.png")}


def text_file(folder: Path) -> dict[str, object]:
    (folder / "text.jpg").write_text("no picture")
    return {"style": str(folder / "text.jpg")}


def three_masks(folder: Path) -> dict[str, object]:
    Pictures.fromarray(waves()).save(folder / "a.png")
    a = str(folder / "a.png")
    return {"style": a, "style_mask": [a, a, a]}


def two_masks(folder: Path) -> str:
    Pictures.fromarray(waves()).save(folder / "a.png")
    return f"{folder / 'a.png'},{folder / 'a.png'}"


def changing_masks(folder: Path) -> dict[str, object]:
    return {"style": "0: scream, 2: starry-night", "style_mask": two_masks(folder)}


def masks_of_nothing(folder: Path) -> dict[str, object]:
    return {"style": "scream,starry-night*0", "style_mask": two_masks(folder)}


def test_a_damaged_painting_is_refused(tmp_path: Path, photo: Image) -> None:
    whole, part = tmp_path / "whole.jpg", tmp_path / "part.jpg"
    Pictures.fromarray(to_pixels(photo)).save(whole, quality=95)
    part.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(Error, match=r"part\.jpg"):
        stills.painting(part)


def test_a_trained_dream_stays_within_its_mask(tmp_path: Path) -> None:
    mask = np.zeros((360, 640), np.uint8)
    mask[:, :320] = 255
    Pictures.fromarray(mask).save(tmp_path / "mask.png")
    options = build({"style": "creatures", "style_mask": str(tmp_path / "mask.png")})
    frame = Frame(make_clip.render(0), Fraction(0), 0)
    effects = effects_of(options, torch.device("cpu"))
    (result,) = redraw([frame], options, effects, OpticalFlow())
    assert np.array_equal(result.pixels[:, 324:], frame.pixels[:, 324:])
    assert not np.array_equal(result.pixels[:, :316], frame.pixels[:, :316])


def test_memory_counts_for_trained_networks() -> None:
    frames = [Frame(make_clip.render(10 + n), Fraction(n, 24), n) for n in range(3)]
    last = []
    for memory in (0.02, 3.0):
        options = build({"style": "scream", "work_size": 90, "memory": memory})
        effects = effects_of(options, torch.device("cpu"))
        last.append(list(redraw(frames, options, effects, OpticalFlow()))[-1].pixels)
    assert not np.array_equal(*last)


WRONG: dict[str, tuple[Make, str, int]] = {
    "missing": (lambda f: {"style": str(f / "none.jpg")}, "no such file", 3),
    "no name": (lambda f: {"style": "zebra"}, "no style of that name", 2),
    "folder": (lambda f: {"style": str(f)}, "is a folder", 3),
    "text": (text_file, "is not a picture", 3),
    "small": (small_picture, "too small", 3),
    "masks": (three_masks, "3 masks for 1 styles", 2),
    "weightless": (lambda f: {"style": "scream*0,creatures*0"}, "weighs nothing", 2),
    "twice": (lambda f: {"style": "scream,scream*0.5"}, "names a style twice", 2),
    "weight": (lambda f: {"style": "scream*x"}, "no weight from 0 to 1000", 2),
    "masks of a schedule": (changing_masks, "several masks do not go with styles that", 2),
    "mask of nothing": (masks_of_nothing, "one of them weighs nothing", 2),
    "both": (lambda f: {"style": "scream,creatures"}, "paintings and dreams do not mix", 2),
    "kinds": (lambda f: {"style": "scream,lite:3"}, "do not mix", 2),
    "colours": (
        lambda f: {"style": "creatures", "style_colours": "luminance"},
        "is for paintings",
        2,
    ),
    "gatys": (lambda f: {"style": "lite:3", "style_method": "gatys"}, "needs pictures", 2),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_styles_get_one_line(wrong: str, tmp_path: Path) -> None:
    make, told, code = WRONG[wrong]
    with pytest.raises(Error, match=told) as fault:
        check_styles(build(make(tmp_path)))
    assert fault.value.exit_code == code
    assert "\n" not in str(fault.value)


def test_a_wrong_style_is_told_before_anything_is_loaded(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = [str(sample), "-o", str(out), "--style", str(tmp_path / "none.jpg")]
    done = subprocess.run(
        [sys.executable, "-m", "streamdream", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("streamdream: error: ")
    assert done.stderr.count("\n") == 1
    assert not out.exists()
