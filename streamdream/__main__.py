"""Where the command `streamdream` begins."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line; Ctrl-C counts from the first moment."""
    signal.signal(signal.SIGINT, _leave)
    from streamdream import cli

    cli.main()


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Leave at once, as long as nothing is being written.

    An exception would be turned into others by the compiled modules that may be loading.
    """
    show_cursor = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
    text = f"{show_cursor}streamdream: interrupted: nothing was written\n"
    os.write(2, text.encode())
    os._exit(130)


if __name__ == "__main__":
    main()
