"""`sglc explain`: the pages of diagnostic codes."""

from __future__ import annotations

import argparse

from sglc.errors import CODES
from sglc.explain import code_of, page


def run(options: argparse.Namespace) -> int:
    """Print pages, or the list of codes."""
    if not options.codes:
        print("\n".join(f"{code}  {title}" for code, title in CODES.items()))
        print("\nsglc explain CODE prints what a code means, with bad and good code.")
        return 0
    print("\n\n".join([page(code_of(written)).rstrip() for written in options.codes]))
    return 0
