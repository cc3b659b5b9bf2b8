"""The tables of `bench.peers`, from its lines of JSON: seconds, and the best peer over sglc."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bench.workloads import BATCHES, JOBS

Row = dict[str, Any]
Column = tuple[str, str, str]  # engine, setting, form
_OURS = "sglc"
_SAME_WORK = "compiled"  # the form of sglc that a ratio is about: it does what peers do
_KNOWN = {
    "raw": ({n: b.known[-2:] for n, b in BATCHES.items()}),
    "programs": ({n: j.known[-2:] for n, j in JOBS.items()}),
}
"""The least time and the goal of each row, in seconds."""


def read(folder: Path) -> list[Row]:
    """The rows of a folder of results, the oldest of a file first."""
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl"))
            for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def report(folder: Path) -> str:
    """Both tables, what is absent, and what was measured with what."""
    rows = read(folder)
    measured = [r for r in rows if "seconds" in r]
    parts = [_table(name, measured) for name in _KNOWN]
    return "\n".join([*filter(None, parts), *_notes(rows, measured)])


def _table(table: str, rows: list[Row]) -> str:
    """One table; empty where nothing was measured for it."""
    cells: dict[str, dict[Column, float]] = {}
    for row in rows:
        if row["table"] == table:
            column = row["engine"], row["setting"], row["form"]
            cells.setdefault(row["name"], {})[column] = statistics.median(row["seconds"])
    if not cells:
        return ""
    columns = sorted({c for found in cells.values() for c in found},
                     key=lambda c: (c[0] != _OURS, c))
    head = [table, *map(_title, columns), "least", "goal", "best peer / sglc"]
    lines = [_line(head), "|" + "---|" * len(head)]
    for name in _KNOWN[table]:
        if name in cells:
            found = cells[name]
            seconds = [f"{found[c]:.3f}" if c in found else "" for c in columns]
            least, goal = _KNOWN[table][name]
            lines.append(_line([name, *seconds, f"{least:g}", f"{goal:g}", _ratio(found)]))
    return "\n".join(lines) + "\n"


def _ratio(found: dict[Column, float]) -> str:
    """The fastest peer's time over ours, and which peer that is; empty without both."""
    ours = [s for (engine, _, form), s in found.items()
            if engine == _OURS and form in (_SAME_WORK, "batch")]
    peers = {c: s for c, s in found.items() if c[0] != _OURS}
    if not ours or not peers:
        return ""
    best = min(peers, key=lambda c: peers[c])
    return f"{peers[best] / min(ours):.2f} ({_title(best)})"


def _title(column: Column) -> str:
    engine, setting, form = column
    words = [engine]
    if engine != _OURS or setting != "default":
        words.append(setting)
    if form != "batch":
        words.append(form)
    return ", ".join(words)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _notes(rows: list[Row], measured: list[Row]) -> list[str]:
    """Versions and options, absent peers, and a warning if the machines differ."""
    out = ["Seconds, medians from an empty cache."]
    about = {(r["engine"], r["setting"]): r for r in measured}
    for (engine, setting), row in sorted(about.items()):
        options = json.dumps(row.get("options", {}))
        out.append(f"{engine} {row.get('version', '?')}, {setting}: {options}")
    devices = {f"{r.get('device')}, torch {r.get('torch')}" for r in measured}
    out.append(("Measured on " if len(devices) == 1 else "NOT ON THE SAME MACHINE: ")
               + "; ".join(sorted(devices)) if devices else "Nothing was measured.")
    out += [f"FAILED: {r['engine']}, {r['setting']}, {r['name']}, {r['form']}: {r['error'][:200]}"
            for r in rows if "error" in r]
    there = {r["engine"] for r in measured}
    absent = {r["engine"]: r["absent"] for r in rows if "absent" in r}
    for engine in ("vllm", "sglang"):
        if engine not in there:
            out.append(f"{engine} is absent: {absent.get(engine, 'it was not run')}")
    return out
