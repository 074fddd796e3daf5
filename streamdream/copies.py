"""Streams that go along into another file: copied packet for packet, or in a new form."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from math import ceil
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream

from streamdream.companions import Companions

RATES = {
    "libopus": (8000, 12000, 16000, 24000, 48000),
    "aac": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
SOUND_OF = {"webm": "libopus", "mp4": "aac", "mov": "aac", "matroska": "aac"}


class Copies:
    """The companions' streams in an output file.

    `notices` says which of them it cannot hold; sound is then encoded anew, and of subtitles
    the words are kept.
    """

    def __init__(
        self, companions: Companions, container: OutputContainer, kind: str, ending: str
    ) -> None:
        """Add the streams to `container`, a file of this `kind` (libav's name) and `ending`."""
        self.notices: list[str] = []
        self._container = container
        self._copies: dict[Stream, _Copy | _Recoded | _Words] = {}  # of one file or of two
        for stream in companions.streams:
            name = stream.codec_context.name if stream.codec_context else "unknown codec"
            if _can_hold(kind, stream):
                self._copies[stream] = _Copy(container, stream)
                continue
            if stream.type == "subtitle" and name in PLAIN:
                words = self._copies[stream] = _Words(container, stream, name, WORDS_OF[kind])
                self.notices.append(
                    f"subtitle stream {stream.index} ({name}) becomes {words.what}: "
                    f"{ending} cannot hold it; styles are lost"
                )
                continue
            if isinstance(stream, AudioStream) and _rate_of(stream):
                recoded = _Recoded(container, stream, SOUND_OF[kind])
                self._copies[stream] = recoded
                self.notices.append(
                    f"audio stream {stream.index} ({name}) becomes {recoded.what}: "
                    f"{ending} cannot hold it"
                )
                continue
            self.notices.append(
                f"{stream.type} stream {stream.index} ({name}) is left out: {ending} cannot hold it"
            )
        self.notices += [f"{what} is left out" for what in companions.left_out]

    def write(self, packets: list[Packet]) -> None:
        """Write packets of the companions; those of streams left out are dropped."""
        for packet in packets:
            copy = self._copies.get(packet.stream)
            for ready in [] if copy is None else copy.packets(packet):
                self._container.mux(ready)

    def finish(self) -> None:
        """Write what encoders still hold back, and say what was too broken to be written."""
        for stream, copy in self._copies.items():
            for ready in copy.rest():
                self._container.mux(ready)
            if copy.broken:
                some = "1 packet is" if copy.broken == 1 else f"{copy.broken} packets are"
                self.notices.append(f"stream {stream.index}: {some} broken and left out")


class _Copy:
    def __init__(self, container: OutputContainer, stream: Stream) -> None:
        self._stream = container.add_stream_from_template(stream)
        _name(self._stream, stream, container)
        self._stream.disposition = Disposition(stream.disposition)
        _give_layout(self._stream)
        self._filter: BitStreamFilterContext | None = None
        self.broken = 0
        self._latest: int | None = None
        context = stream.codec_context
        words = context is not None and context.name == "mov_text"
        self._closing = _Closing(self._stream) if words else None
        if context and context.name == "aac" and not context.extradata:
            # AAC of broadcast streams has its headers in the packets.
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)

    def packets(self, packet: Packet) -> list[Packet]:
        try:
            packets = [packet] if self._filter is None else list(self._filter.filter(packet))
        except FFmpegError:
            self.broken += 1
            return []
        for ready in packets:
            ready.stream = self._stream
            self._mend(ready)
            if self._closing is not None:
                self._closing.see(ready)
        return packets

    def _mend(self, packet: Packet) -> None:
        """Move times that do not increase by the least that makes them: files take no others."""
        if packet.dts is None:
            return
        least = 1  # in the packet's units, and no less than one of the file's
        if self._stream.time_base and packet.time_base:
            least = max(1, ceil(self._stream.time_base / packet.time_base))
        if self._latest is not None and packet.dts <= self._latest:
            packet.dts = self._latest + least
        packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self._latest = packet.dts

    def rest(self) -> list[Packet]:
        return [] if self._closing is None else self._closing.rest()


