"""`sglc run-batch`: files of requests and of arguments, gone on with after any death."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sglc
from sglc import cli
from sglc.errors import LanguageError, SglcError
from sglc.serve import batch_rows, batch_runs
from sglc.serve.batch_rows import read_objects, requests
from tests.serve.servers import Running

PROGRAM = '''
import sglc as sgl

@sgl.program
def answer(s, question, size=8):
    s += sgl.user("A question of the batch: " + question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=size))
    if size == 13:
        s += str(1 // 0)
'''


def chat(n: int, **more: Any) -> dict[str, Any]:
    return {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "hash", "messages": [{"role": "user", "content": f"question {n}"}],
        "max_tokens": 6, "temperature": 0, **more}}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run(*argv: Any) -> int:
    return cli.main(["run-batch", "--no-progress", *map(str, argv)])


def test_requests_in_openais_form(tmp_path: Path, capsys: Any) -> None:
    rows = [chat(0), chat(1, temperature=99), {
        "custom_id": "text", "method": "POST", "url": "/v1/completions",
        "body": {"prompt": "abc", "max_tokens": 4, "temperature": 0}}, {
        "custom_id": "native", "method": "POST", "url": "/generate",
        "body": {"text": "abc", "sampling_params": {"max_new_tokens": 4, "temperature": 0}}}]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert run("-i", source, "-o", out, "--model", "hash") == 1
    assert "3 in" in (said := capsys.readouterr().err) and "1 failed" in said
    done = {r["custom_id"]: r for r in lines(out)}
    assert list(done) == ["row-0", "text", "native"]
    assert all(r["error"] is None and r["response"]["status_code"] == 200 for r in done.values())
    with sglc.HashModel() as local:
        want = local.generate("abc", sampling={"max_new_tokens": 4, "temperature": 0}).text
    assert done["text"]["response"]["body"]["choices"][0]["text"] == want
    assert done["native"]["response"]["body"]["text"] == want
    (failed,) = lines(tmp_path / "out.failed.jsonl")
    assert failed["custom_id"] == "row-1" and failed["response"]["status_code"] == 400
    assert failed["response"]["body"]["error"]["param"] == "temperature"
    before = out.stat().st_mtime_ns
    assert run("-i", source, "-o", out, "--model", "hash") == 1  # it is done
    assert out.stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        run("-i", source)
    write(source, [*rows, chat(7)])
    assert run("-i", source, "-o", out, "--model", "hash") == 1
    assert "another batch" in capsys.readouterr().err


def test_on_a_server_that_is_there(tmp_path: Path, server: Running) -> None:
    source = write(tmp_path / "in.jsonl", [chat(n) for n in range(20)])
    out = tmp_path / "out.jsonl"
    assert run("-i", source, "-o", out, "--url", server.url, "--concurrency", 4) == 0
    assert [r["custom_id"] for r in lines(out)] == [f"row-{n}" for n in range(20)]
    assert not (tmp_path / "out.failed.jsonl").exists()


def test_a_server_that_is_not_there_fails_no_rows(tmp_path: Path, server: Running,
                                                  capsys: Any) -> None:
    source, out = write(tmp_path / "in.jsonl", [chat(n) for n in range(3)]), tmp_path / "o.jsonl"
    assert run("-i", source, "-o", out, "--url", "http://127.0.0.1:9") == 1
    assert "SGLC509" in capsys.readouterr().err and not out.exists()
    assert run("-i", source, "-o", out, "--url", server.url) == 0
    assert len(lines(out)) == 3


@pytest.mark.parametrize("mode", ["compiled", "eager"])
def test_arguments_of_a_program(tmp_path: Path, mode: str, server: Running) -> None:
    script = tmp_path / "prog.py"
    script.write_text(PROGRAM)
    rows = [{"question": f"number {n}", "size": 13 if n == 5 else 8} for n in range(12)]
    source, out = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert run("-i", source, "-o", out, "--program", f"{script}:answer", "--model", "hash",
               "--temperature", 0, "--mode", mode) == 1
    done = lines(out)
    assert [r["row"] for r in done] == [n for n in range(12) if n != 5]
    (failed,) = lines(tmp_path / "out.failed.jsonl")
    assert failed["row"] == 5 and failed["error"]["type"] == "ZeroDivisionError"
    program = cli_program(script)
    with sglc.HashModel() as local:
        here = program.run_batch(rows, backend=local, temperature=0)
        assert [r["variables"]["answer"] for r in done] == [
            s["answer"] for n, s in enumerate(here) if n != 5]
    assert run("-i", source, "-o", tmp_path / "far.jsonl", "--program", f"{script}:answer",
               "--url", server.url, "--temperature", 0, "--mode", mode) == 1
    assert [r["variables"] for r in lines(tmp_path / "far.jsonl")] == [
        r["variables"] for r in done]


def cli_program(script: Path) -> Any:
    from sglc.commands import common

    return common.programs(f"{script}:answer")["answer"]


def test_rows_that_are_left_sample_as_they_would_have(tmp_path: Path) -> None:
    script = tmp_path / "prog.py"
    script.write_text(PROGRAM)
    program, got = cli_program(script), {}
    rows = [{"question": f"number {n}"} for n in range(9)]
    with sglc.HashModel() as local:
        want = [s["answer"] for s in program.run_batch(rows, backend=local, seed=4)]
        for mode in ("compiled", "eager"):
            for numbers in ([7, 2], [0, 1, 3, 4, 5, 6, 8]):
                program.each_row([rows[n] for n in numbers], numbers,
                                 lambda i, s, at=numbers: got.update({at[i]: s["answer"]}),
                                 backend=local, seed=4, mode=mode)
            assert [got.pop(n) for n in range(9)] == want
        with pytest.raises(OSError, match="disk"):
            program.each_row(rows, range(9), full_disk, backend=local, seed=4)


def full_disk(index: int, state: Any) -> None:
    raise OSError("the disk is full")


@pytest.mark.parametrize(("row", "why"), [
    ([], "no object"), ({"custom_id": "a"}, "no method"), (chat(0) | {"method": "GET"}, "GET"),
    (chat(0) | {"url": "/v1/embeddings"}, "embeddings"), (chat(0) | {"custom_id": 5}, "no text"),
    (chat(0) | {"body": "x"}, "no object"), (chat(0, stream=True), "stream"),
    (chat(1), "line 1 has"),
])
def test_rows_that_are_none(tmp_path: Path, row: Any, why: str) -> None:
    source = write(tmp_path / "in.jsonl", [chat(1), row])
    with pytest.raises(LanguageError, match=why) as found:
        rows, _ = read_objects(str(source))
        requests(str(source), rows)
    assert found.value.diagnostic.place is not None and found.value.diagnostic.place.line == 2


def kill_until_done(folder: Path, argv: list[str], ledger: Path, rows: int, kills: int,
                    seed: int) -> int:
    """Start the command, kill it after a random number of further rows, `kills` times, and then
    let it end; how many of the kills hit."""
    rng, hit = random.Random(seed), 0
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for attempt in range(kills + 1):
        with open(folder / "log", "ab") as log:
            child = subprocess.Popen([sys.executable, "-m", "sglc.cli", *argv], stderr=log,
                                     stdout=log, env=env)
            if attempt < kills:
                had = count(ledger)
                until = had + rng.randrange(1, max(2, 2 * rows // (kills + 1)))
                while child.poll() is None and count(ledger) < until:
                    time.sleep(0.001)
                hit += child.poll() is None
                child.send_signal(signal.SIGKILL)
            code = child.wait(300)
        if code == 0:
            break
    assert code == 0, (folder / "log").read_text()[-2000:]
    return hit


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed_batch(folder: Path, kills: int, seed: int, program: bool) -> int:
    """500 rows, and what must be true of them after so many deaths."""
    out = folder / "out.jsonl"
    argv = ["run-batch", "--no-progress", "-o", str(out), "--model", "hash"]
    if program:
        (folder / "prog.py").write_text(PROGRAM)
        source = write(folder / "in.jsonl", [
            {"question": f"number {n}", "size": 20 + n % 97} for n in range(500)])
        argv += ["-i", str(source), "--program", f"{folder / 'prog.py'}:answer", "--mode", "eager"]
    else:
        source = write(folder / "in.jsonl", [chat(n) for n in range(500)])
        argv += ["-i", str(source), "--concurrency", "8"]
    hit = kill_until_done(folder, argv, folder / "out.jsonl.ledger", 500, kills, seed)
    found = lines(out)
    names = [r["row"] if program else int(r["custom_id"].removeprefix("row-")) for r in found]
    assert names == list(range(500))
    assert sorted(p.name for p in folder.iterdir() if "out" in p.name) == [
        "out.jsonl", "out.jsonl.ledger"]
    return hit


def test_a_driver_that_is_killed_twice(tmp_path: Path) -> None:
    assert killed_batch(tmp_path, 2, 1, program=False) >= 1


class Busy:
    """A server whose queue is full for some requests."""

    url = "http://busy"

    def __init__(self, full: int) -> None:
        self.full = full

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.full -= 1
        return (429, {"error": {"message": "full"}}) if self.full >= 0 else (200, {"id": "x"})


def test_a_full_queue_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runs, "_PAUSE", 0.001)
    rows = [batch_rows.RequestRow(str(n), "/generate", {}) for n in range(6)]
    noted: list[int] = []
    http: Any = Busy(20)
    batch_runs.run_requests(http, rows, range(6), 2, lambda n, good, value: noted.append(n))
    assert sorted(noted) == list(range(6))
    monkeypatch.setattr(batch_runs, "_PATIENCE", 0.01)
    http = Busy(10_000)
    with pytest.raises(SglcError, match="429"):
        batch_runs.run_requests(http, rows, range(6), 2, lambda *given: noted.append(9))
    assert 9 not in noted


@pytest.mark.slow
@pytest.mark.parametrize("program", [False, True])
def test_a_driver_that_is_killed_twenty_times(tmp_path: Path, program: bool) -> None:
    assert killed_batch(tmp_path, 20, 2, program) >= 10
