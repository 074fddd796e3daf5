"""Which scenes a film has, as the pipeline tells them: by `cuts.shots`, without dreaming."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from streamdream.cuts import Turn, shots
from streamdream.frame import Bytes, Size, eight_bits
from streamdream.piece import Piece
from streamdream.run import reading_of
from streamdream.sources import Glimpse, VideoSource
from streamdream.views import square, squared

THUMBNAIL = (144, 256)  # (h, w) that thumbnails are fitted into

Watch = Callable[[int, int], None]
"""Is told after every frame: how many there were, and how many scenes."""


@dataclass(frozen=True)
class Scene:
    """Frames `begin` to `end` (that is the next scene's), counted as a run counts them.

    That is from 0, from `--start` if it is given. `number` counts from 1. `time` and `until` are
    seconds as `--start` and `--end` count them. `flashes` are frames that flash in it.
    `pictures` (h, w, 3) are its first frame, one from its middle and its last, small and upright;
    empty where they were not asked for.
    """

    number: int
    begin: int
    end: int
    time: Fraction
    until: Fraction
    flashes: tuple[int, ...] = ()
    pictures: tuple[Bytes, ...] = ()

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.end - self.begin

    @property
    def seconds(self) -> Fraction:
        """How long it is."""
        return self.until - self.time


def scenes_of(source: str | Path, piece: Piece | None = None) -> Generator[Scene, None, None]:
    """The scenes of what `source` names (see inputs.locate), each as soon as it is over.

    They are those that a run with the same options starts anew at; only `start`, `end`, `frames`
    and how the source is read have a say in them. Raises SourceError.
    """
    with opened(source, piece or Piece()) as film:
        yield from scenes_in(film)


def opened(source: str | Path, piece: Piece) -> VideoSource:
    """A film for `scenes_in`, whose frames are thumbnails; raises SourceError."""
    part, reading = (piece.start, piece.end, piece.frames, THUMBNAIL), reading_of(piece)
    film = VideoSource(source, *part, reading)
    if film.info.colour.hdr and not film.input.piped:  # thumbnails of HDR are to look as usual
        film.close()
        film = VideoSource(source, *part, replace(reading, tone_map=True))
    return film


def scenes_in(
    film: VideoSource, pictures: bool = False, watch: Watch | None = None
) -> Generator[Scene, None, None]:
    """The scenes of an opened film, with thumbnails if `pictures` are wanted."""
    usual = 1 / (film.info.rate or Fraction(25))
    size = square(film.info)
    scene: _Scene | None = None
    number = 0
    seen = shots(film.skim(), lambda picture: picture.small())
    for count, (glimpse, turn) in enumerate(seen, 1):
        if turn is Turn.BEGINS:
            if scene is not None:
                yield scene.over(film, number, glimpse.time)
            scene, number = _Scene(glimpse, size, pictures), number + 1
        assert scene is not None
        scene.go_on(glimpse, turn)
        if watch is not None:
            watch(count, number)
    assert scene is not None  # a source without a picture was refused
    yield scene.over(film, number, scene.last.time + (scene.last.duration or usual))


class _Scene:
    """A scene that is not over yet."""

    def __init__(self, first: Glimpse, size: Size, pictures: bool) -> None:
        self._first, self.last, self._size = first, first, size
        self._flashes: list[int] = []
        # How long it will be is not known: a picture is kept of every doubling of its length.
        self._kept: dict[int, Bytes] | None = {} if pictures else None

    def go_on(self, glimpse: Glimpse, turn: Turn) -> None:
        """Another frame."""
        self.last = glimpse
        if turn is Turn.FLASH:
            self._flashes.append(glimpse.index)
            return
        offset = glimpse.index - self._first.index
        if self._kept is not None and offset & (offset - 1) == 0:
            self._kept[offset] = self._picture(glimpse)

    def over(self, film: VideoSource, number: int, until: Fraction) -> Scene:
        """The scene, which ends at this time of the frames."""
        pictures: tuple[Bytes, ...] = ()
        if self._kept is not None:
            frames = self.last.index + 1 - self._first.index
            middle = max(offset for offset in self._kept if offset <= frames // 2)
            pictures = self._kept[0], self._kept[middle], self._picture(self.last)
        return Scene(
            number,
            self._first.index,
            self.last.index + 1,
            film.position(self._first.time),
            film.position(until),
            tuple(self._flashes),
            pictures,
        )

    def _picture(self, glimpse: Glimpse) -> Bytes:
        return eight_bits(squared(glimpse.frame(), self._size).pixels)