class _Recoded:
    """Sound decoded and encoded anew, at the times it had."""

    def __init__(self, container: OutputContainer, stream: AudioStream, codec: str) -> None:
        context = stream.codec_context
        rate = min(rate for rate in RATES[codec] if rate >= min(context.sample_rate, 48000))
        layout = USUAL_LAYOUTS.get(context.layout.nb_channels, "stereo")
        self._stream = cast(AudioStream, container.add_stream(codec, rate=rate))
        self._stream.codec_context.layout = layout
        _name(self._stream, stream, container)
        self._stream.disposition = Disposition(stream.disposition)
        kind = "flt" if codec == "libopus" else "fltp"
        # Encoders take pieces of one length only.
        length = rate // 50 if codec == "libopus" else 1024
        self._form = kind, layout, rate, length
        self._resampler = AudioResampler(*self._form)
        self._heard: tuple[str, str, int] | None = None
        self._next = 0
        self.broken = 0
        fewer = layout == "stereo" and context.layout.nb_channels > 2
        changed = ", stereo" if fewer else ""
        self.what = codec.removeprefix("lib") + changed

    def packets(self, packet: Packet) -> list[Packet]:
        try:
            heard = cast(list[AudioFrame], packet.decode())
        except (FFmpegError, ValueError):
            self.broken += 1  # a gap in the sound
            return []
        return [ready for frame in heard for ready in self._encoded(frame)]

    def rest(self) -> list[Packet]:
        return [*self._encoded(None), *self._stream.encode(None)]

    def _encoded(self, frame: AudioFrame | None) -> list[Packet]:
        ready: list[Packet] = []
        if frame is not None:
            heard = frame.format.name, frame.layout.name, frame.sample_rate
            if self._heard not in (None, heard):  # broadcasts change between stereo and 5.1
                ready += self._pieces(self._resampler.resample(None))
                self._resampler = AudioResampler(*self._form)
            self._heard = heard
        return ready + self._pieces(self._resampler.resample(frame))

    def _pieces(self, pieces: list[AudioFrame]) -> list[Packet]:
        ready: list[Packet] = []
        for piece in pieces:
            if piece.pts is not None:
                piece.pts = max(piece.pts, self._next)  # encoders take no times that go back
                self._next = piece.pts + piece.samples
            ready += self._stream.encode(piece)
        return ready


