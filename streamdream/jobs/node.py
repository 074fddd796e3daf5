"""A worker on a node of a cluster: an actor of Ray that stands between it and the crew.

The worker is a process, as it is on one machine (see `worker`), in a folder of its own. Whatever
it finishes is asked for by the crew, which has it from then on. When the actor ends, however it
does, so does the process.
"""

from __future__ import annotations

import getpass
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from typing import IO, cast
from uuid import uuid4

import streamdream
from streamdream.errors import Error
from streamdream.jobs.folder import ENDING, JobFolder
from streamdream.jobs.messages import Fault, Made, Message
from streamdream.jobs.travel import Parcel, unpacked

WAIT = 1.0  # seconds that an answer may take while there is nothing to say
NEW = 60.0  # seconds in which a folder may not have its lock yet


class Node:
    """One worker: it is given shares, and asked what became of them."""

    def __init__(self, parcel: Parcel) -> None:
        """Begin it; faults are told when it is asked."""
        self._said: Queue[Message | None] = Queue()
        self._kept: set[int] = set()  # points that the crew has already
        self._lock, self._closed = Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()
        place = Path(tempfile.gettempdir()) / f"streamdream-{getpass.getuser()}"
        _clear(place / "work")
        self._folder = JobFolder.of(place / "work" / uuid4().hex / parcel.work.target.name)
        Thread(target=self._run, args=(parcel, place / "cache"), daemon=True).start()

    def give(self, share: bytes, begin: int, point: bytes | None) -> None:
        """Have a share, pickled, rendered from this point on; None where a scene begins.

        It is passed on as it is: a Share is no Share without PyTorch, which is not needed here.
        """
        if point is not None:
            self._folder.point(begin).write_bytes(point)
            self._kept.add(begin)
        process = self._process
        assert process is not None  # it has said that it is ready
        with suppress(OSError):  # its end is told otherwise
            cast(IO[bytes], process.stdin).write(share)
            cast(IO[bytes], process.stdin).flush()

    def hear(self) -> list[Message | None]:
        """What has become of it since: finished parts first; None last: it has ended."""
        said: list[Message | None] = []
        with suppress(Empty):
            said.append(self._said.get(timeout=WAIT))
            while True:
                said.append(self._said.get_nowait())
        return [*self._made(), *said]

    def close(self) -> None:
        """End it, and leave nothing on this node but the cache."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder.path.parent, ignore_errors=True)
        self._held.close()

    def _run(self, parcel: Parcel, cache: Path) -> None:
        try:
            self._folder.target.parent.mkdir(parents=True)
            self._held.enter_context(self._folder.held())
            work = unpacked(parcel, cache, self._folder.target)
            paths = str(Path(streamdream.__file__).parent.parent), os.environ.get("PYTHONPATH", "")
            with self._lock:
                if self._closed:
                    return
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "streamdream.jobs.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
                )
            pickle.dump(work, cast(IO[bytes], process.stdin))
            cast(IO[bytes], process.stdin).flush()
            while True:
                self._said.put(pickle.load(cast(IO[bytes], process.stdout)))
        except Error as fault:
            self._said.put(Fault(type(fault).__name__, fault.subject, fault.reason, fault.cure))
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            pass  # the process has ended
        finally:
            self._said.put(None)

    def _made(self) -> Sequence[Made]:
        """Finished segments, and the points behind them; the crew puts points down first."""
        segments = list(self._folder.begun())
        found: list[Made] = []
        for path in sorted(self._folder.points.glob("*")):
            if path.name.isdecimal() and int(path.name) not in self._kept:
                with suppress(FileNotFoundError):  # a later one has taken its place
                    found.append(Made(int(path.name), path.read_bytes(), point=True))
                self._kept.add(int(path.name))
        for begin in segments:
            path = self._folder.segment(begin)
            found.append(Made(begin, path.read_bytes()))
            path.unlink()
        return found


def _clear(place: Path) -> None:
    """Remove what actors left that were killed."""
    for folder in place.glob("*"):
        jobs = list(folder.glob(f"*{ENDING}"))
        targets = (JobFolder.of(path.with_name(path.name.removesuffix(ENDING))) for path in jobs)
        with suppress(OSError):
            old = time.time() - folder.stat().st_mtime > NEW
            if old and not any(target.is_held() for target in targets):
                shutil.rmtree(folder, ignore_errors=True)
