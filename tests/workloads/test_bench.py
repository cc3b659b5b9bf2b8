"""`sglc bench programs`, from its arguments to its JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sglc.cli import main
from sglc.commands.tables import plain


def bench(*words: str) -> int:
    return main(["bench", "programs", *words])


def test_table_and_json(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "out.json"
    code = bench("--workload", "classify,chat", "--policy", "planned", "--rows", "3",
                 "--json", str(file))
    assert code == 0
    printed = capsys.readouterr().out
    for word in ("classify", "chat", "prefill", "hit rate", "compiled", "eager", "planned"):
        assert word in printed
    runs = json.loads(file.read_text())["runs"]
    assert [(r["workload"], r["mode"]) for r in runs] == [
        ("classify", "compiled"), ("classify", "eager"), ("chat", "compiled"), ("chat", "eager")]
    for run in runs:
        assert run["rows"] == 3 and run["errors"] == 0
        assert run["prefill"] >= run["bound"] > 0
        assert run["ratio"] == pytest.approx(run["prefill"] / run["bound"])
        assert 0 <= run["hit_rate"] < 1


def test_pool_as_a_share_of_the_working_set(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert bench("--workload", "judge", "--mode", "compiled", "--policy", "planned",
                 "--kv-fraction", "0.5", "--json", str(file)) == 0
    run, = json.loads(file.read_text())["runs"]
    assert run["kv"] < run["working_set"]
    assert run["kv_peak"] <= run["kv"]


def test_pairs(tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "out.json"
    assert bench("--workload", "extract", "--policy", "planned,lpm", "--rows", "2",
                 "--pairs", "2", "--json", str(file)) == 0
    pairs, = json.loads(file.read_text())["pairs"]
    assert pairs["ours"] == "compiled, planned"
    assert pairs["other"].endswith("lpm")
    assert len(pairs["seconds"]) == 2 and pairs["ratio"] > 0
    assert "2 pairs" in capsys.readouterr().out


def test_json_alone_on_stdout(capsys: Any) -> None:
    assert bench("--workload", "unique", "--policy", "planned", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "hash"


@pytest.mark.parametrize("words", [
    ("--workload", "nonsense"), ("--policy", "none"), ("--mode", "x"), ("--kv-fraction", "0"),
    ("--options", "{"), ("--options", "[]")])
def test_bad_arguments(words: tuple[str, ...], capsys: Any) -> None:
    assert bench(*words) == 1
    assert "SGLC001" in capsys.readouterr().err


def test_list(capsys: Any) -> None:
    assert bench("--list") == 0
    assert "self-consistency" in capsys.readouterr().out


def test_columns() -> None:
    table = plain(("name", "n"), [("a", "10"), ("bb", "9.5 %")], [False, True], "title")
    assert table == "title\nname      n\na        10\nbb    9.5 %\n"


def test_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert bench("--list") == 0
    assert "workload  " in capsys.readouterr().out
