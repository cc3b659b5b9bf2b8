"""`sglc viz`: the viewer of a program as one HTML file."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from sglc.commands import common
from sglc.commands.batch import read_rows
from sglc.commands.compile import lengths_of
from sglc.errors import LanguageError, SglcError
from sglc.lang.compiled import Compiled, compile_program
from sglc.lang.program import Program
from sglc.lang.viewing import own_arguments, subject, write_page
from sglc.progress import looked_at
from sglc.viz.live import Watch


def run(options: argparse.Namespace) -> int:
    """Compile, run if asked to, write the page; prints where it is."""
    programs = common.programs(options.script)
    if len(programs) > 1:
        raise LanguageError("SGLC009", "the script has several programs",
                            fixes=[f"sglc viz {options.script}:{n}" for n in programs])
    program = next(iter(programs.values()))
    settings = program.settings
    if options.outputs is not None:
        settings = replace(settings, outputs=tuple(options.outputs.split(",")))
    program = Program(program.fn, replace(settings, fullgraph=False), program.signature)
    given = common.arguments(options.arg)
    rows = None if options.batch is None else [
        {**given, **row} for row in read_rows(options.batch)]
    if not options.run:
        tokens = common.Tokens(options.model, options.chat_template)
        compiled = _compiled(program, given, rows, tokens, options)
        shown = subject(compiled, batch=rows or _row(compiled, given), tokens=tokens.label,
                        kv_bytes=None if options.model is None else _kv_bytes(options.model))
    else:
        shown = _run(program, given, rows, options)
    path = write_page(shown, options.output)
    print(f"{path}: {len(shown.steps)} passes, {path.stat().st_size / 1024:.0f} KiB; "
          "open it in a browser")
    return 0


def _compiled(program: Program, given: dict[str, Any], rows: list[dict[str, Any]] | None,
              backend: Any, options: argparse.Namespace) -> Compiled:
    more: dict[str, Any] = {"any_length": True} if options.any_length else {}
    if options.lengths:
        more["lengths"] = lengths_of(options.lengths)
    return compile_program(program, (), rows[0] if rows else given, backend, options.level, **more)


def _row(compiled: Compiled, given: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The one row that the given arguments make, if these are all."""
    try:
        compiled.program.signature.bind((), given)
    except SglcError:
        return None
    return [given] if given else own_arguments(compiled)


def _run(program: Program, given: dict[str, Any], rows: list[dict[str, Any]] | None,
         options: argparse.Namespace) -> Any:
    """The subject of a program that was run on a model, beside what was predicted."""
    from sglc.backends.engine import Engine
    from sglc.tokens.template_file import read_template

    rows = rows or [given]
    program.signature.rows(rows)  # complain before the model is opened
    model = None if options.model == "default" else options.model
    with Engine(model, chat_template=read_template(options.chat_template)) as engine:
        compiled = _compiled(program, given, rows, engine, options)
        predicted = compiled.cost(rows, backend=engine)
        engine.flush_cache()
        engine.core.reset_peak()
        before = engine.stats()
        with Watch(engine, len(rows), program.name, shown=looked_at()) as watch:
            program.each_row(rows, range(len(rows)), watch.row, backend=engine)
        actual = predicted.beside(before, engine.stats(), watch.samples[-1].seconds)
        failed = len(rows) - watch.done
        if failed:
            print(f"{failed} rows did not end", file=sys.stderr)
        return subject(compiled, batch=rows, backend=engine, actual=actual,
                       samples=watch.samples, tokens=Path(engine.model_path).name)


def _kv_bytes(model: str) -> int:
    """Bytes of the KV of a token, as the CPU keeps it (float32)."""
    from sglc.backends.engine import resolve_model
    from sglc.runtime.model_runner import open_model

    _, c, _ = open_model(resolve_model(None if model == "default" else model))
    return 4 * c.layers * 2 * c.kv_heads * c.head_dim
