"""Scenes dreamed on many machines: here a Ray cluster of two nodes on this one.

Where `cluster` is marked, Ray is needed and started: python -m pytest -m cluster
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import Film, packets
from running import Heard, stop

from streamdream.errors import ModelError, OptionError, SinkError, SourceError
from streamdream.frame import Pixels
from streamdream.inputs import locate
from streamdream.jobs import options as lasting
from streamdream.jobs import plan
from streamdream.jobs.folder import JobFolder
from streamdream.jobs.manifest import Fingerprint, apart
from streamdream.jobs.messages import Work
from streamdream.jobs.travel import parcel_of, unpacked
from streamdream.run import dream_file
from streamdream.settings import build

LENGTHS = (9, 14, 5, 12)
QUICK = {
    "work_size": 48, "octaves": 1, "steps": 2, "segment": 4, "encoder_preset": "ultrafast",
}  # fmt: skip
SMALL = {
    "num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20,
}  # fmt: skip
ray_cluster = pytest.mark.cluster
ends = pytest.mark.timeout(240)
quiet = pytest.mark.filterwarnings("ignore")  # of Ray's own code


def _paint(index: int) -> Pixels:
    for number, length in enumerate(LENGTHS):
        if index < length:
            noise = np.random.default_rng(number).integers(0, 256, (9, 16, 3), np.uint8)
            return np.roll(np.kron(noise, np.ones((8, 8, 1), np.uint8)), 2 * index, 1)
        index -= length
    raise AssertionError


@pytest.fixture(scope="module")
def cut_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes, with sound."""
    path = tmp_path_factory.mktemp("cluster") / "film.mp4"
    return Film(_paint, range(sum(LENGTHS)), languages=("eng",)).write(path)


@pytest.fixture(scope="module")
def alone(cut_film: Path) -> Path:
    """The film as one process makes it, with one thread."""
    target = cut_film.with_name("alone.mp4")
    assert dream_file(cut_film, target, build({**QUICK, "resume": True, "threads": 1})).complete
    return target


@pytest.fixture(autouse=True)
def _short_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SHORTEST", 1)


class _Nodes:
    """A cluster whose head has one core, and what else is added."""

    def __init__(self, place: Path) -> None:
        # By name: whoever checks the types need not have Ray.
        made: Any = importlib.import_module("ray.cluster_utils").Cluster
        self._cluster: Any = made(initialize_head=True, head_node_args=dict(SMALL))
        self.address: str = self._cluster.address

    def add(self, **more: Any) -> Any:
        return self._cluster.add_node(**SMALL, **more)

    def lose(self, node: Any) -> None:
        """Kill a node and all that runs on it, as a power cut does."""
        self._cluster.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        with suppress(Exception):  # whatever happens, nothing may stay
            self._cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Generator[_Nodes, None, None]:
    pytest.importorskip("ray")
    # Sockets have short names, so it lies near the root.
    place = Path(tempfile.mkdtemp(prefix="sd", dir="/tmp"))
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    try:
        found = _Nodes(place)
        try:
            yield found
        finally:
            found.end()
    finally:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if str(place).encode() in path.read_bytes():  # Ray's, as it lies there
                    os.kill(int(path.parent.name), signal.SIGKILL)
        shutil.rmtree(place, ignore_errors=True)


def _there(nodes: _Nodes, **more: object) -> Any:
    return build({**QUICK, "cluster": nodes.address, **more})


@ray_cluster
@ends
@quiet
def test_a_lost_node_costs_only_its_shares_and_a_stop_nothing(
    cut_film: Path, alone: Path, tmp_path: Path, nodes: _Nodes
) -> None:
    second = nodes.add()
    heard = Heard(lambda: nodes.lose(second), after=10)
    target = tmp_path / "killed.mp4"
    outcome = dream_file(cut_film, target, _there(nodes), heard)
    assert heard.acted
    assert outcome.frames == sum(LENGTHS)
    assert any("a worker on node" in notice for notice in heard.notices), heard.notices
    assert target.read_bytes() == alone.read_bytes()
    assert packets(target) == packets(cut_film)
    assert not JobFolder.of(target).path.exists()

    target = tmp_path / "stopped.mp4"
    stopped = dream_file(cut_film, target, _there(nodes), Heard(stop, after=12))
    assert not stopped.complete
    assert 0 < stopped.frames < sum(LENGTHS)
    assert dream_file(cut_film, target, build({**QUICK, "resume": True})).complete
    assert target.read_bytes() == alone.read_bytes()


@ray_cluster
@ends
@quiet
def test_two_nodes_read_from_storage_and_one_that_computes_otherwise_takes_no_part(
    cut_film: Path, alone: Path, tmp_path: Path, nodes: _Nodes
) -> None:
    nodes.add(env_vars={"ATEN_CPU_CAPABILITY": "default"})
    film, storage = tmp_path / "film.mp4", tmp_path / "storage"
    film.write_bytes(cut_film.read_bytes())
    heard = Heard()
    target = tmp_path / "out.mp4"
    dream_file(film, target, _there(nodes, storage=f"file://{storage}"), heard)
    refused = [notice for notice in heard.notices if "takes no part" in notice]
    assert len(refused) == 1, heard.notices
    assert "instructions: " in refused[0]
    assert "DEFAULT there" in refused[0]
    assert target.read_bytes() == alone.read_bytes()
    assert len(list(storage.glob("*/0/film.mp4"))) == 1


