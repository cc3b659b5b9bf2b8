"""The command line: `sglc compile`, `run`, `demo`, `pull`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from sglc.errors import Diagnostic, LanguageError, SglcError

EMIT = ("traced", "prompt", "kv", "plan", "json", "svg", "dot")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code (0 fine, 1 an error, 2 graph breaks under --fullgraph)."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except SglcError as e:
        print(e, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sglc", description="An optimizing compiler for language-model programs.")
    commands = parser.add_subparsers(required=True, metavar="command")

    c = commands.add_parser("compile", help="show what the compiler makes of a program",
                            description="Compile the programs of a script, without running it. "
                            "No model is needed: bytes stand in for its tokens unless --model "
                            "is given.")
    c.add_argument("script", help="prog.py, or prog.py:name for one program")
    c.add_argument("-O", dest="level", type=int, choices=range(4), default=2,
                   help="optimisation level (default 2: exact)")
    c.add_argument("--emit", choices=EMIT, help="print the program at this stage")
    c.add_argument("--print-after-all", action="store_true", help="print the IR after each pass")
    c.add_argument("--print-after", action="append", metavar="PASS", default=[],
                   help="print the IR after this pass")
    c.add_argument("--print-after-change", action="store_true",
                   help="print the IR after each pass that changed it")
    c.add_argument("--print-diff", action="store_true", help="print what each pass changed")
    c.add_argument("--time-passes", action="store_true", help="time and count every pass")
    c.add_argument("--json", action="store_true", help="print the summary as JSON")
    c.add_argument("--no-loc", action="store_true", help="leave source places out of the IR")
    c.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE",
                   help="an argument of the program (JSON, or text)")
    c.add_argument("--outputs", help="variables to keep, comma-separated; others may go")
    c.add_argument("--fullgraph", action="store_true", help="exit with 2 on a graph break")
    c.add_argument("--model", help="take tokens and template of this model ('default')")
    c.add_argument("-o", "--output", help="write to a file instead of stdout")
    c.set_defaults(run=_compile)

    r = commands.add_parser("run", help="run a program",
                            description="Run a program of a script on a model.")
    r.add_argument("script", help="prog.py, or prog.py:name")
    r.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    r.add_argument("--model", help="a GGUF file or a Hugging Face folder (default: SmolLM2-135M)")
    r.add_argument("--mode", choices=("compiled", "eager"), default="compiled")
    r.add_argument("--seed", type=int)
    r.add_argument("--temperature", type=float)
    r.add_argument("--max-new-tokens", type=int)
    r.add_argument("--json", action="store_true", help="print text and variables as JSON")
    r.add_argument("--stats", action="store_true", help="print the engine's counters")
    r.set_defaults(run=_run)

    d = commands.add_parser("demo", help="a tour on a small real model")
    d.add_argument("--output", default="sglc-demo.svg", help="where the graph is written")
    d.set_defaults(run=_demo)

    p = commands.add_parser("pull", help="fetch the default model")
    p.set_defaults(run=_pull)
    return parser


def _arguments(given: Sequence[str]) -> dict[str, Any]:
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


def _programs(script: str) -> dict[str, Any]:
    from sglc.lang.loading import load_programs

    loaded = load_programs(script)
    if loaded.remark is not None:
        print(loaded.remark, file=sys.stderr)
    return loaded.programs


class _Tokens:
    """The tokenizer and template of a model that is not opened."""

    def __init__(self, model: str | None) -> None:
        from sglc.tokens.templates import TemplateRegistry

        if model is None:
            from sglc.tokens.bytes import ByteTokenizer

            self.tokenizer: Any = ByteTokenizer()
            self.label = "bytes (no model: token counts are bytes)"
        else:
            from sglc.backends.engine import resolve_model, tokenizer_at

            path = resolve_model(model)
            self.tokenizer = tokenizer_at(path)
            self.label = path.name
        self.template = TemplateRegistry().resolve(None, self.tokenizer)


def _compile(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from sglc.ir.printer import print_module
    from sglc.lang.compiled import compile_program
    from sglc.lang.program import Program
    from sglc.passes.printing import print_after, time_table

    tokens = _Tokens(options.model)
    arguments = _arguments(options.arg)
    text: list[str] = []
    breaks = 0
    summaries = []
    programs = _programs(options.script)
    takes = {n for p in programs.values() for n in p.signature.names}
    unknown = [] if any(p.signature.takes_any for p in programs.values()) else [
        n for n in arguments if n not in takes]
    if unknown:
        raise LanguageError("SGLC001", f"no program takes: {', '.join(unknown)}")
    for program in programs.values():
        if options.outputs is not None:
            program = Program(program.fn, replace(
                program.settings, outputs=tuple(options.outputs.split(","))), program.signature)
        callbacks = []
        if (options.print_after_all or options.print_after or options.print_after_change
                or options.print_diff):
            callbacks.append(print_after(
                text.append, None if not options.print_after else options.print_after,
                changes=options.print_after_change, diff=options.print_diff))
        mine = {k: v for k, v in arguments.items()
                if k in program.signature.names or program.signature.takes_any}
        compiled = compile_program(program, (), mine, tokens, options.level, measure=True,
                                   callbacks=callbacks)
        breaks += compiled.graph_breaks
        if options.emit and compiled.stages:
            text.append(_emit(options.emit, compiled, print_module, not options.no_loc))
        elif options.json:
            summaries.append(_summary_json(compiled))
        else:
            text.append(compiled.explain() + f"\n  tokens   {tokens.label}\n")
        if options.time_passes:
            text.append(time_table(compiled.records) + "\n")
    if options.json:
        text.append(json.dumps(summaries, indent=2, ensure_ascii=False) + "\n")
    _write("\n".join(t.rstrip("\n") for t in text) + "\n", options.output)
    return 2 if breaks and options.fullgraph else 0


def _emit(what: str, compiled: Any, print_module: Any, locs: bool) -> str:
    stages = compiled.stages
    if what in stages:
        return str(print_module(stages[what], locs=locs))
    if what == "json":
        from sglc.ir.json_form import to_json

        return json.dumps(to_json(stages["prompt"]), indent=2, ensure_ascii=False)
    if what == "svg":
        from sglc.viz.svg import svg

        return svg(stages["prompt"])
    from sglc.ir.dot import to_dot

    return "\n".join(to_dot(p) for p in stages["prompt"].programs.values())


def _summary_json(compiled: Any) -> dict[str, Any]:
    def diagnostic(d: Diagnostic) -> dict[str, Any]:
        place = None if d.place is None else str(d.place)
        return {"code": d.code, "what": d.what, "place": place, "why": d.why,
                "effect": d.effect, "fixes": list(d.fixes)}

    return {
        "program": compiled.program.name, "paths": compiled.paths,
        "graph_breaks": compiled.graph_breaks, "assumed": compiled.assumed,
        "breaks": [diagnostic(d) for d in compiled.breaks],
        "passes": [{"name": r.name, "ops_before": r.ops_before, "ops": r.ops,
                    "calls": r.calls, "ms": round(r.seconds * 1e3, 3), "stats": r.stats}
                   for r in compiled.records],
    }


def _write(text: str, path: str | None) -> None:
    if path is None:
        sys.stdout.write(text)
    else:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)


def _run(options: argparse.Namespace) -> int:
    from sglc.backends.engine import Engine

    programs = _programs(options.script)
    if len(programs) > 1:
        raise LanguageError("SGLC009", "the script has several programs",
                            fixes=[f"sglc run {options.script}:{n}" for n in programs])
    program = next(iter(programs.values()))
    keywords: dict[str, Any] = {k: v for k, v in (
        ("seed", options.seed), ("temperature", options.temperature),
        ("max_new_tokens", options.max_new_tokens)) if v is not None}
    arguments = _arguments(options.arg)
    program.signature.bind((), arguments)  # complain before the model is opened
    with Engine(options.model) as engine:
        state = program.run(**arguments, **keywords, backend=engine, mode=options.mode,
                            stream=not options.json)
        if options.json:
            print(json.dumps({"text": state.text(), "seed": state.seed, "variables": {
                str(n): state[n] for n in state.variable_names()}}, ensure_ascii=False,
                default=str))
        else:
            for piece in state.text_iter():
                print(piece, end="", flush=True)
            print()
        if options.stats:
            print(engine.stats(), file=sys.stderr)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from sglc.demo import main as demo

    return int(demo(options.output) or 0)


def _pull(options: argparse.Namespace) -> int:
    from sglc.runtime.weights.fetch import fetch_default_model

    print(fetch_default_model())
    return 0


if __name__ == "__main__":
    sys.exit(main())
