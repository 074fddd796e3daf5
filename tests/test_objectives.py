"""What can be dreamed of: every objective raises what it says, in whole pictures and in pieces."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from media import Film, flat
from PIL import Image as Photo
from skimage import data
from torch import Tensor

from streamdream import models
from streamdream.backbone import Backbone, Stages
from streamdream.dream import Dream, normalised, steepest
from streamdream.errors import Error, ModelError, OptionError
from streamdream.frame import Frame, Image, planes, to_pixels
from streamdream.graphs import Replayed
from streamdream.live.controls import Controls
from streamdream.live.options import LiveOptions
from streamdream.motion import OpticalFlow
from streamdream.objectives.aimer import CLASS, Aimer
from streamdream.objectives.aims import Aim, response
from streamdream.objectives.classes import class_of
from streamdream.objectives.guides import Film as GuideFilm
from streamdream.objectives.parts import matched
from streamdream.objectives.slopes import tiled_slope, whole_slope
from streamdream.objectives.units import Units, read_units
from streamdream.options import Options
from streamdream.pipeline import Carried, State, redraw
from streamdream.run import dream_file, read_settings
from streamdream.schedule import Moment
from streamdream.settings import build, made, recorded

LAYER = {"efficientnet-lite0": ("block9", "block5"), "vgg19": ("relu4_1", "relu3_1")}


@pytest.fixture(scope="module")
def cat() -> Image:
    """A photograph of a cat (3, 120, 160) in [0, 1]."""
    small = cv2.resize(data.chelsea()[:, :400], (160, 120), interpolation=cv2.INTER_AREA)
    return planes(small.astype(np.float32) / 255)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, cat: Image) -> str:
    path = tmp_path_factory.mktemp("guides") / "cat.png"
    Photo.fromarray(to_pixels(cat)).save(path)
    return str(path)


def aimed(net: Backbone, image: Image, options: Options, time: Fraction = Fraction(0)) -> Aim:
    aimer = Aimer(net)
    found = aimer.aim(image, options, aimer.chosen(image, {}, options), time)
    return found.at((image.shape[-2], image.shape[-1]))


def dreamed(net: Backbone, image: Image, options: Options) -> Image:
    effect = Dream(net)
    nothing = Carried(torch.zeros_like(image), torch.zeros_like(image[:1]))
    carried = effect.prepared(image, nothing, options)
    *_, last = effect(image, carried, options, 0)
    return last()


OBJECTIVES: dict[str, dict[str, object]] = {
    "calm": {"layers": "{0}*-1"},
    "one up, one down": {"layers": "{1},{0}*-0.5"},
    "squares": {"objective": "squares", "layers": "{0},{1}"},
    "mean": {"objective": "mean"},
    "log": {"objective": "log"},
    "channels": {"layers": "{0}[3,17,40..55]"},
    "strongest": {"channels": "strongest", "channel_count": 4},
    "weakest": {"layers": "{0}[weakest:4]"},
    "average": {"layers": "{0}[average:4]*2,{1}"},
    "mean of channels": {"layers": "{0}[3..9]", "objective": "mean"},
    "place": {"layers": "{0}[@0.4,0.6]"},
    "neuron": {"layers": "{0}[17@0.4,0.6]"},
    "guide": {"guide": "GUIDE"},
    "a place beside a guide": {"layers": "{0}[@0.4,0.6]", "guide": "GUIDE"},
    "some of a guide": {"guide": "GUIDE", "guide_weight": 0.5, "layers": "{0},{1}[0..20]"},
}
OF_CLASSES: dict[str, dict[str, object]] = {
    "class": {"classes": "goldfish"},
    "no class": {"classes": "espresso*-1"},
    "classes and a layer": {"classes": "goldfish,tench*0.5", "layers": "block9"},
}
CASES = [
    *((model, name) for model in LAYER for name in OBJECTIVES),
    *(("efficientnet-lite0", name) for name in OF_CLASSES),
]


def options_of(model: str, name: str, guide: str, **more: object) -> Options:
    given = {**OBJECTIVES, **OF_CLASSES}[name]
    given = {"layers": "{0}", **given} if name in OBJECTIVES else given
    filled = {
        key: value.format(*LAYER[model]).replace("GUIDE", guide)
        if isinstance(value, str)
        else value
        for key, value in given.items()
    }
    few = {"octaves": 1, "steps": 4, "jitter": 4, "model": model, "precision": "fp32"}
    return build(few, filled, more)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_a_dream_raises_what_it_aims_at(
    model: str, name: str, photo: Image, guide: str, request: pytest.FixtureRequest
) -> None:
    net = request.getfixturevalue("vgg19" if model == "vgg19" else "lite0")
    image = photo if model != "vgg19" else photo[:, 20:84, 30:126]
    options = options_of(model, name, guide)
    aim = aimed(net, image, options)
    result = dreamed(net, image, options)
    gained = float(response(net, image, result, aim))
    assert gained > 0.05
    # What the governor holds: nothing for nothing, and more of a dream gives more.
    halfway = (image + result) / 2
    assert float(response(net, image, image, aim)) == 0
    assert 0 < float(response(net, image, halfway, aim)) < gained


@pytest.mark.parametrize("name", [*OBJECTIVES, *OF_CLASSES])
def test_pieces_give_the_direction_of_the_whole(
    lite0: Backbone, photo: Image, guide: str, name: str
) -> None:
    large = torch.nn.functional.interpolate(photo[None], (400, 540), mode="bicubic")[0].clamp(0, 1)
    aim = aimed(lite0, large, options_of("efficientnet-lite0", name, guide))
    whole, pieces = (
        normalised(slope).flatten()
        for slope in (whole_slope(lite0, large, aim), tiled_slope(lite0, large, aim, 384))
    )
    # A class is seen by the deepest layers, to which a piece's edge is never far.
    least = 0.85 if name in OF_CLASSES else 0.95
    assert float(torch.cosine_similarity(whole, pieces, dim=0)) > least


@pytest.mark.parametrize("name", [*OBJECTIVES, *OF_CLASSES])
def test_recordings_follow_what_an_aim_holds(
    lite0: Backbone, photo: Image, cat: Image, guide: str, name: str
) -> None:
    made = []

    def record(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
        made.append(1)
        given, result = x.clone(), torch.zeros_like(x)

        def replay(y: Tensor) -> Tensor:
            given.copy_(y)
            return result.copy_(function(given))

        return replay

    options = options_of("efficientnet-lite0", name, guide)
    slope = Replayed(steepest, record, "cpu")
    for image in (photo, cat):  # other channels are the strongest there
        for shift in ((0, 0), (3, -5)):
            aimer = Aimer(lite0)
            aim = aimer.aim(image, options, aimer.chosen(image, {}, options)).at((120, 160), shift)
            assert torch.equal(slope(lite0, photo, aim, 1024), steepest(lite0, photo, aim, 1024))
    assert len(made) == 1


class Counting(Backbone):
    """Counts what a network is asked for."""

    def __init__(self, net: Backbone) -> None:
        assert isinstance(net._read, Stages)
        stages = [(label, self._told(label, run)) for label, run in net._read.stages]
        super().__init__(net.name, Stages(stages), net._prepare)
        self.calls: list[set[str]] = []
        self.ran: list[str] = []

    def _told(
        self, label: str, run: Callable[[dict[str, Tensor]], Tensor]
    ) -> Callable[..., Tensor]:
        def told(seen: dict[str, Tensor]) -> Tensor:
            self.ran.append(label)
            return run(seen)

        return told

    def __call__(self, image: Tensor, layers: object) -> dict[str, Tensor]:
        self.calls.append(set(layers))  # type: ignore[call-overload]
        return super().__call__(image, self.calls[-1])


def test_all_objectives_share_one_forward_pass_no_deeper_than_needed(
    lite0: Backbone, photo: Image, guide: str
) -> None:
    options = build(
        {"layers": "block2[3]*0.5,block5[strongest:4],block4[7@.5,.5]", "guide": guide},
        {"guide_weight": 0.5, "objective": "log"},
    )
    net = Counting(lite0)
    aim = aimed(net, photo, options)
    net.calls.clear()
    net.ran.clear()
    whole_slope(net, photo, aim)
    assert len(net.calls) == 1
    assert net.ran[-1] == "block5"
    assert len(net.ran) == lite0.layers.index("block5") + 1


# Channels


def test_channels_are_written_in_one_way() -> None:
    assert read_units("block9") == Units("block9")
    assert read_units("block9[3,17, 40..55]") == Units("block9", ((3, 3), (17, 17), (40, 55)))
    assert read_units("block9[weakest]") == Units("block9", pick="weakest", count=8)
    assert read_units("block9[17@0.5,.4]") == Units("block9", ((17, 17),), place=(0.5, 0.4))
    typed = "block9[3,17]*0.5,block8[strongest:4]*-2"
    assert build({"layers": typed}).layers == ("block9[3,17]*0.5", "block8[strongest:4]*-2")
    moving = build({"layers": "0: block9[3,17], 1s: block8[17@0.5,0.4]*-0.5"})
    now = moving.at(Moment(Fraction(1, 2), 12)).layers
    assert now == ("block9[3,17]*0.5", "block8[17@0.5,0.4]*-0.25")


def test_a_weight_on_its_way_through_nothing_is_no_other_layer() -> None:
    moving = build({"layers": "0: block9, 1s: block9*-1"})
    assert moving.at(Moment(Fraction(1, 2), 12)).layers == ("block9*1e-06",)
    soft = build({"layers": "0: block9, 10s: block5 ease-in"})
    assert models.weighed(soft.at(Moment(Fraction(1, 25), 1)).layers)[1] is not None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layers": "block9[112]"}, "no channel 112, block9 has 112 channels; they are 0 to 111"),
        ({"layers": "block9[strongest:113]"}, "113 are asked for, block9 has 112 channels"),
        ({"layers": "block9[5..3]"}, "goes backwards"),
        ({"layers": "block9[x]"}, '"x" is no channel'),
        ({"layers": "block9[3"}, "no closing bracket"),
        ({"layers": "block9[3@2,0]"}, "no place"),
        ({"layers": "block9[strongest:0]"}, "picks no number"),
        ({"layers": "block99[3]"}, "no such layer"),
        ({"layers": "block9[3]*0"}, "weigh nothing"),
        ({"classes": "goldfsh"}, "did you mean goldfish"),
        ({"classes": "1000"}, "0 to 999"),
        ({"classes": "goldfish,1"}, "named twice"),
        ({"classes": "goldfish*x"}, "no weight"),
        ({"classes": "goldfish", "model": "vgg19"}, "tells no classes apart"),
        ({"style": "scream*-1"}, "weight below 0"),
        ({"guide": "cat.png*0"}, "weighs nothing"),
    ],
)
def test_wrong_aims_are_told(
    given: dict[str, object], words: str, film: Path, tmp_path: Path
) -> None:
    with pytest.raises(Error, match="--") as told:
        dream_file(film, tmp_path / "out.mp4", build(given))
    assert words in str(told.value)


def test_the_strongest_channels_are_those_that_respond_most(lite0: Backbone, photo: Image) -> None:
    squares = lite0(photo, ["block9"])["block9"].square().mean((0, 2, 3))
    for pick, most in (("strongest", True), ("weakest", False)):
        options = build({"layers": f"block9[{pick}:5]"})
        (mask,) = Aimer(lite0).chosen(photo, {}, options).values()
        assert int(mask.sum()) == 5
        assert set(mask.nonzero().flatten().tolist()) == set(
            squares.topk(5, largest=most).indices.tolist()
        )


def test_channels_stay_for_a_scene_and_are_picked_anew_at_a_cut(
    lite0: Backbone, photo: Image, cat: Image
) -> None:
    kept: list[State | None] = []

    def settle(_frame: Frame, states: tuple[State | None, ...]) -> tuple[State | None, ...]:
        kept.append(states[0])
        return states

    darker = [photo, photo * 0.9, cat, cat * 0.9]
    frames = [Frame(to_pixels(x), Fraction(i, 25), i) for i, x in enumerate(darker)]
    few = {"octaves": 1, "steps": 1, "work_size": 64, "layers": "block5[strongest:6]"}

    def masks(per: str) -> list[Tensor]:
        kept.clear()
        list(
            redraw(frames, build(few, {"channels_per": per}), Dream(lite0), OpticalFlow(),
                   settle=settle)
        )  # fmt: skip
        return [next(iter(state.chosen.values())) for state in kept if state is not None]

    first = masks("scene")
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[2], first[3])
    assert not torch.equal(first[1], first[2])
    assert all(torch.equal(a, b) for a, b in zip(first, masks("scene"), strict=True))
    assert len(masks("frame")) == 4


# Classes


def test_the_names_of_classes_are_in_the_order_of_the_network(lite0: Backbone) -> None:
    names = models.classes_of(models.card("efficientnet-lite0"))
    assert len(names) == 1000
    for picture, meant in ((data.coffee(), "espresso"), (data.chelsea(), "cat")):
        small = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)
        logits = lite0(planes(small.astype(np.float32) / 255), ["logits"])["logits"].flatten()
        assert meant in names[int(logits.argmax())].lower()
    assert class_of("Goldfish", "efficientnet-lite0") == class_of("1", "efficientnet-lite0") == 1
    assert class_of("great-white_shark", "efficientnet-lite0") == 2


@pytest.mark.parametrize("name", ["goldfish", "daisy"])
def test_a_class_comes_out_of_a_photo_of_something_else(
    lite0: Backbone, photo: Image, name: str
) -> None:
    number = class_of(name, "efficientnet-lite0")

    def sure(image: Image) -> float:
        return float(lite0(image, ["logits"])["logits"].flatten().softmax(0)[number])

    options = build({"classes": name, "octaves": 2, "steps": 20})
    assert sure(photo) < 0.01
    assert sure(dreamed(lite0, photo, options)) > 0.9


# Neurons


def test_a_neuron_dreams_where_it_is(lite0: Backbone, photo: Image) -> None:
    for x, y in ((0.25, 0.25), (0.75, 0.6)):
        options = build({"layers": f"block3[7@{x},{y}]", "octaves": 1, "steps": 4, "jitter": 16})
        change = (dreamed(lite0, photo, options) - photo).abs().mean(0)
        rows, columns = torch.arange(120.0), torch.arange(160.0)
        at = float((change.sum(1) * rows).sum() / change.sum()) / 120
        across = float((change.sum(0) * columns).sum() / change.sum()) / 160
        assert (across, at) == pytest.approx((x, y), abs=0.12)


# Guides


def likeness(net: Backbone, image: Image, guide: Image, layer: str) -> float:
    """The mean over places of the cosine to the guide's feature that is most alike."""
    seen, shown = (net(x, [layer])[layer][0].flatten(1).T for x in (image, guide))
    seen, shown = (torch.nn.functional.normalize(x, dim=1) for x in (seen, shown))
    return float((seen @ shown.T).amax(1).mean())