class _Closing:
    """Ends the last words in an MP4 file: libav would show an empty line as long once more."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._end: tuple[int, Fraction] | None = None

    def see(self, packet: Packet) -> None:
        """Take note of words that are written."""
        if packet.pts is not None and packet.time_base:
            self._end = packet.pts + (packet.duration or 0), packet.time_base

    def rest(self) -> list[Packet]:
        if self._end is None:
            return []
        empty = Packet(b"\0\0")
        empty.stream = self._stream
        empty.pts, empty.time_base = self._end
        empty.dts, empty.duration = empty.pts, 0
        return [empty]


class _Words:
    """Subtitles in another form: the words and when they are shown."""

    def __init__(self, container: OutputContainer, stream: Stream, known: str, form: str) -> None:
        self._stream = container.add_mux_stream(form)
        _name(self._stream, stream, container)
        self._stream.disposition = Disposition(stream.disposition)
        self._plain, self._form = PLAIN[known], form
        self._line = _Line() if form == "mov_text" else None
        self._latest: int | None = None
        self._base = Fraction(1, 1000)
        self.what = form
        self.broken = 0

    def packets(self, packet: Packet) -> list[Packet]:
        text = self._plain(bytes(packet)).strip()
        if not text or packet.pts is None or not packet.time_base:
            return []  # some forms say with an empty one that nothing is shown
        self._base = packet.time_base
        begin, end = packet.pts, packet.pts + (packet.duration or 0)
        if self._line is not None:
            return [self._sample(*shown) for shown in self._line.add(begin, end, text)]
        begin = begin if self._latest is None else max(begin, self._latest)
        self._latest = begin
        return [self._sample(begin, max(end, begin), text)]

    def rest(self) -> list[Packet]:
        if self._line is None:
            return []
        return [self._sample(*shown) for shown in self._line.rest()]

    def _sample(self, begin: int, end: int, text: str) -> Packet:
        if self._form == "webvtt":
            text = html.escape(text, quote=False)
        data = text.encode()
        if self._form == "mov_text":
            data = data[:LONGEST].decode("utf-8", "ignore").encode()
            data = len(data).to_bytes(2, "big") + data
        packet = Packet(data)
        packet.stream, packet.time_base = self._stream, self._base
        packet.pts = packet.dts = begin
        packet.duration = end - begin
        return packet


class _Line:
    """Words as MP4 has them: one sample behind the other, empty ones where nothing is shown.

    What is shown together is one sample; so words can be handed on only when the next ones
    are known.
    """

    def __init__(self) -> None:
        self._now: int | None = None
        self._shown: list[tuple[int, str]] = []

    def add(self, begin: int, end: int, text: str) -> Iterator[tuple[int, int, str]]:
        """Take words shown from `begin` to `end`; give samples (begin, end, text) before them."""
        begin = begin if self._now is None else max(begin, self._now)
        yield from self._until(begin)
        self._now = begin
        if end > begin:
            self._shown.append((end, text))

    def rest(self) -> Iterator[tuple[int, int, str]]:
        """The samples that are left, and the empty one that ends the last."""
        if self._now is None:
            return
        yield from self._until(max([end for end, _ in self._shown], default=self._now))
        yield self._now, self._now, ""

    def _until(self, time: int) -> Iterator[tuple[int, int, str]]:
        while self._now is not None and self._now < time:
            end = min([time, *(end for end, _ in self._shown)])
            yield self._now, end, "\n".join(text for _, text in self._shown)
            self._now = end
            self._shown = [(until, text) for until, text in self._shown if until > end]


def _of_mov_text(data: bytes) -> str:
    return data[2 : 2 + int.from_bytes(data[:2], "big")].decode("utf-8", "replace")


def _of_marked(data: bytes) -> str:
    return MARKS.sub("", data.decode("utf-8", "replace"))


def _of_webvtt(data: bytes) -> str:
    return html.unescape(_of_marked(data))


def _of_ass(data: bytes) -> str:
    text = data.decode("utf-8", "replace").split(",", 8)[-1]  # as Matroska keeps it
    for mark, plain in ((r"\N", "\n"), (r"\n", "\n"), (r"\h", " ")):
        text = text.replace(mark, plain)
    return MARKS.sub("", DRAWING.sub("", text))


# <i>, </font ...>, <00:01.000>, {\an8}; but not "x < 5 and y > 3".
MARKS = re.compile(r"</?[a-zA-Z][^>\n]*>|<\d[\d:.]*>|\{\\[^}\n]*\}")
DRAWING = re.compile(r"\{[^}]*\\p[1-9][^}]*\}.*?(\{[^}]*\\p0[^}]*\}|$)", re.DOTALL)
LONGEST = 65535  # bytes of words in a sample of MP4
PLAIN: dict[str, Callable[[bytes], str]] = {
    "mov_text": _of_mov_text, "subrip": _of_marked, "webvtt": _of_webvtt, "ass": _of_ass,
    "srt": _of_marked, "ssa": _of_ass, "text": _of_marked,
}  # fmt: skip
WORDS_OF = {"webm": "webvtt", "mp4": "mov_text", "mov": "mov_text", "matroska": "subrip"}


def _name(copy: Stream, stream: Stream, container: OutputContainer) -> None:
    """Give a stream its tags; QuickTime knows some languages by their older codes only."""
    of_content = {k: v for k, v in stream.metadata.items() if not k.upper().startswith(COUNTED)}
    copy.metadata.update(of_content)
    language = stream.metadata.get("language", "")
    if container.format.name == "mov" and language in QUICKTIME:
        copy.metadata["language"] = QUICKTIME[language]


# Tags that Matroska files have of a stream's length, which may be another now.
COUNTED = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS_")
# From ISO 639-2/T to what libav writes into MOV.
QUICKTIME = {
    "deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb",
    "mkd": "mac", "hye": "arm", "kat": "geo", "bod": "tib", "mya": "bur", "msa": "may",
    "cym": "wel", "eus": "baq", "fre": "fra", "rum": "ron", "cze": "ces", "slo": "slk",
    "swe": "sve",
}  # fmt: skip


def _rate_of(stream: AudioStream) -> int:
    """Samples a second, 0 where nothing here can decode it."""
    return getattr(stream.codec_context, "sample_rate", 0) or 0


def _give_layout(stream: Stream) -> None:
    """Name the channels of plain sound that only counts them, or MP4 would not take it."""
    if isinstance(stream, AudioStream) and "channels" in stream.codec_context.layout.name:
        name = USUAL_LAYOUTS.get(stream.codec_context.layout.nb_channels)
        if name:
            stream.codec_context.layout = name


def _can_hold(kind: str, stream: Stream) -> bool:
    """Whether a container takes a stream: only writing its header tells."""
    if stream.codec_context is None:
        return False
    if stream.codec_context.name == "opus" and len(stream.codec_context.extradata or b"") < 19:
        return False  # its header is gone, which shows only when the file is closed
    try:
        with av.open(BytesIO(), "w", format=kind) as trial:
            _give_layout(trial.add_stream_from_template(stream))
            trial.start_encoding()
    except (ValueError, FFmpegError, OSError):
        return False
    return True
