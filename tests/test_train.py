from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from media import Film
from PIL import Image as Files
from safetensors.torch import load_file
from torch import Tensor

from streamdream.cli import main
from streamdream.errors import ModelError, OptionError, SourceError
from streamdream.frame import Image
from streamdream.motion import warp
from streamdream.sinks import Stopped
from streamdream.style.cards import FORMAT, Kind
from streamdream.style.network import (
    Network,
    NetworkCard,
    load_network,
    read_card,
    save_network,
)
from streamdream.train.data import Moment, Pictures, clip
from streamdream.train.options import TrainOptions, check_lesson, checkpoint_of
from streamdream.train.session import Silent, preview_of, train_network
from streamdream.train.trainer import Report, carried, painted

CARD = NetworkCard("style", 4, "a painting", 7, '{"seed": 0}')
TINY = {"crop": 64, "width": 4, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name in ("coffee", "chelsea", "rocket"):
        whole = Files.fromarray(getattr(data, name)())
        whole.resize((180, 120)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(photographs: Path) -> Pictures:
    return Pictures((photographs,))


def lesson(photographs: Path, **more: object) -> TrainOptions:
    values = {"data": (photographs,), "dream": "block1", **TINY, "steps": 4, **more}
    return TrainOptions.model_validate(values)


class Watched(Silent):
    """Keeps what it is told, and stops a training after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.reports: list[Report] = []
        self.notices: list[str] = []
        self._stop_after = stop_after

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def step(self, report: Report) -> None:
        self.reports.append(report)
        if report.step == self._stop_after:
            raise Stopped


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (90, 61)])
@pytest.mark.parametrize("kind", ["style", "dream"])
def test_a_network_keeps_any_size(size: tuple[int, int], kind: Kind) -> None:
    image = torch.rand(1, 3, *size)
    found = Network(kind, 4)(image, image, torch.zeros(1, 1, *size))
    assert found.shape == image.shape
    assert 0 <= found.min() <= found.max() <= 1


def test_a_new_dream_is_about_the_image(photo: Image) -> None:
    image = photo[None]
    found = Network("dream")(image, image, torch.zeros_like(image[:, :1]))
    assert 0 < (found - image).abs().mean() < 0.1


def test_what_is_not_trusted_does_not_matter(photo: Image) -> None:
    image, network = photo[None], Network(width=4)
    nowhere = torch.zeros_like(image[:, :1])
    found = network(image, torch.rand_like(image), nowhere)
    assert torch.equal(found, network(image, image, nowhere))


def test_what_is_trusted_is_kept_for_the_most_part(photo: Image) -> None:
    image, network = photo[None], Network(width=4)
    before = image.flip(1)
    found = network(image, before, torch.ones_like(image[:, :1]))
    assert (found - before).abs().mean() < 0.5 * (found - image).abs().mean()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_network_is_the_same_when_it_is_read_back(
    tmp_path: Path, photo: Image, precision: torch.dtype
) -> None:
    network, path = Network(width=4).requires_grad_(False), tmp_path / "net.safetensors"
    save_network(path, network, CARD)
    assert read_card(path) == CARD
    read = load_network(path, precision=precision)
    trust = torch.zeros_like(photo[None, :1])
    wanted, found = (n(photo[None], photo[None], trust) for n in (network, read))
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() < (0.01 if precision == torch.float32 else 0.1)
    assert path.stat().st_size < 2**20


def test_a_network_of_the_usual_width_is_small(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(), CARD)
    assert path.stat().st_size < 3 * 2**20


def header(metadata: object) -> bytes:
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


def card(**wrong: object) -> bytes:
    return header({FORMAT: json.dumps({**asdict(CARD), **wrong})})


NOT_NETWORKS = {
    "nothing": (b"", "is not a safetensors file"),
    "short": (b"\x08", "is not a safetensors file"),
    "a pickle": (b"PK\x03\x04" + bytes(99), "is not a safetensors file"),
    "a long header": (struct.pack("<Q", 2**40) + b"{}", "is not a safetensors file"),
    "no JSON": (struct.pack("<Q", 4) + b"ouch" + bytes(9), "is not a safetensors file"),
    "other weights": (header({"format": "pt"}), "holds weights of another kind"),
    "odd metadata": (header([1]), "holds weights of another kind"),
    "no card": (header({FORMAT: "{}"}), "is damaged"),
    "no text": (header({FORMAT: 1}), "is damaged"),
    "a list": (header({FORMAT: "[]"}), "is damaged"),
    "more than a card": (card(more=1), "is damaged"),
    "a wrong kind": (card(kind="song"), "is damaged"),
    "a giant": (card(width=100000), "is damaged"),
    "no number": (card(width="4"), "is damaged"),
    "only a card": (card(), "is damaged"),
}


@pytest.mark.parametrize("name", NOT_NETWORKS)
def test_what_is_not_a_network_is_refused(tmp_path: Path, name: str) -> None:
    content, told = NOT_NETWORKS[name]
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        load_network(path)


def test_a_network_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(width=4), CARD)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"net\.safetensors"):
        load_network(path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "net.safetensors", Network(width=4)
    with torch.no_grad():
        network.enter.scale.fill_(float("nan"))
    save_network(path, network, CARD)
    with pytest.raises(ModelError, match="is damaged"):
        load_network(path)


def test_a_missing_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_card(tmp_path / "net.safetensors")


def test_cards_are_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_network(path, Network(width=4), CARD)
    code = (
        "import sys; from pathlib import Path; from streamdream.style.cards import read_card;"
        f"print(read_card(Path({str(path)!r})).kind, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["style", "False"]


def test_a_clip_is_the_same_for_the_same_seed(pictures: Pictures) -> None:
    one, same, other = (clip(pictures, seed, 64, 3) for seed in ((1, 2), (1, 2), (1, 3)))
    for a, b in zip(one, same, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.flow, b.flow)
        assert torch.equal(a.trust, b.trust)
    assert not torch.equal(one[0].image, other[0].image)


def test_clips_move_as_their_flow_says(pictures: Pictures) -> None:
    carried_off, left_off = [], []
    for seed in range(12):
        before, now = clip(pictures, (seed,), 96, 2)
        assert before.trust.max() == 0
        if now.flow.abs().mean() < 2:
            continue
        brought = warp(before.image, now.flow)
        surely = now.trust * (now.trust > 0.99)
        for found, kept in ((carried_off, brought), (left_off, before.image)):
            found.append(float((surely * (now.image - kept)).abs().sum() / surely.sum() / 3))
    assert len(carried_off) > 3
    assert np.mean(carried_off) < 0.04  # light and noise
    assert np.mean(left_off) > 2 * np.mean(carried_off)


def test_what_comes_into_view_is_not_trusted(pictures: Pictures) -> None:
    for seed in range(6):
        now = clip(pictures, (seed,), 64, 2)[1]
        y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
        outside = (now.flow[0] + x < -1) | (now.flow[1] + y > 64)
        assert not now.trust[0][outside].any() or now.trust[0][outside].max() < 0.5


def test_pictures_that_are_broken_are_left_out(tmp_path: Path, photographs: Path) -> None:
    good = (photographs / "coffee.png").read_bytes()
    (tmp_path / "good.png").write_bytes(good)
    (tmp_path / "half.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "no.jpg").write_bytes(b"nothing")
    Files.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    found = Pictures((tmp_path,))
    assert found.notices == [f"{tmp_path / 'no.jpg'} and 1 more cannot be read, left out"]
    assert len(found) == 2
    # What is torn shows only when it is decoded: another one is taken.
    for seed in range(8):
        assert clip(found, (seed,), 64, 1)[0].image.std() > 0.01


def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="holds no picture that can be read"):
        Pictures((tmp_path,))


def test_frames_of_a_video_come_from_all_of_it(tmp_path: Path) -> None:
    def shade(index: int) -> np.ndarray:
        return np.full((72, 128, 3), 20 + 4 * index, np.uint8)

    path = Film(paint=shade, times=tuple(range(50))).write(tmp_path / "film.mp4")
    found = Pictures((path,))
    shades = [pixels.mean() for i in range(len(found)) if (pixels := found[i]) is not None]
    assert len(shades) >= 40
    assert shades == sorted(shades)
    assert max(shades) - min(shades) > 150


def test_only_so_many_pictures_are_held(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamdream.train.data.HELD", 2)
    found = Pictures((photographs,))
    first, *_ = [found[i] for i in range(3)]
    assert len(found._held) == 2
    again = found[0]
    assert first is not None
    assert again is not None
    assert first is not again
    assert np.array_equal(first, again)


def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path, photographs: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_network(None, whole, lesson(photographs))
    outcome = train_network(None, parts, lesson(photographs), Watched(stop_after=2))
    assert (outcome.steps, outcome.complete) == (2, False)
    outcome = train_network(None, parts, lesson(photographs, resume=True))
    assert (outcome.steps, outcome.complete) == (4, True)
    assert_same(load_file(checkpoint_of(whole)), load_file(checkpoint_of(parts)))
    assert whole.read_bytes() == parts.read_bytes()
    assert read_card(whole).steps == 4


def test_a_training_starts_from_another_network(
    tmp_path: Path, photographs: Path, begun: Path
) -> None:
    output = tmp_path / "net.safetensors"
    options = lesson(photographs, steps=1, start_from=begun, learning_rate=1e-9)
    train_network(None, output, options)
    found, start = load_file(output), load_file(begun)
    assert all((found[name] - start[name]).abs().max() < 1e-3 for name in start)
    with pytest.raises(OptionError, match=r"--width 8: --start-from .* has a width of 4"):
        train_network(None, tmp_path / "n.safetensors", options.model_copy(update={"width": 8}))
    with pytest.raises(ModelError, match="no such file"):
        check_lesson(None, lesson(photographs, start_from=tmp_path / "none.safetensors"))


def test_seeds_differ(tmp_path: Path, photographs: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    train_network(None, one, lesson(photographs, steps=1))
    train_network(None, other, lesson(photographs, steps=1, seed=1))
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "--seed: was 0 when the training began, now it is 1"),
        ({"dream": "block4"}, "--dream: was block1 when the training began"),
        ({"width": 8}, "--width: was 4"),
    ],
)
def test_resuming_with_other_options_is_refused(
    begun: Path, photographs: Path, change: dict[str, object], told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        train_network(None, begun, lesson(photographs, resume=True, **change))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    path = tmp_path_factory.mktemp("begun") / "net.safetensors"
    train_network(None, path, lesson(photographs, steps=1))
    return path


def test_resuming_with_other_data_is_refused(
    begun: Path, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.png").write_bytes((photographs / "coffee.png").read_bytes())
    with pytest.raises(OptionError, match="something else in --data"):
        train_network(None, begun, lesson(tmp_path, resume=True))


def test_resuming_what_is_done_is_refused(begun: Path, photographs: Path) -> None:
    with pytest.raises(OptionError, match=r"1 steps in .* are done; give more --steps"):
        train_network(None, begun, lesson(photographs, steps=1, resume=True))


def test_a_damaged_checkpoint_is_refused(begun: Path, photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    checkpoint_of(path).write_bytes(checkpoint_of(begun).read_bytes()[:-50])
    with pytest.raises(SourceError, match="is damaged"):
        train_network(None, path, lesson(photographs, resume=True))
    checkpoint_of(path).write_bytes(begun.read_bytes())
    with pytest.raises(SourceError, match="is not a checkpoint"):
        train_network(None, path, lesson(photographs, resume=True))


def test_a_style_is_learned(tmp_path: Path, photographs: Path) -> None:
    y, x = np.mgrid[0:96, 0:96]
    stripes = np.where((x + y) // 4 % 2, 255, 0).astype(np.uint8)
    painting = tmp_path / "stripes.png"
    Files.fromarray(np.dstack([stripes, stripes // 3, 255 - stripes])).save(painting)
    watched = Watched()
    options = lesson(photographs, dream="", steps=16, style_scale=0.375, preview=painting)
    output = tmp_path / "net.safetensors"
    train_network(painting, output, options, watched)
    style = [report.losses["style"] for report in watched.reports]
    assert style[-1] < 0.95 * style[0]
    assert (read_card(output).kind, read_card(output).trained_on) == ("style", "stripes.png")
    with Files.open(preview_of(output)) as preview:
        assert preview.size == (96, 96)


def test_training_lets_frames_agree(tmp_path: Path, photographs: Path) -> None:
    output, found = tmp_path / "net.safetensors", {}
    pictures = Pictures((photographs,))
    for weight in (0, 1000):
        options = lesson(photographs, steps=16, temporal_weight=weight, overwrite=True)
        train_network(None, output, options)
        found[weight] = np.mean([disagreement(output, pictures, seed) for seed in range(6)])
    assert found[1000] < 0.9 * found[0]
    assert found[1000] < 0.5


@torch.no_grad()
def disagreement(path: Path, pictures: Pictures, seed: int) -> float:
    """How much frames differ from what was carried, against frames painted one by one."""
    network = load_network(path)
    before, now = clip(pictures, (seed,), 96, 2)
    brought = carried(now, painted(network, before, before.image))
    alone = painted(network, Moment(now.image, now.flow, 0 * now.trust), now.image)
    together = painted(network, now, brought)
    off = [(now.trust * (x - brought).abs()).sum() for x in (together, alone)]
    return float(off[0] / off[1])


def command(*arguments: object) -> list[str]:
    return [str(a) for a in ("train", *arguments)]


@pytest.fixture
def room(tmp_path: Path, photographs: Path) -> Path:
    """A folder with something of everything that can be wrong."""
    Files.open(photographs / "coffee.png").save(tmp_path / "painting.png")
    Files.new("RGB", (63, 200)).save(tmp_path / "tiny.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    (tmp_path / "there.safetensors").write_bytes(b"x")
    (tmp_path / "photographs").symlink_to(photographs)
    return tmp_path


WRONG = {
    "no painting": (["-o", "n.safetensors"], 2, "painting: nothing is named"),
    "both": (["painting.png", "--dream", "block3"], 2, "--dream: is learned in place of a paint"),
    "missing painting": (["no.png"], 3, "no.png: no such file"),
    "no picture": (["text.png"], 3, "text.png: is not a picture"),
    "tiny painting": (["tiny.png"], 3, "tiny.png: is 63x200, too small"),
    "no such layer": (["--dream", "block77"], 5, "--layers block77: efficientnet-lite0 has no"),
    "no such model": (["--dream", "block3", "--model", "vgg"], 5, "--model vgg: no such model"),
    "no data": (["painting.png", "--data", "no"], 3, "no: no such file"),
    "empty data": (["painting.png", "--data", "empty"], 3, "empty: is an empty folder"),
    "data of texts": (["painting.png", "--data", "texts"], 3, "texts: holds no pictures"),
    "one picture": (["painting.png", "--data", "painting.png"], 3, "painting.png: is one picture"),
    "another ending": (["painting.png", "-o", "n.pt"], 4, "n.pt: is no name of a network file"),
    "no folder": (["painting.png", "-o", "no/n.safetensors"], 4, "there is no folder no"),
    "there already": (["painting.png", "-o", "there.safetensors"], 4, "exists already; give ano"),
    "nothing begun": (["painting.png", "--resume"], 4, "there is no checkpoint to go on from"),
    "no such device": (["painting.png", "--device", "mps"], 5, "--device mps: PyTorch finds no"),
    "resume over": (["painting.png", "--resume", "--overwrite"], 2, "only one of --resume and"),
    "crop": (["painting.png", "--crop", "8"], 2, "--crop 8: should be greater than or equal"),
    "preview": (["painting.png", "--preview", "text.png"], 3, "text.png: is not a picture"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(
    room: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, code, told = WRONG[name]
    monkeypatch.chdir(room)
    monkeypatch.setattr("streamdream.backbone.load", lambda *_: pytest.fail("loads a network"))
    more = [] if "--data" in arguments else ["--data", "photographs"]
    more += [] if "-o" in arguments else ["-o", "n.safetensors"]
    before = sorted(room.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(command(*arguments, *more))
    printed = capsys.readouterr().err
    assert (ended.value.code, printed.count("\n")) == (code, 1), printed
    assert told in printed
    assert sorted(room.iterdir()) == before


def test_without_data_nothing_is_learned(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(command(room / "painting.png", "-o", room / "n.safetensors"))
    assert "--data: is needed to practise on" in capsys.readouterr().err


def test_losses_that_are_no_numbers_are_told(tmp_path: Path, photographs: Path) -> None:
    options = lesson(photographs, learning_rate=1, temporal_weight=10000, steps=60)
    options = options.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(ModelError, match="no numbers; train anew with a smaller --learning-rate"):
        train_network(None, tmp_path / "net.safetensors", options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_is_ended_leaves_a_network_and_goes_on(
    tmp_path: Path, photographs: Path, number: int
) -> None:
    output = tmp_path / "net.safetensors"
    learn = ["--dream", "block1", "--data", photographs, "-o", output, "--checkpoint-every", "0.01"]
    learn += ["--crop", 64, "--width", 4, "--learning-rate", 0.003, "--steps", 100000]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", *command(*learn)], stderr=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 60
        while not output.exists() and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert told.startswith("streamdream: interrupted: ")
    load_network(output)
    reached = read_card(output).steps
    outcome = train_network(None, output, lesson(photographs, steps=reached + 3, resume=True))
    assert outcome.steps == reached + 3
