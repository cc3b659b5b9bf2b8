"""`sglc pull`: fetch the default model."""

from __future__ import annotations

import argparse

from sglc.lang.progress import Waiting
from sglc.runtime.weights.fetch import fetch_default_model


def run(options: argparse.Namespace) -> int:
    """Fetch the model and print where it is."""
    with Waiting("fetching"):
        path = fetch_default_model()
    print(path)
    return 0
