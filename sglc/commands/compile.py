"""`sglc compile`: show what the compiler makes of the programs of a script."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import replace
from typing import Any

from sglc.commands import common
from sglc.commands.batch import Batch, read_rows
from sglc.errors import Diagnostic, LanguageError
from sglc.ir.printer import print_module
from sglc.lang.compiled import Compiled, compile_program
from sglc.lang.program import Program
from sglc.lang.summary import Explanation, explanation
from sglc.passes.base import PassContext
from sglc.passes.printing import statistics_table, time_table
from sglc.plan.figures import Cost


def run(options: argparse.Namespace) -> int:
    """Compile every program and print what was asked for."""
    programs = common.programs(options.script)  # first: a script may register templates
    tokens = common.Tokens(options.model, options.chat_template)
    arguments = common.arguments(options.arg)
    lengths = lengths_of(options.lengths)
    rows = None if options.batch is None else read_rows(options.batch)
    if options.cost and rows is None:
        raise LanguageError("SGLC001", "--cost needs the rows of a batch",
                            fixes=("add --batch FILE",))
    _check_names(programs, {*arguments, *lengths})
    text: list[str] = []
    reports: list[dict[str, Any]] = []
    broken = False
    for program in programs.values():
        fullgraph = options.fullgraph or program.settings.fullgraph
        outputs = program.settings.outputs if options.outputs is None else tuple(
            options.outputs.split(","))
        program = Program(program.fn, replace(program.settings, outputs=outputs, fullgraph=False),
                          program.signature)
        mine = {k: v for k, v in arguments.items() if _takes(program, k)}
        batch = None
        if rows is not None:
            batch = Batch(program, options.batch, [{**mine, **row} for row in rows], tokens)
        compile_options: dict[str, Any] = {"callbacks": common.pass_printers(options, text.append)}
        if options.any_length:
            compile_options["any_length"] = True
        if lengths:
            compile_options["lengths"] = {k: v for k, v in lengths.items() if _takes(program, k)}
        given = [mine] if batch is None else batch.examples
        context = PassContext(tokens.tokenizer, tokens.template,
                              1 if rows is None else len(rows))
        shown: list[tuple[Compiled, Explanation]] = []
        for values in given:
            compiled = compile_program(program, (), values, tokens, options.level, measure=True,
                                       **compile_options)
            shown.append((compiled, explanation(compiled, context)))
            broken = broken or (fullgraph and compiled.graph_breaks > 0)
        cost = shown[0][0].cost(batch.given) if options.cost and batch is not None else None
        if options.json and not options.emit:
            reports += _reports(shown, batch, cost)
        else:
            text += _texts(shown, batch, options, tokens, cost)
    if options.json and not options.emit:
        text.append(json.dumps(reports, indent=2, ensure_ascii=False))
    common.write("\n".join([t.rstrip("\n") for t in text]) + "\n", options.output)
    return 2 if broken else 0


def lengths_of(given: list[str]) -> dict[str, int]:
    """`NAME=N` texts as a dict; LanguageError SGLC001 for others."""
    out: dict[str, int] = {}
    for item in given:
        name, _, number = item.partition("=")
        if not number.isdecimal():
            raise LanguageError("SGLC001", f"--len takes NAME=N, not {item!r}")
        out[name] = int(number)
    return out


def _takes(program: Program, name: str) -> bool:
    base = name.partition("[")[0]
    return base in program.signature.names or program.signature.takes_any


def _check_names(programs: dict[str, Program], names: set[str]) -> None:
    unknown = sorted(n for n in names if not any(_takes(p, n) for p in programs.values()))
    if unknown:
        raise LanguageError("SGLC001", f"no program takes: {', '.join(unknown)}")


def _texts(shown: list[tuple[Compiled, Explanation]], batch: Batch | None,
           options: argparse.Namespace, tokens: common.Tokens, cost: Cost | None) -> list[str]:
    out: list[str] = []
    if batch is not None and not options.emit:
        out.append(batch.text([e for _, e in shown]))
    if cost is not None and not options.emit:
        out.append("  cost     from an empty cache (= exact, <= at most, ~ about)\n"
                   + textwrap.indent("\n".join(str(cost).splitlines()[1:]), "  "))
    for compiled, explained in shown:
        if options.emit:
            out.append(emit(options.emit, compiled, not options.no_loc))
        elif options.explain:
            out.append(f"{explained}\n")
        elif batch is None:
            out.append(explained.short())
        if options.stats:
            out.append(statistics_table(compiled.stages, tokens.tokenizer) + "\n")
        if options.time_passes:
            out.append(time_table(compiled.records) + "\n")
    if not options.emit:
        out.append(f"  tokens   {tokens.label}\n")
    return out


def emit(what: str, compiled: Compiled, locs: bool = True) -> str:
    """The program at a stage, or in a form; LanguageError SGLC009 if nothing was captured."""
    stages = compiled.stages
    if not stages:
        d = compiled.breaks[0] if compiled.breaks else None
        raise LanguageError(
            "SGLC009", f"{compiled.program.name} was not captured: there is nothing to emit",
            place=d.place if d else None, why=f"{d.code} {d.what}" if d else "")
    if what in stages:
        return print_module(stages[what], locs=locs)
    if what == "py":
        from sglc.ir.to_python import to_python

        return to_python(stages["traced"])
    if what == "json":
        from sglc.ir.json_form import to_json

        return json.dumps(to_json(stages["prompt"]), indent=2, ensure_ascii=False)
    if what == "svg":
        from sglc.viz.svg import svg

        return svg(stages["prompt"])
    from sglc.ir.dot import to_dot

    return "\n".join([to_dot(p) for p in stages["prompt"].programs.values()])


def _reports(shown: list[tuple[Compiled, Explanation]],
             batch: Batch | None, cost: Cost | None) -> list[dict[str, Any]]:
    out = []
    for index, (_, explained) in enumerate(shown):
        report = _report(explained)
        if batch is not None:
            report["batch"] = batch.report(index)
        if cost is not None:
            report["cost"] = cost.json()
        out.append(report)
    return out


def _report(explained: Explanation) -> dict[str, Any]:
    return {
        "program": explained.name, "place": str(explained.place), "paths": explained.paths,
        "graph_breaks": explained.graph_breaks, "assumed": explained.assumed,
        "breaks": [_diagnostic(d) for d in explained.breaks],
        "remarks": [_diagnostic(d) for d in explained.remarks],
        "passes": [{
            "name": r.name, "ops_before": r.ops_before, "ops": r.ops,
            "calls_before": r.calls_before, "calls": r.calls,
            "constant_tokens": None if r.prefill is None else r.prefill.tokens,
            "ms": round(r.seconds * 1e3, 3), "stats": r.stats} for r in explained.passes],
    }


def _diagnostic(d: Diagnostic) -> dict[str, Any]:
    place = None if d.place is None else str(d.place)
    return {"code": d.code, "what": d.what, "place": place, "why": d.why, "effect": d.effect,
            "fixes": list(d.fixes)}
