"""What libav leaves out of picture files: a text, and that pictures do not lie on one another."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

from av.packet import Packet
from PIL import Image

from streamdream.frame import Size

SETTINGS_TAG = 0x10E  # ImageDescription of EXIF
CLEAR = 255  # where palettegen puts the transparent colour


def settings_exif(comment: str) -> Image.Exif:
    """EXIF data with a text in them."""
    data = Image.Exif()
    data[SETTINGS_TAG] = comment.encode()  # Pillow would make text ASCII
    return data


def text_chunk(comment: str) -> bytes:
    """A comment as PNG keeps it (iTXt; PNG specification, 11.3.3.4)."""
    return chunk(b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + check


def note_gif(path: Path, comment: str, size: Size) -> None:
    """Put a comment extension (GIF89a, 24) before the first picture, where it is looked for."""
    text = comment.encode()
    pieces = (text[i : i + 255] for i in range(0, len(text), 255))
    note = b"".join(bytes([len(piece)]) + piece for piece in pieces)
    moved = path.with_name(f"{path.name}.tmp")
    try:
        with open(path, "rb") as before, open(moved, "wb") as after:
            head = before.read(13)
            colours = 3 * 2 ** (1 + (head[10] & 7)) if head[10] & 0x80 else 0
            after.write(head + before.read(colours) + b"\x21\xfe" + note + b"\x00")
            shutil.copyfileobj(before, after)
        os.replace(moved, path)
    finally:
        moved.unlink(missing_ok=True)


def clear_after(packet: Packet) -> None:
    """Let a picture of a GIF leave nothing behind for the next, which may be transparent.

    libav does so only after pictures that are transparent themselves.
    """
    data = bytearray(bytes(packet))
    place = data.find(b"\x21\xf9\x04")  # the graphic control extension (GIF89a, 23)
    if place >= 0:
        data[place + 3] = data[place + 3] & 0xE3 | 2 << 2 | 1
        data[place + 6] = CLEAR  # or readers take the background for opaque
        packet.update(bytes(data))


def note_webp(path: Path, comment: str, size: Size) -> None:
    """Put an EXIF chunk at the end of an extended file (WebP container specification)."""
    text = settings_exif(comment).tobytes()
    with open(path, "rb+") as file:
        head = file.read(21)
        if head[12:16] != b"VP8X":  # one picture, which says nothing more of itself
            file.seek(12)
            data = file.read()
            file.seek(12)
            sides = b"".join((side - 1).to_bytes(3, "little") for side in reversed(size))
            file.write(b"VP8X" + (10).to_bytes(4, "little") + b"\x10\0\0\0" + sides + data)
            file.seek(0)
            head = file.read(21)
        file.seek(20)
        file.write(bytes([head[20] | 0x08]))  # that there is one
        file.seek(0, os.SEEK_END)
        file.write(b"EXIF" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2))
        length = file.tell() - 8
        file.seek(4)
        file.write(length.to_bytes(4, "little"))


def unblend(path: Path) -> None:
    """Let every picture take the place of the one before instead of being drawn over it."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        place = 12
        while place + 24 <= end:
            file.seek(place)
            head = file.read(24)
            if head[:4] == b"ANMF":
                file.seek(place + 23)
                file.write(bytes([head[23] | 0x02]))
            length = int.from_bytes(head[4:8], "little")
            place += 8 + length + length % 2


def note_png(path: Path, comment: str, size: Size) -> None:
    """Put a text chunk before the last one."""
    with open(path, "rb+") as file:
        file.seek(-12, os.SEEK_END)
        last = file.read(12)
        file.seek(-12, os.SEEK_END)
        file.write(text_chunk(comment) + last)
