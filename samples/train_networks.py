"""Trains the networks that come with streamdream: two paintings and a dream.

    python samples/train_networks.py PAINTINGS OUT [--minutes 60]

PAINTINGS holds starry_night.jpg (Vincent van Gogh, The Starry Night, 1889) and the_scream.jpg
(Edvard Munch, The Scream, 1893), reproductions of paintings in the public domain. They are
practised on photographs that scikit-image ships: coffee (Rachel Michetti, CC0), chelsea (Stefan van
der Walt, CC0), astronaut, rocket and hubble_deep_field (NASA, public domain), retina (Mikael
Haggstrom, public domain). More minutes give a better picture; the file tells the steps.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

PHOTOGRAPHS = ("coffee", "chelsea", "astronaut", "rocket", "hubble_deep_field", "retina")
LESSONS = {
    "starry-night": ("starry_night.jpg", "--crop", "160"),
    "scream": ("the_scream.jpg", "--crop", "160"),
    "creatures": ("--dream", "block9", "--crop", "128"),
}


def main() -> None:
    """Train all of them, one after another."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("paintings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", default="60")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in PHOTOGRAPHS:
            Image.fromarray(getattr(data, name)()).save(Path(folder) / f"{name}.png")
        for name, lesson in LESSONS.items():
            words = [
                str(arguments.paintings / word) if word.endswith(".jpg") else word
                for word in lesson
            ]
            target = arguments.out / f"{name}.safetensors"
            words += ["--data", folder, "-o", str(target), "--minutes", arguments.minutes]
            subprocess.run([sys.executable, "-m", "streamdream", "train", *words], check=True)


if __name__ == "__main__":
    main()