@ray_cluster
@ends
@quiet
def test_on_a_terminal_only_our_own_words_are_seen(
    cut_film: Path, tmp_path: Path, nodes: _Nodes
) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    command = [sys.executable, "-m", "streamdream", str(cut_film), "-o", str(tmp_path / "out.mp4")]
    done = subprocess.run(
        [*command, *words, f"--cluster={nodes.address}"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert all(line.startswith(("streamdream: ", str(tmp_path))) for line in lines), lines


@ray_cluster
@ends
@quiet
def test_where_no_cluster_is_none_is_started(
    cut_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray: Any = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    options = build({**QUICK, "cluster": "127.0.0.1:9"})
    with pytest.raises(ModelError, match="no cluster answers"):
        dream_file(cut_film, tmp_path / "out.mp4", options)
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not JobFolder.of(tmp_path / "out.mp4").path.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cluster": "local"}, "--cluster local: is no address"),
        ({"cluster": "ray://"}, "is no address"),
        ({"cluster": "auto", "workers": 2}, "--workers: are processes of this machine"),
        ({"storage": "s3://bucket"}, "--storage: is for machines of a cluster"),
        ({"cluster": "auto", "storage": "memory://x"}, "is no URL of files"),
        ({"cluster": "auto", "storage": "/there"}, "is no URL of files"),
    ],
)
def test_what_cannot_be_is_told_at_once(
    options: dict[str, object], told: str, film: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=told):
        lasting.check_lasting(build(options), locate(film), tmp_path / "out.mp4")


def test_without_ray_one_line_says_how_to_get_it(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        lasting.importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(OptionError, match=r"needs Ray.*; pip install 'streamdream\[cluster\]'"):
        dream_file(film, tmp_path / "out.mp4", build({"cluster": "auto"}))


def _work(tmp_path: Path, film: Path, **options: object) -> Work:
    style, other = tmp_path / "a.png", tmp_path / "a.png.b.png"
    style.write_bytes(b"one")
    other.write_bytes(b"two")
    files = {"the input": [film], "a style or mask": [style, other]}
    chosen = build({"style": f"0: {style}, 2s: {style}*0.3,{other}*0.7", **options})
    known = {name: Fingerprint.of(paths) for name, paths in files.items()}
    return Work(film, tmp_path / "out.mp4", chosen, files, known, "")


def test_files_are_fetched_once_and_named_anew_in_schedules(film: Path, tmp_path: Path) -> None:
    storage, cache = tmp_path / "storage", tmp_path / "cache"
    work = _work(tmp_path, film, cluster="auto", storage=f"file://{storage}")
    parcel = parcel_of(work)
    target = tmp_path / "there" / "out.mp4"
    found = unpacked(parcel, cache, target)
    assert found.target == target
    assert Path(found.source).read_bytes() == film.read_bytes()
    assert Path(found.source).is_relative_to(cache)
    text = found.options.schedules["style"].text
    assert str(tmp_path / "a.png") not in text
    assert text.count(str(cache)) == 3
    assert text.endswith("a.png.b.png*0.7")
    times = {path: path.stat().st_mtime_ns for path in storage.rglob("*")}
    parcel_of(work)  # all is there already
    assert {path: path.stat().st_mtime_ns for path in storage.rglob("*")} == times
    shutil.rmtree(storage)
    assert unpacked(parcel, cache, target) == found


def test_what_is_damaged_in_storage_or_cache_is_not_used(film: Path, tmp_path: Path) -> None:
    storage, cache = tmp_path / "storage", tmp_path / "cache"
    parcel = parcel_of(_work(tmp_path, film, cluster="auto", storage=f"file://{storage}"))
    here = unpacked(parcel, cache, tmp_path / "out.mp4")
    Path(here.source).write_bytes(b"damaged")
    again = unpacked(parcel, cache, tmp_path / "out.mp4")
    assert Path(again.source).read_bytes() == film.read_bytes()
    next(storage.glob(f"*/0/{film.name}")).write_bytes(b"damaged")
    with pytest.raises(SourceError, match="is not what was sent"):
        unpacked(parcel, tmp_path / "other", tmp_path / "out.mp4")
    with pytest.raises(SinkError, match="--storage nothing://x"):
        parcel_of(_work(tmp_path, film, cluster="auto", storage="nothing://x"))


def test_many_that_need_a_file_at_the_same_time_get_it(film: Path, tmp_path: Path) -> None:
    storage, cache = tmp_path / "storage", tmp_path / "cache"
    parcel = parcel_of(_work(tmp_path, film, cluster="auto", storage=f"file://{storage}"))
    found: list[Work] = []
    threads = [
        threading.Thread(target=lambda: found.append(unpacked(parcel, cache, tmp_path / "o.mp4")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert all(each == found[0] for each in found)


def test_machines_are_alike_but_for_the_number_of_processors() -> None:
    here = {"PyTorch": "2.15.0", "PyTorch's threads": 1, "processors": 2, "device": "cpu"}
    assert apart(here, {**here, "processors": 64}) == ""
    there = {**here, "PyTorch": "2.14.0", "PyTorch's threads": 4}
    assert apart(here, there) == (
        "PyTorch: 2.15.0 here, 2.14.0 there, PyTorch's threads: 1 here, 4 there"
    )
