"""A simple window that shows the result as it is made."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np
import pygame

from streamdream.errors import SinkError
from streamdream.frame import Bytes, Frame, eight_bits, to_pixels
from streamdream.info import VideoInfo
from streamdream.pipeline import Picture
from streamdream.sinks import Stopped

BETWEEN = 0.1  # seconds between two looks at an unfinished picture


class Window:
    """Shows frames in a window; Escape, Q or closing it ends the run.

    The last frame stays until the window is closed. For a single picture every stage of the
    dream is shown.
    """

    def __init__(self, title: str, info: VideoInfo) -> None:
        """Check that there is a display; the window opens with the first picture."""
        self.notices: list[str] = []
        self.part = None
        self._title, self._info = title, info
        self._screen: pygame.Surface | None = None
        self._shown = 0.0
        no_display = sys.platform.startswith("linux") and not any(
            os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
        )
        if no_display:
            raise SinkError("window", "there is no display here", "name an output file with -o")

    def write(self, frame: Frame) -> None:
        """Show a finished frame."""
        self._show(eight_bits(frame.pixels))

    def watch(self, frame: Frame, picture: Picture) -> None:
        """Show an unfinished picture now and then, and see whether the window was closed."""
        if self._info.still and time.monotonic() - self._shown > BETWEEN:
            self._show(to_pixels(picture()))
        else:
            self._poll()

    def __enter__(self) -> Self:
        """Open the window; raises SinkError if that fails."""
        try:
            pygame.display.init()
            pygame.display.set_caption(f"{self._title} - streamdream")
            h, w = self._info.size
            wide, high = pygame.display.get_desktop_sizes()[0]
            scale = min(1.0, 0.9 * wide / w, 0.9 * high / h)
            size = max(1, round(w * scale)), max(1, round(h * scale))
            self._screen = pygame.display.set_mode(size, pygame.RESIZABLE)
        except pygame.error as fault:
            raise SinkError("window", f"cannot be opened ({fault})", "use -o") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep the last frame until the window is closed, then close it."""
        try:
            while fault is None:
                self._poll()
                time.sleep(0.05)
        except Stopped:
            pass
        finally:
            pygame.display.quit()

    def _show(self, pixels: Bytes) -> None:
        self._poll()
        assert self._screen is not None
        surface = pygame.surfarray.make_surface(np.ascontiguousarray(pixels.swapaxes(0, 1)))
        wide, high = self._screen.get_size()
        scale = min(wide / surface.get_width(), high / surface.get_height())
        size = round(surface.get_width() * scale), round(surface.get_height() * scale)
        self._screen.fill((0, 0, 0))
        corner = (wide - size[0]) // 2, (high - size[1]) // 2
        self._screen.blit(pygame.transform.smoothscale(surface, size), corner)
        pygame.display.flip()
        self._shown = time.monotonic()

    def _poll(self) -> None:
        for event in pygame.event.get():
            ends = event.type == pygame.KEYDOWN and event.key in (pygame.K_ESCAPE, pygame.K_q)
            if event.type == pygame.QUIT or ends:
                raise Stopped
