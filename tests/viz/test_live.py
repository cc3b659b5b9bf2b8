"""Watching a run: what is seen is what the engine did, and looking on changes nothing."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sglc as sgl
from sglc.lang.viewing import subject
from sglc.viz.html import document
from sglc.viz.live import Watch
from sglc.viz.samples import Sampler
from tests.viz.programs import shared

ROWS = [{"q": f"Why {i}? "} for i in range(6)]


@pytest.fixture
def model() -> Iterator[Any]:
    with sgl.HashModel(kv_tokens=4096) as m:
        yield m


def test_a_batch_that_is_watched_gives_the_same(model: Any,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    plain = [s.text() for s in shared.run_batch(ROWS, backend=model, seed=3)]
    seen = [s.text() for s in shared.run_batch(ROWS, backend=model, seed=3, viz=True)]
    assert seen == plain
    err = capsys.readouterr().err
    assert "shared: programs 6 of 6 ended" in err and "KV 0 in use" in err
    eager = shared.run_batch(ROWS, backend=model, seed=3, viz=True, mode="eager")
    assert [s.text() for s in eager] == plain
    assert "programs 6 of 6 ended" in capsys.readouterr().err


def test_one_run(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state = shared.run("x", backend=model, seed=1, viz=True)
    assert "programs 1 of 1 ended" in capsys.readouterr().err
    assert state.text() == shared.run("x", backend=model, seed=1).text()


def test_samples_are_the_engine_s_counters(model: Any) -> None:
    before = model.stats()
    with Watch(model, len(ROWS), "x", shown=False) as watch:
        shared.each_row(ROWS, range(len(ROWS)), watch.row, backend=model, seed=0)
    after = model.stats()
    first, last = watch.samples[0], watch.samples[-1]
    assert (first.generated, first.prefill, first.done) == (0, 0, 0) and last.done == len(ROWS)
    assert last.prefill == after.prefill_tokens - before.prefill_tokens > 0
    assert last.cached == after.cached_tokens - before.cached_tokens
    assert last.total == after.kv_total and last.in_use == 0
    assert [s.seconds for s in watch.samples] == sorted(s.seconds for s in watch.samples)
    said = dict(watch.lines())
    assert said["programs"] == "6 of 6 ended" and "prompt tokens" in said["cache hits"]


def test_a_backend_without_counters(model: Any) -> None:
    class Remote:
        pass

    sampler = Sampler(Remote())
    assert sampler.take(2).in_use is None and sampler.samples[0].done == 2
    out = io.StringIO()
    with Watch(Remote(), 2, "r", screen=out) as watch:
        watch.row()
    assert "r: programs 1 of 2 ended, 1 in flight or waiting" in out.getvalue()


def test_an_error_ends_the_watch(model: Any) -> None:
    watch = Watch(model, 1, shown=False)
    with pytest.raises(RuntimeError), watch:
        raise RuntimeError
    assert not watch._thread.is_alive()


def test_a_terminal_gets_a_panel(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    with Watch(model, 2, "demo", screen=screen) as watch:
        shared.each_row(ROWS[:2], range(2), watch.row, backend=model)
    shown = screen.getvalue()
    assert "demo" in shown and "2 of 2 ended" in shown and "╭" in shown and "\x1b[" in shown


def test_a_page_shows_predicted_and_actual(model: Any, tmp_path: Path) -> None:
    compiled = shared.compile(backend=model, **ROWS[0])
    predicted = compiled.cost(ROWS, backend=model)
    before = model.stats()
    with Watch(model, len(ROWS), shown=False) as watch:
        shared.each_row(ROWS, range(len(ROWS)), watch.row, backend=model)
    page = document(subject(compiled, batch=ROWS, backend=model, samples=watch.samples,
                            actual=predicted.beside(before, model.stats())))
    assert "KV held, as it was" in page and "Predicted and actual" in page
    assert "capacity 4,096" in page and "not as predicted" not in page
