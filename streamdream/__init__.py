"""streamdream: videos, redrawn frame by frame as dreams that stick to the world.

    import streamdream as sd

    options = sd.Options(layers="block9,block12", memory=0.5)
    with sd.VideoSource("in.mp4") as source, sd.VideoSink("out.mp4", source.info,
                                                          source.companions) as sink:
        for frame in sd.redraw(source, options, sd.Dream(sd.load("efficientnet-lite0")),
                               sd.OpticalFlow()):
            sink.write(frame)

or, for a whole file, `sd.dream_file("in.mp4", "out.mp4", options)`; and for a movie that falls into
a picture, `sd.zoom_file("photo.jpg", "loop.mp4", sd.ZoomOptions(loop=True))`.
"""

from __future__ import annotations

import importlib
import os
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamdream.backbone import load as load
    from streamdream.dream import Dream as Dream
    from streamdream.errors import Error as Error
    from streamdream.frame import Frame as Frame
    from streamdream.motion import OpticalFlow as OpticalFlow
    from streamdream.options import Options as Options
    from streamdream.pictures import PictureSink as PictureSink
    from streamdream.pipeline import redraw as redraw
    from streamdream.run import dream_file as dream_file
    from streamdream.scenes.listing import Scene as Scene
    from streamdream.scenes.listing import scenes_of as scenes_of
    from streamdream.sources import VideoSource as VideoSource
    from streamdream.video_sink import VideoSink as VideoSink
    from streamdream.zoom.movie import zoom_file as zoom_file
    from streamdream.zoom.options import ZoomOptions as ZoomOptions

__version__ = version("streamdream")

# Threads of OpenMP that wait would spin, and take the processor from those they wait for: with one
# other busy program beside it a run of two threads took five to nine times as long. Read when
# PyTorch loads; who has set it knows better.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Looked up on first use: importing torch, OpenCV and libav takes seconds.
_HOME = {
    "load": "backbone",
    "Dream": "dream",
    "Error": "errors",
    "Frame": "frame",
    "OpticalFlow": "motion",
    "Options": "options",
    "redraw": "pipeline",
    "dream_file": "run",
    "PictureSink": "pictures",
    "Scene": "scenes.listing",
    "scenes_of": "scenes.listing",
    "VideoSink": "video_sink",
    "VideoSource": "sources",
    "ZoomOptions": "zoom.options",
    "zoom_file": "zoom.movie",
}

__all__ = [  # noqa: RUF022 - in the order of _HOME
    "load",
    "Dream",
    "Error",
    "Frame",
    "OpticalFlow",
    "Options",
    "redraw",
    "dream_file",
    "PictureSink",
    "Scene",
    "scenes_of",
    "VideoSink",
    "VideoSource",
    "ZoomOptions",
    "zoom_file",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'streamdream' has no attribute {name!r}")
    return getattr(importlib.import_module(f"streamdream.{_HOME[name]}"), name)
