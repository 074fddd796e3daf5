from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from media import Film, frame_times, pictures

from streamdream import settings
from streamdream.backbone import Backbone
from streamdream.dream import Dream, steepest
from streamdream.errors import Error, ModelError, OptionError
from streamdream.frame import Image
from streamdream.keys import Span
from streamdream.objectives.aims import aim_at
from streamdream.objectives.slopes import whole_slope
from streamdream.options import Look, Options
from streamdream.run import dream_file, read_settings
from streamdream.schedule import Clock, Moment, Schedule
from streamdream.settings import build, recorded

RATE = Fraction(25)
ANY = Span()


def number(text: str, clock: Clock | None = None, span: Span = ANY) -> Schedule:
    return Schedule.read("strength", text, span).clocked(clock or Clock(RATE, 101))


def at(schedule: Schedule, index: float) -> float:
    """The value at a frame of 25 a second."""
    value = schedule.at(Moment(Fraction(index) / RATE, int(index)))
    assert isinstance(value, float | int)
    return value


def fault(values: dict[str, object], clock: Clock | None = None) -> str:
    with pytest.raises(Error) as found:
        build(values).clocked(clock or Clock(RATE, 101))
    assert "\n" not in str(found.value)
    return str(found.value)


# How values move


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0: 0.2, 50: 1", {0: 0.2, 25: 0.6, 50: 1, 99: 1}),
        ("10f: 1, 20f: 2", {0: 1, 10: 1, 15: 1.5, 20: 2, 30: 2}),
        ("1s: 0, 3s: 1", {0: 0, 25: 0, 50: 0.5, 75: 1}),
        ("0: 0, 2.5s: 5", {25: 2, 50: 4}),
        (".4s: 1, 0.8s: 2", {15: 1.5}),
        ("0%: 0, 50%: 1, 100%: 0", {0: 0, 25: 0.5, 50: 1, 75: 0.5, 100: 0}),
        ("0: 0, 2s: 1, 75: 2, 100%: 3", {25: 0.5, 50: 1, 75: 2, 100: 3}),
        ("0: 0, 10: 1 hold, 20: 2 hold", {0: 0, 9: 0, 10: 1, 19: 1, 20: 2, 50: 2}),
        ("0: 0, 10: 8 ease", {0: 0, 5: 4, 10: 8}),
        ("0: 0, 10: 8 ease-in", {5: 2, 10: 8}),
        ("0: 0, 10: 8 ease-out", {5: 6, 10: 8}),
        ("0: -1, 10: - 3", {5: -2}),
        ("0:(1.0025+0.002*sin(1.25*3.14*t/30)), 50:(2)", {0: 1.0025, 50: 2}),
        ("0: t, 100: max(f, 7)", {0: 0, 50: 26, 100: 100}),
        ("0.5 + p", {0: 0.5, 50: 1.0, 100: 1.5}),
        ("1 if t < 2 else 3", {49: 1, 50: 3}),
        ("2**f", {3: 8}),
    ],
)
def test_values_move_as_typed(text: str, values: dict[int, float]) -> None:
    schedule = number(text)
    assert {i: at(schedule, i) for i in values} == pytest.approx(values)


def test_ease_begins_and_ends_slowly_and_is_even_about_the_middle() -> None:
    eased = [at(number("0: 0, 100: 1 ease"), i) for i in range(101)]
    steps = np.diff(eased)
    assert steps[0] < 0.1 * steps.max() > steps[-1]
    assert np.allclose(steps, steps[::-1])
    assert (steps > 0).all()


def test_cubic_goes_through_all_keys_without_overshoot_or_kink() -> None:
    keys = {0: 0.0, 10: 1.0, 30: 1.2, 40: 3.0, 60: 3.0, 100: 0.5}
    schedule = number(", ".join(f"{i}s: {value} cubic" for i, value in keys.items()))
    curve = np.array([schedule.at(Moment(Fraction(i, 10), i)) for i in range(1001)], float)
    assert {i: curve[10 * i] for i in keys} == pytest.approx(keys)
    for (a, low), (b, high) in pairwise(keys.items()):
        steps = np.diff(curve[10 * a : 10 * b + 1]) * (1 if high >= low else -1)
        assert (steps >= -1e-12).all()  # on the way to the next key, never beyond
    slopes = np.diff(curve)
    assert np.abs(np.diff(slopes)).max() < 0.1 * np.abs(slopes).max()
    straight = np.interp(np.arange(1001) / 10, list(keys), list(keys.values()))
    assert np.abs(np.diff(straight, 2)).max() > 0.5 * np.abs(slopes).max()


