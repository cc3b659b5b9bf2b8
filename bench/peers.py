"""sglc, vLLM and SGLang on the same batches and programs, each engine in its own process.

    python -m bench.peers --engine sglc --table raw,programs --model FOLDER --out RESULTS
    PYTHONPATH=vllm python -m bench.peers --engine vllm --table raw --tuned --model FOLDER ...
    PYTHONPATH=sglang python -m bench.peers --engine sglang --table raw,programs ...
    python -m bench.peers --report RESULTS

Every result is a line of JSON in RESULTS/ENGINE.jsonl at once, so a run that is cut off loses
only what it had not reached; of equal rows the newest counts.  Runs start from an empty cache; the
figures are medians.  Programs on SGLang have two forms: "front end" (its language against its
server) and "asyncio" (by hand on its engine).  A peer that is not installed is reported as absent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.peer_engines import (
    ENGINES,
    Absent,
    BatchEngine,
    open_engine,
    options_of,
    server_command,
)
from bench.peer_report import report
from bench.workloads import BATCHES, JOBS, Job, chosen, make_program, prompts_of, rows_of, scaled
from sglc.progress import Progress

TABLES = ("raw", "programs")
FORMS = {"sglc": ("compiled", "passes", "eager"), "vllm": (),
         "sglang": ("front end", "asyncio")}
THREADS = 256  # of SGLang's front end when tuned, or as many as there are instances


class Session:
    """One engine in one setting: what is run, and where results go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.setting = "tuned" if args.tuned else "default"
        self.file = Path(args.out) / f"{args.engine}.jsonl"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        self.options = options_of(args.engine, args.tuned, args.options)
        self.about: dict[str, Any] = {"engine": args.engine, "setting": self.setting,
                                      "options": self.options}

    def write(self, **row: Any) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self.about, **row}) + "\n")

    def measured(self, table: str, name: str, form: str, run: Callable[[], dict[str, Any]],
                 flush: Callable[[], None], warm_up: Callable[[], object]) -> None:
        """Run `turns` times from an empty cache and write the row; or why that failed.

        What `run` says of itself is kept; "seconds" stands for the time that it took.
        """
        if time.monotonic() - self.began > self.args.limit:
            print(f"{name}, {form}: not run, for --limit", flush=True)
            return
        seconds, counts = [], {}
        bar = Progress(self.args.turns + 1, unit="run", what=name, leave=False)
        try:
            flush()
            warm_up()
            bar.step()
            for _ in range(self.args.turns):
                flush()
                began = time.perf_counter()
                counts = run()
                taken = time.perf_counter() - began
                seconds.append(counts.pop("seconds", taken))
                bar.step()
        except Exception as e:  # the rest of the table is worth having
            self.write(table=table, name=name, form=form, error=f"{type(e).__name__}: {e}"[:1000])
            print(f"{name}, {form}: {type(e).__name__}: {e}", flush=True)
            return
        finally:
            bar.close()
        self.write(table=table, name=name, form=form, seconds=seconds, **counts)
        every = ", ".join([f"{s:.3f}" for s in seconds])
        print(f"{self.args.engine}, {self.setting} | {name} | {form} | "
              f"{statistics.median(seconds):.3f} ({every}) | {counts}", flush=True)

    def wants(self, name: str) -> bool:
        return not self.args.only or name in self.args.only

    def jobs(self) -> dict[str, Job]:
        scale = self.args.scale
        return {name: job if scale == 1 else job.scaled(scale)
                for name, job in JOBS.items() if self.wants(name)}


def raw(session: Session, engine: BatchEngine) -> None:
    """The batches of ids."""
    scale = session.args.scale
    for name in filter(session.wants, BATCHES):
        batch, prompts = BATCHES[name], prompts_of(name, scale)
        new = batch.new if scale == 1 or batch.regex else scaled(batch.new, scale)
        size = sum(map(len, prompts))

        def run(prompts: Any = prompts, new: int = new, regex: Any = batch.regex,
                size: int = size) -> dict[str, Any]:
            return {"tokens_in": size, "tokens_out": engine.generate(prompts, new, regex)}

        # sglc captures a graph when it is first needed, the peers all of theirs when they start.
        short = new if batch.regex or session.args.engine == "sglc" else min(new, 8)
        session.measured("raw", name, "batch", run, engine.flush, lambda p=prompts, n=short,
                         r=batch.regex: engine.generate(p, n, r))


