"""What several commands share: arguments, scripts, tokens without a model, output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sglc.errors import LanguageError


def arguments(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as a dict; values are JSON where they can be, else text."""
    out: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name.isidentifier():
            raise LanguageError("SGLC001", f"--arg takes NAME=VALUE, not {item!r}")
        try:
            out[name] = json.loads(text)
        except json.JSONDecodeError:
            out[name] = text
    return out


def programs(script: str) -> dict[str, Any]:
    """The programs of a script by name; a remark about the script goes to stderr."""
    from sglc.lang.loading import load_programs

    loaded = load_programs(script)
    if loaded.remark is not None:
        print(loaded.remark, file=sys.stderr)
    return loaded.programs


class Tokens:
    """The tokenizer and template of a model that is not opened (None: bytes).

    template: another one than its own, as `--chat-template` names it.
    """

    def __init__(self, model: str | None, template: str | None = None) -> None:
        from sglc.backends.templates import registry
        from sglc.tokens.template_file import read_template

        if model is None:
            from sglc.tokens.bytes import ByteTokenizer

            self.tokenizer: Any = ByteTokenizer()
            self.label = "bytes (no model: token counts are bytes)"
        else:
            from sglc.backends.engine import resolve_model, tokenizer_at

            path = resolve_model(None if model == "default" else model, weights=False)
            self.tokenizer = tokenizer_at(path)
            self.label = path.name
        self.template = registry.resolve(read_template(template), self.tokenizer)


def pass_printers(options: argparse.Namespace, write: Callable[[str], object]) -> list[Any]:
    """The callbacks that `--print-after...` and `--print-diff` ask for."""
    from sglc.passes.pipelines import PASSES
    from sglc.passes.printing import print_after

    unknown = [name for name in options.print_after if name not in PASSES]
    if unknown:
        raise LanguageError("SGLC008", f"unknown pass {unknown[0]!r}",
                            fixes=(f"use one of {', '.join(PASSES)}",))
    if not (options.print_after_all or options.print_after or options.print_after_change
            or options.print_diff):
        return []
    return [print_after(write, options.print_after or None, changes=options.print_after_change,
                        diff=options.print_diff, locs=not options.no_loc)]


def write(text: str, path: str | None) -> None:
    """Write to a file (SGLC001 if that fails), or to stdout."""
    if path is None:
        sys.stdout.write(text)
        return
    try:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        raise LanguageError("SGLC001", f"{path} cannot be written", why=str(e)) from e


def read(path: str) -> str:
    """A file's text, or standard input for "-"; SGLC001 if it cannot be read."""
    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8") as f:
            return f.read()
    except (OSError, UnicodeDecodeError) as e:
        raise LanguageError("SGLC001", f"{path} cannot be read", why=str(e)) from e
