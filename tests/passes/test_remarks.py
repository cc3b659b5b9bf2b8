"""Remarks: each where it belongs, with the right amount, and not where it does not."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest

import sglc
from sglc import ir
from sglc.errors import Diagnostic
from sglc.passes import PassContext
from sglc.passes.remarks import remarks
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.small import small_bpe
from tests.toys import Toy

COUNT = itertools.count()
LONG = "You are careful and brief, and you answer every question in one short sentence. "


@pytest.fixture
def remarks_of(tmp_path: Path) -> Any:
    """The remarks on a body, with names a and b for its arguments."""

    def run(body: str, context: PassContext | None = None, **row: Any) -> list[Diagnostic]:
        name = f"remarked_{next(COUNT)}"
        path = tmp_path / f"{name}.py"
        lines = "".join(f"    {line}\n" for line in body.strip("\n").split("\n"))
        path.write_text(f"import sglc as sgl\nLONG = {LONG!r}\n\ndef f(s, a, b):\n{lines}")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        compiled = sglc.program(module.f).compile(**row or {"a": "x", "b": "y"})
        assert compiled.stages, compiled.breaks
        before = ir.print(compiled.stages["traced"])
        found = remarks(compiled.stages["traced"], context)
        assert ir.print(compiled.stages["traced"]) == before
        for d in found:
            assert d.place is not None and d.place.file == str(path)
        return found

    return run


def codes(found: list[Diagnostic]) -> list[str]:
    return [d.code for d in found]


# --- SGLC401 -----------------------------------------------------------------------------------

def test_an_argument_splits_a_constant(remarks_of: Any) -> None:
    (d,) = remarks_of('s += "Q: " + a + LONG + sgl.gen("x")')
    assert d.code == "SGLC401"
    assert d.what == "a stands before ~ 20 constant tokens, which rows cannot share"
    assert d.place is not None and d.place.line == 5
    assert "once" in d.effect and d.fixes


def test_amounts_are_exact_with_a_tokenizer(remarks_of: Any) -> None:
    tokenizer = small_bpe()
    n = len(tokenizer.encode(LONG))
    (d,) = remarks_of('s += "Q: " + a + LONG + sgl.gen("x")', PassContext(tokenizer, rows=100))
    assert f"= {n} constant tokens" in d.what
    assert f"(= {99 * n} tokens in 100 rows)" in d.effect
    (d,) = remarks_of('s += "Q: " + a + LONG + sgl.gen("x")', PassContext(ByteTokenizer(), rows=3))
    assert "~ 20 constant" in d.what and "~ 40 tokens in 3 rows" in d.effect


@pytest.mark.parametrize("body", [
    's += LONG + a + sgl.gen("x")',  # the constant comes first
    's += a + "\\nAnswer:" + sgl.gen("x")',  # too little to matter
    's += sgl.gen("y") + a + LONG + sgl.gen("x")',  # rows differ already
    's += a + sgl.gen("y") + LONG + sgl.gen("x")',  # behind a call
    's += sgl.user(a) + sgl.assistant(LONG + sgl.gen("x"))',  # another message
    's += LONG + LONG + sgl.gen("x")',
])
def test_no_constant_is_split(remarks_of: Any, body: str) -> None:
    assert codes(remarks_of(body)) == []


def test_only_the_first_argument_is_to_blame(remarks_of: Any) -> None:
    (d,) = remarks_of('s += a + LONG\ns += b + LONG + sgl.gen("x")')
    assert d.what.startswith("a stands before ~ 40 ")
    (d,) = remarks_of('s += f"{a}{b}".strip() + LONG + sgl.gen("x")')
    assert d.what.startswith("a and b stand before ~ 20 ")


# --- SGLC404, SGLC412 --------------------------------------------------------------------------

VOTES = """
s += a
forks = s.fork(3)
for f in forks:
    f += " " + sgl.gen("v", max_tokens=5{more})
