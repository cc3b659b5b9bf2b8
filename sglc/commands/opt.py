"""`sglc opt`: run passes over IR text."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from typing import Any

from sglc.cli import context_options
from sglc.commands import common
from sglc.errors import LanguageError, Place
from sglc.ir.parser import parse
from sglc.ir.printer import print_module
from sglc.passes.base import PassContext
from sglc.passes.manager import PassManager
from sglc.passes.printing import time_table

_HEADER = re.compile(r"//[ \t]*(RUN|WITH):(.*)")


def run(options: argparse.Namespace) -> int:
    """Read, run, print.  What is printed between passes goes to stderr, as do times."""
    text = common.read(options.file)
    file = "<stdin>" if options.file == "-" else options.file
    header = _header(text, file)
    spec = options.passes if options.passes is not None else header.get("RUN", "")
    module = parse(text, file=file)
    manager = PassManager(spec, level=options.level, verify=options.verify_each,
                          callbacks=common.pass_printers(options, sys.stderr.write))
    context = _context(options if "WITH" not in header else _with(header["WITH"], options, file))
    out = manager.run(module, context)
    if options.time_passes:
        print(time_table(manager.records), file=sys.stderr)
    common.write(print_module(out, locs=not options.no_loc), options.output)
    return 0


def _header(text: str, file: str) -> dict[str, str]:
    """The first RUN and WITH lines among the comments that the text begins with."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("//"):
            break
        match = _HEADER.match(line.strip())
        if match is not None:
            if match[1] in found:
                raise LanguageError("SGLC008", f"the text has two {match[1]} lines",
                                    place=Place(file, number))
            found[match[1]] = match[2].strip()
    return found


def _with(written: str, options: argparse.Namespace, file: str) -> argparse.Namespace:
    """The context that a reproducer was made in; options on the command line win."""
    parser = _Parser(file, add_help=False)
    context_options(parser)
    given = parser.parse_args(shlex.split(written))
    default = parser.parse_args([])
    for name, value in vars(default).items():
        if getattr(options, name) != value:
            setattr(given, name, getattr(options, name))
    return given


class _Parser(argparse.ArgumentParser):
    def __init__(self, file: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = file

    def error(self, message: str) -> Any:
        raise LanguageError("SGLC008", f"the WITH line of {self.file} is not understood",
                            why=message)


def _context(options: argparse.Namespace) -> PassContext:
    tokens = common.Tokens(None if options.tokenizer == "bytes" else options.tokenizer)
    if options.rows < 1:
        raise LanguageError("SGLC001", f"--rows must be at least 1, not {options.rows}")
    return PassContext(tokens.tokenizer, tokens.template, options.rows, not options.no_stops,
                       options.max_tokens)
