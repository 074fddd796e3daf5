"""Where the command `streamdream` begins."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C counts from the first moment."""
    try:
        from streamdream import cli
    except KeyboardInterrupt:
        print("streamdream: interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
