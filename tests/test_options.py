from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from streamdream import settings
from streamdream.errors import Error, ModelError, OptionError
from streamdream.options import RECORD_MARK, Look, Options
from streamdream.settings import build, recorded


def test_every_option_has_a_help_line_and_valid_default() -> None:
    for name, field in Options.model_fields.items():
        assert field.description, name
    assert Options().chosen_layers


def test_later_values_win() -> None:
    chosen = build({"octaves": 2, "steps": 7}, {"octaves": 3}, {"steps": 9})
    assert (chosen.octaves, chosen.steps) == (3, 9)


def test_layers_are_read_with_commas_and_as_lists() -> None:
    assert build({"layers": "block8, block12"}).layers == ("block8", "block12")
    assert build({"layers": ["block8", "block12"]}).layers == ("block8", "block12")
    assert build({"layers": ("block8, block12",)}).layers == ("block8", "block12")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("83.5", Fraction(167, 2)), ("1:23.5", Fraction(167, 2)), ("0:01:23.5", Fraction(167, 2))],
)
def test_times_are_exact(text: str, seconds: Fraction) -> None:
    assert build({"start": text}).start == seconds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"octaves": 0}, "--octaves 0: should be greater than or equal to 1"),
        ({"memory": -1}, "--memory -1"),
        ({"size": "640"}, "--size 640: a size is WIDTHxHEIGHT"),
        ({"size": "1x1"}, "width and height go from"),
        ({"start": "soon"}, "--start soon: a time is seconds"),
        ({"start": "3", "end": "2"}, "--end 2 is not after --start 3"),
        ({"flow": "farnebeck"}, "--flow farnebeck"),
        ({"memory": 0, "steps": 0}, "--strength 0"),
        ({"steps": float("nan")}, "--steps nan"),
        ({"step_size": float("inf")}, "--step-size inf"),
    ],
)
def test_wrong_values_are_told_in_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as found:
        build(values)
    assert message in str(found.value)
    assert "\n" not in str(found.value)
    assert found.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ({"layers": "blok9"}, "block9"),
        ({"model": "vg19"}, "vgg19"),
        ({"model": "vgg19", "layers": "relu4-4"}, "relu4_4"),
        ({"layers": "relu4_4"}, "it is a layer of --model vgg19"),
        ({"layers": "zzzzzz"}, "layers:"),
    ],
)
def test_unknown_names_tell_near_ones(values: dict[str, object], near: str) -> None:
    with pytest.raises(ModelError, match=near):
        build(values)


def test_settings_survive_being_recorded() -> None:
    chosen = build({"layers": "block8,block10", "memory": 0.5, "seed": 7, "start": "2"})
    text = "a comment of somebody\n" + chosen.as_comment() + "\nand more"
    again = build(recorded(text, "here"))
    assert again.model_dump(include=set(Look.model_fields)) == chosen.model_dump(
        include=set(Look.model_fields)
    )
    assert again.start is None  # which part is not a part of the look


def test_the_last_of_several_records_counts() -> None:
    first, second = build({"seed": 11}).as_comment(), build({"seed": 22}).as_comment()
    assert recorded(f"{first}\n{second}", "here")["seed"] == 22


@pytest.mark.parametrize("text", ["", "nothing", RECORD_MARK + "{broken", RECORD_MARK])
def test_no_settings_recorded_is_said(text: str) -> None:
    with pytest.raises(OptionError, match="holds no settings"):
        recorded(text, "here")


def test_toml_takes_dashes_and_underscores(tmp_path: Path) -> None:
    file = tmp_path / "look.toml"
    file.write_text('work-size = 180\nwarm_steps = 3\nlayers = ["block8"]\nstart = 1.5\n')
    chosen = build(settings.read_toml(file, "--config"))
    assert (chosen.work_size, chosen.warm_steps, chosen.layers) == (180, 3, ("block8",))
    assert chosen.start == Fraction(3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"work-sise = 3", "did you mean work-size"),
        (b"work-size = ", "not valid TOML"),
        (b"\xff\xfe", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_wrong_toml_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "look.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        settings.read_toml(file, "--config")


def test_presets_are_valid_and_differ() -> None:
    names = settings.preset_names()
    assert len(names) >= 4
    looks = {build(settings.read_preset(name)).as_comment() for name in names}
    assert len(looks) == len(names)
    assert Options().as_comment() not in looks


def test_unknown_preset_tells_the_known_ones() -> None:
    with pytest.raises(OptionError, match=settings.preset_names()[0]):
        settings.read_preset("nonesuch-at-all")


def test_a_preset_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("octaves = 2\n")
    assert settings.read_preset(str(file)) == {"octaves": 2}


def test_errors_tell_their_exit_codes() -> None:
    assert {kind.exit_code for kind in Error.__subclasses__()} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("typed", "count"), [("500KB", 500_000), ("8MB", 8_000_000), ("1.5Mi", 1_572_864)]
)
def test_sizes_are_read_as_people_write_them(typed: str, count: int) -> None:
    assert build({"max_size": typed}).most_bytes == count
