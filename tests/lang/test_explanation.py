"""What a compilation says of itself: in short, in full, as an object."""

from __future__ import annotations

import pytest

import sglc as sgl
from sglc.lang.summary import Explanation, explanation, summary
from sglc.passes import PassContext
from sglc.tokens.small import small_bpe

RULES = "You are careful and brief, and you answer every question in one short sentence. "


@sgl.program
def answer(s, question):
    s += "Question: " + question + RULES
    s += sgl.gen("answer", max_tokens=8)


@sgl.program
def loops(s, texts):
    for text in texts:
        s += text + sgl.gen("words", max_tokens=4)
    for word in s["words"].split():
        s += word + sgl.gen(None, max_tokens=2)


def test_fields() -> None:
    compiled = answer.compile(question="Why?")
    e = explanation(compiled)
    assert isinstance(e, Explanation)
    assert (e.name, e.paths, e.graph_breaks, e.breaks, e.assumed) == ("answer", 1, 0, (), {})
    assert e.place.file == __file__
    assert [r.name for r in e.passes] == [r.name for r in compiled.records]
    assert [d.code for d in e.remarks] == ["SGLC401"]


def test_assumptions_and_breaks() -> None:
    e = explanation(loops.compile())
    assert e.assumed == {"len(texts)": 2}
    assert e.graph_breaks == 1 and e.breaks[0].code == "SGLC110"
    assert "assumed  len(texts)=2" in e.short()
    assert "break    SGLC110 test_explanation.py:2" in e.short()
    assert f"break: {e.breaks[0].code}" in str(e)


def test_the_short_form_is_the_beginning_of_the_full_one() -> None:
    compiled = answer.compile(question="Why?")
    e = explanation(compiled)
    assert summary(compiled) == e.short()
    *table, remarks = e.short().splitlines()
    assert str(e).startswith("\n".join(table))
    assert remarks == ("  remarks  1 (--explain shows them): SGLC401 test_explanation.py:17")
    assert "SGLC401 question stands before ~ 20 constant tokens" in str(e)
    assert "Fix 1: put the constant text first" in str(e)
    assert str(e).endswith("more: sglc explain SGLC401")


def test_amounts_follow_the_context() -> None:
    tokenizer = small_bpe()
    n = len(tokenizer.encode(RULES))
    e = explanation(answer.compile(question="Why?"), PassContext(tokenizer, rows=3))
    assert f"= {n} constant tokens" in e.remarks[0].what
    assert f"= {2 * n} tokens in 3 rows" in e.remarks[0].effect


def test_what_is_not_captured_says_why() -> None:
    namespace = {"sgl": sgl}
    exec("def hidden(s):\n    s += 'x' + sgl.gen('a')", namespace)
    e = explanation(sgl.program(namespace["hidden"]).compile())
    assert not e.passes and e.breaks[0].code == "SGLC114"
    for text in (e.short(), str(e)):
        assert "not captured: it runs in the eager interpreter" in text
        assert text.count("SGLC114 the source") == 1


@pytest.mark.parametrize("level", range(4))
def test_every_level(level: int) -> None:
    assert "passes, " in summary(answer.compile(question="Why?", level=level))
