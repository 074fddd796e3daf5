"""Fetching weights: resumed where it broke off, proven by SHA-256, and there as a whole or not.

HTTP is `requests`, which reads proxies and certificates from the environment as other tools do.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from streamdream.errors import ModelError, words
from streamdream.zoo.store import Store, proof_of, url_of

if TYPE_CHECKING:
    import requests

Watch = Callable[[int, int | None], None]  # bytes that are there, and of how many

PIECE = 1 << 18  # bytes
PATIENCE = 10.0, 30.0  # seconds: for a connection, between two pieces
TRIES, PAUSE = 4, 1.0  # how often a connection may break without much getting through; seconds
MUCH = 1 << 20  # bytes


class _Broken(Exception):
    """The connection ended before the file did."""


def fetch(name: str, file: str, store: Store, watch: Watch | None = None) -> Path:
    """Fetch the weights of a network, unless they are there; returns where they lie.

    What is fetched lies beside it as `file.part` until it is whole and proven; what broke off is
    gone on with. Several processes wait for each other. Raises ModelError, which says how to
    put the file there by hand.
    """
    if (path := store.find(file)) is not None:
        return path
    if store.offline:
        raise ModelError(
            name, "its weights are not here, and --offline is given", cure(file, store)
        )
    from filelock import FileLock

    place = store.place
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f".{file}.lock"):
            if (path := store.find(file)) is None:  # nobody else was quicker
                path = _fetched(name, file, store, watch or (lambda *_: None))
            return path
    except OSError as fault:
        reason = f"cannot be written ({words(fault)})"
        raise ModelError(place, reason, "name another folder with --model-cache") from None


def cure(file: str, store: Store) -> str:
    """What mends it that weights cannot be fetched."""
    return (
        "efficientnet-lite0 and vgg19 need no download; to place it by hand, put "
        f"{url_of(file)} into {store.place}"
    )


def _fetched(name: str, file: str, store: Store, watch: Watch) -> Path:
    path, part = store.place / file, store.place / f"{file}.part"
    resumed = part.exists()
    while True:
        _download(name, file, store, part, watch)
        found = digest(part)
        if found.startswith(proof_of(file)):
            part.replace(path)
            return path
        part.unlink()
        if not resumed:
            break
        resumed = False  # it may have begun as another file
    reason = f"has SHA-256 {found[:8]}..., not {proof_of(file)}..., and was thrown away"
    raise ModelError(f"{name}: what {_host(file)} sends", reason, cure(file, store))


def digest(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, file: str, store: Store, part: Path, watch: Watch) -> None:
    import requests

    broken, before = 0, _size(part)
    with requests.Session() as session:
        while True:
            try:
                _go_on(session, name, file, store, part, watch)
                return
            except (_Broken, requests.ConnectionError, requests.Timeout) as fault:
                now = _size(part)
                broken, before = (1 if now - before > MUCH else broken + 1), now
                if not now and not isinstance(fault, _Broken):
                    reason = f"its weights are not here, and {_host(file)} cannot be reached"
                    raise ModelError(name, reason, cure(file, store)) from None
                if broken >= TRIES:
                    reason = f"{_host(file)} broke off after {now / 1e6:.1f} MB"
                    raise ModelError(name, reason, "run it again to go on from there") from None
                time.sleep(PAUSE * broken)
            except requests.RequestException as fault:
                raise ModelError(
                    name, f"{_host(file)}: {words(fault)}", cure(file, store)
                ) from None


def _go_on(
    session: requests.Session, name: str, file: str, store: Store, part: Path, watch: Watch
) -> None:
    """Fetch what is missing of a part; raises _Broken if there is more."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    url = url_of(file)
    with session.get(url, headers=headers, stream=True, timeout=PATIENCE) as answer:
        told = re.fullmatch(
            r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", "")
        )
        if answer.status_code == requests.codes.requested_range_not_satisfiable and have:
            if told is None or told[2] != str(have):
                part.unlink()  # longer than the file is: not a part of it
                raise _Broken
            return
        if not answer.ok:
            reason = f"{_host(file)} answers {answer.status_code} {answer.reason}".rstrip()
            raise ModelError(name, f"{reason} to {url}", cure(file, store))
        goes_on = answer.status_code == requests.codes.partial_content and have > 0
        if goes_on and (told is None or told[1] != str(have)):
            part.unlink()
            raise _Broken
        have = have if goes_on else 0
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        watch(have, total)
        with part.open("ab" if goes_on else "wb", buffering=0) as out:
            have = _written(answer, out, have, total, watch)
        if total is not None and have < total:
            raise _Broken


def _written(
    answer: requests.Response, out: IO[bytes], have: int, total: int | None, watch: Watch
) -> int:
    from urllib3.exceptions import HTTPError

    try:
        # What came is written before more is waited for, so that nothing is fetched twice.
        while piece := answer.raw.read1(PIECE, decode_content=False):
            out.write(piece)
            have += len(piece)
            watch(have, total)
    except HTTPError:
        raise _Broken from None
    return have


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _host(file: str) -> str:
    return urlsplit(url_of(file)).netloc or url_of(file)