def test_cubic_has_the_slopes_of_fritsch_and_butland() -> None:
    schedule = number("0s: 0, 1s: 1 cubic, 3s: 5 cubic, 4s: 6 cubic")
    share = (1 + 2 / 3) / 3
    expected = 1 * 2 / (share * 2 + (1 - share) * 1)
    h = Fraction(1, 10**6)
    values = [schedule.at(Moment(1 + d, 0)) for d in (-h, h)]
    assert isinstance(values[0], float)
    assert isinstance(values[1], float)
    assert (values[1] - values[0]) / float(2 * h) == pytest.approx(expected, rel=1e-4)


def test_a_key_in_frames_counts_frames_whatever_their_times_are() -> None:
    schedule = number("0: 0, 5: 0, 6: 1 hold, 8: 3, 10s: 4", Clock(RATE, None))
    for late in (Fraction(0), Fraction(-1, 1000), Fraction(1, 2), Fraction(7)):
        seen = [schedule.at(Moment(Fraction(i, 30) + late, i)) for i in range(9)]
        assert seen == [0, 0, 0, 0, 0, 0, 1, 2, 3]


def test_a_key_in_seconds_follows_time_whatever_the_frames_are() -> None:
    schedule = number("1s: 0, 2s: 1")
    assert schedule.at(Moment(Fraction(3, 2), 0)) == 0.5
    assert schedule.at(Moment(Fraction(3, 2), 1000)) == 0.5


def test_one_picture_has_the_values_of_its_only_frame() -> None:
    schedule = number("0: 0.2, 2s: 1", Clock(None, 1))
    assert schedule.at(Moment(Fraction(0), 0)) == 0.2


@pytest.mark.parametrize(
    "text",
    [
        "floor(9e9)**floor(9e9)",
        "round(9e15)**round(9e15)*t",
        "ceil(9)**ceil(9)**ceil(9)**ceil(9)",
        "((t<1)+(t<1)+(t<1))**floor(1e12)",
        "1 if t<1 else floor(1e9)**floor(1e9)",
        "*".join(["floor(9e9)"] * 80),
    ],
)
def test_no_number_grows_without_end(text: str) -> None:
    try:
        found = number(text, span=Span(0, 4))
    except OptionError:
        return
    assert 0 <= at(found, 50) <= 4


def test_formulas_keep_within_the_range_and_whole_numbers_are_rounded() -> None:
    options = build({"strength": "10*sin(t)", "octaves": "3*t - 1", "octave_scale": "1 - t"})
    options = options.clocked(Clock(RATE, 200))
    for i in range(200):
        now = options.at(Moment(i / RATE, i))
        assert 0 <= now.strength <= 4
        assert isinstance(now.octaves, int)
        assert now.octaves == max(1, min(16, round(3 * i / 25 - 1)))
        assert now.octave_scale > 1
        Look.model_validate(now.model_dump(include=set(Look.model_fields)))


@pytest.mark.parametrize(
    ("text", "seconds", "value"),
    [("1/(t - 1)", 1 + 1e-9, 9), ("1/(t - 1)", 1, 2), ("sqrt(t - 1)", 0, 2), ("exp(t)", 10**6, 9)],
)
def test_what_a_formula_cannot_give_is_the_highest_or_the_lowest(
    text: str, seconds: float, value: float
) -> None:
    schedule = Schedule.read("strength", text, Span(2, 9))
    assert schedule.at(Moment(Fraction(seconds), 0)) == value