@pytest.mark.parametrize("model", list(LAYER))
def test_a_guide_draws_to_itself_more_than_to_a_decoy(
    model: str, photo: Image, cat: Image, guide: str, request: pytest.FixtureRequest
) -> None:
    net = request.getfixturevalue("vgg19" if model == "vgg19" else "lite0")
    layer = LAYER[model][0]
    small = cv2.resize(data.rocket(), (160, 120), interpolation=cv2.INTER_AREA)
    decoy = planes(small.astype(np.float32) / 255)
    options = build(
        {"model": model, "layers": layer, "guide": guide, "octaves": 1, "steps": 8, "jitter": 4}
    )
    result = dreamed(net, photo, options)
    gained, beside = (
        likeness(net, result, other, layer) - likeness(net, photo, other, layer)
        for other in (cat, decoy)
    )
    assert gained > 0.02
    assert gained > beside


def test_the_best_match_is_that_of_all_pairs() -> None:
    seen, guide = torch.randn(50, 7), torch.randn(9, 7)
    best = max
    for one, found in zip(seen, matched(seen, guide), strict=True):
        assert float(one @ found) == pytest.approx(best(float(one @ g) for g in guide), rel=1e-5)


def test_a_guide_video_runs_along(tmp_path: Path) -> None:
    colours = [(200, 20, 20), (20, 200, 20), (20, 20, 200)]
    path = Film(
        paint=lambda i: flat(colours[i % 3])(i), times=(0, 1, 2), time_base=Fraction(1, 2)
    ).write(tmp_path / "guide.mp4")
    film = GuideFilm.of(path)
    assert film is not None

    def colour(time: Fraction, held: bool = False) -> int:
        return int(film.at(time, held)[1].mean((1, 2)).argmax())

    half = Fraction(1, 2)
    assert [colour(i * half) for i in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert colour(Fraction(1, 4)) == 0
    assert colour(Fraction(9), held=True) == 2
    assert colour(-half) == 2
    assert colour(Fraction(0)) == 0


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"nothing"), "neither a picture nor a video"),
        (lambda path: path.write_bytes(b""), "is empty"),
    ],
)
def test_wrong_guides_are_told(
    write: Callable[[Path], object], words: str, tmp_path: Path, film: Path
) -> None:
    write(tmp_path / "guide.mp4")
    options = build({"guide": str(tmp_path / "guide.mp4")})
    with pytest.raises(Error, match=words):
        dream_file(film, tmp_path / "out.mp4", options)


