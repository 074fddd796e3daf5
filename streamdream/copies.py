"""Streams that go along into another file: copied packet for packet, or sound in a new form."""

from __future__ import annotations

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
SOUND_OF = {"webm": "libopus", "mp4": "aac", "mov": "aac", "matroska": "aac"}


class Copies:
    """The companions' streams in an output file.

    `notices` says which of them it cannot hold; sound is then encoded anew.
    """

    def __init__(
        self, companions: Companions, container: OutputContainer, kind: str, ending: str
    ) -> None:
        """Add the streams to `container`, a file of this `kind` (libav's name) and `ending`."""
        self.notices: list[str] = []
        self._container = container
        self._copies: dict[int, _Copy | _Recoded] = {}
        for stream in companions.streams:
            name = stream.codec_context.name if stream.codec_context else "unknown codec"
            if _can_hold(kind, stream):
                self._copies[stream.index] = _Copy(container, stream)
                continue
            if isinstance(stream, AudioStream) and stream.codec_context.sample_rate:
                recoded = _Recoded(container, stream, SOUND_OF[kind])
                self._copies[stream.index] = recoded
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
            copy = self._copies.get(packet.stream.index)
            for ready in [] if copy is None else copy.packets(packet):
                self._container.mux(ready)

    def finish(self) -> None:
        """Write what encoders still hold back."""
        for copy in self._copies.values():
            for ready in copy.rest():
                self._container.mux(ready)


class _Copy:
    def __init__(self, container: OutputContainer, stream: Stream) -> None:
        self._stream = container.add_stream_from_template(stream)
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = Disposition(stream.disposition)
        _give_layout(self._stream)
        self._filter: BitStreamFilterContext | None = None
        self._latest: int | None = None
        context = stream.codec_context
        if context and context.name == "aac" and not context.extradata:
            # AAC of broadcast streams has its headers in the packets.
            self._filter = BitStreamFilterContext("aac_adtstoasc", stream)

    def packets(self, packet: Packet) -> list[Packet]:
        packets = [packet] if self._filter is None else list(self._filter.filter(packet))
        for ready in packets:
            ready.stream = self._stream
            self._mend(ready)
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
        return []


class _Recoded:
    """Sound decoded and encoded anew, at the times it had."""

    def __init__(self, container: OutputContainer, stream: AudioStream, codec: str) -> None:
        context = stream.codec_context
        rate = min(rate for rate in RATES[codec] if rate >= min(context.sample_rate, 48000))
        layout = context.layout.name if context.layout.nb_channels <= 2 else "stereo"
        if "channels" in layout:
            layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._stream = cast(AudioStream, container.add_stream(codec, rate=rate))
        self._stream.codec_context.layout = layout
        self._stream.metadata.update(stream.metadata)
        self._stream.disposition = Disposition(stream.disposition)
        kind = "flt" if codec == "libopus" else "fltp"
        # Encoders take pieces of one length only.
        length = rate // 50 if codec == "libopus" else 1024
        self._form = kind, layout, rate, length
        self._resampler = AudioResampler(*self._form)
        self._heard: tuple[str, str, int] | None = None
        self._next = 0
        changed = "" if layout == context.layout.name else f", {layout}"
        self.what = codec.removeprefix("lib") + changed

    def packets(self, packet: Packet) -> list[Packet]:
        try:
            heard = cast(list[AudioFrame], packet.decode())
        except (FFmpegError, ValueError):
            return []  # a broken packet is a gap in the sound
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


def _give_layout(stream: Stream) -> None:
    """Name the channels of plain sound that only counts them, or MP4 would not take it."""
    if isinstance(stream, AudioStream) and "channels" in stream.codec_context.layout.name:
        usual = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
        name = usual.get(stream.codec_context.layout.nb_channels)
        if name:
            stream.codec_context.layout = name


def _can_hold(kind: str, stream: Stream) -> bool:
    """Whether a container takes a stream: only writing its header tells."""
    if stream.codec_context is None:
        return False
    try:
        with av.open(BytesIO(), "w", format=kind) as trial:
            _give_layout(trial.add_stream_from_template(stream))
            trial.start_encoding()
    except (ValueError, FFmpegError, OSError):
        return False
    return True