# What is refused


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0: 0.2, 3z: 1", '"3z" at character 9 is not a position; positions are 90 (frames)'),
        ("0:  0.2,   3z: 1", '--strength 0: 0.2, 3z: 1: "3z" at character 9 is not'),
        ("-3: 1, 3: 1", '"-3" at character 1 is not a position'),
        ("0: 1, 2.5: 2", '"2.5" at character 7 is not a whole frame'),
        ("0: 1, 101%: 2", '"101%" at character 7 is beyond the end'),
        (": 1", "is not a position at character 1"),
        ("5: 1, 3: 2", '"3" at character 7 does not come after "5"'),
        ("5: 1, 5f: 2", '"5f" at character 7 does not come after "5"'),
        ("0: 1, 0s: 2", '"0s" at character 7 does not come after "0"'),
        ("0: 1, 2s: 2, 30: 3", '"30" at character 14 does not come after "2s"'),
        ("0: 1, 90%: 2, 3s: 3", '"3s" at character 15 does not come after "90%"'),
        ("0: 1,, 3: 2", "an empty key at character 6"),
        ("0: 1, 3: 2,", "an empty key at character 12"),
        ("0: 1, 3 2", '"3 2" at character 7 has no colon'),
        ("0.2, 3s: 1", '"0.2" at character 1 has no colon'),
        ("0.2, 0.3", '"0.2" at character 1 has no colon'),
        ("0: , 3: 2", '"0:" at character 1 has no value'),
        ("0: ease, 3: 2", '"0: ease" at character 1 has no value'),
        ("0: 1, 3: 2 eese", '"eese" at character 12 is no way to get there; did you mean ease'),
        ("0.8 ease", '"ease" at character 5 is for keys; write POSITION: VALUE ease'),
        ("0: 1, 3: 4.5", '"4.5" at character 10 is out of range; it is at least 0 and at most 4'),
        ("0: 1, 3: 2+3", '"2+3" at character 10 is out of range'),
        ("0: 1, 3: 1e999", "out of range"),
        ("much", '"much" at character 1 is not a number, nor a name; names are t (seconds)'),
        ("0: 1 + sinn(t)", '"sinn" at character 8 is no function; did you mean sin'),
        ("0: 1, 3: sin", '"sin" at character 10 is a function: sin(...)'),
        ("sin(1, t)", '"sin(1, t)" at character 1 cannot be computed'),
        ("0: 1 +, 3: 2", '"1 +" at character 4 cannot be read'),
        ("0: (1, 3: 2", "cannot be read as a formula"),
        ("1/0", '"1/0" at character 1 has no value'),
        ("0: 1, 50: 1/(t - 1)", '"1/(t - 1)" at character 11 has no value at 1 s'),
        ("sqrt(3 - t)", '"sqrt(3 - t)" at character 1 has no value at 3.04 s'),
        ("(-1)**(t + 0.5)", "has no value at 0 s"),
        ("t.real", '"t.real" at character 1 is not arithmetic'),
        ("0: 'a'", "\"'a'\" at character 4 is not a number"),
        ("True", '"True" at character 1 is not a number'),
        ("[t for t in f]", "is not arithmetic"),
        ("(lambda: 1)()", "is not arithmetic"),
        ("__import__('os')", '"__import__" at character 1 is no function'),
        ("max(*t)", '"*t" at character 5 is not arithmetic'),
        ("max(1, key=t)", "is not arithmetic"),
        ("f'{t}'", "is not arithmetic"),
        ("(t := 3)", "is not arithmetic"),
        ("9**9**9**9**9", "is out of range"),
        ("0: " + "9" * 400, "is too large"),
        ("-" * 900 + "t", "nested too deeply"),
        ("(" * 900 + "t" + ")" * 900, "longer than 1000 characters"),
        ("(" * 300 + "t" + ")" * 300, "cannot be read as a formula"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line_with_their_place(text: str, told: str) -> None:
    line = fault({"strength": text})
    assert told in line
    assert line.startswith("--strength ")
    assert len(line) < 450


@pytest.mark.parametrize(
    ("text", "clock", "told"),
    [
        ("0: 1, 50%: 2", Clock(RATE, None), '"50%" at character 7 needs a length'),
        ("0.5 + p", Clock(RATE, None), '"0.5 + p" at character 1 has p, which needs a length'),
        ("0: 1, 9: 2, 3s: 1", Clock(None, None), '"9" at character 7 needs a number of frames'),
    ],
)
def test_what_needs_a_clock_is_refused_without(text: str, clock: Clock, told: str) -> None:
    assert told in fault({"strength": text}, clock)
    assert number("0: 1, 9: 2", Clock()).at(Moment(Fraction(0), 9)) == 2
    assert number("0: 1, 9s: 2", Clock()).at(Moment(Fraction(9), 0)) == 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"layers": "0: blok5, 3s: block9"}, "--layers blok5: .* did you mean block5"),
        ({"layers": "0: block5, 3s: relu4_1"}, "it is a layer of --model vgg19"),
        ({"layers": "0: block5,,block9"}, "empty key at character 11"),
        ({"layers": "0: block5, 3s:"}, '"3s:" at character 12 has no value'),
        ({"layers": "0: block5*x, 3s: block9"}, '"block5.x" at character 4 has no weight'),
        ({"layers": "0: block5*0, 3s: block9"}, '"block5.0" at character 4 weighs nothing'),
        ({"layers": "0: block5,block5*2, 3s: stem"}, '"block5.2" at character 11 is named twice'),
        ({"layers": "block5*-1001"}, "no weight from -1000 to 1000"),
        ({"layers": "block5*0"}, "weigh nothing"),
        ({"layers": "block5,block5*2"}, "block5 is named twice"),
        ({"octaves": "0: 1, 3: 99"}, '"99" at character 10 is out of range'),
        ({"octave_scale": "0: 1"}, "more than 1 and at most 4"),
        ({"crf": "0: 18, 3s: 20"}, "--crf 0: 18, 3s: 20: holds for a whole run"),
        ({"frames": {"0": 1, "3s": 2}}, "--frames: holds for a whole run"),
        ({"flow": "0: dis, 3s: none"}, "--flow 0: dis, 3s: none: holds for a whole run"),
        ({"strength": {"0": 1, "x": 2}}, '"x" at character 7 is not a position'),
        ({"strength": {"2": {"5s": 1}}}, "is not arithmetic"),
        ({"strength": {}}, "cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_in_other_options_are_told(values: dict[str, object], told: str) -> None:
    with pytest.raises(Error, match=told):
        build(values).clocked(Clock(RATE, 101))


# Options


def test_every_number_of_the_look_can_move_and_nothing_else_of_a_run() -> None:
    for name, field in Options.model_fields.items():
        moving = f"0: {field.get_default()}, 3s: {field.get_default()}"
        if name in Look.model_fields and field.annotation in (int, float):
            assert name in build({name: moving}).schedules
        elif field.annotation in (int, float, int | None, float | None):
            with pytest.raises(OptionError):
                build({name: "0: 20, 3s: 30"})


def test_options_without_schedules_are_themselves() -> None:
    options = Options()
    assert options.at(Moment(Fraction(3), 75)) is options
    assert options.clocked(Clock()) is options


def test_a_schedule_and_a_plain_value_replace_each_other() -> None:
    moving = {"strength": "0: 0, 4s: 2"}
    moment = Moment(Fraction(2), 50)
    assert build({"strength": 0.3}, moving).at(moment).strength == 1
    assert build(moving, {"strength": 0.3}).at(moment).strength == 0.3
    options = build(moving, {"octaves": "0: 1, 4s: 3"})
    assert options.model_copy(update={"strength": 0.3}).at(moment).strength == 0.3
    assert options.model_copy(update={"tile": 512}).at(moment).strength == 1
    now = options.at(moment)
    assert (now.strength, now.octaves) == (1, 2)
    assert now.at(Moment(Fraction(4), 100)) is now
    assert build(options.given()) == options


def test_flags_go_over_files_and_files_over_presets(tmp_path: Path) -> None:
    file = tmp_path / "look.toml"
    file.write_text('steps = "0: 4, 4s: 8"\nstep-size = "1 + t"\n[strength]\n"0" = 0\n"4s" = 2\n')
    flags = settings.Flags.model_validate({"step_size": 3.0})
    options = settings.chosen(Options, flags, "whisper", file)
    now = options.at(Moment(Fraction(2), 50))
    assert (now.steps, now.step_size, now.strength, now.memory) == (6, 3.0, 1.0, 8.0)
    flags = settings.Flags.model_validate({"strength": "0: 1, 4s: 3 hold"})
    assert settings.chosen(Options, flags, None, file).at(Moment(Fraction(2), 50)).strength == 1


def test_schedules_are_recorded_as_typed() -> None:
    typed = {"strength": "0: 0.2, 50%: 1 ease", "layers": "0: block5, 5s: block9,block12*0.5"}
    options = build(typed, {"seed": "f"})
    found = recorded(options.clocked(Clock(RATE, 9)).as_comment(), "here")
    assert {name: found[name] for name in typed} == typed
    assert build(found) == build(
        options.model_dump(include=set(Look.model_fields)), typed, {"seed": "f"}
    )


@pytest.mark.parametrize(
    "value",
    [
        "0: block5, 4s: block9,block12",
        ["0: block5", "4s: block9", "block12"],
        {"0": "block5", "4s": ["block9", "block12"]},
    ],
)
def test_layers_fade_over(value: object) -> None:
    options = build({"layers": value})
    seen = [options.at(Moment(Fraction(i), 25 * i)).layers for i in (0, 1, 4, 9)]
    assert seen[0] == ("block5",)
    assert seen[1] == ("block5*0.75", "block9*0.25", "block12*0.25")
    assert seen[2] == seen[3] == ("block9", "block12")


def test_presets_fade_over() -> None:
    options = settings.chosen(Options, None, "0: eyes, 4s: whisper, 8s: beads hold")
    now = options.at(Moment(Fraction(2), 50))
    assert now.layers == ("block9", "block10*0.5")
    assert now.strength == pytest.approx(0.85)
    assert now.memory == pytest.approx(5.5)
    end = options.at(Moment(Fraction(9), 225))
    alone = settings.chosen(Options, None, "beads")
    assert end == alone


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("0: eyes, 3s: classic", r"model differs \(efficientnet-lite0 and vgg19\)"),
        ("0: eyes, 3s: engravin", "did you mean engraving"),
        ("0: eyes, 3x: beads", '"3x" at character 10 is not a position'),
        ("0: eyes, 5: beads, 3: eyes", '"3" at character 20 does not come after "5"'),
        ("0: eyes,", "empty key"),
    ],
)
def test_presets_that_cannot_follow_each_other_are_told(preset: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        settings.chosen(Options, None, preset).clocked(Clock(RATE, 100))


def test_a_preset_that_moves_by_itself_cannot_be_a_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('strength = "0: 0, 3s: 1"\n')
    assert settings.chosen(Options, None, str(file)).schedules
    with pytest.raises(OptionError, match="strength has a schedule in one of them"):
        settings.chosen(Options, None, f"0: {file}, 3s: whisper")


# Dreams


def test_weights_of_nothing_and_all_are_the_one_layer(lite0: Backbone, photo: Image) -> None:
    layers = ("block9", "block5")
    for weights, alone in (((1.0, 0.0), "block9"), ((0.0, 1.0), "block5")):
        both = aim_at(*layers, weights=weights)
        for tile in (1024, 384):
            large = photo if tile == 1024 else photo.repeat(1, 4, 3)
            one = steepest(lite0, large, aim_at(alone), tile)
            assert torch.allclose(steepest(lite0, large, both, tile), one, atol=1e-4)
    halves = whole_slope(lite0, photo, aim_at(*layers, weights=(0.5, 0.5)))
    assert torch.allclose(halves, whole_slope(lite0, photo, aim_at(*layers)) / 2, atol=1e-9)


def test_weights_turn_the_dream_from_layer_to_layer(lite0: Backbone, photo: Image) -> None:
    layers = ("block3", "block9")
    ends = [steepest(lite0, photo, aim_at(name), 1024).flatten() for name in layers]
    near = []
    for part in (0.0, 0.3, 0.7, 1.0):
        both = aim_at(*layers, weights=(1 - part, part))
        found = steepest(lite0, photo, both, 1024).flatten()
        near.append(float(torch.cosine_similarity(found, ends[1], dim=0)))
    assert near == sorted(near)
    assert near[3] == pytest.approx(1, abs=1e-3)
    assert near[0] < 0.5


def test_a_response_weighs_as_the_dream_does(lite0: Backbone, photo: Image) -> None:
    effect, result = Dream(lite0), (photo * 1.1).clamp(0, 1)

    def response(layers: str) -> float:
        return float(effect.response(photo, result, build({"layers": layers})))

    one, other = response("block5"), response("block9")
    assert response("block5*3") == pytest.approx(one)
    assert response("block9*0,block5") == pytest.approx(one)
    mixed = response("block9*0.25,block5*0.75")
    assert mixed == pytest.approx(0.75 * one + 0.25 * other, rel=1e-4)


def film_of(path: Path, suffix: str) -> Path:
    if suffix == "mkv":  # rounds its times to milliseconds
        return Film(times=range(0, 10010, 1001), time_base=Fraction(1, 30000)).write(path / "a.mkv")
    return Film().write(path / "a.mp4")


QUICK = {"layers": "block3", "work_size": 96, "octaves": 1, "steps": 2, "warm_steps": 1, "crf": 0}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_before_a_key_are_untouched_and_those_from_it_are_not(
    tmp_path: Path, suffix: str
) -> None:
    source, plain, moved = film_of(tmp_path, suffix), tmp_path / "p.mkv", tmp_path / "m.mkv"
    dream_file(source, plain, build(QUICK, {"strength": 0}))
    dream_file(source, moved, build(QUICK, {"strength": "0: 0, 5: 0, 6: 1 hold"}))
    before, after = pictures(plain), pictures(moved)
    assert frame_times(moved) == frame_times(source)
    same = [bool(np.array_equal(a, b)) for a, b in zip(before, after, strict=True)]
    assert same == [True] * 6 + [False] * 4


def test_a_moving_look_is_repeated_bit_for_bit(film: Path, tmp_path: Path) -> None:
    first, again, other = (tmp_path / f"{n}.mkv" for n in "abc")
    moving = {
        "layers": "0: block3, 100%: block5", "strength": "1 + 0.5*sin(pi*t)",
        "work_size": "0: 72, 6: 48", "octaves": "0: 1, 3: 2 hold", "frames": 8,
    }  # fmt: skip
    dream_file(film, first, build(QUICK, moving))
    found = recorded(read_settings(first), "first")
    dream_file(film, again, build(found, {"crf": 0, "frames": 8}))
    dream_file(film, other, build(found, {"crf": 0, "frames": 8, "layers": "block3"}))
    a, b, c = pictures(first), pictures(again), pictures(other)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert np.array_equal(a[0], c[0])
    assert not np.array_equal(a[7], c[7])


def test_a_mistake_that_only_the_input_shows_writes_nothing(film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    options = build(QUICK, {"strength": "0: 1, 90%: 2, 0.1s: 3"})
    with pytest.raises(OptionError, match=r'"0.1s" at character 15 does not come after "90%"'):
        dream_file(film, target, options)
    with pytest.raises(ModelError, match="did you mean block5"):
        dream_file(film, target, build(QUICK, {"layers": "0: block3, 9: blok5"}))
    assert not list(tmp_path.iterdir())


def test_what_moves_may_begin_with_nothing() -> None:
    assert build({"memory": "0: 0, 1s: 3", "steps": 0}).steps == 0
    assert build({"steps": "0: 0, 1s: 3", "memory": 0}).memory == 0
    with pytest.raises(OptionError, match="dream nothing"):
        build({"steps": 0, "memory": 0})


@pytest.mark.parametrize("text", ["0: 0: eyes", "0:" * 3000 + "eyes"])
def test_a_preset_has_one_position(text: str) -> None:
    with pytest.raises(OptionError, match=r"is no preset|no such preset"):
        settings.read_preset(text)
