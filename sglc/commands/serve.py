"""`sglc serve`: the model behind HTTP."""

from __future__ import annotations

import argparse

from sglc.errors import LanguageError


def run(options: argparse.Namespace) -> int:
    """Serve until stopped; the exit code."""
    from sglc.serve.options import settings

    chosen = settings(options)
    try:
        from sglc.serve.run import serve
    except ImportError as error:
        raise LanguageError("SGLC008", "serving needs the 'serve' extra", why=str(error),
                            fixes=("pip install 'sglc[local,serve]'",)) from None
    if chosen.restart:
        from sglc.serve.keeper import Keeper

        return Keeper(chosen).run()
    return serve(chosen)
