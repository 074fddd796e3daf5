"""Make `docs/dream.jpg`, the picture of the README, from the sample clip and its dream.

streamdream samples/clip.mp4 -o dream.mp4
python samples/make_picture.py dream.mp4
"""

import sys
from pathlib import Path

import cv2
import make_clip
import numpy as np

from streamdream.sources import VideoSource

TARGET = Path(__file__).parent.parent / "docs" / "dream.jpg"
PAIRS = (36, 68)  # frames shown beside their source
STRIP = range(44, 52)  # consecutive frames, cropped
CROP = (slice(10, 190), slice(60, 220))


def main() -> None:
    """Source above dream, twice, and a strip of consecutive frames under them."""
    with VideoSource(Path(sys.argv[1])) as source:
        dreamed = [frame.pixels for frame in source]
    above = np.hstack([make_clip.render(i) for i in PAIRS])
    below = np.hstack([dreamed[i] for i in PAIRS])
    strip = np.hstack([dreamed[i][CROP] for i in STRIP])
    picture = np.vstack([above, below, strip])
    cv2.imwrite(str(TARGET), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
