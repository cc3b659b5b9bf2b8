"""The reliability matrix of the server: what was measured beside what was to be reached.

    python -m tests.serve.reliability [--quick] [--json FILE] [--row N ...]

Each row is a function of a scale; the default tests run some of them small
(`test_reliability.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.serve.matrix import faults, inputs, load, safety
from tests.serve.matrix.row import Row

ROWS: dict[int, tuple[Callable[..., Row], dict[str, Any]]] = {
    1: (load.load, {"requests": 300, "clients": 16}),
    2: (load.real_model, {"clients": 4, "each": 3}),
    3: (load.soak, {"seconds": 6.0}),
    4: (load.overload, {"clients": 24, "seconds": 2.0}),
    5: (load.cancel, {"n": 60}),
    6: (faults.retract, {"requests": 20}),
    7: (faults.crash, {"times": 1, "workers": 1}),
    8: (faults.shutdown, {"clients": 8}),
    9: (faults.backends, {}),
    10: (faults.batch, {"kills": 2}),
    12: (inputs.fuzz, {"examples": 8, "phases": "fuzzing"}),
    13: (inputs.corpus, {}),
    14: (inputs.regexes, {"hostile": 6, "generated": 60}),
    15: (inputs.grammar_cache, {"constraints": 300}),
    16: (inputs.special_tokens, {}),
    17: (inputs.templates, {}),
    18: (inputs.urls, {}),
    19: (inputs.pictures, {}),
    20: (safety.deserialisation, {"mutated": False}),
    21: (safety.listeners, {}),
    22: (safety.access, {}),
    23: (safety.tenancy, {}),
    24: (safety.paths, {}),
    25: (safety.optimized, {"rows": (16, 24)}),
    28: (safety.hostile_programs, {"most": 8}),
    29: (safety.secrets, {}),
    30: (safety.drawings, {}),
}
"""Row -> its function, and the small scale."""

ELSEWHERE = {
    11: "several machines: with what spreads batches over them",
    26: "the cache and the scheduler against models of them: tests/runtime",
    27: "coverage-guided fuzzing runs for hours: not here",
}


def table(rows: list[Row]) -> str:
    """The rows as Markdown, and those that are none of this module's."""
    lines = ["| # | area | test | figure | target | |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.number} | {r.area} | {r.test} | {r.figure} | {r.target} | "
              f"{'ok' if r.ok else 'MISSED'} |" for r in rows]
    lines += [f"| {n} | | {why} | not measured here | | |" for n, why in ELSEWHERE.items()]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at the small scale")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--row", type=int, action="append", choices=ROWS)
    given = parser.parse_args()
    rows = []
    for number in given.row or ROWS:
        measure, small = ROWS[number]
        try:
            row = measure(**small) if given.quick else measure()
        except Exception as error:
            row = Row(number, measure.__name__, "", f"{type(error).__name__}: {error}"[:200],
                      "", False)
        print(f"{row.number}: {row.figure}", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows))
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(r) for r in rows], indent=1))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