def sglc_programs(session: Session, engine: Any) -> None:
    """The programs on sglc, in its forms."""
    from bench.gpu_programs import WITHOUT, once, programs_of

    for name, job in session.jobs().items():
        rows = rows_of(name, job)
        programs = programs_of(name, job, WITHOUT.split(","))
        for form in session.args.form:
            program, mode = programs[form]

            def run(program: Any = program, mode: str = mode, rows: Any = rows) -> dict[str, Any]:
                turn = once(engine, program, rows, mode)
                if turn.errors:
                    raise RuntimeError(turn.errors[0])
                return {"seconds": turn.seconds, "instances": len(rows), "steps": turn.steps,
                        "prefill": turn.prefill, "bound": turn.bound,
                        "characters": turn.characters}

            session.measured("programs", name, form, run, engine.flush_cache, run)


def by_hand(session: Session, engine: Any) -> None:
    """The programs with asyncio on SGLang's engine."""
    from bench.peer_programs import ByHand, encoder, loop_of

    encode, loop = encoder(session.args.model), loop_of(engine.engine)
    for name, job in session.jobs().items():
        rows = rows_of(name, job)
        hand = ByHand(engine.engine, encode, job)

        def run(rows: Any = rows, name: str = name, hand: ByHand = hand) -> dict[str, Any]:
            texts = loop.run_until_complete(hand.run(name, rows))
            return {"instances": len(rows), "characters": sum(map(len, texts))}

        session.measured("programs", name, "asyncio", run, engine.flush,
                         lambda run=run, rows=rows: run(rows[:2]))


def front_end(session: Session) -> None:
    """The programs in SGLang's language, on its server, which is started here."""
    from bench.peer_programs import FrontEnd, server

    args = session.args
    command = server_command(args.model, args.port, session.options)
    log = str(session.file.with_name(f"server-{session.setting}.log"))
    with server(command, args.port, log) as address:
        front = FrontEnd(address, THREADS if args.tuned else None)
        for name, job in session.jobs().items():
            rows = rows_of(name, job)
            program = front.program(make_program(name, job, front.sglang))

            def run(rows: Any = rows, program: Any = program) -> dict[str, Any]:
                texts = front.run(program, rows)
                return {"instances": len(rows), "characters": sum(map(len, texts))}

            session.measured("programs", name, "front end", run, front.flush,
                             lambda run=run, rows=rows: run(rows[:2]))


def measure(args: argparse.Namespace) -> None:
    session = Session(args)
    on_server = args.engine == "sglang" and "programs" in args.table and "front end" in args.form
    here = "raw" in args.table or any(f != "front end" for f in args.form)
    try:
        if here:
            engine = open_engine(args.engine, args.model, session.options)
            try:
                session.about.update(version=engine.version, **device())
                print(f"{args.engine} {engine.version}, {session.setting} {session.options}, "
                      f"opened in {time.monotonic() - session.began:.0f} s", flush=True)
                if "raw" in args.table:
                    raw(session, engine)
                if "programs" in args.table and args.engine == "sglc":
                    sglc_programs(session, engine.engine)
                if "programs" in args.table and "asyncio" in args.form:
                    by_hand(session, engine)
            finally:
                engine.close()
        if on_server:
            import sglang

            session.about.update(version=sglang.__version__, **device())
            front_end(session)
    except (Absent, ImportError) as e:
        session.write(absent=str(e))
        print(f"{args.engine} is absent: {e}", flush=True)


def device() -> dict[str, str]:
    """What it runs on; asked of the driver's list, so that the peer finds CUDA untouched."""
    import subprocess

    import torch

    try:
        out = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
                             capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        out = "no GPU"
    return {"device": out.splitlines()[0].strip(), "torch": torch.__version__}


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", metavar="FOLDER", help="print the tables of these results")
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--table", default="raw,programs")
    parser.add_argument("--tuned", action="store_true", help="a peer in its best setting")
    parser.add_argument("--form", help="of programs: " + "; ".join(
        f"{name}: {', '.join(forms)}" for name, forms in FORMS.items() if forms))
    parser.add_argument("--only", default="", help="some batches and programs")
    parser.add_argument("--model", help="a folder with config.json and a tokenizer")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", default="out/peers")
    parser.add_argument("--limit", type=float, default=540.0,
                        help="seconds after which nothing new is begun")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and lengths")
    parser.add_argument("--options", default="{}", help="JSON, for the engine")
    args = parser.parse_args(words)
    if args.report:
        return args
    if not args.engine or not args.model or args.turns < 1:
        parser.error("--engine, --model and at least one turn, or --report")
    try:
        args.options = json.loads(args.options)
        args.table = chosen(args.table, TABLES)
        args.only = chosen(args.only, (*BATCHES, *JOBS))
        forms = FORMS[args.engine] if "programs" in args.table else ()
        args.form = list(forms) if args.form is None else chosen(args.form, forms)
    except ValueError as e:
        parser.error(str(e))
    return args


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    if args.report:
        print(report(Path(args.report)))
    else:
        measure(args)


if __name__ == "__main__":
    main()
