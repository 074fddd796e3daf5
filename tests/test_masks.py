"""Where a picture is redrawn: what masks say, how they follow, and that nothing else changes."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import flatbuffers
import make_clip
import numpy as np
import pytest
import torch
from media import Film, flat, moving
from PIL import Image as Pictures
from test_live_stage import Painter, seen, settled
from test_pipeline import Adding

from streamdream.backbone import Backbone
from streamdream.cli import main
from streamdream.dream import Dream
from streamdream.effects import effects_of
from streamdream.errors import Error
from streamdream.frame import Frame, Image, interleaved, planes, to_image
from streamdream.live.controls import Controls
from streamdream.live.dreamer import Dreamer
from streamdream.live.options import LiveOptions
from streamdream.live.pacing import Pacing
from streamdream.live.stage import Stage
from streamdream.masks.camera import camera_flow
from streamdream.masks.keys import keyed
from streamdream.masks.masking import Masks, Measured, laid
from streamdream.masks.options import check_mask
from streamdream.masks.parts import read
from streamdream.masks.places import Clip, feathered
from streamdream.motion import Movement, OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import View, redraw, views
from streamdream.run import dream_file
from streamdream.settings import build, made
from streamdream.sources import VideoSource
from streamdream.zoom.movie import zoom_file
from streamdream.zoom.options import ZoomOptions

LEFT = "polygon 0,0 0.5,0 0.5,1 0,1"
QUICK: dict[str, object] = {"work_size": 64, "octaves": 1, "steps": 1, "warm_steps": 1}


def masked(mask: str | list[str], **more: object) -> Options:
    return build({**QUICK, "mask": mask, **more})


def opacities(frames: list[Frame], options: Options) -> list[np.ndarray]:
    return [view.opacity[..., 0] for view in seeing(frames, options) if view.opacity is not None]


def seeing(frames: list[Frame], options: Options) -> Iterator[View]:
    return views(frames, options, OpticalFlow(options.flow), masks=Masks.of(options))


def noise(seed: int, size: tuple[int, int] = (96, 160)) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(size=(*size, 3))
    smooth = cv2.GaussianBlur(grain, (0, 0), 2.5)
    return (128 + 40 * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def walk(count: int = 12, pan: float = 0.0, speed: float = 3.0) -> list[Frame]:
    """A textured thing, 28 px wide, that walks 3 px a frame to the right, before a wall."""
    wall, thing = noise(0, (96, 400)), noise(1, (40, 28))
    thing[..., 0] = 255 - thing[..., 0] // 3
    found = []
    for n in range(count):
        shift = np.array([[1, 0, -pan * n], [0, 1, 0]], np.float32)
        pixels = cv2.warpAffine(wall, shift, (160, 96))
        if speed:
            x = round(20 + speed * n)
            pixels[30:70, x : x + 28] = thing
        found.append(Frame(np.asarray(pixels, np.uint8), Fraction(n, 25), n))
    return found


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_outside_the_mask_a_png_has_the_bytes_of_its_source(
    tmp_path: Path, depth: type, channels: int
) -> None:
    rng = np.random.default_rng(0)
    most = int(np.iinfo(depth).max)
    pixels = rng.integers(0, most + 1, (72, 96, channels)).astype(depth)
    source = tmp_path / "in.png"
    cv2.imwrite(str(source), pixels)
    results = []
    for name, mask in (("masked", LEFT), ("whole", [])):
        dream_file(source, tmp_path / f"{name}.png", masked(mask, mask_feather=10))
        results.append(cv2.imread(str(tmp_path / f"{name}.png"), cv2.IMREAD_UNCHANGED))
    found, whole = results
    assert found is not None
    assert whole is not None
    assert found.dtype == depth
    assert found.shape == pixels.shape
    assert np.array_equal(found[:, 48:], pixels[:, 48:])
    assert not np.array_equal(found[:, :40], pixels[:, :40])
    # Inside, where the edge has come up, it is the dream as it is without a mask.
    assert np.array_equal(found[:, :30], whole[:, :30])


def test_what_is_carried_does_not_know_of_the_mask(lite0: Backbone) -> None:
    frames = [Frame(make_clip.render(i)[::4, ::4].copy(), Fraction(i, 24), i) for i in range(4)]
    runs = [
        [f.pixels for f in redraw(frames, options, Dream(lite0), OpticalFlow())]
        for options in (masked([]), masked("polygon 0,0 1,0 0,1"))
    ]
    for frame, whole, part in zip(frames, *runs, strict=True):
        h, w = part.shape[:2]
        assert np.array_equal(part[: h // 2, : w // 4], whole[: h // 2, : w // 4])
        assert np.array_equal(part[-h // 4 :, -w // 2 :], frame.pixels[-h // 4 :, -w // 2 :])


def test_a_mask_lies_on_the_picture_as_it_is_seen(tmp_path: Path) -> None:
    turned = Film(paint=moving((64, 128)), times=range(2), rotation=90).write(tmp_path / "a.mp4")
    mask = np.zeros((40, 20), np.uint8)
    mask[:20] = 255  # the upper half of the upright picture, which is a portrait
    Pictures.fromarray(mask).save(tmp_path / "up.png")
    out = tmp_path / "out%d.png"
    options = masked(str(tmp_path / "up.png"), size="48x96")
    dream_file(turned, out, options)
    with VideoSource(turned, size=(96, 48)) as source:
        for number, frame in enumerate(source, start=1):
            found = np.array(Pictures.open(tmp_path / f"out{number}.png"))
            assert found.shape == (96, 48, 3)
            assert np.array_equal(found[51:], frame.pixels[51:])
            assert not np.array_equal(found[:40], frame.pixels[:40])


def film_of_masks(path: Path, count: int = 5) -> Path:
    def paint(index: int) -> np.ndarray:
        pixels = np.zeros((32, 80, 3), np.uint8)
        pixels[:, 16 * index : 16 * index + 16] = 255
        return pixels

    return Film(paint=paint, times=range(count), options={"crf": "0"}).write(path)


def test_a_mask_video_goes_by_its_times(tmp_path: Path) -> None:
    path = film_of_masks(tmp_path / "mask.mkv")

    def where(clip: Clip, number: float) -> int:
        columns = clip.at(Fraction(number) / 25, (32, 80)).mean(0)
        return int(columns.argmax()) // 16

    held, looped = Clip(str(path), looped=False), Clip(str(path), looped=True)
    for clip in (held, looped):
        assert [where(clip, n) for n in (0, 0.5, 2, 4, 1)] == [0, 0, 2, 4, 1]
    assert [where(held, n) for n in (7, 99, 3)] == [4, 4, 3]
    assert [where(looped, n) for n in (7, 5, 14, 23, 3)] == [2, 0, 4, 3, 3]
    held.close()
    looped.close()


def test_a_part_of_a_video_has_the_mask_of_that_part(tmp_path: Path) -> None:
    mask = film_of_masks(tmp_path / "mask.mkv")
    film = Film(paint=moving((32, 80)), times=range(5)).write(tmp_path / "film.mp4")
    options = masked(str(mask), start="0.08", frames=1, work_size=32, mask_feather=0)
    dream_file(film, tmp_path / "out.png", options)
    with VideoSource(film, start=Fraction(2, 25), frames=1) as source:
        (frame,) = source
    changed = (np.array(Pictures.open(tmp_path / "out.png")) != frame.pixels).any(2)
    assert changed[:, 33:47].mean() > 0.5
    assert not changed[:, :30].any()
    assert not changed[:, 50:].any()


KEYS = {
    "luminance 0.5..1": [0, 1, 0, 1, 0],  # black, white, red, yellow, blue
    "luminance 0..0.15": [1, 0, 0, 0, 1],
    "colour #f00 30": [0, 0, 1, 0, 0],
    "color: blue": [0, 0, 0, 0, 1],
    "hue 330..30": [0, 0, 1, 0, 0],
    "hue 30..330": [0, 0, 0, 1, 1],
}


@pytest.mark.parametrize("text", KEYS)
def test_keys_find_light_colour_and_hue(text: str) -> None:
    colours = [(0, 0, 0), (255, 255, 255), (230, 0, 0), (255, 255, 0), (0, 0, 255)]
    pixels = np.repeat(np.array([colours], np.uint8), 8, 0)
    found = keyed(to_image(pixels, (8, 5)), read(text))
    assert [round(float(column)) for column in found[0].mean(0)] == KEYS[text]


def test_only_what_moves_against_the_camera_is_motion() -> None:
    for pan in (0.0, 2.0):
        *_, found = opacities(walk(8, pan), masked("motion", work_size=96, mask_smooth=0.1))
        x = 20 + 21
        assert found[36:64, x + 4 : x + 24].mean() > 0.7
        far = found.copy()
        far[20:80, max(0, x - 12) : x + 40] = 0
        assert far[8:-8, 8:-8].mean() < 0.02
    *_, still = opacities(walk(5, 2.0, speed=0.0), masked("motion", work_size=96))
    assert still[8:-8, 8:-8].mean() < 0.02


def test_the_camera_is_told_from_what_moves_in_front_of_it() -> None:
    frames = walk(2, pan=2.0)
    now, before = (to_image(frame.pixels, (96, 160)) for frame in reversed(frames))
    flow = camera_flow(OpticalFlow("dis").between(now, before))
    assert abs(float(flow[0].mean()) - 2) < 0.2
    assert abs(float(flow[1].mean())) < 0.2


def test_the_foreground_is_what_was_not_there_before() -> None:
    frames = [*walk(10, speed=0.0), *(replace(f, index=f.index + 10) for f in walk(8))]
    frames = [replace(f, time=Fraction(f.index, 25)) for f in frames]
    found = opacities(frames, masked("foreground", work_size=96))
    assert max(mask.mean() for mask in found[:10]) < 0.01
    x = 20 + 21
    assert found[-1][36:64, x + 4 : x + 24].mean() > 0.9
    assert found[-1][:, : x - 16].mean() < 0.02  # no ghost where it was
    assert found[-1][:, x + 44 :].mean() < 0.02


def test_what_a_mask_goes_on_from_is_a_value() -> None:
    options = masked("foreground and not motion", work_size=96)
    seen_ = list(seeing(walk(6), options))
    masks = Masks(options)
    before: Measured | None = None
    for view in seen_:
        # As after an interruption: nothing is left but what was kept.
        before = None if before is None else pickle.loads(pickle.dumps(before))
        before = masks.measured(view.image, view.movement, view.frame.time, before, options)
        assert view.measured is not None
        for mine, its in zip(before.masks, view.measured.masks, strict=True):
            assert torch.equal(mine, its)
    assert before is not None
    assert before.background is not None


def test_nothing_of_a_mask_crosses_a_cut() -> None:
    other = [replace(f, pixels=255 - f.pixels[::-1, ::-1] // 2) for f in walk(3)]
    frames = [
        replace(f, pixels=np.ascontiguousarray(f.pixels), index=n, time=Fraction(n, 25))
        for n, f in enumerate([*walk(5), *other])
    ]
    for mask in ("foreground", "luminance 0.6..1", "motion"):
        joined = opacities(frames, masked(mask, work_size=96))[5:]
        alone = opacities(frames[5:], masked(mask, work_size=96))
        assert all(np.array_equal(a, b) for a, b in zip(joined, alone, strict=True))


def test_averaging_along_the_motion_takes_the_flicker_out_of_a_key() -> None:
    rng = np.random.default_rng(2)
    frames = [
        replace(
            f, pixels=(f.pixels + rng.normal(0, 12, f.pixels.shape)).clip(0, 255).astype(np.uint8)
        )
        for f in walk(10, pan=1.0)
    ]

    def flicker(smooth: float) -> float:
        found = opacities(frames, masked("luminance 0.5..1", work_size=96, mask_smooth=smooth))
        ahead = [
            np.abs(a[:, :-1] - b[:, 1:]).mean() for a, b in zip(found[4:], found[3:], strict=False)
        ]
        return float(np.mean(ahead))

    assert flicker(0.3) < 0.6 * flicker(0.0)


def test_parts_hold_together_and_inside_out() -> None:
    frame = [Frame(noise(3), Fraction(0), 0)]
    upper = "polygon 0,0 1,0 1,0.5 0,0.5"
    both = opacities(frame, masked(f"{LEFT} and {upper}", mask_feather=0))[0]
    again = opacities(frame, masked([LEFT, upper], mask_feather=0))[0]
    assert np.array_equal(both, again)
    assert both[:40, :70].min() == 1
    assert both[:, 84:].max() == both[52:].max() == 0
    rest = opacities(frame, masked(f"{LEFT} and {upper}", mask_feather=0, mask_invert=True))[0]
    assert np.allclose(rest, 1 - both, atol=1e-6)
    corner = opacities(frame, masked(f"not {LEFT} and not: {upper}", mask_feather=0))[0]
    assert corner[52:, 84:].min() == 1
    assert corner[:44].max() == corner[:, :76].max() == 0


@pytest.mark.parametrize("width", [3.0, 12.0, 60.0])
def test_a_feather_lies_inside_of_the_edge(width: float) -> None:
    mask = np.zeros((160, 240), np.float32)
    cv2.circle(mask, (120, 80), 70, 1.0, -1)
    soft = feathered(mask, width)
    assert soft[mask == 0].max() == 0
    row = soft[80, 120:192]
    assert (np.diff(row) <= 1e-3).all()
    assert row[0] > 0.95
    risen = np.abs(np.diff(row))
    assert risen.max() < 2.5 / width + 0.03
    assert np.allclose(feathered(np.full((64, 64), 0.5, np.float32), width), 0.5)


def test_its_strength_moves_and_leaves_some_of_the_dream_outside() -> None:
    frames = [Frame(flat((90, 90, 90), (48, 64))(i), Fraction(i, 25), i) for i in range(3)]
    options = masked(LEFT, mask_strength="0: 0, 2: 1", mask_feather=0)
    added = [
        float((f.pixels[:, 40:].astype(float) - 90).mean() / (f.pixels[:, :24] - 90.0).mean())
        for f in redraw(frames, options, Adding(), OpticalFlow("none"))
    ]
    assert added == pytest.approx([1, 0.5, 0], abs=0.03)


def test_paintings_and_dreams_on_them_stay_within() -> None:
    options = masked(LEFT, style="scream", dream_mix=1, work_size=48)
    frames = [Frame(make_clip.render(i)[::5, ::5].copy(), Fraction(i, 24), i) for i in range(2)]
    effects = effects_of(options, torch.device("cpu"))
    for frame, result in zip(frames, redraw(frames, options, effects, OpticalFlow()), strict=True):
        half = frame.pixels.shape[1] // 2
        assert np.array_equal(result.pixels[:, half:], frame.pixels[:, half:])
        assert (result.pixels[:, : half - 4] != frame.pixels[:, : half - 4]).mean() > 0.6


def test_a_loop_and_its_mask_go_round(tmp_path: Path) -> None:
    mask = film_of_masks(tmp_path / "mask.mkv")
    film = Film(paint=moving((40, 80)), times=range(12)).write(tmp_path / "film.mp4")
    options = masked(f"{mask} looped and not motion 500", loop_blend=0.12, work_size=40)
    outcome = dream_file(film, tmp_path / "loop.mp4", options)
    assert outcome.complete
    assert outcome.frames == 9


def test_laying_on_is_exact_at_both_ends() -> None:
    source = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, 2)
    result = source[::-1, ::-1].copy()
    opacity = np.zeros((256, 256, 1), np.float32)
    assert np.array_equal(laid(source, result, opacity), source)
    assert np.array_equal(laid(source, result, opacity + 1), result)


def test_a_live_mask_leaves_the_camera_alone_outside() -> None:
    options = made(LiveOptions, {"work_size": 96, "steps": 1, "mask": LEFT, "window": True})
    painter = Painter()
    painter.where[:] = 1
    dreamer = Dreamer(options, torch.device("cpu"), print, lambda *_: (painter,))
    controls = Controls(options)
    assert {"mask-strength", "mask-feather", "mask-invert"} <= set(controls.table)
    assert "mask" not in controls.table
    stage = Stage(controls, dreamer, Pacing(1 / 30), limit=False, masks=Masks.of(options))
    pixels, now = np.full((96, 160, 3), 90, np.uint8), time.monotonic()
    stage.show(pixels, now)
    settled(dreamer)
    stage.show(pixels, now + 0.1)
    shown = seen(stage.show(pixels, now + 2)).pixels
    assert np.array_equal(shown[:, 84:], pixels[:, 84:])
    assert (shown[:, :72, 0] > 120).all()
    controls.set("mask-invert", True, 0)
    shown = seen(stage.show(pixels, now + 2.1)).pixels
    assert np.array_equal(shown[:, :76], pixels[:, :76])
    assert (shown[:, 92:, 0] > 120).all()
    dreamer.close()


def test_live_takes_no_video_for_a_mask(tmp_path: Path) -> None:
    path = film_of_masks(tmp_path / "mask.mkv")
    with pytest.raises(Error, match="is a video, live takes none"):
        Masks(made(LiveOptions, {"mask": str(path)}), moves=False)


def test_a_zoom_movie_dreams_where_its_mask_is(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Pictures.fromarray(noise(4, (64, 96))).save(photo)
    given = {"zoom": 1, "duration": "0.25", "rate": "12", "octaves": 1, "mask": LEFT}
    zoom_file(photo, tmp_path / "out%d.png", made(ZoomOptions, given, {"size": "96x64"}))
    first, second = (np.array(Pictures.open(tmp_path / f"out{n}.png")) for n in (1, 2))
    change = np.abs(first.astype(int) - second)
    assert change[:, 49:].mean() < 0.5 * change[:, :40].mean()  # there only light is held


def network(path: Path, inputs: tuple[int, ...] = (1, 8, 12, 3)) -> Path:
    """A TensorFlow Lite file whose person is the mean of a picture's colours."""
    from ai_edge_litert import schema_py_generated

    lite: Any = schema_py_generated

    def tensor(shape: tuple[int, ...], kind: int, buffer: int) -> Any:
        made_ = lite.TensorT()
        made_.shape, made_.type, made_.buffer = list(shape), kind, buffer
        return made_

    axis = lite.BufferT()
    axis.data = np.array([3], np.int32).tobytes()
    options = lite.ReducerOptionsT()
    options.keepDims = True
    operator = lite.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = (
        lite.BuiltinOptions.ReducerOptions,
        options,
    )
    graph = lite.SubGraphT()
    floats, ints = lite.TensorType.FLOAT32, lite.TensorType.INT32
    graph.tensors = [tensor(inputs, floats, 0), tensor((1,), ints, 1)]
    graph.tensors += [tensor((*inputs[:3], 1), floats, 0)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    code = lite.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = lite.BuiltinOperator.MEAN
    code.version = 1
    model = lite.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [lite.BufferT(), axis]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def test_a_network_tells_where_people_are(tmp_path: Path) -> None:
    pixels = np.zeros((48, 72, 3), np.uint8)
    pixels[:, 36:] = 255  # what this network takes for a person
    options = masked(f"person {network(tmp_path / 'some.tflite')}")
    check_mask(options)
    (found,) = opacities([Frame(pixels, Fraction(0), 0)], options)
    assert found[:, :26].max() == 0
    assert found[:, 46:].min() == 1


Make = Callable[[Path], dict[str, object]]


def text_file(folder: Path) -> dict[str, object]:
    (folder / "notes.tflite").write_text("nothing of the kind")
    return {"mask": f"person {folder / 'notes.tflite'}"}


def another_network(folder: Path) -> dict[str, object]:
    return {"mask": f"person {network(folder / 'other.tflite', (1, 8, 12, 4))}"}


def no_video(folder: Path) -> dict[str, object]:
    (folder / "mask.mp4").write_bytes(b"nothing of the kind" * 50)
    return {"mask": str(folder / "mask.mp4")}


WRONG: dict[str, tuple[Make, str, int]] = {
    "missing": (lambda f: {"mask": str(f / "none.png")}, "no such file; name a picture or", 2),
    "no word": (lambda f: {"mask": "foregrund"}, "did you mean foreground?", 2),
    "points": (lambda f: {"mask": "polygon 0,0 1,1"}, "three points or more", 2),
    "pixels": (lambda f: {"mask": "polygon 0,0 640,0 640,480"}, "in parts of the picture", 2),
    "span": (lambda f: {"mask": "luminance 0.7..0.3"}, "from black, 0, to white, 1", 2),
    "colour": (lambda f: {"mask": "colour zzz 30"}, "a colour is as #3a7", 2),
    "tolerance": (lambda f: {"mask": "colour red 0"}, "tolerance goes from 0 to 300", 2),
    "hue": (lambda f: {"mask": "hue green"}, "a hue is in degrees", 2),
    "speed": (lambda f: {"mask": "motion fast"}, "percent of the picture's height a second", 2),
    "more": (lambda f: {"mask": "foreground 3"}, "nothing follows the word foreground", 2),
    "not": (lambda f: {"mask": "not"}, 'nothing behind "not"', 2),
    "folder": (lambda f: {"mask": str(f)}, "is a folder without pictures", 3),
    "piped": (lambda f: {"mask": "-"}, "a mask is not piped in", 2),
    "person": (lambda f: {"mask": "person"}, "is found by a network in a file", 2),
    "no network": (text_file, "is no TensorFlow Lite network", 5),
    "another network": (another_network, "does not take a picture", 5),
    "no video": (no_video, "mask.mp4", 3),
    "no flow": (lambda f: {"mask": "motion", "flow": "none"}, "leave out --flow none", 2),
    "feather": (lambda f: {"mask": LEFT, "mask_feather": 80}, "less than or equal to 50", 2),
}


def opened(values: dict[str, object]) -> Masks:
    options = build(values)
    check_mask(options)
    return Masks(options)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_masks_get_one_line(wrong: str, tmp_path: Path) -> None:
    given, words, code = WRONG[wrong]
    values = given(tmp_path)
    with pytest.raises(Error) as caught:
        opened(values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == code


def test_the_command_line_takes_masks(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = [str(sample), "-o", str(tmp_path / "one.png"), "--frames", "1"]
    for command, words in (
        ([str(sample), "--mask", "lumiance 0..1"], "did you mean luminance?"),
        (["zoom", "noise", "--mask", "motion"], "a zoom movie only has a camera"),
        (["live", "test", "--mask", "colour"], "a colour is as #3a7"),
        ([*one, "--mask", "foreground"], "tells by what was before, and this is a single picture"),
        (["atlas", *one[:3], "--mask", "not motion"], "an atlas is of one picture"),
    ):
        with pytest.raises(SystemExit):
            main(command)
        assert words in capsys.readouterr().err
    out = tmp_path / "out.png"
    typed = ["--mask", LEFT, "--mask", "not luminance 0.9..1", "--mask-strength", "0: 1, 1s: 0"]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                str(sample),
                "-o",
                str(out),
                *typed,
                "--frames",
                "1",
                "--work-size",
                "64",
                "--steps",
                "1",
            ]
        )
    assert ended.value.code == 0
    with VideoSource(sample, frames=1) as source:
        (frame,) = source
    found, half = np.array(Pictures.open(out)), frame.pixels.shape[1] // 2
    assert np.array_equal(found[:, half:], frame.pixels[:, half:])


@pytest.mark.alone
def test_a_mask_costs_little() -> None:
    options = masked("foreground and not motion", work_size=180)
    image: Image = planes(np.random.default_rng(0).random((180, 320, 3), np.float32))
    flow = torch.zeros(2, 180, 320)
    movement = Movement(flow, torch.ones(1, 180, 320))
    masks, before = Masks(options), None
    began = time.perf_counter()
    for n in range(6):
        before = masks.measured(image, movement, Fraction(n, 30), before, options)
        masks.opacity(before, Fraction(0), (180, 320), options)
    assert (time.perf_counter() - began) / 6 < 0.15  # about 12 ms where nothing else runs
    assert interleaved(before.masks[0]).shape == (180, 320, 1) if before else False