def test_a_guide_is_not_written_over(tmp_path: Path, film: Path, guide: str) -> None:
    with pytest.raises(Error, match="is the input itself"):
        dream_file(film, guide, build({"guide": guide, "overwrite": True}))


def test_a_video_with_all_of_it_tells_how_it_was_made(
    tmp_path: Path, film: Path, guide: str
) -> None:
    given = {
        "guide": f"{guide}*0.7,{film}*0.3", "guide_weight": "0: 0.2, 50%: 1", "classes": "goldfish",
        "layers": "0: block5[strongest:4], 100%: block3*-0.5", "channel_count": "4 + 2*sin(t)",
        "work_size": 64, "octaves": 1, "steps": 1, "frames": 3,
    }  # fmt: skip
    made = tmp_path / "out.mp4"
    assert dream_file(film, made, build(given)).frames == 3
    back = build(recorded(read_settings(made), ""))
    for name in ("guide", "classes", "channels_per", "guide_end", "objective"):
        assert getattr(back, name) == getattr(build(given), name)
    assert {"guide_weight", "layers", "channel_count"} <= set(back.schedules)
    again = tmp_path / "again.mp4"
    dream_file(film, again, back.model_copy(update={"frames": 3}))
    assert again.read_bytes() == made.read_bytes()


