"""`python -m sglc.launch_server`: SGLang's way to start a server; the same as `sglc serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sglc import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Serve; the exit code."""
    return cli.main(["serve", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