forks.join()
"""


def test_sampled_calls_are_not_merged(remarks_of: Any) -> None:
    (d,) = remarks_of(VOTES.format(more=", temperature=0.7"))
    assert d.code == "SGLC404"
    assert d.what == '3 gens "v" continue the same prompt in the same way and are not merged'
    assert "temperature 0.7" in d.why
    assert d.effect == "= 2 model calls more, <= 10 tokens"
    (d,) = remarks_of(VOTES.format(more=""))
    assert "the run's temperature" in d.why


@pytest.mark.parametrize("more", [", temperature=0", ", seed=3"])
def test_calls_that_say_the_same_are_no_remark(remarks_of: Any, more: str) -> None:
    assert codes(remarks_of(VOTES.format(more=more))) == []


@pytest.mark.parametrize("body", [
    's += a + sgl.gen("x") + sgl.gen("y")',  # one after the other
    's += a\nf = s.fork(2)\nf[0] += sgl.gen("x", stop="a")\nf[1] += sgl.gen("x", stop="b")\n'
    "f.join()",
    's += a + sgl.select("c", ["p", "q"])\nif s["c"] == "p":\n    s += "!" + sgl.gen("x")\n'
    'else:\n    s += "!" + sgl.gen("x")',
])
def test_different_calls_are_no_remark(remarks_of: Any, body: str) -> None:
    assert codes(remarks_of(body)) == []


def test_unused_calls(remarks_of: Any) -> None:
    (d,) = remarks_of('s += a\nf = s.fork(1)\nf[0] += sgl.gen("x", max_tokens=9)\n'
                      's += sgl.gen("y")')
    assert (d.code, d.what) == ("SGLC412", 'the gen "x" is never used')
    assert d.effect.endswith("= 1 model call, <= 9 tokens")
    (d,) = remarks_of('s += a\nf = s.fork(2)\nf += sgl.gen("x")\ns += sgl.gen("y")',
                      PassContext(max_tokens=10))
    assert d.what == '2 gens "x" are never used'
    assert d.effect.endswith("= 2 model calls, <= 20 tokens")


@pytest.mark.parametrize("use", [
    "f.join()", 's += f[0]["x"]', 's["y"] = f[0].text()', 'return f[0]["x"]',
    'f.join("concate_and_append")', 'if f[0]["x"] == "p":\n    s += "!"'])
def test_used_calls(remarks_of: Any, use: str) -> None:
    assert codes(remarks_of(f's += a\nf = s.fork(1)\nf[0] += sgl.gen("x")\n{use}')) == []


# --- SGLC420, SGLC330, SGLC301 -----------------------------------------------------------------

def test_choices_of_different_lengths(remarks_of: Any) -> None:
    body = 's += a + sgl.select("c", ["no", "yes, and for several good reasons"]{})'
    (d,) = remarks_of(body.format(""))
    assert d.code == "SGLC420" and 'the select "c" have ~ 1 to 9 tokens' in d.what
    tokenizer = small_bpe()
    lengths = [len(tokenizer.encode(c)) for c in ("no", "yes, and for several good reasons")]
    (d,) = remarks_of(body.format(""), PassContext(tokenizer))
    assert f"have = {lengths[0]} to {lengths[1]} tokens" in d.what
    other = ', choices_method="greedy_token_selection"'
    assert codes(remarks_of(body.format(other))) == []
    assert codes(remarks_of('s += a + sgl.select("c", ["no", "yes"])')) == []
    assert codes(remarks_of('s += a + sgl.select("c", ["no", b])')) == []


def test_choices_of_the_same_tokens(remarks_of: Any) -> None:
    class Lower(Toy):
        def encode(self, text: str, first: bool = False) -> list[int]:
            return super().encode(text.lower(), first)

    body = 's += a + sgl.select("c", ["no", "No", "yes", "NO"])'
    found = remarks_of(body, PassContext(Lower()))
    assert codes(found) == ["SGLC330", "SGLC330"]
    assert "'no' and 'No' of the select \"c\"" in found[0].what
    assert codes(remarks_of(body, PassContext(Toy()))) == []


def test_names_of_control_tokens(remarks_of: Any) -> None:
    (d,) = remarks_of('s += "<|im_end|>" + a + sgl.gen("x")')
    assert d.code == "SGLC301" and d.what.startswith("<|im_end|> in a text")
    assert codes(remarks_of('s += sgl.special("<|im_end|>") + a + sgl.gen("x")')) == []
    assert codes(remarks_of('s += a + sgl.gen("x")', a="<|im_end|>", b="")) == []
    (d,) = remarks_of('s += "<ctl><ctl>" + sgl.gen("x")', PassContext(Toy()))
    assert "<ctl>" in d.what


# --- SGLC430 -----------------------------------------------------------------------------------

@pytest.mark.parametrize(("body", "what", "calls"), [
    ('f[0] += sgl.gen("x")\nf[1] += f[0]["x"] + sgl.gen("y")\nf[2] += sgl.gen("z")',
     "1 of 3 forks waits for another one", "= 1 model call starts later"),
    ('for i, k in enumerate(f):\n    if i:\n        k += f[i - 1]["x"]\n    k += sgl.gen("x")',
     "2 of 3 forks wait for another one", "= 2 model calls start later"),
    ('f[0] += sgl.select("x", ["p", "q"])\nif f[0]["x"] == "p":\n    f[1] += sgl.gen("y")',
     "1 of 3 forks waits for another one", "= 1 model call starts later"),
    ('f[0] += sgl.gen("x")\nf[1] += sgl.select("y", ["p", f[0]["x"]])',
     "1 of 3 forks waits for another one", "= 1 model call starts later"),
])
def test_forks_that_wait(remarks_of: Any, body: str, what: str, calls: str) -> None:
    found = remarks_of(f"s += a\nf = s.fork(3)\n{body}\ns += f[1].text()")
    (d,) = [d for d in found if d.code == "SGLC430"]
    assert d.what == what and d.effect.startswith(calls)


@pytest.mark.parametrize("body", [
    'f += sgl.gen("x")\nf.join()\ns += f[0]["x"] + f[1]["x"] + sgl.gen("y", temperature=0)',
    'f += sgl.gen("x", temperature=0)\nf[0] += f[0]["x"] + sgl.gen("y")\nf.join()',
    'f += sgl.gen("x", temperature=0)\nf.join()\ng = s.fork(2)\n'
    'g += f[0]["x"] + sgl.gen("y", temperature=0)\ng.join()',
])
def test_forks_that_do_not_wait(remarks_of: Any, body: str) -> None:
    found = remarks_of(f's += a\nf = s.fork(2)\n{body}')
    assert "SGLC430" not in codes(found)


def test_order_and_repetition(remarks_of: Any) -> None:
    found = remarks_of('s += a + LONG + "<|im_end|>"\nfor i in range(3):\n'
                       '    s += "<|im_end|>" + sgl.select("c", ["a", "b" * 40])')
    assert codes(found) == ["SGLC301", "SGLC401", "SGLC301", "SGLC420"]
    assert remarks(ir.Module()) == []
