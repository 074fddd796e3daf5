"""Workers on all machines of a Ray cluster that is there: shares go to them, segments come back.

The crew hands out shares as it does to processes of this machine, and this module only says where
workers are: each is an actor (see `node`) on a node that is named, so that one which computes
otherwise can be left out. Segments are put into the job's folder here, safely on the disk, before
the crew hears that a share is done; so a node that is lost costs what it had not finished.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from streamdream.errors import Error, ModelError, words
from streamdream.jobs.crew import TRIES, Hand, Hear
from streamdream.jobs.folder import JobFolder, whole
from streamdream.jobs.manifest import apart
from streamdream.jobs.messages import Fault, Made, Message, Ready, Unfit, Work
from streamdream.jobs.node import Node
from streamdream.jobs.rendering import Share
from streamdream.jobs.segments import fault_of, record_of
from streamdream.jobs.travel import parcel_of
from streamdream.options import Options

LOOK = 2.0  # seconds between two looks at which nodes there are
KNOCK = 10.0  # seconds that the head of a cluster may take to answer
LEAVE = 5.0  # seconds that a worker may take to end
POINTS = 2  # of a share are kept: the one before is needed until the segment between is safe
HANDLED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # by the display, and by Ray
SILENT = logging.CRITICAL + 1


@dataclass(frozen=True)
class Place:
    """A node, `named` for people, that has room for so many workers with these `needs`."""

    node: str
    named: str
    count: int
    needs: Mapping[str, float]


class Connection:
    """A Ray cluster that this process is a driver of."""

    def __init__(self, ray: Any, address: str, options: Options) -> None:
        """Through this module, to this address."""
        self.ray, self.address = ray, address
        self._threads, self._device = options.threads or 1, options.device
        self._looked, self._places = -LOOK, list[Place]()

    def places(self) -> list[Place]:
        """Where workers can be now: on GPUs if the cluster has some, or else on its cores."""
        if time.monotonic() - self._looked > LOOK:
            self._places = list(self._found())
            self._looked = time.monotonic()
        return self._places

    def _found(self) -> Iterator[Place]:
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        graphics = self._device != "cpu" and any(n["Resources"].get("GPU", 0) >= 1 for n in nodes)
        for node in nodes:
            name, has = node["NodeID"], node["Resources"]
            if graphics:
                count, needs = int(has.get("GPU", 0)), {"num_gpus": 1, "num_cpus": 0}
            else:
                count = int(has.get("CPU", 0)) // self._threads
                needs = {"num_cpus": self._threads}
            if count:
                yield Place(name, f"{node['NodeManagerAddress']} ({name[:6]})", count, needs)


@contextmanager
def connected(options: Options) -> Generator[Connection | None, None, None]:
    """The cluster that options name, None if they name none; raises ModelError.

    It is only left again: nothing here starts or ends one.
    """
    if options.cluster is None:
        yield None
        return
    ray: Any = importlib.import_module("ray")
    flag, ours = f"--cluster {options.cluster}", not ray.is_initialized()
    try:
        if ours:
            _knock(options.cluster)
            with _own_signals():
                logging.getLogger("ray").setLevel(SILENT)
                ray.init(options.cluster, log_to_driver=False, logging_level=SILENT)
        connection = Connection(ray, options.cluster, options)
        if not connection.places():
            told = f"none of its nodes has a GPU or {options.threads} cores for a worker"
            raise ModelError(flag, told, "add nodes, or use fewer --threads")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as fault:
        if ours:
            ray.shutdown()
        told = words(fault).splitlines()[0].rstrip(".")
        cure = "start one with `ray start`, or name its head as ray://HEAD:10001"
        raise ModelError(flag, f"no cluster answers ({told})", cure) from None
    except BaseException:
        if ours:
            ray.shutdown()
        raise
    try:
        yield connection
    finally:
        if ours:
            with _own_signals():
                ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody answers, which Ray would wait minutes for; raises OSError."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), KNOCK).close()


@contextmanager
def _own_signals() -> Generator[None, None, None]:
    """Ray takes signals for itself; the display has them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in HANDLED if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


