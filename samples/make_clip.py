"""Make `clip.mp4`, the sample of the README, and state the exact motion between its frames.

Two photographs are filmed by an imaginary hand-held camera: shot A shows a coffee cup; after a
hard cut, shot B shows a cat with a marble full of galaxies drifting past its nose, so that some
background is truly hidden and uncovered. Every layer of a frame is a photograph under a known
affine map, so the optical flow and the occlusions follow from arithmetic, not from an estimate,
and tests can compare an estimator with them.

Points are (x, y) in pixels, and whole numbers are the centres of pixels: the frame reaches from
-0.5 to 639.5 sideways, and from -0.5 to 359.5 downwards.

The photographs come with the scikit-image package, nothing is downloaded:

- `skimage.data.coffee`: Rachel Michetti, courtesy of Pikolo Espresso Bar. CC0.
- `skimage.data.chelsea`: "Chelsea the cat", Stefan van der Walt. CC0.
- `skimage.data.hubble_deep_field`: "Hubble eXtreme Deep Field", captured by NASA, from HubbleSite
  (news release 2012-37). Public domain.

The sound is synthesized here. The clip may be used as freely as the photographs in it.

    python samples/make_clip.py [OUT]
"""

import sys
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

SIZE = (360, 640)  # height, width
RATE = Fraction(24)
SHOTS = (0, 40)  # the first frame of each shot
FRAMES = 72
SOUND_RATE = 48_000

MARBLE_RADIUS = 84.0  # in pixels of the photograph of galaxies, as is the rim
MARBLE_RIM = 3.0
MARBLE_CENTRE = (716.0, 467.0)

# Frequency in Hz, then for each axis amplitude in pixels of the frame and phase: muscles tremble
# fast and little, breathing and balance sway slowly and more.
TREMOR = (
    (0.9, (1.3, 0.4), (1.0, 2.1)),
    (2.3, (0.55, 1.9), (0.65, 5.0)),
    (5.1, (0.2, 3.3), (0.25, 0.7)),
)
# BT.601 as H.264 numbers it for matrix, primaries and transfer alike: SMPTE 170M.
BT601 = 6
LIMITED_RANGE = 1


def render(index: int) -> NDArray[np.uint8]:
    """Draw one frame.

    Parameters
    ----------
    index
        Number of the frame in the clip, from 0.

    Returns
    -------
    NDArray[np.uint8]
        RGB of shape (h, w, 3), in sRGB, full range.
    """
    shot, to_photo, to_marble = _pose(index)
    points = _points()
    frame = _sample(_photo("coffee" if shot == 0 else "chelsea"), _apply(to_photo, points))
    if to_marble is not None:
        place = _apply(to_marble, points)
        cover = _cover(place)
        inside = cover > 0
        galaxies = _sample(_photo("hubble_deep_field"), place[:, inside])
        # A glassy edge, fixed to the marble: its brightness must travel with it.
        edge = (_distance(place[:, inside]) / MARBLE_RADIUS) ** 6
        glass = 18.0 + 1.25 * galaxies + edge[:, None] * np.array([70.0, 105.0, 150.0])
        alpha = cover[inside, None]
        frame[inside] = alpha * glass + (1 - alpha) * frame[inside]
    return np.rint(np.clip(frame, 0, 255)).astype(np.uint8)


def flow(index: int) -> NDArray[np.float32]:
    """State the exact backward flow from a frame to the one before it.

    What is at `[y, x]` in frame `index` was at `[y + dy, x + dx]` in frame `index - 1`, so
    sampling the earlier frame there redraws the later one wherever `visible` is true. Elsewhere
    the flow is still the motion of the layer on top, it only leads to something else.

    Parameters
    ----------
    index
        Number of the later frame.

    Returns
    -------
    NDArray[np.float32]
        Shape (2, h, w): dx, then dy, in pixels.

    Raises
    ------
    ValueError
        If the frame begins a shot, so that nothing in it has been seen before.
    """
    return (_earlier(index)[0] - _points()).astype(np.float32)


