from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as Files
from served import Served
from test_live_stage import H, W, centre, seen, settled, window

from streamdream.cuts import FLASH
from streamdream.dream import Dream
from streamdream.errors import ModelError, OptionError
from streamdream.frame import Bytes, Image, Pixels, Resized, composite, planes, to_image
from streamdream.governor import Scalar
from streamdream.live.chains import KEPT, Chains, key_of
from streamdream.live.controls import Controls
from streamdream.live.dreamer import Dreamer
from streamdream.live.layers import blended, laid_on, layer_of
from streamdream.live.options import LiveOptions
from streamdream.live.osc import Osc
from streamdream.live.pacing import Pacing
from streamdream.live.stage import Stage
from streamdream.motion import Vectors
from streamdream.options import Look
from streamdream.pipeline import Carried, Effect, Picture
from streamdream.style.cards import NetworkCard
from streamdream.style.colours import painted_on
from streamdream.style.network import Network, save_network

RED, BLUE, BAD, GONE = "lite:1", "lite:2", "lite:8", "lite:9"
COLOURS = {RED: (0.9, 0.1, 0.1), BLUE: (0.1, 0.1, 0.9)}


class Colour:
    """A painter of one colour with black in one place, that may be held up or fail."""

    replaces = True

    def __init__(self) -> None:
        self.calls: list[tuple[Image, Carried, Look]] = []
        self.where = np.ones((H, W), np.float32)
        self.may = Event()
        self.may.set()

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        self.calls.append((image, carried, options))
        if BAD in options.style:
            raise ModelError(BAD, "its file is damaged")
        self.may.wait(10)
        colour = torch.tensor(COLOURS[options.style[0]])[:, None, None]
        yield partial(torch.clone, colour * torch.from_numpy(self.where)[None])

    def takes_part(self, options: Look) -> bool:
        return True

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> None:
        pass

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        raise AssertionError("live runs lay layers on")


class Greener:
    """A dream that is the same everywhere: more green."""

    replaces = False

    def __init__(self, mixed: bool) -> None:
        self.mixed = mixed
        self.calls: list[tuple[Image, Carried, Look]] = []

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        self.calls.append((image, carried, options))
        yield partial(torch.clone, image + torch.tensor([0.0, 0.3, 0.0])[:, None, None])

    def takes_part(self, options: Look) -> bool:
        return not self.mixed or options.dream_mix > 0

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> Scalar:
        return torch.tensor(1.0)

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        raise AssertionError("live runs lay layers on")


class Run:
    """A stage whose effects are fakes, and a clock of its own."""

    def __init__(self, **given: object) -> None:
        base = {"work_size": H, "flow": "dis", "steps": 3, "ramp": 0, "style": RED}
        self.options = LiveOptions.model_validate(base | given)
        self.colour, self.told = Colour(), list[str]()
        self.loads: list[Look] = []
        self.dreams: list[Greener] = []
        self.dreamer = Dreamer(self.options, torch.device("cpu"), self.told.append, self.load)
        self.controls = Controls(self.options)
        # As if they had been named when the run began.
        self.controls._files["style"] = ("", RED, BLUE, BAD, GONE)
        self.controls.table["style"] = replace(
            self.controls.table.get("style") or self.controls.table["style-colours"],
            name="style", choices=self.controls._files["style"],
        )  # fmt: skip
        self.stage = Stage(self.controls, self.dreamer, Pacing(1 / 30), limit=False)
        self.now = time.monotonic()

    def load(self, options: Look, device: torch.device) -> tuple[Effect, ...]:
        self.loads.append(options)
        if GONE in options.style:
            raise ModelError(GONE, "no such file")
        mixed = bool(options.style)
        if mixed and options.dream_mix == 0:
            return (self.colour,)
        self.dreams.append(Greener(mixed))
        return (self.colour, self.dreams[-1]) if mixed else (self.dreams[-1],)

    def show(self, x: int = 100, seconds: float = 1 / 30, wait: bool = True) -> Bytes:
        """What is shown of a view, so many seconds after the last one."""
        self.now += seconds
        pixels = seen(self.stage.show(window(x), self.now)).pixels
        if wait:
            settled(self.dreamer)
        return pixels

    def shown(self) -> Bytes:
        """What is shown once everything has arrived."""
        for _ in range(6):
            self.show(seconds=0.6)
        return self.show(seconds=0.6)


