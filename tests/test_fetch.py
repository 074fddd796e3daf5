"""Weights fetched from a hub on loopback, with all that can go wrong there."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub

from streamdream.errors import ModelError
from streamdream.zoo import fetch as fetching
from streamdream.zoo.fetch import fetch
from streamdream.zoo.store import Store, proof_of, url_of

DATA = random.Random(0).randbytes(1_500_000)
IN_ANOTHER_PROCESS = (
    "import sys; from pathlib import Path; from streamdream.zoo.fetch import fetch; "
    "from streamdream.zoo.store import Store; fetch('net', sys.argv[1], Store(Path(sys.argv[2])))"
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetching, "PAUSE", 0.0)
    with Hub() as opened:
        monkeypatch.setenv("STREAMDREAM_HUB", opened.url)
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "models")


def part_of(store: Store, file: str) -> Path:
    return store.place / f"{file}.part"


def with_part(store: Store, file: str, data: bytes) -> None:
    store.place.mkdir(parents=True)
    part_of(store, file).write_bytes(data)


def test_a_file_is_fetched_once_and_told(hub: Hub, store: Store) -> None:
    file, told = hub.add(DATA), []
    path = fetch("net", file, store, lambda done, whole: told.append((done, whole)))
    assert path == store.place / file
    assert path.read_bytes() == DATA
    assert told[0] == (0, len(DATA))
    assert told[-1] == (len(DATA), len(DATA))
    assert told == sorted(told)
    assert not part_of(store, file).exists()
    assert fetch("net", file, store) == path
    assert hub.asked == [""]


def test_what_breaks_off_is_gone_on_with(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    hub.breaks = [400_000, 500_000]
    assert fetch("net", file, store).read_bytes() == DATA
    assert hub.asked == ["", "bytes=400000-", "bytes=900000-"]


def test_who_breaks_off_for_ever_is_told_and_can_be_gone_on_with(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    hub.breaks = [300_000, *[0] * 20]
    with pytest.raises(ModelError, match=r"broke off after 0\.3 MB; run it again to go on"):
        fetch("net", file, store)
    assert len(hub.asked) == fetching.TRIES
    assert part_of(store, file).read_bytes() == DATA[:300_000]
    hub.breaks = []
    assert fetch("net", file, store).read_bytes() == DATA
    assert hub.asked[-1] == "bytes=300000-"


def test_a_killed_process_leaves_a_part_that_is_gone_on_with(hub: Hub, store: Store) -> None:
    file, hub.pause = hub.add(DATA), 0.1
    words = [sys.executable, "-c", IN_ANOTHER_PROCESS, file, str(store.place)]
    with subprocess.Popen(words, env=os.environ) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and not (
            part_of(store, file).exists() and part_of(store, file).stat().st_size > 300_000
        ):
            time.sleep(0.01)
        process.kill()
        process.wait(10)
    left = part_of(store, file).stat().st_size
    assert 300_000 < left < len(DATA)
    assert not (store.place / file).exists()
    hub.pause = 0.0
    assert fetch("net", file, store).read_bytes() == DATA
    assert hub.asked == ["", f"bytes={left}-"]


def test_two_processes_fetch_a_file_once(hub: Hub, store: Store) -> None:
    file, hub.pause = hub.add(DATA), 0.05
    words = [sys.executable, "-c", IN_ANOTHER_PROCESS, file, str(store.place)]
    running = [subprocess.Popen(words, env=os.environ) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert (store.place / file).read_bytes() == DATA
    assert hub.asked == [""]


def test_a_wrong_file_is_thrown_away(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    hub.files[file] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(ModelError, match=f"has SHA-256 .* not {proof_of(file)}.* thrown away"):
        fetch("net", file, store)
    assert not (store.place / file).exists()
    assert not part_of(store, file).exists()
    assert hub.asked == [""]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_something_else_does_not_spoil_it(hub: Hub, store: Store, ranges: bool) -> None:
    file, hub.ranges = hub.add(DATA), ranges
    with_part(store, file, bytes(200_000))
    assert fetch("net", file, store).read_bytes() == DATA
    assert hub.asked == (["bytes=200000-", ""] if ranges else ["bytes=200000-"])


def test_a_part_that_is_too_long_is_begun_anew(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    with_part(store, file, DATA + b"more")
    assert fetch("net", file, store).read_bytes() == DATA


def test_a_part_that_is_whole_is_proven_and_taken(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    with_part(store, file, DATA)
    assert fetch("net", file, store).read_bytes() == DATA


def test_what_is_elsewhere_is_found(hub: Hub, store: Store) -> None:
    file, hub.moved = hub.add(DATA), True
    hub.breaks = [500_000]
    assert fetch("net", file, store).read_bytes() == DATA
    assert hub.asked == ["", "", "bytes=500000-", "bytes=500000-"]


def test_what_the_hub_does_not_have(hub: Hub, store: Store) -> None:
    with pytest.raises(ModelError, match=r"answers 404 Not Found to http.*by hand, put http"):
        fetch("net", "net-00000000.pth", store)
    assert not part_of(store, "net-00000000.pth").exists()


def test_where_no_hub_is_reachable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("STREAMDREAM_HUB", f"http://127.0.0.1:{taken.getsockname()[1]}/models")
        with pytest.raises(ModelError) as told:
            fetch("net", "net-00000000.pth", store)
    line = str(told.value)
    assert "cannot be reached" in line
    assert "efficientnet-lite0 and vgg19 need no download" in line
    assert line.endswith(f"put {url_of('net-00000000.pth')} into {store.place}")


def test_offline_asks_nobody(hub: Hub, store: Store) -> None:
    file = hub.add(DATA)
    with pytest.raises(ModelError, match="not here, and --offline is given"):
        fetch("net", file, Store(store.folder, offline=True))
    assert hub.asked == []
    store.place.mkdir(parents=True)
    (store.place / file).write_bytes(DATA)
    assert fetch("net", file, Store(store.folder, offline=True)) == store.place / file


def test_a_folder_that_cannot_be_is_told(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelError, match=r"cannot be written .*--model-cache"):
        fetch("net", hub.add(DATA), Store(tmp_path / "file" / "models"))


def test_what_torchvision_has_fetched_is_taken(hub: Hub, store: Store, tmp_path: Path) -> None:
    file = hub.add(DATA)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(DATA)
    assert fetch("net", file, store) == folder / file
    assert hub.asked == []


def test_the_folder_is_named_by_option_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMDREAM_MODELS", str(tmp_path / "there"))
    assert Store().place == tmp_path / "there"
    assert Store(tmp_path / "here").place == tmp_path / "here"
    monkeypatch.delenv("STREAMDREAM_MODELS")
    assert "streamdream" in str(Store().place)
