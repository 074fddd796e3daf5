"""The live window: on any monitor, in any fit, with keys. All of it runs in the main thread."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_RENDER_SCALE_QUALITY", "linear")
os.environ.setdefault("SDL_VIDEO_X11_WMCLASS", "streamdream")  # for rules of window managers

import cv2
import numpy as np
import pygame

from streamdream.errors import Error, SinkError
from streamdream.frame import Bytes, Size
from streamdream.live.controls import ACTIONS, Controls
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Shown
from streamdream.live.status import Status

Lines = tuple[str, ...]

CENTRED_ON = 0x2FFF0000  # SDL_WINDOWPOS_CENTERED_DISPLAY(0); the monitor's number is added
NUDGE = 0.05  # of a slider, by a key
# What a key changes, and in which direction.
NUDGES = {
    "up": ("strength", NUDGE), "down": ("strength", -NUDGE),
    "right": ("layers", 1.0), "left": ("layers", -1.0),
    "page down": ("style", 1.0), "page up": ("style", -1.0),
}  # fmt: skip
INK, SHADE, RED = (235, 235, 235), (0, 0, 0, 150), (230, 40, 40)
SAID = ("tap", "reset", "view", "snapshot", "pause", "freeze", "learn")  # else it is seen
SAYS = 2.0  # seconds


def check_display() -> None:
    """Raise SinkError if there is no display to open a window on."""
    if sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    ):
        raise SinkError("window", "there is no display here", "use --no-window with --http 8000")


class Window:
    """Shows pictures, takes keys."""

    def __init__(self, title: str, controls: Controls, options: LiveOptions) -> None:
        """Open it as the options say; raises SinkError if that fails."""
        check_display()
        self._title, self._controls = title, controls
        self._fit, self._turn = options.fit, options.turn // 90
        self._monitor, self._full = options.monitor, options.fullscreen
        self._size: Size | None = None  # (h, w) of a picture, once one was shown
        self.states = {"status": options.status, "help": False, "test-pattern": False}
        self._labels: list[pygame.Window] = []
        self._fonts: dict[int, pygame.font.Font] = {}
        self._screen: pygame.Surface | None = None
        self._said, self._said_at = "", 0.0
        try:
            pygame.display.init()
            pygame.font.init()
            there = len(pygame.display.get_desktop_sizes())
            if self._monitor >= there:
                pygame.display.quit()
                known = "there is only monitor 0"
                known = known if there == 1 else f"there are monitors 0 to {there - 1}"
                raise SinkError(f"--monitor {self._monitor}", known)
            self._open((360, 640))
        except pygame.error as fault:
            raise SinkError("window", f"cannot be opened ({fault})", "use --no-window") from None

    def poll(self) -> None:
        """See what keys were pressed. Raises SinkError if the display is gone."""
        try:
            self._keys()
        except pygame.error as fault:
            raise SinkError("window", f"lost ({fault})") from None

    def show(self, picture: Shown, status: Status) -> None:
        """Show a picture. Raises SinkError if the display is gone."""
        try:
            if picture.size != self._size:
                self._size = picture.size
                self._open(picture.size)
            self._draw(picture.pixels, status)
        except pygame.error as fault:
            raise SinkError("window", f"lost ({fault})") from None

    def act(self, name: str, value: object = None) -> None:
        """Do what only a window can do. Raises SinkError if the display is gone."""
        try:
            if name == "fullscreen":
                self._full = not self._full if value is None else bool(value)
                self._open(self._size or (360, 640))
            elif name == "identify":
                wanted = not self._labels if value is None else bool(value)
                self._unlabel()
                if wanted:
                    self._label()
            elif name in self.states:
                self.states[name] = not self.states[name] if value is None else bool(value)
        except pygame.error as fault:
            raise SinkError("window", f"lost ({fault})") from None

    @property
    def shown_states(self) -> tuple[str, ...]:
        """What toggles are on."""
        on = [name for name, state in self.states.items() if state]
        on += ["fullscreen"] * self._full + ["identify"] * bool(self._labels)
        return tuple(on)

    def close(self) -> None:
        """Close it."""
        self._unlabel()
        self._fonts.clear()
        pygame.display.quit()

    def _open(self, size: Size) -> None:
        # The size of the monitor itself: (0, 0) would take that of the first one.
        sizes = pygame.display.get_desktop_sizes()
        monitor = min(self._monitor, len(sizes) - 1)
        wide, high = sizes[monitor]
        h, w = size if self._turn % 2 == 0 else size[::-1]
        if self._full:
            # The graphics card enlarges what is no larger than the picture, which is quick.
            wanted = canvas((h, w), (high, wide), self._fit)
            self._screen = self._fullscreen((wanted[1], wanted[0]), (wide, high), monitor)
        else:
            scale = min(1.0, 0.9 * wide / w, 0.9 * high / h)
            shape = max(1, round(w * scale)), max(1, round(h * scale))
            self._screen = pygame.display.set_mode(shape, pygame.RESIZABLE, display=monitor)
        pygame.display.set_caption(f"{self._title} - streamdream")
        pygame.display.set_allow_screensaver(False)
        pygame.mouse.set_visible(not self._full)

    def _fullscreen(
        self, wanted: tuple[int, int], whole: tuple[int, int], monitor: int
    ) -> pygame.Surface:
        flags = pygame.FULLSCREEN | pygame.SCALED
        try:
            return pygame.display.set_mode(wanted, flags, display=monitor, vsync=1)
        except pygame.error:  # no renderer here
            return pygame.display.set_mode(whole, pygame.FULLSCREEN, display=monitor)

    def _keys(self) -> None:
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self._controls.act("quit")
            elif event.type == pygame.KEYDOWN:
                self._press(pygame.key.name(event.key))

    def _press(self, key: str) -> None:
        try:
            if key in NUDGES:
                name = NUDGES[key][0]
                self._controls.nudge(*NUDGES[key])
                value = self._controls.values()[name]
                told = f"{value:.2f}" if isinstance(value, float) else str(value)
                self._flash(f"{name} {told}")
            elif key in KEYS:
                self._controls.act(KEYS[key])
                if KEYS[key].endswith("preset"):
                    self._flash(f"preset {self._controls.preset}")
                elif KEYS[key] in SAID:
                    self._flash(KEYS[key])
        except Error as fault:  # a value that does not go with the others
            self._flash(str(fault))

    def _flash(self, text: str) -> None:
        """Say what a key did, for a moment."""
        self._said, self._said_at = text, time.monotonic()

    def _draw(self, pixels: Bytes, status: Status) -> None:
        assert self._screen is not None
        wide, high = self._screen.get_size()
        if self.states["test-pattern"]:
            pixels = pattern((high, wide) if self._turn % 2 == 0 else (wide, high))
        seen = np.rot90(pixels, -self._turn) if self._turn else pixels
        fitted, corner = placed(seen, (high, wide), self._fit)
        size = fitted.shape[1], fitted.shape[0]
        surface = pygame.image.frombuffer(np.ascontiguousarray(fitted).data, size, "RGB")
        if size != (wide, high):
            self._screen.fill((0, 0, 0))
        self._screen.blit(surface, corner)
        if "record" in status.states:
            radius = max(6, high // 60)
            pygame.draw.circle(self._screen, RED, (wide - 3 * radius, 3 * radius), radius)
        if self.states["help"]:
            self._write(help_lines())
        elif self.states["status"]:
            self._write(status_lines(status))
        elif not status.connected and not status.dreams:
            self._write((status.camera,))  # or a black window would say nothing
        if time.monotonic() - self._said_at < SAYS:
            self._write((self._said,), low=True)
        pygame.display.flip()

    def _write(self, lines: Lines, low: bool = False) -> None:
        assert self._screen is not None
        wide, high = self._screen.get_size()
        room = high // (len(lines) + 3)
        font = self._font(max(12, min(high // 22, wide // 32, room)))
        rows = [font.render(line, True, INK) for line in lines]
        size = max(row.get_width() for row in rows) + 20, len(rows) * font.get_linesize() + 16
        card = pygame.Surface(size, pygame.SRCALPHA)
        card.fill(SHADE)
        for number, row in enumerate(rows):
            card.blit(row, (10, 8 + number * font.get_linesize()))
        self._screen.blit(card, (12, high - size[1] - 12 if low else 12))

    def _font(self, size: int) -> pygame.font.Font:
        if size not in self._fonts:
            self._fonts[size] = pygame.font.Font(None, size)
        return self._fonts[size]

    def _label(self) -> None:
        """A small window with its number on every monitor."""
        for number, (wide, high) in enumerate(pygame.display.get_desktop_sizes()):
            at = CENTRED_ON + number
            side = min(wide, high) // 3
            window = pygame.Window(
                f"monitor {number}", (side, side), (at, at), borderless=True, always_on_top=True
            )
            surface = window.get_surface()
            surface.fill((20, 20, 60))
            text = self._font(side).render(str(number), True, INK)
            surface.blit(text, text.get_rect(center=(side // 2, side // 2)))
            small = self._font(max(16, side // 10)).render(f"{wide} x {high}", True, INK)
            surface.blit(small, small.get_rect(center=(side // 2, side - side // 8)))
            window.flip()
            self._labels.append(window)

    def _unlabel(self) -> None:
        for window in self._labels:
            with suppress(pygame.error):
                window.destroy()
        self._labels.clear()


KEYS = {action.key: action.name for action in ACTIONS.values()}


def canvas(picture: Size, monitor: Size, fit: str) -> Size:
    """The size (h, w) to draw at for a whole monitor, about as fine as the picture."""
    (h, w), (high, wide) = picture, monitor
    if fit == "fit":
        return h, w
    if fit == "fill":
        scale = max(wide / w, high / h)
        return max(1, round(high / scale)), max(1, round(wide / scale))
    return h, max(1, round(h * wide / high))


def placed(pixels: Bytes, size: Size, fit: str) -> tuple[Bytes, tuple[int, int]]:
    """Pixels (h, w, 3) resized for a screen of `size` (h, w), and where (x, y) they go there.

    "fit" keeps the shape and leaves bars, "fill" keeps it and cuts off, "stretch" does not.
    """
    high, wide = size
    h, w = pixels.shape[:2]
    if fit == "stretch":
        new = (wide, high)
    else:
        scale = min(wide / w, high / h) if fit == "fit" else max(wide / w, high / h)
        new = max(1, round(w * scale)), max(1, round(h * scale))
        if fit == "fill":  # only what will be seen is resized
            cut_w = max(1, min(w, round(wide / scale)))
            cut_h = max(1, min(h, round(high / scale)))
            left, top = (w - cut_w) // 2, (h - cut_h) // 2
            pixels = pixels[top : top + cut_h, left : left + cut_w]
            new = (wide, high)
    if new != (pixels.shape[1], pixels.shape[0]):
        how = cv2.INTER_AREA if new[0] < pixels.shape[1] else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(np.ascontiguousarray(pixels), new, interpolation=how))
    return pixels, ((wide - new[0]) // 2, (high - new[1]) // 2)


def pattern(size: Size) -> Bytes:
    """A test pattern (h, w, 3): a grid of squares, circles in corners and centre, grey steps."""
    h, w = size
    picture = np.full((h, w, 3), 16, np.uint8)
    unit = max(8, min(h, w) // 12)
    for x in range(w // 2 % unit, w, unit):
        cv2.line(picture, (x, 0), (x, h), (90, 90, 90), 1)
    for y in range(h // 2 % unit, h, unit):
        cv2.line(picture, (0, y), (w, y), (90, 90, 90), 1)
    for x, y in ((w // 2, h // 2), (unit * 2, unit * 2), (w - unit * 2, h - unit * 2),
                 (unit * 2, h - unit * 2), (w - unit * 2, unit * 2)):  # fmt: skip
        cv2.circle(picture, (x, y), unit * (4 if (x, y) == (w // 2, h // 2) else 2) - 2,
                   (235, 235, 235), 2, cv2.LINE_AA)  # fmt: skip
    colours = [(235, 235, 235), (235, 235, 16), (16, 235, 235), (16, 235, 16),
               (235, 16, 235), (235, 16, 16), (16, 16, 235)]  # fmt: skip
    for i, colour in enumerate(colours):
        left = w // 2 + round((i - 3.5) * unit)
        cv2.rectangle(picture, (left, h // 2), (left + unit, h // 2 + unit), colour, -1)
    for i in range(8):
        left, grey = w // 2 + (i - 4) * unit, round(i * 255 / 7)
        cv2.rectangle(picture, (left, h // 2 - unit), (left + unit, h // 2), (grey,) * 3, -1)
    cv2.rectangle(picture, (0, 0), (w - 1, h - 1), (235, 235, 235), 2)
    return picture


def status_lines(status: Status) -> Lines:
    """How it goes, for the overlay."""
    p50, p95 = status.latency
    lines = [
        status.camera,
        f"{status.shown:.1f} of {status.wanted:.1f} pictures a second, "
        f"{p50:.0f} ms late (95%: {p95:.0f})",
        f"{status.steps:.1f} dream steps, {status.dreams:.1f} dreams a second, "
        f"{status.lines} lines ({status.share:.0%})",
    ]
    lines += [f"preset {status.preset}"] if status.preset else []
    lines += [f"gate {status.gate:.0%}"] if status.gate < 1 else []
    lines += [
        f"{o.name}: {o.trouble or f'{o.written} pictures'}"
        + (f", {o.dropped} dropped" * bool(o.dropped))
        for o in status.outputs
    ]
    return (*lines, *status.notices[-2:])


def help_lines() -> Lines:
    """What the keys do."""
    keys = [f"{action.key.upper()}   {action.help}" for action in ACTIONS.values()]
    return (*keys, "UP, DOWN   strength", "LEFT, RIGHT   layer")