# Live


def test_live_runs_choose_only_guides_that_were_named_at_the_start(guide: str) -> None:
    controls = Controls(made(LiveOptions, {"guide": guide}))
    controls.set("guide", "")
    assert controls.at().guide == ()
    controls.set("guide", guide)
    assert controls.at().guide == (guide,)
    for wrong in ("/etc/passwd", f"{guide},/etc/passwd", f"0: {guide}, 1s: /etc/passwd"):
        with pytest.raises(OptionError, match="cannot be chosen here"):
            controls.set("guide", wrong)
    assert "guide" not in Controls(made(LiveOptions, {})).table


def test_live_runs_move_what_is_aimed_at() -> None:
    controls = Controls(made(LiveOptions, {}))
    controls.set("classes", ["goldfish*0.5", "tench"])
    controls.set("channels", "strongest")
    controls.set("layers", "block9[3,17]*-0.5,block5")
    controls.set("channel-count", 20, 0)
    controls.slide("guide-weight", 0.25)
    now = controls.at(1e12)
    assert now.classes == ("goldfish*0.5", "tench")
    assert now.layers == ("block9[3,17]*-0.5", "block5")
    assert (now.channels, now.channel_count, now.guide_weight) == ("strongest", 20, 0.25)
    controls.nudge("layers", 1)
    assert now.layers != controls.at(1e12).layers
    with pytest.raises(ModelError, match="did you mean goldfish"):
        controls.set("classes", "goldfisch")
    controls.set("model", "vgg19")
    assert controls.at(1e12).classes == ()
    assert "classes" not in controls.table


