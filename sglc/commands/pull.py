"""`sglc pull`: fetch the default model."""

from __future__ import annotations

import argparse
import sys

from sglc.runtime.weights.fetch import fetch_default_model


def run(options: argparse.Namespace) -> int:
    """Fetch the model and print where it is."""
    print(fetch_default_model(lambda line: print(line, file=sys.stderr)))
    return 0
