"""A folder with all that the commands of README and docs name."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
from PIL import Image

from streamdream.style.network import Network, NetworkCard, save_network

ROOT = Path(__file__).parent.parent


def furnished(folder: Path, sample: Path) -> Path:
    """Put everything there; gives the folder."""
    from skimage import data

    shutil.copy(sample, folder / "video.mp4")
    shutil.copytree(ROOT / "samples", folder / "samples")
    Image.fromarray(data.coffee()).save(folder / "photo.jpg")
    Image.fromarray(data.chelsea()).save(folder / "cat.jpg")
    Image.fromarray(data.astronaut()).save(folder / "painting.jpg")
    left = np.zeros((90, 160), np.uint8)
    left[:, :80] = 255
    Image.fromarray(left).save(folder / "left.png")
    (folder / "photos").mkdir()
    Image.fromarray(data.coffee()).save(folder / "photos" / "coffee.jpg")
    save_network(folder / "painting.safetensors", Network(), NetworkCard("style", 16, "none", 0))
    _write_song(folder / "song.mp3")
    return folder


def _write_song(path: Path) -> None:
    times = np.arange(6 * 44100) / 44100
    drum = np.sin(2 * np.pi * 60 * times) * (times % 0.5 < 0.1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mp3", rate=44100, layout="mono")
        levels = (drum * 30000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(levels, format="s16", layout="mono")
        frame.rate = 44100
        out.mux([*stream.encode(frame), *stream.encode(None)])