def test_a_class_and_layers_weigh_what_they_are_said_to(lite0: Backbone, photo: Image) -> None:
    aimer = Aimer(lite0)

    def weights(**values: object) -> list[float]:
        look = made(Options, values)
        return aimer.aim(photo, look, {}).weights.tolist()

    both = weights(layers="block9*4", classes="goldfish")
    assert both == pytest.approx([4, CLASS])
    both = weights(layers="block5*0.5,block9*0.5", classes="goldfish*0.25")
    assert both == pytest.approx([0.5, 0.5, 0.25 * CLASS])
    assert weights(layers="block5*0.5,block9*0.5") == [1, 1]  # alone only their ratio counts
    # Two classes weigh what they are said to as well, and a fade from one to the other nothing
    # less: with the first frame of it the layers would jump forward.
    assert weights(layers="block9*4", classes="goldfish,tench") == pytest.approx([4, 2 * CLASS])
    fading = made(Options, {"layers": "block9*4", "classes": "0: goldfish, 1s: daisy"})
    for second in (Fraction(0), Fraction(1, 25), Fraction(1, 2), Fraction(1)):
        now = fading.at(Moment(second, int(25 * second)))
        assert aimer.aim(photo, now, {}).weights.tolist() == pytest.approx([4, CLASS])
    assert weights(classes="goldfish*0.25") == weights(classes="goldfish")


def test_a_class_and_a_layer_of_the_same_weight_are_about_as_strong(
    lite0: Backbone, cat: Image
) -> None:
    aimer = Aimer(lite0)
    layer, one = (
        whole_slope(lite0, cat, aim).norm()
        for aim in (
            aimer.aim(cat, made(Options, {"layers": "block9"}), {}),
            aimer.aim(cat, made(Options, {"classes": "goldfish"}), {}),
        )
    )
    assert 0.2 < float(one / layer) < 5
