"""Python's cyclic garbage collector, out of the way while many small objects are made.

IR is made of reference cycles that live on: each collection walks all of it and frees nothing,
which doubles the time that large programs take to compile.  Automata hold no cycles at all.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Without collections; they are back on afterwards if they were before.

    Blocks on several threads may overlap: then some of them run with collections.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
