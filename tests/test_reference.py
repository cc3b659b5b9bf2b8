"""The reference itself: programs worked out by hand, and random ones that must all run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglc.config import RunOptions
from sglc.errors import LanguageError, UnknownVariable
from sglc.lang import expressions as sgl
from sglc.runtime.keys import sampling_key, seeded_key
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.templates import TemplateRegistry
from tests import generators
from tests.reference import run_reference
from tests.reference_calls import WholeModel, gumbel
from tests.toys import BOS, CONTROL, EOS, FIRST, Model, Template, Toy, says, wide

GREEDY = RunOptions(max_tokens=4, temperature=0.0)


def run(fn: Callable[..., Any], model: Any, *args: Any, options: RunOptions = GREEDY,
        seed: int = 5, row: int = 0) -> Any:
    return run_reference(fn, args, {}, model=model, tokenizer=Toy(), template=Template(),
                         options=options, seed=seed, row=row)


def flat(ids: list[int]) -> dict[int, float]:
    return {wide("Z!"): -99.0}  # the template's stop


def noise_argmax(key: int, index: int = 0) -> str:
    """What an indifferent model says first: the best noise among ids that may be sampled."""
    noise = gumbel(key, index, Toy.vocab_size)
    noise[[BOS, CONTROL, wide("Z!")]] = -np.inf
    return Toy().decode([int(np.argmax(noise))])


def test_bos_is_not_doubled_and_empty_text_is_nothing() -> None:
    def prog(s: Any) -> None:
        s += ""
        s += sgl.special("<bos>") + "" + sgl.special("<ctl>") + sgl.special("<bos>") + "a"

    assert run(prog, says()).ids == [BOS, CONTROL, BOS, ord("a")]


# -- gens ------------------------------------------------------------------------------------
def test_a_gen_is_a_border_and_eos_is_not_kept() -> None:
    def prog(s: Any) -> int:
        s += "a" + sgl.gen("x") + "b"
        s += "c" + s["x"]
        return 7

    model = says(ord("c"), ord("d"))
    got = run(prog, model)
    assert got.ids == [BOS, FIRST, ord("a"), ord("c"), ord("d"), wide("bc"), wide("cd")]
    assert (got.text, got.variables, got.ret_value) == ("acdbccd", {"x": "cd"}, 7)
    assert model.asked[-1] == [BOS, FIRST, ord("a"), ord("c"), ord("d")]
    assert got.meta["x"] == {"prompt_tokens": 3,
                             "finish_reason": {"type": "stop", "matched": EOS}}


def test_lengths_eos_and_stop_tokens() -> None:
    def prog(s: Any) -> None:
        s += "-" + sgl.gen("none", max_tokens=0) + sgl.gen("two", max_tokens=2)
        s += sgl.gen("on", max_tokens=3, ignore_eos=True)
        s += sgl.gen("id", stop_token_ids=[ord("q")]) + sgl.gen("ctl", stop_token_ids=[CONTROL])

    a, q = ord("a"), ord("q")
    model = says(a, a, a, EOS, a, a, q, CONTROL)
    got = run(prog, model)
    assert [got.variables[k] for k in ("none", "two", "on", "id", "ctl")] == ["", "aa", "aa", "a",
                                                                             ""]
    assert got.ids == [BOS, FIRST, ord("-"), a, a, a, EOS, a, a]
    assert got.meta["two"]["finish_reason"] == {"type": "length", "length": 2}
    assert got.meta["ctl"]["finish_reason"] == {"type": "stop", "matched": CONTROL}
    assert len(model.asked) == 8


def test_control_tokens_and_early_ends_are_never_chosen() -> None:
    def prog(s: Any) -> None:
        s += "-" + sgl.gen("x", max_tokens=3, min_tokens=2, stop_token_ids=[ord("q")])

    order = {CONTROL: 9.0, BOS: 8.0, EOS: 7.0, ord("q"): 6.0, ord("a"): 5.0}
    assert run(prog, Model(lambda ids: order)).variables == {"x": "aa"}


def test_n_samples_share_the_prompt() -> None:
    def prog(s: Any) -> None:
        s += "-" + sgl.gen("x", max_tokens=1, temperature=1.0, n=3)
        s += sgl.gen("y", max_tokens=1, temperature=1.0, seed=9)

    got = run(prog, Model(flat), seed=5, row=2)
    assert got.variables["x"] == [noise_argmax(sampling_key(5, 2, (0,), j)) for j in range(3)]
    assert got.text == "-" + got.variables["x"][0] + got.variables["y"]
    assert got.variables["y"] == noise_argmax(seeded_key(9, 0))
    assert len(got.meta["x"]) == 3


def test_gen_paths() -> None:
    """Fork ordinal and child index from the root down, then the count of gens and selects."""
    def one(name: str) -> sgl.Expr:
        return sgl.gen(name, max_tokens=1)

    def helper(s: Any) -> None:
        s += one("p1")

    def prog(s: Any) -> None:
        s += "-" + one("p0")
        helper(s)
        s += sgl.select("c", ["y", "z"]) + one("p3")
        with s.copy() as k:
            k += one("p000")
        forks = s.fork(2)
        forks += lambda i: one(f"p1{i}0")
        kids = forks[1].fork(1)
        kids[0] += one("q") + one("p11001")
        s["deep"] = kids[0]["p11001"]
        forks.join()
        s += one("p4")

    got = run(prog, Model(flat), options=RunOptions(), seed=3, row=1).variables
    paths = {"p0": (0,), "p1": (1,), "p3": (3,), "p4": (4,), "deep": (1, 1, 0, 0, 1)}
    for name, path in paths.items():
        assert got[name] == noise_argmax(sampling_key(3, 1, path)), name
    for name, path in {"p000": (0, 0, 0), "p100": (1, 0, 0), "p110": (1, 1, 0)}.items():
        assert got[name] == [noise_argmax(sampling_key(3, 1, path))], name


def test_constraints_mask_and_end() -> None:
    pytest.importorskip("sglc.grammar.compiler")

    def prog(s: Any) -> None:
        s += "-" + sgl.gen("x", regex="a(b|c)", max_tokens=9, ignore_eos=True)
        s += sgl.gen("y", regex="d*", max_tokens=2) + sgl.gen("z", regex="d*")
        s += sgl.gen("i", dtype=int) + sgl.gen("w", regex="c1", max_tokens=1)
        s += sgl.gen("v", regex="cd")  # it would rather say "c", but text is encoded otherwise

    # The toy speaks what it likes best of what is allowed: Z! > EOS > ab > c > d > 1 > space.
    order = {wide("Z!"): 9.0, EOS: 8.0, wide("ab"): 7.0, ord("c"): 6.0, ord("d"): 5.0,
             ord("1"): 4.0, ord(" "): 3.0}
    got = run(prog, Model(lambda ids: order if len(ids) != 4 else {ord("d"): 9.0}))
    assert got.variables == {"x": "ab", "y": "d", "z": "", "i": "1", "w": "c", "v": "cd"}
    assert got.meta["x"]["finish_reason"] == {"type": "constraint"}
    assert got.ids == [BOS, FIRST, ord("-"), wide("ab"), ord("d"), ord("1"), ord("c"),
                       wide("cd")]


def test_leftover_is_text_of_the_next_run() -> None:
    def prog(s: Any) -> None:
        s += "-" + sgl.gen("x", stop="c") + "d"
        s += sgl.gen("y", stop="d", no_stop_trim=True) + "!"

    got = run(prog, says(ord("a"), wide("bc"), wide("cd")))
    assert got.ids == [BOS, FIRST, ord("-"), ord("a"), ord("b"), ord("d"), wide("cd"), ord("!")]
    assert got.variables == {"x": "ab", "y": "cd"}
    assert got.text == "-abdcd!"


def test_template_stops_apply() -> None:
    def prog(s: Any) -> None:
        s += "-" + sgl.gen("x", max_tokens=9)

    assert run(prog, says(ord("a"), wide("Z!"), ord("b"))).variables == {"x": "a"}


def test_select_joins_the_run_and_ties_go_to_the_first() -> None:
    def prog(s: Any) -> None:
        s += "a" + sgl.select("c", ["x", "b"]) + "cd"
        s += sgl.select("t", ["p", "q"])

    def rule(ids: list[int]) -> dict[int, float]:
        return {wide("ab"): 5.0}

    got = run(prog, Model(rule))
    assert got.variables == {"c": "b", "t": "p"}
    assert got.ids == [BOS, FIRST, wide("ab"), wide("cd"), ord("p")]


# -- states ----------------------------------------------------------------------------------
def test_fork_and_gathering_join() -> None:
    def prog(s: Any) -> None:
        s["known"] = 0
        s += "-"
        forks = s.fork(3)
        for i, f in enumerate(forks):
            f["known"] = i
            f += str(i) + sgl.gen("x", max_tokens=1)
            if i != 1:
                f["y"] = i
        forks += [sgl.gen(max_tokens=0), "!", "?"]
        s["lens"] = [len(f.text()) for f in forks]
        forks.join()
        assert "y" in s and "z" not in s

    got = run(prog, says(ord("a"), ord("b"), ord("c")))
    assert got.variables == {"known": 0, "lens": [3, 4, 4], "x": ["a", "b", "c"], "y": [0, 2],
                             None: [""]}
    assert got.text == "-"


def test_concatenating_join_keeps_ids() -> None:
    def prog(s: Any) -> None:
        s += "x"
        forks = s.fork(2)
        s += "a"
        forks += lambda i: "b" + sgl.gen("v", max_tokens=2)
        forks.join("concate_and_append")

    c, d = ord("c"), ord("d")
    got = run(prog, says(c, d, d, c))
    assert got.ids == [BOS, FIRST, ord("x"), wide("ab"), c, d, ord("b"), d, c]
    assert got.variables == {}


def test_copy_scope_and_roles() -> None:
    def prog(s: Any) -> Any:
        s += sgl.system(" sys")
        with s.user():
            s += "\n q"
            with s.copy() as k:
                k += "?" + sgl.gen("x", max_tokens=1)
        with s.var_scope("turn"):
            s.assistant("A" + sgl.gen("y", max_tokens=1))
        return s.messages()

    got = run(prog, says(ord("a"), ord("b")))
    assert got.text == "s: sys0;u:\n q1;a:Ab2;"
    assert got.variables == {"x": ["a"], "y": "b", "turn": "a:Ab2;"}
    assert got.messages == got.ret_value == [
        {"role": "system", "content": "sys"}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": "Ab"}]
    assert got.ids.count(CONTROL) == 3


@pytest.mark.parametrize(("part", "error"), [
    (sgl.user(sgl.assistant("x")), LanguageError), (sgl.user_end(), LanguageError),
    (None, LanguageError), (3, LanguageError)])
def test_errors(part: Any, error: type[Exception]) -> None:
    def prog(s: Any) -> None:
        s += part

    with pytest.raises(error):
        run(prog, says())
    with pytest.raises(UnknownVariable):
        run(lambda s: s["nope"], says())


# -- generated programs ----------------------------------------------------------------------
@pytest.fixture(scope="module")
def hash_model() -> WholeModel:
    hash_model = pytest.importorskip("sglc.runtime.hash_model")
    tokenizer = ByteTokenizer()
    return WholeModel(hash_model.HashRunner(tokenizer.vocab_size, tokenizer))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=generators.programs(inherit=True),
       options=generators.run_options, seed=st.integers(0, 2**63))
def test_generated_programs_run(program: generators.GeneratedProgram, options: dict[str, Any],
                                seed: int, tmp_path_factory: Any, hash_model: WholeModel) -> None:
    tokenizer = ByteTokenizer()
    template = TemplateRegistry().resolve("chatml-llava", tokenizer)
    module = generators.load(program, tmp_path_factory.getbasetemp(), "sglc.lang.expressions")
    body = getattr(module, program.fn_name)
    assert inspect.getsource(body).rstrip("\n") == program.source.rstrip("\n")
    for row, args in enumerate(program.rows):
        def go(row: int = row, args: dict[str, Any] = args) -> Any:
            return run_reference(body, (), args, model=hash_model, tokenizer=tokenizer,
                                 template=template, options=RunOptions(**options), seed=seed,
                                 row=row)

        got = go()
        assert got == go()
        if "\ufffd" not in got.text:  # all characters are whole
            assert tokenizer.decode(got.ids) == got.text
