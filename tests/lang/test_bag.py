"""Bags: the same text in both modes at every level, in the order given below level 3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc.errors import LanguageError


def make(level: int) -> Any:
    @sgl.program(opt_level=level)
    def rag(s, docs, q):
        s += "Documents:" + sgl.bag(*docs, sep="\n") + "\nQuestion: " + q
        s += sgl.gen("a", max_tokens=4, ignore_eos=True)
        s += sgl.bag(s["a"], "x", q, sep="-") + sgl.bag()
        for f in s.fork(2):
            f += sgl.bag("c", "b")
            f += sgl.gen("b", max_tokens=2, ignore_eos=True)

    return rag


PROGRAMS = [make(level) for level in range(4)]


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    with sgl.HashModel() as model:
        yield model


def texts(program: Any, rows: list[dict[str, Any]], model: Any, mode: str) -> list[str]:
    states = program.run_batch(rows, backend=model, mode=mode, seed=0, temperature=0)
    return [s.text() for s in states]


docs = st.lists(st.sampled_from(["one", "two ", "three", "", "vier\n"]), max_size=3)


@settings(max_examples=15)
@given(st.lists(docs, min_size=1, max_size=4))
def test_modes_agree_at_every_level(batch: list[list[str]]) -> None:
    rows = [{"docs": d, "q": f"q{i}"} for i, d in enumerate(batch)]
    with sgl.HashModel() as model:
        given_order = []
        for level, program in enumerate(PROGRAMS):
            eager, compiled = (texts(program, rows, model, m) for m in ("eager", "compiled"))
            assert eager == compiled
            if level < 3:
                given_order.append(compiled)
                for text, d in zip(compiled, batch, strict=True):
                    assert text.startswith("Documents:" + "\n".join(d) + "\nQuestion: ")
        assert given_order[0] == given_order[1] == given_order[2]


def test_level_3_shares_more(model: Any) -> None:
    common = [f"document {i} " * 8 for i in range(3)]
    rows = [{"docs": [f"own {i} ", *common[i % 3:], *common[:i % 3]], "q": str(i)}
            for i in range(6)]
    spent = {}
    for level in (2, 3):
        model.flush_cache()
        before = model.stats().prefill_tokens
        out = texts(PROGRAMS[level], rows, model, "compiled")
        spent[level] = model.stats().prefill_tokens - before
        assert [sorted(t) for t in out] != [] and all(d in t for t in out for d in common)
    assert spent[3] < spent[2] - 1000


def test_one_run_is_a_batch_of_one(model: Any) -> None:
    row = {"docs": ["b", "a"], "q": "c"}
    for level, start in ((2, "Documents:b\na\n"), (3, "Documents:a\nb\n")):
        runs = [PROGRAMS[level].run(**row, backend=model, seed=0, temperature=0, mode=mode)
                for mode in ("eager", "compiled")]
        assert runs[0].text() == runs[1].text()
        assert runs[0].text().startswith(start)
        for run in runs:  # what is appended afterwards follows the same rule
            run += sgl.bag("z", "y")
            assert run.text().endswith("zy" if level == 2 else "yz")


def test_lazy_batches_and_nested_programs(model: Any) -> None:
    inner = make(2)

    @sgl.program(opt_level=3)
    def outer(s, docs):
        s += inner(docs=docs, q="?")["a"] + sgl.bag(*docs)

    rows = [{"docs": ["b", "a"]}, {"docs": ["c", "b"]}]
    out = [[s.text() for s in outer.run_batch(rows, backend=model, seed=0, temperature=0,
                                              mode=mode, generator_style=lazy)]
           for mode in ("eager", "compiled") for lazy in (False, True)]
    assert out[0] == out[1] == out[2] == out[3]
    assert [t[-2:] for t in out[0]] == ["ba", "bc"]


@pytest.mark.parametrize("parts", [(1,), (None,), (["a", "b"],), (sgl.gen("x"),)])
def test_what_is_no_text_is_refused(parts: tuple[Any, ...]) -> None:
    with pytest.raises(LanguageError) as caught:
        sgl.bag(*parts)
    assert caught.value.code == "SGLC002"


def test_bad_level() -> None:
    with pytest.raises(LanguageError):
        sgl.program(lambda s: None, opt_level=4)


def test_savings_are_known_before_the_run(model: Any) -> None:
    """What `sglc compile --batch` says of a batch is what a run computes."""
    from sglc.ir.bags import text_counts
    from sglc.passes.prefill import PrefillCounter

    rows = [{"docs": [f"document {(i * k) % 5} " * 5 for k in range(1, 4)], "q": str(i)}
            for i in range(6)]
    unique = {}
    for level in (2, 3):
        @sgl.program(opt_level=level)
        def rag(s, docs, q):
            s += sgl.bag(*docs, sep="; ") + q + sgl.gen("a", max_tokens=3, ignore_eos=True)

        modules = [(rag.compile(**row, backend=model).stages["prompt"], row) for row in rows]
        told = PrefillCounter(model.tokenizer).count_rows(modules, text_counts(rows))
        assert told.exact
        model.flush_cache()
        before = model.stats().prefill_tokens
        texts(rag, rows, model, "compiled")
        unique[level] = model.stats().prefill_tokens - before
        assert unique[level] == told.unique
    assert unique[3] < unique[2]


def test_as_python() -> None:
    from sglc.ir.to_python import to_python

    compiled = make(3).compile(docs=["b", "a"], q="?")
    for stage in ("traced", "prompt"):
        assert 'sep="\\n")' in to_python(compiled.stages[stage])


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_a_list_is_no_text(mode: str) -> None:
    @sgl.program
    def listed(s: Any, texts: Any) -> None:
        s += sgl.bag(texts) + sgl.gen("a", max_tokens=3)

    with pytest.raises(LanguageError, match=r"a bag holds texts(.|\n)*bag\(\*documents\)"):
        listed.run(texts=["a", "b"], backend=sgl.HashModel(), mode=mode)
