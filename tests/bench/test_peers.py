"""The peers' tables without peers: what is run, what is written, what is reported."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import peers
from bench.peer_engines import options_of, server_command
from bench.peer_programs import ByHand
from bench.peer_report import report
from bench.workloads import ANSWERS, JOBS, Job, rows_of

SMALL = ("--model", "hash", "--scale", "0.02", "--turns", "2")


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl"))
            for line in file.read_text().splitlines()]


def test_sglc_on_both_tables(tmp_path: Path, capsys: Any) -> None:
    names = ["bs1", "sharedprefix", "tree", "classify"]
    peers.main(["--engine", "sglc", "--form", "compiled", "--only", ",".join(names), "--out",
                str(tmp_path), *SMALL])
    rows = rows_in(tmp_path)
    assert [r["name"] for r in rows] == names
    assert all(len(r["seconds"]) == 2 and min(r["seconds"]) > 0 for r in rows)
    assert rows[0]["tokens_in"] > 0 and rows[0]["tokens_out"] > 0
    peers.main(["--report", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "| tree | " in printed and "| bs1 | " in printed
    assert "vllm is absent: it was not run" in printed


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_absent_peers_are_named(engine: str, tmp_path: Path, capsys: Any,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    peers.main(["--engine", engine, "--out", str(tmp_path), *SMALL])
    row, = rows_in(tmp_path)
    assert row["engine"] == engine and "absent" in row
    assert f"{engine} is absent: import of {engine}" in report(tmp_path)
    assert f"{engine} is absent" in capsys.readouterr().out


def test_a_failure_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any) -> int:
        raise RuntimeError("out of everything")

    monkeypatch.setattr("bench.peer_engines.Sglc.generate", fails)
    peers.main(["--engine", "sglc", "--table", "raw", "--only", "bs1,offline", "--out",
                str(tmp_path), *SMALL])
    assert [r["error"] for r in rows_in(tmp_path)] == ["RuntimeError: out of everything"] * 2
    assert "FAILED: sglc, default, bs1, batch: RuntimeError" in report(tmp_path)


@pytest.mark.parametrize("words", [
    (), ("--engine", "sglc"), ("--engine", "other", "--model", "m"),
    ("--engine", "sglc", "--model", "m", "--only", "x"),
    ("--engine", "sglc", "--model", "m", "--form", "asyncio"),
    ("--engine", "sglc", "--model", "m", "--turns", "0"),
    ("--engine", "sglc", "--model", "m", "--options", "{")])
def test_bad_arguments(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        peers.main(list(words))


def test_report(tmp_path: Path) -> None:
    def line(engine: str, setting: str, form: str, name: str, *seconds: float,
             device: str = "a GPU") -> str:
        return json.dumps({
            "engine": engine, "setting": setting, "table": "raw" if form == "batch" else
            "programs", "name": name, "form": form, "seconds": seconds, "version": "1",
            "device": device, "torch": "2", "options": {}}) + "\n"

    (tmp_path / "sglc.jsonl").write_text(
        line("sglc", "default", "batch", "bs1", 9.0)  # of equal rows the newest counts
        + line("sglc", "default", "batch", "bs1", 1.0, 3.0, 2.0)
        + line("sglc", "default", "compiled", "vote", 4.0)
        + line("sglc", "default", "passes", "vote", 1.0))
    (tmp_path / "sglang.jsonl").write_text(
        line("sglang", "default", "batch", "bs1", 3.0)
        + line("sglang", "tuned", "batch", "bs1", 5.0)
        + line("sglang", "default", "front end", "vote", 12.0)
        + line("sglang", "tuned", "asyncio", "vote", 6.0))
    text = report(tmp_path)
    assert "| bs1 | 2.000 | 3.000 | 5.000 | 0.95 | 1.1 | 1.50 (sglang, default) |" in text
    assert ("| vote | 4.000 | 1.000 | 12.000 | 6.000 | 3.2 | 4.8 | "
            "1.50 (sglang, tuned, asyncio) |") in text
    assert "vllm is absent" in text and "sglang is absent" not in text
    assert "Measured on a GPU, torch 2" in text
    (tmp_path / "vllm.jsonl").write_text(
        line("vllm", "default", "batch", "bs1", 3.0, device="another"))
    assert "NOT ON THE SAME MACHINE" in report(tmp_path)


def test_options() -> None:
    tuned = options_of("sglang", True, {"cuda_graph_max_bs_decode": 300})
    assert tuned == {"schedule_policy": "lpm", "cuda_graph_max_bs_decode": 300}
    assert options_of("vllm", True, {})["disable_cascade_attn"] is False
    command = server_command("m", 7, {**tuned, "enable_x": True})
    text = " ".join(command)
    for words in ("-m sglang.launch_server --model-path m --port 7", "--schedule-policy lpm",
                  "--cuda-graph-max-bs-decode 300", "--mem-fraction-static 0.85"):
        assert words in text
    assert command[-1] == "--enable-x"


class FakeEngine:
    """SGLang's `async_generate` on nothing: writes the number of the call, counts lengths."""

    def __init__(self) -> None:
        self.new: Counter[int] = Counter()
        self.cached: set[tuple[int, ...]] = set()
        self.computed = 0

    async def async_generate(self, input_ids: Any, sampling_params: Any,
                             return_logprob: bool = False, logprob_start_len: Any = None) -> Any:
        await asyncio.sleep(0)
        if return_logprob:
            tails = [ids[start + 1:] for ids, start in zip(input_ids, logprob_start_len,
                                                           strict=True)]
            return [{"meta_info": {"input_token_logprobs": [(None, 0, None)] + [
                (-float(len(tail)), t, None) for t in tail]}} for tail in tails]
        n = sampling_params["max_new_tokens"]
        assert (n == 0) == ("ignore_eos" not in sampling_params)
        written = list(range(1000, 1000 + n))
        self.new[n] += 1
        whole = (*input_ids, *written)
        known = next((k for k in range(len(whole), -1, -1) if whole[:k] in self.cached), 0)
        self.computed += max(0, len(input_ids) - known)
        self.cached.update([whole[:k] for k in range(1, len(whole) + 1)])
        return {"output_ids": written, "text": "x" * n}


def by_hand(name: str, job: Job, count: int) -> tuple[FakeEngine, list[str]]:
    engine = FakeEngine()
    hand = ByHand(engine, lambda text: [ord(c) for c in text], job)
    rows = rows_of(name, job)[:count]
    return engine, asyncio.run(hand.run(name, rows))


@pytest.mark.parametrize(("name", "gens"), [
    ("tree", {64: 39, 32: 1, 0: 1}), ("judge", {64: 6, 16: 1, 0: 1}), ("extract", {8: 6}),
    ("chat", {64: 4}), ("vote", {128: 8, 8: 1, 0: 1})])
def test_by_hand_does_the_same_work(name: str, gens: dict[int, int]) -> None:
    job = JOBS[name].scaled(0.05)
    job = Job(2, job.words, JOBS[name].tokens, JOBS[name].last, job.known)
    engine, texts = by_hand(name, job, 1)
    assert engine.new == gens
    assert texts == ["x" * (job.last or job.tokens)]


def test_by_hand_shares_prefixes() -> None:
    job = JOBS["judge"].scaled(0.05)
    engine, _ = by_hand("judge", job, 1)
    article = len("Read the article." + rows_of("judge", job)[0]["q"] + "\n")
    assert article < engine.computed < 2 * article + 200


def test_select_by_hand() -> None:
    _, texts = by_hand("classify", JOBS["classify"].scaled(0.02), 3)
    assert texts == [min(ANSWERS, key=len)] * 3
