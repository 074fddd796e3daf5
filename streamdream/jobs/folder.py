"""The folder of a job, beside its output: who holds it, and files that are whole or not there.

out.mp4.job/
  lock                     held by the process that works on the job
  manifest                 what the job is of, see `manifest`
  plan                     where scenes begin, see `plan`
  segments/000000000048    frames from number 48 on, see `segments`
  points/000000000096      what a run needs to go on at frame 96, see `points`
  result.mp4               the result, from when it is complete until it has its name
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from streamdream.errors import SinkError, words

ENDING = ".job"
PART = ".part"


class JobFolder:
    """The folder of the job that makes a `target`."""

    def __init__(self, path: Path, target: Path) -> None:
        """Name it; nothing is made yet."""
        self.path, self.target = path, target
        self.segments, self.points = path / "segments", path / "points"
        self.manifest, self.finish = path / "manifest", path / "finish"
        self.plan = path / "plan"
        self.result = path / f"result{target.suffix}"

    @staticmethod
    def of(target: Path) -> JobFolder:
        """That of this target, there or not."""
        target = target.absolute()
        return JobFolder(target.with_name(target.name + ENDING), target)

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Make the folder if need be, and keep other processes out of it.

        Raises SinkError where another one holds it, or where it cannot be made.
        """
        try:
            self.segments.mkdir(parents=True, exist_ok=True)
            self.points.mkdir(exist_ok=True)
            file = self._locked()
        except OSError as fault:
            told = f"cannot be written ({words(fault)})"
            raise SinkError(self.path, told) from None
        own = False
        try:
            with file:
                try:
                    yield
                finally:
                    # Once it was removed another process may have made it anew.
                    own = self._is_lock(file)
        finally:
            if own and not self.manifest.exists() and not any(True for _ in self.begun()):
                self.remove()

    @property
    def finishing(self) -> bool:
        """Whether what is at the target may be of the job itself: it was about to end."""
        try:
            return read_sealed(self.finish) is not None
        except ValueError:
            return False

    @property
    def _lock_file(self) -> Path:
        return self.path / "lock"

    def _is_lock(self, file: IO[bytes]) -> bool:
        """Whether an open file is the lock that is there now."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(file.fileno()), self._lock_file.stat())
        return False

    def _locked(self) -> IO[bytes]:
        path = self._lock_file
        while True:
            file = path.open("ab")
            try:
                _lock(file)
            except OSError:
                file.close()
                told = "another process works on this job"
                raise SinkError(self.path, told, "let it end, or stop it") from None
            # Whoever held it may have finished and removed it in between.
            if self._is_lock(file):
                return file
            file.close()
            self.segments.mkdir(parents=True, exist_ok=True)
            self.points.mkdir(exist_ok=True)

    def is_held(self) -> bool:
        """Whether a process works on it just now."""
        try:
            with self._lock_file.open("rb") as file:
                _lock(file)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def remove(self) -> None:
        """Remove it and all that is in it; until the last moment it tells that it was finished."""
        for folder in (self.segments, self.points):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.plan, self.manifest, self.finish):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a process that was killed left half written."""
        for folder in (self.path, self.segments, self.points):
            for part in folder.glob(f"*{PART}"):
                part.unlink(missing_ok=True)

    def segment(self, begin: int) -> Path:
        """Where the segment that begins with this frame lies."""
        return self.segments / f"{begin:012d}"

    def point(self, index: int) -> Path:
        """Where the point lies from which this frame can be made."""
        return self.points / f"{index:012d}"

    def begun(self) -> Iterator[int]:
        """The first frames of the segments that are there, in order."""
        return (int(name) for name in sorted(_names(self.segments)))


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.isdecimal()]
    except OSError:
        return []


def _lock(file: IO[bytes]) -> None:
    """Lock an open file; raises OSError if somebody else has. Its end unlocks it."""
    if os.name == "nt":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        return
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def whole(path: Path) -> Generator[IO[bytes], None, None]:
    """A file to write to that is there only once all of it is safely on the disk."""
    part = path.with_name(path.name + PART)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """See that names in a folder are safely on the disk, where that can be asked for."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def digest_of_bytes(data: bytes) -> str:
    """Tells content from other content."""
    return blake2b(data, digest_size=16).hexdigest()


def write_sealed(path: Path, told: Any) -> None:
    """Write what JSON can tell, with what shows whether it is whole; raises OSError."""
    text = json.dumps(told, ensure_ascii=False).encode()
    with whole(path) as file:
        file.write(text + b"\n" + digest_of_bytes(text).encode() + b"\n")


def read_sealed(path: Path) -> Any:
    """What was written so; None if nothing is there; raises ValueError if it is damaged."""
    try:
        text, _, digest = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise ValueError(f"cannot be read ({words(fault)})") from None
    if digest_of_bytes(text).encode() + b"\n" != digest:
        raise ValueError("is damaged")
    return json.loads(text)