class Cluster:
    """Workers of a cluster, on nodes that compute as the `machine` of the job's manifest does."""

    flag = "--cluster"
    cure = "look into Ray's logs on that node; a node that is short of memory ends workers"

    def __init__(
        self, connection: Connection, work: Work, machine: Mapping[str, Any], folder: JobFolder
    ) -> None:
        """For this work; raises an Error where its files cannot be sent."""
        self.ray, self.machine, self.folder = connection.ray, machine, folder
        self._connection, self._parcel = connection, parcel_of(work)
        self._hired: list[_Actor] = []
        self._failed: Counter[str] = Counter()  # workers that never began, by node
        self._refused: dict[str, str] = {}  # why, by node

    @property
    def places(self) -> int:
        """How many workers there can be now."""
        return max(1, sum(place.count for place in self._connection.places()))

    def hire(self, hear: Hear) -> Hand | None:
        """One more, where most room is; None if all is taken, or no node is there."""
        self._hired = [hand for hand in self._hired if not hand.end]
        taken = Counter(hand.place.node for hand in self._hired)
        places = [p for p in self._connection.places() if p.node not in self._refused]
        if self._refused and not places and not self._hired:
            told = f"no node takes part ({next(iter(self._refused.values()))})"
            raise ModelError(self.flag, told, "let all machines be alike")
        free = [place for place in places if taken[place.node] < place.count]
        if not free:
            return None
        place = max(free, key=lambda place: place.count - taken[place.node])
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        there = strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
        kind = self.ray.remote(Node).options(
            **place.needs, max_restarts=0, max_concurrency=4, scheduling_strategy=there
        )
        hand = _Actor(self, place, kind.remote(self._parcel), hear)
        self._hired.append(hand)
        return hand

    def refuse(self, place: Place, reason: str) -> str:
        """Ask nothing of a node any more; what to tell of that."""
        self._refused[place.node] = reason
        return f"node {place.named} takes no part: {reason}"

    def failed(self, place: Place, fault: str) -> str | None:
        """A worker has not even begun there; what to tell if that was once too often."""
        if "No module named 'streamdream'" in fault:
            return self.refuse(place, "streamdream is not installed there")
        self._failed[place.node] += 1
        if self._failed[place.node] < TRIES:
            return None
        return self.refuse(place, f"workers end there before they begin ({fault})")


class _Actor:
    """A worker on a node, as the crew knows it."""

    def __init__(self, cluster: Cluster, place: Place, actor: Any, hear: Hear) -> None:
        self.share: Share | None = None
        self.frames, self.ready, self.end = 0, False, ""
        self.place = place
        self._cluster, self._actor, self._hear = cluster, actor, hear
        self._began, self._closing = False, None
        self._points: deque[Path] = deque()
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def give(self, order: Share) -> None:
        """Send a share, with the point that it goes on from."""
        point = None
        if order.point is not None:
            point = self._cluster.folder.point(order.begin).read_bytes()
        self._points.clear()
        self._actor.give.remote(pickle.dumps(order), order.begin, point)

    def dismiss(self) -> None:
        """Ask it to end and to leave nothing there."""
        if self._began and self._closing is None and not self.end:
            with suppress(Exception):  # it is gone
                self._closing = self._actor.close.remote()

    def leave(self) -> None:
        """End it, and see that nothing more comes from it."""
        self.dismiss()
        with suppress(Exception):  # it is gone, or stuck
            if self._closing is not None:
                self._cluster.ray.get(self._closing, timeout=LEAVE)
        with suppress(Exception):
            self._cluster.ray.kill(self._actor)
        self._listener.join(LEAVE)

    def _listen(self) -> None:
        fault = "it ended"
        try:
            while True:
                for message in self._cluster.ray.get(self._actor.hear.remote()):
                    if message is None:
                        return
                    if (told := self._taken(message)) is not None:
                        self._hear(self, told)
                    if isinstance(told, Unfit):
                        return
        except Error as late:
            told = Fault(type(late).__name__, late.subject, late.reason, late.cure)
            self._hear(self, told)
        except Exception as late:  # Ray has many ways to say that a node or an actor is gone
            fault = " ".join((str(late).strip().splitlines() or [type(late).__name__])[-1].split())
            if "No module named 'streamdream'" in str(late):
                fault = "No module named 'streamdream'"
        finally:
            if not self._began:
                told = self._cluster.failed(self.place, fault)
                if told is not None:
                    self._hear(self, Unfit(told))
            self.end = f"a worker on node {self.place.named} was lost"
            self._hear(self, None)

    def _taken(self, message: Message) -> Message | None:
        """What the crew is to hear of it."""
        if isinstance(message, Made):
            try:
                self._keep(message)
            except OSError as fault:
                raise fault_of(self._cluster.folder, fault) from None
            return None
        if isinstance(message, Fault):
            told = f"{message.reason} (on node {self.place.named})"
            cure = message.cure
            if message.kind == "SourceError" and not cure:
                cure = "all nodes have to see it at the same path, or use --storage"
            return Fault(message.kind, message.subject, told, cure)
        if isinstance(message, Ready):
            self._began = True
            if reason := apart(self._cluster.machine, message.machine):
                return Unfit(self._cluster.refuse(self.place, reason))
        return message

    def _keep(self, made: Made) -> None:
        folder, share = self._cluster.folder, self.share
        path = folder.point(made.index) if made.point else folder.segment(made.index)
        with whole(path) as file:
            file.write(made.data)
        if made.point:
            self._points.append(path)
            while len(self._points) > POINTS:
                self._points.popleft().unlink(missing_ok=True)
            return
        record = record_of(path)
        begin, end = (0, None) if share is None else (share.begin, share.end)
        if record is None or record.begin < begin or (end is not None and record.end > end):
            path.unlink(missing_ok=True)
            raise RuntimeError("a segment arrived damaged")
