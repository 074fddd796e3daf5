"""Live pictures as H.264: to a URL, or as HTTP live streaming (HLS) into a folder.

Everything is written by libav, to URLs in a process of its own: a server that is gone or
frozen stops nothing for longer than a few seconds, then the write fails, and `Output` opens it
again. Messages name scheme and host of a URL and no more: the rest is often secret.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import parse_qs, urlsplit

import av
import numpy as np
from av.codec.context import CodecContext
from av.error import ArgumentError, FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from streamdream.colour import BT709, SMPTE170M, Colour, ToVideo
from streamdream.errors import OptionError, SinkError, words
from streamdream.frame import Bytes, Size
from streamdream.live.muxing import TICKS, Goal, Muxer, Process
from streamdream.live.outputs import Opening, Shown

KINDS = {
    "rtmp": "flv", "rtmps": "flv", "rtmpt": "flv", "udp": "mpegts", "tcp": "mpegts",
    "rtp": "rtp_mpegts", "srtp": "rtp_mpegts", "rtsp": "rtsp", "unix": "mpegts",
}  # fmt: skip
ADDRESSED = ("udp", "tcp", "rtp", "srtp")  # they have no usual port

TICK = Fraction(1, TICKS)
CLOSEST = TICKS // 1000  # between two pictures at least; FLV counts milliseconds
GROUP = 2 * TICKS  # from one key frame to the next
RICHEST = 0.15  # bits a pixel at most, on average: 4 Mbit/s for 1280x720 at 30

PLAYLIST = "live.m3u8"
LISTED = 8  # segments in the list
ROOM = 20_000_000  # bytes that must be free for the next two segments
OURS = re.compile(r"(live-\d{10,}\.ts|live\.m3u8)(\.tmp)?")


def even(pixels: Bytes) -> Bytes:
    """Pixels (h, w, 3) with odd sides made even by repeating the edge."""
    h, w = pixels.shape[:2]
    if not (h % 2 or w % 2):
        return pixels
    return np.pad(pixels, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")


def usual_colour(size: Size) -> Colour:
    """What players take for granted at this size (h, w): BT.709 from 720 lines up, else BT.601."""
    if min(size) >= 720:
        return Colour(BT709, BT709, BT709)
    return Colour(SMPTE170M, SMPTE170M, SMPTE170M)


class _Way(Protocol):
    """Where encoded pictures go; see `Muxer`."""

    def mux(self, time: int, key: bool, data: bytes) -> None: ...
    def close(self) -> None: ...


class _Encoder:
    """A Target: pictures at their own times, as H.264."""

    def __init__(
        self, way: _Way, goal: Goal, size: Size, subject: str, folder: Path | None
    ) -> None:
        """Encode pictures of `size` (h, w) for a goal; faults are told about `subject`.

        Before every key frame it is seen whether there is room in `folder`, if there is one.
        """
        self._way, self._subject, self._folder = way, subject, folder
        colour = usual_colour(size)
        self._to_video = ToVideo((goal.height, goal.width), colour, "yuv420p")
        self._begun: Fraction | None = None
        self._last = self._key = 0
        self._broken = False
        self._codec = codec = cast(VideoCodecContext, CodecContext.create("libx264", "w"))
        codec.width, codec.height, codec.pix_fmt = goal.width, goal.height, "yuv420p"
        codec.time_base = TICK
        codec.framerate = Fraction(goal.rate).limit_denominator(1001)
        codec.colorspace, codec.color_primaries = colour.matrix, colour.primaries
        codec.color_trc, codec.color_range = colour.transfer, ColorRange.MPEG
        most = max(250_000, round(goal.height * goal.width * max(goal.rate, 10.0) * RICHEST))
        codec.options = {
            "preset": "veryfast", "tune": "zerolatency", "crf": "21", "forced-idr": "1",
            "maxrate": str(most), "bufsize": str(most), "g": str(round(goal.rate * 10)),
        }  # fmt: skip

    def write(self, picture: Shown) -> None:
        """Encode and send a picture; raises SinkError if the other side does not take it."""
        if self._begun is None:
            self._begun = picture.time
            pts = 0
        else:
            pts = max(round((picture.time - self._begun) / TICK), self._last + CLOSEST)
        frame = self._to_video(even(picture.pixels))
        frame.pts, frame.time_base, frame.pict_type = pts, TICK, PictureType.NONE
        if pts == 0 or pts - self._key >= GROUP:
            frame.pict_type, self._key = PictureType.I, pts
            self._look()
        self._last = pts
        try:
            for packet in self._codec.encode(frame):
                self._way.mux(packet.pts or 0, packet.is_keyframe, bytes(packet))
        except (FFmpegError, OSError) as fault:
            self._broken = True
            raise SinkError(self._subject, words(fault)) from None

    def close(self) -> None:
        """End; raises SinkError unless the first fault was told already."""
        try:
            self._way.close()
        except (FFmpegError, OSError) as fault:
            if not self._broken:
                raise SinkError(self._subject, words(fault)) from None

    def _look(self) -> None:
        # libav goes on as if nothing were wrong when there is no room for a segment.
        if self._folder is not None:
            check_room(self._folder, self._subject, ROOM)


def check_room(folder: Path, subject: object, least: int) -> None:
    """Raise SinkError if less than `least` bytes are left on the disk of a folder."""
    try:
        left = shutil.disk_usage(folder).free
    except OSError as fault:
        raise SinkError(subject, words(fault)) from None
    if left < least:
        told = f"less than {least // 1_000_000} MB are left on the disk"
        raise SinkError(subject, told, "make room")


def public(url: str) -> str:
    """What may be shown of a URL: its scheme and host."""
    try:
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return url.partition(":")[0]
    return f"{parts.scheme}://{host}{port}"


def check_stream(url: str) -> None:
    """Raise OptionError if libav cannot write to such a URL here; nothing is sent."""
    subject = f"--stream {public(url)}"
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if not rest:
        raise OptionError(
            "--stream", "that is no URL", "as rtmp://host/path or udp://host:port; files: --record"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        raise OptionError(subject, words(fault)) from None
    if scheme in KINDS and scheme != "unix" and not host:
        raise OptionError(subject, "names no host")
    if scheme in ADDRESSED and port is None:
        raise OptionError(subject, "names no port", f"as {scheme}://{host}:5000")
    if scheme == "rtsp":
        return
    try:
        # With no protocol allowed libav ends before it touches the network.
        name = "[f=mpegts:protocol_whitelist=none]" + re.sub(r"([\\'|])", r"\\\1", _small(url))
        trial = Muxer(Goal(name, "tee", {}, 16, 16, 1))
        trial.mux(0, True, b"")
    except ArgumentError:
        pass
    except FFmpegError:
        have = "use rtmp, rtmps, udp, tcp, rtp, rtsp or http"
        raise OptionError(subject, f"libav here does not write to {scheme}", have) from None
    if scheme not in KINDS:
        try:
            av.open(url, "w").close()
        except ValueError:
            cure = "end it with .ts, .flv or .mkv"
            raise OptionError(subject, "its ending tells no format", cure) from None


def stream(url: str) -> Opening:
    """Opens a URL: RTMP as FLV, UDP, TCP and RTP as MPEG-TS, RTSP as a push over TCP.

    RTP carries MPEG-TS, so that receivers need no SDP: they open the same URL. Of other URLs
    the ending tells the format. A `tcp` URL with `?listen=1` waits for one who fetches.
    """
    subject, url = public(url), _small(url)
    scheme = url.partition("://")[0]
    options = {"flush_packets": "1", "flvflags": "no_duration_filesize", "rtsp_transport": "tcp"}
    query = parse_qs(urlsplit(url).query)
    if scheme == "udp" and "pkt_size" not in query:
        url += ("&" if query else "?") + "pkt_size=1316"  # seven packets of MPEG-TS

    def opened(size: Size, rate: float) -> _Encoder:
        goal = _goal(url, KINDS.get(scheme, ""), options, size, rate)
        return _Encoder(Process(goal), goal, size, subject, None)

    return opened


def _goal(url: str, kind: str, options: dict[str, str], size: Size, rate: float) -> Goal:
    h, w = size
    return Goal(url, kind, options, w + w % 2, h + h % 2, max(rate, 1.0))


def _small(url: str) -> str:
    """With its scheme in small letters, as libav wants it."""
    scheme, mark, rest = url.partition("://")
    return scheme.lower() + mark + rest


def check_folder(path: Path) -> None:
    """Raise OptionError if HLS cannot be written into this folder, which need not exist."""
    subject = f"--hls {path}"
    if "%" in str(path.absolute()):
        raise OptionError(subject, "libav takes % for a number", "give it a name without")
    try:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    except OSError as fault:
        raise OptionError(subject, words(fault)) from None
    if not there.is_dir():
        raise OptionError(subject, f"{there} is a file", "name a folder")
    if not os.access(there, os.W_OK):
        raise OptionError(subject, f"the folder {there} may not be written to")


def hls(folder: Path) -> Opening:
    """Opens `live.m3u8` in a folder, which is made if it is missing; old segments are deleted.

    The first opening removes what an earlier run left; later ones go on in the same list, with
    a discontinuity. Segments are numbered on from the seconds since 1970, so that no name and
    no number comes again.
    """
    first = True

    def opened(size: Size, rate: float) -> _Encoder:
        nonlocal first
        place = folder.absolute()
        try:
            place.mkdir(parents=True, exist_ok=True)
            _remove_old(place, keep=not first)
        except OSError as fault:
            raise SinkError(folder, words(fault)) from None
        flags = "delete_segments+independent_segments+temp_file+program_date_time+omit_endlist"
        options = {
            "hls_time": "2",
            "hls_list_size": str(LISTED),
            "hls_flags": flags + ("+discont_start" if first else "+append_list"),
            "start_number": str(int(time.time())),
            "hls_segment_filename": str(place / "live-%010d.ts"),
        }
        first = False
        goal = _goal(str(place / PLAYLIST), "hls", options, size, rate)
        return _Encoder(Muxer(goal), goal, size, str(folder), place)

    return opened


def _remove_old(folder: Path, keep: bool) -> None:
    """Delete our files, but `keep` the list and what is in it."""
    kept: set[str] = set()
    if keep and (folder / PLAYLIST).exists():
        kept = {PLAYLIST, *(folder / PLAYLIST).read_text(errors="replace").splitlines()}
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in kept and path.is_file():
            path.unlink(missing_ok=True)
