"""The ledger of a batch: what dies with its process, and what does not."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc.errors import LanguageError
from sglc.serve.ledger import SYNC, Counts, Ledger

JOB = {"input": "x"}


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("sync", SYNC)
def test_results_are_in_order_and_failed_rows_apart(tmp_path: Path, sync: str) -> None:
    good, failed = tmp_path / "out.jsonl", tmp_path / "out.failed.jsonl"
    with Ledger(tmp_path / "l", JOB, 5, more={"seed": 7}, sync=sync) as ledger:
        for row in (3, 0, 4, 1, 2):
            ledger.add(row, row != 4, {"n": row, "text": "é\ud800"})
        ledger.finish(good, failed)
    assert [r["n"] for r in lines(good)] == [0, 1, 2, 3] and [r["n"] for r in lines(failed)] == [4]
    with Ledger(tmp_path / "l", JOB, 5, more={"seed": 8}) as ledger:
        assert ledger.finished == Counts(4, 1) and ledger.header["seed"] == 7
    assert len((tmp_path / "l").read_bytes()) < 300  # what the rows came to is not kept twice


def test_a_row_counts_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", JOB, 2) as ledger:
        ledger.add(0, True, "first")
        ledger.add(0, False, "second")
        assert list(ledger.values(True)) == ["first"] and ledger.counts == Counts(1, 0)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40), at=st.integers(0, 400))
def test_torn_and_damaged_lines_do_not_count(tmp_path_factory: Any, cut: int, junk: bytes,
                                             at: int) -> None:
    """After any cut at the end, and any bytes over what was there, what is read was written."""
    path = tmp_path_factory.mktemp("ledger") / "l"
    with Ledger(path, JOB, 6, sync="never") as ledger:
        for row in range(6):
            ledger.add(row, row % 2 == 0, {"value": row * 11})
    data = bytearray(path.read_bytes())
    data[at:at + len(junk)] = junk
    path.write_bytes(bytes(data[:len(data) - cut]))
    try:
        with Ledger(path, JOB, 6, sync="never") as ledger:
            seen = {v["value"] for good in (True, False) for v in ledger.values(good)}
            assert seen == {row * 11 for row in range(6) if row in ledger}
            for row in range(6):
                ledger.add(row, row % 2 == 0, {"value": row * 11})
            ledger.finish(path.with_name("good"), path.with_name("failed"))
    except LanguageError:
        assert junk  # the first line says nothing sensible any more
        return
    assert [v["value"] for v in lines(path.with_name("good"))] == [0, 22, 44]
    assert [v["value"] for v in lines(path.with_name("failed"))] == [11, 33, 55]


def test_other_batches_and_other_processes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger(path, JOB, 2) as ledger:
        ledger.add(0, True, 1)
        with pytest.raises(LanguageError, match="another process"):
            Ledger(path, JOB, 2)
    for job, rows in (({"input": "y"}, 2), (JOB, 3)):
        with pytest.raises(LanguageError, match="another batch"):
            Ledger(path, job, rows)
    path.write_text("something else\n" * 1000)
    with pytest.raises(LanguageError, match="no ledger"):
        Ledger(path, JOB, 2)
    assert path.read_text().startswith("something else")


WRITER = """
import sys
from pathlib import Path
from sglc.serve.ledger import Ledger
path = Path(sys.argv[1])
with Ledger(path, {"input": "x"}, 500, sync="never") as ledger:
    for row in range(500):
        if row not in ledger:
            ledger.add(row, row % 50 != 0, {"row": row, "text": "x" * (row % 97)})
    ledger.finish(path.with_name("good"), path.with_name("failed"))
"""


def test_kill_minus_9_of_the_writer(tmp_path: Path) -> None:
    """At any moment, the end of the batch included."""
    path, rng, killed = tmp_path / "l", random.Random(3), 0
    for _ in range(30):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        if killed < 6:
            size = path.stat().st_size if path.exists() else 0
            until = time.monotonic() + 20
            while (path.stat().st_size if path.exists() else 0) < size + rng.randrange(1, 12_000):
                if child.poll() is not None or time.monotonic() > until:
                    break
            child.send_signal(signal.SIGKILL)
            killed += 1
        if child.wait() == 0:
            break
    assert [r["row"] for r in lines(tmp_path / "good")] == [n for n in range(500) if n % 50]
    assert [r["row"] for r in lines(tmp_path / "failed")] == list(range(0, 500, 50))
    assert not [p for p in os.listdir(tmp_path) if p.endswith(".part")]