def visible(index: int) -> NDArray[np.bool_]:
    """Tell which parts of a frame could be seen in the frame before it.

    False are places that came from outside the frame, that the marble has just uncovered, and
    the marble's soft rim, where two layers with different motions are mixed.

    Parameters
    ----------
    index
        Number of the later frame; ValueError is raised as by `flow`.

    Returns
    -------
    NDArray[np.bool_]
        Shape (h, w). True means that the earlier place lay between the centres of the outermost
        pixels and showed the same layer, unmixed.
    """
    places, cover, cover_before = _earlier(index)
    last = np.array([SIZE[1] - 1, SIZE[0] - 1])[:, None, None]
    in_frame = ((places >= 0) & (places <= last)).all(axis=0)
    pure = (cover == 0) | (cover == 1)
    return in_frame & pure & (cover == cover_before)


def sound() -> NDArray[np.float32]:
    """Play a few plucked notes, with a new chord at the cut.

    Returns
    -------
    NDArray[np.float32]
        Shape (2, samples): left and right at 48 kHz, within -1..1, as long as the picture.
    """
    length = int(FRAMES / RATE * SOUND_RATE)
    cut = float(SHOTS[1] / RATE)
    # Start in seconds, then MIDI note: F major with a ninth, then A minor with a seventh.
    notes = [(0.21 * k, note) for k, note in enumerate((41, 60, 65, 69, 67, 72))]
    notes += [(cut + 0.17 * k, note) for k, note in enumerate((45, 60, 64, 67, 71, 76))]
    mix = np.zeros((2, length))
    for k, (start, note) in enumerate(notes):
        first = round(start * SOUND_RATE)
        t = np.arange(length - first) / SOUND_RATE
        pitch = 440 * 2 ** ((note - 69) / 12)
        tone = np.zeros_like(t)
        for partial, loudness in ((1, 1.0), (2, 0.35), (3, 0.12), (4, 0.05)):
            tone += loudness * np.sin(2 * np.pi * partial * pitch * t) * np.exp(-1.6 * partial * t)
        tone *= 1 - np.exp(-t / 0.006)  # an instant attack would click
        side = 0.5 + 0.3 * np.sin(2.4 * k)
        mix[:, first:] += np.sqrt([[1 - side], [side]]) * tone
    fade = round(0.35 * SOUND_RATE)
    mix[:, -fade:] *= np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
    return (0.5 * mix / np.abs(mix).max()).astype(np.float32)


def write(path: Path) -> None:
    """Write the clip as H.264 and AAC in MP4, the same bytes each time on one machine.

    Parameters
    ----------
    path
        The file to write; an existing one is replaced.
    """
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        out.metadata["title"] = "streamdream sample: coffee, a cat and a marble"
        # One thread, because x264 decides differently with another number of them.
        options = {"crf": "20", "preset": "slow", "threads": "1"}
        picture = out.add_stream("libx264", rate=RATE, options=options)
        picture.height, picture.width = SIZE
        picture.pix_fmt = "yuv420p"
        context = picture.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = LIMITED_RANGE
        tone = out.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        tone.bit_rate = 128_000

        samples = AudioFrame.from_ndarray(sound(), format="fltp", layout="stereo")
        samples.sample_rate, samples.pts = SOUND_RATE, 0
        out.mux([*tone.encode(samples), *tone.encode(None)])
        for index in range(FRAMES):
            frame = VideoFrame.from_ndarray(render(index), format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = index, 1 / RATE
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))


