"""The table of programs, on the hash model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import gpu_programs
from bench.gpu_programs import where
from bench.workloads import JOBS
from sglc.runtime.cuda.launcher import StepTime


def test_all_forms_of_all_programs(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rows.jsonl"
    assert gpu_programs.main(["--model", "hash", "--scale", "0.02", "--turns", "1",
                              "--json", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r["program"], r["form"]) for r in rows] == [
        (name, form) for name in JOBS for form in ("compiled", "passes", "eager")]
    for row in rows:
        assert row["errors"] == 0 and row["steps"] > 0
        assert row["prefill"] >= row["bound"] > 0
        if row["form"] != "eager":
            assert row["prefill"] == row["bound"]
    printed = capsys.readouterr().out
    assert printed.count("tree | ") == 3 and "| 11.35 |" in printed


def test_forms_do_the_same_work(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert gpu_programs.main(["--model", "hash", "--scale", "0.05", "--turns", "1", "--only",
                              "judge,vote", "--mode", "compiled,eager", "--json",
                              str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for planned, eager in zip(rows[::2], rows[1::2], strict=True):
        assert planned["decode"] == eager["decode"]
        assert planned["bound"] == eager["bound"]


def test_policies(tmp_path: Path, capsys: Any) -> None:
    assert gpu_programs.main(["--model", "hash", "--scale", "0.02", "--turns", "1", "--only",
                              "extract", "--mode", "eager", "--policy", "planned,lpm"]) == 0
    assert "extract | eager, lpm | " in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--only", "nothing"), ("--mode", "x"), ("--turns", "0")])
def test_bad_arguments(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        gpu_programs.main(["--model", "hash", *words])


def test_sums_of_steps() -> None:
    times = [StepTime(9, 1, 1.0, 1.1, 1.4, 2.0, 0.5), StepTime(3, 3, 1.5, 1.6, 2.1, 2.5, 0.25)]
    turn = gpu_programs.Turn(3.0, 0.25, 0, 0, 0, 0, 2, 0, 0, ())
    text = where(times, turn)
    assert "3.000 s: 0.750 before the first step, 0.750 after the last; 2 steps" in text
    assert "host 0.200 launching, 1.000 waiting, 0.300 else" in text
    assert "device 0.750 busy, 2.250 not" in text
