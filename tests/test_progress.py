"""Bars of long jobs: on a terminal, never in what is piped, silenced by a setting."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from sglc.progress import Progress, Watched

ROOT = Path(__file__).parent.parent
JOB = """
import sys, time
if not {tqdm}:
    sys.modules["tqdm"] = None  # as if it were not installed
from sglc.progress import Progress, Watched
with Progress(3, unit="case", what="trying", on={on}) as bar:
    for i in range(3):
        bar.say("row", i)
        bar.step()
size = iter((10, 40, 90))
with Watched(Progress(90, unit="B", what="fetching", on={on}), lambda: next(size, 90)):
    time.sleep({seconds})
"""


def job(on: bool | None = None, tqdm: bool = True, seconds: float = 0.0) -> list[str]:
    return [sys.executable, "-c", JOB.format(on=on, tqdm=tqdm, seconds=seconds)]


def on_terminal(command: list[str], **more: str) -> tuple[str, str]:
    """What a command writes on its stdout (a pipe), and on its stderr (a terminal)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True,
                               cwd=ROOT, env={**os.environ, **more})
    os.close(theirs)
    said = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    return out, said.decode()


def test_on_a_terminal() -> None:
    out, said = on_terminal(job(seconds=1.2))
    assert out == "row 0\nrow 1\nrow 2\n"
    assert "trying" in said and "3/3" in said
    assert "fetching" in said and "90.0/90.0" in said


def test_on_a_terminal_without_tqdm() -> None:
    out, said = on_terminal(job(tqdm=False))
    assert out == "row 0\nrow 1\nrow 2\n" and said.endswith("3/3 cases\r\n")


def test_a_setting_silences_what_nobody_asked_for() -> None:
    _, said = on_terminal(job(), SGLC_PROGRESS="off")
    assert said == ""
    _, said = on_terminal(job(on=True), SGLC_PROGRESS="off")
    assert "3/3" in said


def test_nothing_is_written_into_a_pipe() -> None:
    done = subprocess.run(job(), capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "row 0\nrow 1\nrow 2\n" and done.stderr == ""


def test_bars_count_without_being_shown() -> None:
    bar = Progress(10)
    asked: list[int] = []
    with Watched(bar, lambda: asked.append(1) or 5):
        bar.step()
        bar.reach(4)
        bar.reach(2)
    assert bar.done == 4 and asked == []


@pytest.mark.parametrize("flag, shown", [((), True), (("--no-progress",), False)])
def test_run_batch_counts_its_rows(flag: tuple[str, ...], shown: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sglc.cli", "run-batch", "-i",
               "examples/data/questions.jsonl", "-o", str(tmp_path / "out.jsonl"), "--program",
               "examples/text_qa_batch.py:text_qa", "--model", "hash", *flag]
    _, said = on_terminal(command)
    assert ("3/3" in said) is shown and "3 rows: 3 in" in said