@pytest.fixture
def begun() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(**given: object) -> Run:
        runs.append(Run(**given))
        return runs[-1]

    yield begin
    for run in runs:
        run.colour.may.set()
        run.dreamer.close()


Begun = Callable[..., Run]


def coloured(pixels: Bytes, name: str = RED) -> np.ndarray:
    """How far from a style's colour the pixels are, in levels."""
    return np.abs(pixels - np.array(COLOURS[name]) * 255).max(2)


def test_a_painting_takes_the_place_of_the_picture_after_one_job(begun: Begun) -> None:
    run = begun()
    run.show()
    run.show()
    assert len(run.colour.calls) <= 3
    assert coloured(run.show(seconds=0.5)).max() <= 2
    assert run.colour.calls[0][1].trust is None
    assert run.colour.calls[-1][1].trust is not None


def test_where_nobody_knows_where_things_are_the_camera_is_seen(begun: Begun) -> None:
    run = begun()
    run.shown()
    run.colour.may.clear()
    pixels = [run.show(x, wait=False) for x in range(106, 137, 6)][-1]
    assert np.median(coloured(pixels)[:, :110]) <= 2
    new = np.abs(pixels[:, -20:].astype(int) - window(136)[:, -20:])
    assert np.median(new) <= 6
    assert np.median(coloured(pixels)[:, -20:]) > 40


def test_a_painting_moves_with_the_world_until_the_next_one_is_there(begun: Begun) -> None:
    run = begun()
    cv2.circle(run.colour.where, (100, 48), 12, (0.0,), -1)
    run.shown()
    run.colour.may.clear()
    pixels = [run.show(100 + 3 * i, wait=False) for i in range(1, 12)][-1]
    black = (coloured(pixels) > 150) & (pixels.max(2) < 40)
    x, y = centre(black[:, : W - 40].astype(np.float32))
    assert abs(x - (100 - 33)) < 2
    assert abs(y - 48) < 2


def test_without_strength_the_bare_picture_is_shown_and_half_is_in_between(begun: Begun) -> None:
    run = begun()
    full = run.shown()
    run.controls.set("strength", 0.0, 0)
    assert np.array_equal(run.shown(), window(100))
    run.controls.set("strength", 0.5, 0)
    half = window(100).astype(float) / 2 + full.astype(float) / 2
    assert np.abs(run.shown() - half).max() <= 2
    run.controls.set("strength", 1.7, 0)
    assert np.abs(run.shown().astype(int) - full).max() <= 1


def test_a_style_is_switched_on_and_off_and_fades_over_while_it_runs(begun: Begun) -> None:
    run = begun(style="")
    dreamed = run.shown()
    assert np.abs((dreamed - window(100).astype(float))[..., 1].mean() - 60) < 25
    for name, away in ((RED, dreamed), (BLUE, None), ("", None), (RED, None)):
        before = run.shown() if away is None else away
        run.controls.set("style", name)
        ways = [run.show() for _ in range(12)]
        after = run.shown()
        if name:
            assert coloured(after, name).max() <= 2
        else:
            assert np.abs(after.astype(int) - dreamed).mean() < 12
        whole = np.abs(after.astype(float) - before).mean()
        left = [np.abs(after.astype(float) - way).mean() for way in ways]
        assert not name or all(later <= sooner + 2 for sooner, later in pairwise(left))
        assert min(left) < 0.2 * whole
    assert run.dreamer.faults == 0
    assert len(run.loads) == 2  # one chain for dreams, one for paintings, kept


