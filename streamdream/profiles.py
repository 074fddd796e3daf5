"""ICC profiles of photos: read, and brought to sRGB where a result cannot carry them."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from streamdream.frame import Pixels, eight_bits


def icc_of(path: Path) -> bytes | None:
    """The ICC profile in a picture file, None if there is none for RGB."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as photo:
            found = photo.info.get("icc_profile")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    # Bytes 16 to 19 of a profile's header name its colour space (ICC.1, 7.2.6).
    return found if found and found[16:20] == b"RGB " else None


class ToSRGB:
    """Brings pixels from the colours of an ICC profile to sRGB, by LittleCMS, in 8 bits."""

    def __init__(self, profile: ImageCms.ImageCmsProfile) -> None:
        """Prepare for pixels in this profile."""
        self.name = ImageCms.getProfileDescription(profile).strip() or "their ICC profile"
        srgb = ImageCms.createProfile("sRGB")
        self._transform = ImageCms.buildTransform(profile, srgb, "RGB", "RGB")

    @classmethod
    def by(cls, found: bytes) -> ToSRGB | None:
        """What is to be done for a profile, None if it is sRGB already, or no use."""
        try:
            made = cls(ImageCms.getOpenProfile(BytesIO(found)))
        except (OSError, ImageCms.PyCMSError):
            return None
        return None if "srgb" in made.name.lower() else made

    def __call__(self, pixels: Pixels) -> Pixels:
        """The same pixels (h, w, 3) in sRGB."""
        photo = Image.fromarray(np.ascontiguousarray(eight_bits(pixels)))
        ImageCms.applyTransform(photo, self._transform, inPlace=True)
        seen = np.asarray(photo)
        return seen if pixels.dtype == np.uint8 else seen.astype(np.uint16) * 257
