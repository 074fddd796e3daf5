"""Live pictures for other programs on this machine or in its network.

A virtual camera by pyvirtualcam, NDI by cyndilib, Spout by SpoutGL, Syphon by syphon-python.
Each library is optional; the `check_` functions say before a run what is missing.
"""

from __future__ import annotations

import importlib
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streamdream.errors import Error, OptionError, SinkError, words
from streamdream.live.outputs import Opening, Shown
from streamdream.live.streams import even

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from streamdream.frame import Bytes, Size

    FourBytes = UInt8[np.ndarray, "h w 4"]

LOADED = "sudo modprobe v4l2loopback exclusive_caps=1"
OBS = "install OBS Studio and start its virtual camera once"
GL_RGBA = 0x1908
PLATFORMS = {"win32": "Windows", "darwin": "macOS"}


def with_alpha(pixels: Bytes) -> FourBytes:
    """RGB pixels (h, w, 3) as opaque RGBA (h, w, 4), the first line on top."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA), np.uint8)


def check_virtual_camera(device: str) -> None:
    """Raise OptionError if there is no virtual camera of this name, or "auto" for any."""
    subject = f"--virtual-camera {device}"
    _library(subject, "pyvirtualcam", "camera")
    try:
        _Camera(device, (240, 320), 30).close()
    except SinkError as fault:
        raise OptionError(subject, fault.reason, fault.cure) from None


def check_ndi(name: str) -> None:
    """Raise OptionError if nothing can be sent by NDI."""
    _library(f"--ndi {name}", "cyndilib", "ndi")


def check_spout(name: str) -> None:
    """Raise OptionError if nothing can be shared by Spout."""
    _here(f"--spout {name}", "win32")
    _library(f"--spout {name}", "SpoutGL", "spout")


def check_syphon(name: str) -> None:
    """Raise OptionError if nothing can be shared by Syphon."""
    _here(f"--syphon {name}", "darwin")
    _library(f"--syphon {name}", "syphon", "syphon")


def virtual_camera(device: str) -> Opening:
    """Opens a virtual camera: a device by its name, or "auto" for any that is free."""
    return lambda size, rate: _Camera(device, size, rate)


def ndi(name: str) -> Opening:
    """Opens an NDI source of this name. Sending was tried, receiving elsewhere was not."""
    return lambda size, rate: _NDI(name, size, rate)


def spout(name: str) -> Opening:
    """Opens a Spout sender of this name. Untested: written after SpoutGL's own example."""
    return lambda size, _rate: _Spout(name, size)


def syphon(name: str) -> Opening:
    """Opens a Syphon server of this name. Untested: written after syphon-python's own example."""
    return lambda size, _rate: _Syphon(name, size)


class _Camera:
    def __init__(self, device: str, size: Size, rate: float) -> None:
        pyvirtualcam = _library("virtual camera", "pyvirtualcam", "camera")
        # What it converts to has colours at half size, which odd sides do not fit.
        h, w = size[0] + size[0] % 2, size[1] + size[1] % 2
        named = None if device == "auto" else device
        try:
            self._camera = pyvirtualcam.Camera(w, h, max(1.0, rate), device=named)
        except (RuntimeError, ValueError, OSError) as fault:
            cure = LOADED if sys.platform.startswith("linux") else OBS
            reason = words(fault).split("\n")[0].split(" Did you run")[0].split("backend: ")[-1]
            raise SinkError("virtual camera", reason.rstrip("."), cure) from None

    def write(self, picture: Shown) -> None:
        self._camera.send(np.ascontiguousarray(even(picture.pixels)))

    def close(self) -> None:
        self._camera.close()


class _NDI:
    def __init__(self, name: str, size: Size, rate: float) -> None:
        cyndilib = _library("NDI", "cyndilib", "ndi")
        frame = cyndilib.VideoSendFrame()
        frame.set_resolution(size[1], size[0])
        frame.set_frame_rate(Fraction(max(1.0, rate)).limit_denominator(1001))
        frame.set_fourcc(cyndilib.FourCC.RGBX)
        # Its clock would wait for the rate; pictures come when they come.
        self._sender = cyndilib.Sender(name, clock_video=False, clock_audio=False)
        self._sender.set_video_frame(frame)
        self._sender.open()

    def write(self, picture: Shown) -> None:
        if not self._sender.write_video(with_alpha(picture.pixels).reshape(-1)):
            raise SinkError("NDI", "takes no picture")

    def close(self) -> None:
        self._sender.close()


class _Spout:
    def __init__(self, name: str, size: Size) -> None:
        spoutgl = _library("Spout", "SpoutGL", "spout")
        self._name, self._size = name, size
        self._sender = spoutgl.SpoutSender()
        if not self._sender.createOpenGL():  # this thread has no OpenGL of its own
            raise SinkError("Spout", "no OpenGL in this session")
        self._sender.setSenderName(name)

    def write(self, picture: Shown) -> None:
        h, w = self._size
        if not self._sender.sendImage(with_alpha(picture.pixels), w, h, GL_RGBA, False, 0):
            raise SinkError("Spout", "takes no picture")
        self._sender.setFrameSync(self._name)

    def close(self) -> None:
        self._sender.releaseSender()
        self._sender.closeOpenGL()


class _Syphon:
    def __init__(self, name: str, size: Size) -> None:
        syphon = _library("Syphon", "syphon", "syphon")
        raw = _library("Syphon", "syphon.utils.raw", "syphon")
        self._objc = _library("Syphon", "objc", "syphon")
        self._copy = raw.copy_bytes_to_mtl_texture
        with self._objc.autorelease_pool():
            self._server = syphon.SyphonMetalServer(name)
            # In turns: the one before may still be on its way through the GPU.
            make, device = raw.create_mtl_texture, self._server.device
            self._textures = [make(device, size[1], size[0]) for _ in range(3)]

    def write(self, picture: Shown) -> None:
        texture = self._textures.pop(0)
        self._textures.append(texture)
        with self._objc.autorelease_pool():
            self._copy(with_alpha(picture.pixels).tobytes(), texture)
            # Metal's first line is on top, Syphon's at the bottom.
            self._server.publish_frame_texture(texture, is_flipped=True)

    def close(self) -> None:
        self._server.stop()


def _library(subject: str, name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as fault:
        kind: type[Error] = OptionError if subject.startswith("--") else SinkError
        package = name.partition(".")[0]
        gone = isinstance(fault, ModuleNotFoundError)
        reason = f"needs {package}, which is not installed" if gone else words(fault)
        raise kind(subject, reason, f"pip install 'streamdream[{extra}]'") from None


def _here(subject: str, platform: str) -> None:
    if sys.platform != platform:
        raise OptionError(subject, f"works on {PLATFORMS[platform]} only", "see --ndi or --stream")