def test_another_style_begins_anew_and_a_blend_with_the_last_goes_on(begun: Begun) -> None:
    run = begun()
    run.shown()
    run.options = run.controls.goal
    count = len(run.colour.calls)
    run.controls._goal = run.controls.goal.model_copy(update={"style": (RED, BLUE)})
    run.shown()
    assert all(carried.trust is not None for _, carried, _ in run.colour.calls[count:])
    run.controls.set("style", RED)
    run.shown()
    count = len(run.colour.calls)
    run.controls.set("style", BLUE)
    run.shown()
    trusts = [carried.trust for _, carried, options in run.colour.calls[count:]
              if options.style == (BLUE,)]  # fmt: skip
    assert trusts[0] is None
    assert all(trust is not None for trust in trusts[1:])


def test_a_dream_is_laid_on_the_painting_as_much_as_is_asked_for(begun: Begun) -> None:
    run = begun(dream_mix=0.5)
    more = run.shown().astype(float).mean((0, 1)) - np.array(COLOURS[RED]) * 255
    assert np.abs(more - [0, 0.5 * 0.3 * 255, 0]).max() < 4
    assert len(run.loads) == 1
    image = run.dreams[0].calls[-1][0]
    assert float((image.mean((1, 2)) - torch.tensor(COLOURS[RED])).abs().max()) < 0.02
    run.controls.set("dream-mix", 0.0)
    assert coloured(run.shown()).max() <= 2
    assert len(run.loads) == 1  # the same networks, of which one has nothing to do
    done = len(run.dreams[0].calls)
    run.shown()
    assert len(run.dreams[0].calls) == done
    run.controls.set("dream-mix", 1.0)
    run.shown()
    grown = [carried.governor is None for _, carried, _ in run.dreams[0].calls[done:]]
    assert grown[:3] == [True] * 3
    assert not any(grown[3:])
    assert {options.steps for _, _, options in run.dreams[0].calls[done : done + 3]} == {1}


@pytest.mark.parametrize("bad", [BAD, GONE])
def test_a_style_that_fails_is_told_once_and_the_last_one_goes_on(begun: Begun, bad: str) -> None:
    # One fails when it paints, the other when it is loaded, as another method asks for.
    failing = {"style": (bad,), "style_method": "auto" if bad == BAD else "fast"}
    run = begun()
    run.shown()
    run.controls._goal = run.controls.goal.model_copy(update=failing)
    pixels = [run.show() for _ in range(20)][-1]
    assert coloured(pixels).max() <= 2
    assert len(run.told) == 1
    assert bad in run.told[0]
    assert f"{RED} goes on" in run.told[0]
    assert "\n" not in run.told[0]
    assert run.dreamer.faults == 0
    run.controls.set("style", BLUE)
    assert coloured(run.shown(), BLUE).max() <= 2
    run.controls._goal = run.controls.goal.model_copy(update=failing)
    assert coloured(run.shown(), BLUE).max() <= 2
    assert len(run.told) == 2  # asked for again, tried again
    assert f"{BLUE} goes on" in run.told[1]


def test_the_next_painting_is_begun_without_waiting_for_a_picture(begun: Begun) -> None:
    run = begun()
    run.colour.may.clear()
    run.show(100, wait=False)
    run.show(103, wait=False)
    run.show(106, wait=False)
    until = time.monotonic() + 5
    while not run.colour.calls and time.monotonic() < until:
        time.sleep(0.01)
    assert len(run.colour.calls) == 1
    run.colour.may.set()
    settled(run.dreamer)
    assert len(run.colour.calls) == 2  # of the three pictures the first and the newest
    image, carried, _ = run.colour.calls[1]
    newest = to_image(window(106), (H, W))
    assert torch.equal(image, newest)
    assert carried.trust is not None
    # It goes on from what was made of the first one, where that is by now.
    begun_from = (image + carried.delta)[:, 20:70, 20:120].flatten(1).median(1).values
    assert torch.allclose(begun_from, torch.tensor(COLOURS[RED]), atol=0.02)
    run.show(106)
    assert np.median(coloured(run.show(106, seconds=0.5))) <= 2