def _pose(index: int) -> tuple[int, Floats, Floats | None]:
    """Return the shot, and the maps from the frame to its photograph and to the marble."""
    if not 0 <= index < FRAMES:
        raise ValueError(f"frame {index} is outside 0..{FRAMES - 1}")
    middle = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    angles = [[2 * np.pi * hz * index / float(RATE) + p for _, p in axes] for hz, *axes in TREMOR]
    sizes = [[size for size, _ in axes] for _, *axes in TREMOR]
    shake = (np.array(sizes) * np.sin(angles)).sum(axis=0)
    if index < SHOTS[1]:
        t = (index - SHOTS[0]) / (SHOTS[1] - SHOTS[0] - 1)
        centre = np.array([328 - 58 * t, 197 - 47 * t + 9 * np.sin(np.pi * t)])
        return 0, _affine(centre, 0.8 - 0.03 * t, 1.5 - 2.0 * t, middle + shake), None
    t = (index - SHOTS[1]) / (FRAMES - SHOTS[1] - 1)
    centre = np.array([244 - 30 * t, 176 - 46 * t])
    photo = _affine(centre, 0.605 + 0.025 * t, -1.0 + 1.6 * t, middle + shake)
    drift = np.array([358 - 124 * t, 292 - 22 * t - 14 * np.sin(np.pi * t)])
    return 1, photo, _affine(np.array(MARBLE_CENTRE), 1.0 - 0.08 * t, 9 * t, drift + shake)


def _affine(target: Floats, scale: float, degrees: float, pivot: Floats) -> Floats:
    """Return the 3x3 map that takes `pivot` to `target`, turning and scaling around it."""
    turn = np.exp(1j * np.deg2rad(degrees))
    linear = scale * np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = target - linear @ pivot
    return matrix


def _earlier(
    index: int,
) -> tuple[Floats, Floats, Floats]:
    """Return the places one frame earlier, and how far the marble covers them now and then."""
    if index in SHOTS:
        raise ValueError(f"frame {index} begins a shot: no frame before it shows the same scene")
    _, photo, marble = _pose(index)
    _, photo_before, marble_before = _pose(index - 1)
    points = _points()
    places = _apply(np.linalg.inv(photo_before) @ photo, points)
    if marble is None or marble_before is None:
        return places, np.zeros(SIZE), np.zeros(SIZE)
    cover = _cover(_apply(marble, points))
    carried = _apply(np.linalg.inv(marble_before) @ marble, points)
    places = np.where(cover > 0.5, carried, places)
    # What is wholly marble stays so; computing it again could only add rounding.
    before = np.where(cover == 1, 1.0, _cover(_apply(marble_before, places)))
    return places, cover, before


def _points() -> Floats:
    """Return x and y of all pixel centres, shape (2, h, w)."""
    return np.indices(SIZE, dtype=np.float64)[::-1]


def _apply(matrix: Floats, points: Floats) -> Floats:
    """Map points of shape (2, h, w)."""
    return np.tensordot(matrix[:2, :2], points, 1) + matrix[:2, 2].reshape(2, 1, 1)


def _distance(place: Floats) -> Floats:
    """Return how far points of the galaxies lie from the marble's centre."""
    return np.hypot(place[0] - MARBLE_CENTRE[0], place[1] - MARBLE_CENTRE[1])


def _cover(place: Floats) -> Floats:
    """Return how much the marble hides, 0 to 1, smoothly over its rim."""
    ramp = np.clip((MARBLE_RADIUS - _distance(place)) / MARBLE_RIM, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


@cache
def _photo(name: str) -> tuple[Floats, ...]:
    """Return a photograph's red, green and blue, as coefficients of cubic splines."""
    from scipy.ndimage import spline_filter
    from skimage import data

    photo = getattr(data, name)()
    return tuple(spline_filter(photo[..., k].astype(np.float64), mode="mirror") for k in range(3))


def _sample(photo: tuple[Floats, ...], place: Floats) -> Floats:
    """Look up RGB between the pixels; OpenCV would round the places to 1/32 pixel."""
    from scipy.ndimage import map_coordinates

    planes = [map_coordinates(p, place[::-1], mode="mirror", prefilter=False) for p in photo]
    return np.stack(planes, axis=-1)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("clip.mp4"))
