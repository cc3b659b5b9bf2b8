"""`sglc run-batch`: a file of requests, or of a program's arguments, to a file of results.

What has ended is in a ledger beside the results; the same command goes on where the last one was
ended.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sglc.commands import common
from sglc.errors import LanguageError
from sglc.serve import batch_rows


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of `sglc run-batch`."""
    p.add_argument("-i", "--input", required=True, metavar="IN.jsonl",
                   help="a JSON object a line: requests in OpenAI's batch form (custom_id, "
                   "method, url, body), or with --program its arguments")
    p.add_argument("-o", "--output", required=True, metavar="OUT.jsonl",
                   help="the results, in the order of the rows; rows that failed are in "
                   "OUT.failed.jsonl, what has ended so far in OUT.jsonl.ledger")
    p.add_argument("--program", metavar="prog.py:name", help="run this program on each row")
    where = p.add_mutually_exclusive_group()
    where.add_argument("--model", metavar="PATH", help="as for sglc serve (default: "
                       "SmolLM2-135M-Instruct)")
    where.add_argument("--url", help="a server that is there, instead of a model here")
    p.add_argument("--api-key", help="the server's key")
    p.add_argument("--served-model-name", metavar="NAME",
                   help="what the requests call the model here")
    p.add_argument("--concurrency", type=int, default=64, metavar="N",
                   help="requests under way at once (default 64)")
    p.add_argument("--seed", type=int, help="of a program's sampling (default: a fresh one, which "
                   "the ledger keeps)")
    p.add_argument("--temperature", type=float, help="of a program's gens that say none")
    p.add_argument("--max-new-tokens", type=int, help="of a program's gens that say none")
    p.add_argument("--mode", choices=("compiled", "eager"), help="how a program runs")
    p.add_argument("--sync", choices=("row", "second", "never"), default="second",
                   help="how much may be lost if the machine fails: at most the row that is being "
                   "written, those of a second (the default), or what the system has not written "
                   "yet; if only this process dies, nothing is")
    p.add_argument("--no-progress", action="store_true", help="show no progress bar")


def run(options: argparse.Namespace) -> int:
    """Run what has not ended yet; 0 if all rows are well, 1 if some failed, 130 if interrupted."""
    from sglc.runtime.keys import fresh_seed
    from sglc.serve.ledger import Ledger

    if options.concurrency < 1:
        raise LanguageError("SGLC004", "--concurrency must be at least 1")
    rows, content = batch_rows.read_objects(options.input)
    job: dict[str, Any] = {"input": content, "program": None, "model": options.model}
    program: Any = None
    if options.program is not None:
        program = _program(options.program)
        script = Path(options.program.rpartition(":")[0] or options.program)
        job |= {"program": [program.name, batch_rows.digest(
            script.read_bytes() if script.is_file() else b"")], "seed": options.seed,
            "temperature": options.temperature, "max_new_tokens": options.max_new_tokens}
        program.signature.rows([row for _, row in rows])  # complain before anything is opened
    work: Any = rows if program is not None else batch_rows.requests(options.input, rows)
    seed = fresh_seed() if options.seed is None else options.seed
    output = Path(options.output)
    failed = output.with_name(f"{output.stem}.failed{output.suffix}")
    try:
        ledger = Ledger(output.with_name(output.name + ".ledger"), job, len(rows),
                        more={"seed": seed}, sync=options.sync)
    except OSError as error:
        raise LanguageError("SGLC001", f"{output} cannot be written", why=str(error)) from None
    with ledger:
        if ledger.finished is None:
            if _left(ledger):
                _work(options, program, work, ledger)
            if left := _left(ledger):
                print(f"interrupted: {len(left)} of {ledger.rows} rows are left; the same command "
                      "goes on", file=sys.stderr)
                return 130
            ledger.finish(output, failed)
        counts = ledger.counts
    print(f"{ledger.rows} rows: {counts.good} in {output}"
          + (f", {counts.failed} failed, in {failed}" if counts.failed else ""), file=sys.stderr)
    return 1 if counts.failed else 0


def _program(target: str) -> Any:
    programs = common.programs(target)
    if len(programs) > 1:
        raise LanguageError("SGLC009", "the script has several programs",
                            fixes=[f"--program {target}:{n}" for n in programs])
    return next(iter(programs.values()))


def _left(ledger: Any) -> list[int]:
    return [n for n in range(ledger.rows) if n not in ledger]


def _work(options: argparse.Namespace, program: Any, rows: Any, ledger: Any) -> None:
    from sglc.progress import Progress
    from sglc.serve import batch_runs

    left = _left(ledger)
    bar = Progress(len(left), False if options.no_progress else None)

    def note(row: int, good: bool, value: Any) -> None:
        ledger.add(row, good, value)
        bar.step()

    try:
        if program is None:
            with batch_runs.server(options) as http:
                batch_runs.run_requests(http, rows, left, options.concurrency, note)
            return
        sampling = {k: v for k in ("temperature", "max_new_tokens", "mode")
                    if (v := getattr(options, k)) is not None}
        with batch_runs.backend(options) as backend:
            batch_runs.run_program(program, [row for _, row in rows], left, note,
                                   backend=backend, seed=ledger.header["seed"], **sampling)
    except KeyboardInterrupt:
        return  # what is left is told by the caller
    finally:
        bar.close()
