"""`sglc demo`: a tour on a small real model."""

from __future__ import annotations

import argparse

from sglc.demo import main


def run(options: argparse.Namespace) -> int:
    """Run the tour."""
    return int(main(options.output) or 0)
