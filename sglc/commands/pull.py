"""`sglc pull`: fetch the default model."""

from __future__ import annotations

import argparse

from sglc.runtime.weights.fetch import fetch_default_model


def run(options: argparse.Namespace) -> int:
    """Fetch the model and print where it is."""
    print(fetch_default_model())
    return 0