def test_a_cut_drops_what_is_made_and_what_is_lined_up(begun: Begun) -> None:
    run = begun()
    run.shown()
    run.colour.may.clear()
    run.show(wait=False)
    run.show(wait=False)
    other = np.ascontiguousarray(255 - window(0, 0)[::-1, ::-1])
    count = len(run.colour.calls)
    # The first of them might be a flash.
    shown = [seen(run.stage.show(other, run.now + i / 30)).pixels for i in range(1, FLASH + 2)]
    assert np.array_equal(shown[-1], other)
    run.colour.may.set()
    settled(run.dreamer)
    shown = seen(run.stage.show(other, run.now + (FLASH + 2) / 30)).pixels
    assert np.array_equal(shown, other)
    settled(run.dreamer)
    assert run.colour.calls[-1][1].trust is None
    assert len(run.colour.calls) <= count + 2


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_is_what_files_get(strength: float, masked: bool, tmp_path: Path) -> None:
    given: dict[str, object] = {"strength": strength, "dream_mix": 0.6, "style": "scream"}
    if masked:
        mask = np.zeros((H, W), np.uint8)
        mask[:, : W // 2] = 255
        mask[:, W // 2 : W // 2 + 20] = 100
        Files.fromarray(mask).save(tmp_path / "mask.png")
        given["style_mask"] = (str(tmp_path / "mask.png"),)
    options = LiveOptions.model_validate(given)
    rng = np.random.default_rng(1)
    noise = rng.uniform(0, 1, (2, H, W, 3)).astype(np.float32)
    painting, dream = (planes(cv2.GaussianBlur(n, (0, 0), 3)) for n in noise)
    image = to_image(window(100), (H, W))
    change = dream - 0.5
    parts: list[tuple[Effect, Image, Image]] = [
        (Colour(), image, painting - image), (Greener(True), painting, change),
    ]  # fmt: skip
    layer = layer_of(parts, (H, W), options)
    assert layer.shape == (H, W, 4)
    quick = laid_on(window(100), layer, strength)
    exact = painted_on(window(100), image, painting - image, options)
    exact = composite(exact, change, strength * options.dream_mix)
    assert np.abs(quick.astype(int) - exact).max() <= 3
    assert np.abs(quick.astype(int) - exact).mean() < 0.7


@pytest.mark.parametrize("how", ["luminance", "covariance", "histogram"])
def test_a_painting_can_leave_the_picture_its_colours(how: str) -> None:
    image = to_image(window(100), (H, W))
    painting = torch.rand(3, H, W).pow(3)
    options = LiveOptions.model_validate({"style_colours": how})
    layer = layer_of([(Colour(), image, painting - image)], (H, W), options)
    plain = layer_of([(Colour(), image, painting - image)], (H, W), LiveOptions())
    goal = image.mean((1, 2)).numpy()
    assert (
        np.abs(layer[..., :3].mean((0, 1)) - goal).max()
        < 0.5 * np.abs(plain[..., :3].mean((0, 1)) - goal).max()
    )


def test_a_change_fades_into_a_painting_evenly() -> None:
    change = np.full((8, 8, 3), 0.2, np.float32)
    painting = np.ones((8, 8, 4), np.float32)
    pixels = np.full((16, 16, 3), 100, np.uint8)
    ways: list[Vectors] = [blended(change, painting, part) for part in (0.0, 0.5, 1.0)]
    levels = [float(laid_on(pixels, way, 1.0).mean()) for way in ways]
    assert levels == pytest.approx([151, 203, 255], abs=1.5)
    back = blended(painting, change, 0.5)
    assert laid_on(pixels, back, 1.0).mean() == pytest.approx(203, abs=1.5)


def test_only_few_chains_are_kept_and_the_one_in_use_is() -> None:
    loaded: list[Look] = []

    def load(options: Look, device: torch.device) -> tuple[Effect, ...]:
        loaded.append(options)
        return (Colour(),)

    chains = Chains(torch.device("cpu"), print, load)
    methods = ("auto", "gatys", "fast")
    looks = [
        LiveOptions.model_validate({"style": RED, "style_method": m, "dream_mix": mix})
        for mix in (0.5, 0) for m in methods
    ]  # fmt: skip
    for look in [*looks[:3], *looks[3:]]:
        chains.of(look)
    assert len(loaded) == 3  # without a dream on top it is the same chain
    plain = LiveOptions()
    for _ in range(3):
        chains.of(plain)
    assert len(loaded) == 4
    assert len(chains._kept) == KEPT
    chains.of(looks[2])
    assert len(loaded) == 4
    chains.of(looks[0])
    assert len(loaded) == 5


def test_that_optimising_is_slow_is_told_once(tmp_path: Path) -> None:
    Files.new("RGB", (64, 64)).save(tmp_path / "a.png")
    told: list[str] = []
    chains = Chains(torch.device("cpu"), told.append, lambda *_: (Colour(),))
    for method in ("fast", "auto", "auto"):
        given = {"style": str(tmp_path / "a.png"), "style_method": method}
        chains.of(LiveOptions.model_validate(given))
        assert len(told) == (method == "auto")
    assert "--style-method fast" in told[0]


def test_networks_that_paint_and_networks_that_dream_are_not_one_chain(tmp_path: Path) -> None:
    keys = []
    for kind in ("style", "dream"):
        path = tmp_path / f"{kind}.safetensors"
        save_network(path, Network(kind, 4), NetworkCard(kind, 4, "noise", 1))  # type: ignore[arg-type]
        keys.append(key_of(LiveOptions.model_validate({"style": str(path)})))
    assert keys[0] != keys[1]
    other = tmp_path / "other.safetensors"
    save_network(other, Network("style", 4), NetworkCard("style", 4, "noise", 1))
    assert key_of(LiveOptions.model_validate({"style": str(other)})) == keys[0]
    wild = LiveOptions.model_validate({"style": "lite:3*0.3,lite:4*0.7", "model": "vgg19"})
    assert key_of(wild) == key_of(LiveOptions.model_validate({"style": "lite:7"}))


def controls_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: object) -> Controls:
    from streamdream.live import controls as module

    monkeypatch.setattr(module, "shipped", lambda: {"wave": tmp_path / "wave.safetensors"})
    return Controls(LiveOptions.model_validate({"ramp": 0, **given}))


def test_the_styles_to_choose_from_are_those_named_and_those_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = controls_for(tmp_path, monkeypatch, style="lite:1*0.7,lite:2*0.3")
    choices = ("", "lite:1*0.7,lite:2*0.3", "lite:1", "lite:2", "wave")
    assert controls.table["style"].choices == choices
    assert controls.values()["style"] == choices[1]
    controls.set("style", "wave")
    assert controls.at().style == ("wave",)
    controls.nudge("style", 1)
    assert controls.values()["style"] == ""
    controls.nudge("style", -1)
    controls.slide("style", 0.5)
    assert controls.at().style == ("lite:1",)
    controls.set("model", "vgg19")  # the table is made anew
    assert controls.table["style"].choices == choices
    for name in ("style-weight", "style-scale", "dream-mix"):
        assert controls.table[name].kind == "number"
        controls.slide(name, 0.5)
    assert controls.table["style-colours"].kind == "choice"


def test_a_style_that_follows_a_schedule_can_be_chosen_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = controls_for(tmp_path, monkeypatch, style="0: lite:1, 60s: lite:2")
    assert controls.table["style"].choices == ("", "lite:1", "lite:2", "wave")
    controls.set("style", "lite:2")
    assert controls.at().style == ("lite:2",)
    with pytest.raises(OptionError, match="cannot be chosen"):
        controls.set("style", "0: lite:1, 3s: /etc/passwd")


def test_presets_may_name_shipped_styles_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = controls_for(tmp_path, monkeypatch)
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('style = "wave"\ndream-mix = 0.5\n')
    bad.write_text('style = "secret.jpg"\n')
    controls.take_preset(str(good), 0)
    assert controls.at().style == ("wave",)
    with pytest.raises(OptionError, match=r"secret\.jpg.*cannot be chosen.*wave"):
        controls.take_preset(str(bad), 0)
    assert controls.at().style == ("wave",)
    controls.take_preset("eyes", 0)
    assert controls.at().style == ()


WRONG = (
    "/etc/passwd", "../secret.jpg", "secret.jpg", "nothing-like-it", "lite:5", "wave*0.5",
    "0: wave, 3s: lite:1", ["wave", "/etc/passwd"], 7, 0.5, None, {"0": "/etc/passwd"},
)  # fmt: skip


def test_over_the_page_and_osc_no_file_of_anybodys_choosing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pythonosc.udp_client import SimpleUDPClient

    controls = controls_for(tmp_path, monkeypatch)
    with Served(pictures=False) as page:
        page.controls._files, page.controls.table = controls._files, controls.table
        for wrong in WRONG:
            answer = page.ask("/api/set", {"style": wrong})
            assert answer.status == 400
            assert "\n" not in answer.json["error"]
        assert page.controls.values()["style"] == ""
        assert page.ask("/api/set", {"style": "wave"}).status == 200
        assert page.controls.values()["style"] == "wave"
    told: list[str] = []
    osc = Osc(controls, "127.0.0.1", 0, None, told.append)
    client = SimpleUDPClient("127.0.0.1", int(osc.address.rpartition(":")[2]))
    try:
        for wrong in (*WRONG[:8], 0.5):
            client.send_message("/streamdream/style", wrong)
        client.send_message("/streamdream/style", "wave")
        until = time.monotonic() + 5
        while controls.values()["style"] != "wave" and time.monotonic() < until:
            time.sleep(0.02)
        assert controls.values()["style"] == "wave"
        client.send_message("/streamdream/style", "")
        while controls.values()["style"] != "" and time.monotonic() < until:
            time.sleep(0.02)
        assert controls.values()["style"] == ""
    finally:
        client._sock.close()
        osc.close()


@pytest.mark.parametrize(
    ("style", "code", "reason"),
    [
        ("nothere.jpg", 3, "nothere.jpg"),
        ("nothing-like-it", 2, "nothing-like-it"),
        (__file__, 3, "is not a picture"),
    ],
)
def test_a_wrong_style_is_told_before_the_camera_is_opened(
    style: str, code: int, reason: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from streamdream import cli
    from streamdream.live import camera

    opened: list[object] = []
    monkeypatch.setattr(camera, "find", lambda *given, **_: opened.append(given))
    with pytest.raises(SystemExit) as ended:
        cli.main(["live", "test", "--no-window", "--http", "0", "--style", style])
    (only,) = capfd.readouterr().err.strip().splitlines()
    assert ended.value.code == code
    assert only.startswith("streamdream: error: ")
    assert reason in only
    assert not opened


def test_the_real_dream_takes_the_place_of_a_painting(begun: Begun) -> None:
    run = begun(work_size=H, octaves=1, steps=1)
    run.shown()
    from streamdream.effects import effects_of

    run.dreamer._chains._load = effects_of
    run.controls.set("style", "")
    pixels = [run.show(seconds=0.6) for _ in range(4)][-1]
    _, effects = run.dreamer._chains.of(run.controls.at())
    assert isinstance(effects[0], Dream)
    change = np.abs(pixels.astype(int) - window(100)).mean()
    assert 0.5 < change < 40
