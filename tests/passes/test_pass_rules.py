"""Single rules of passes that random programs reach too rarely."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglc import ir
from sglc.errors import IRError, LanguageError, TokenError, UnknownVariable
from sglc.ir import compute
from sglc.ir.module import Lit, Module, Op, Program
from sglc.ir.types import ANY, INT, Type
from sglc.passes import PassContext, PassManager
from sglc.passes.literals import Unknown, compute_value, format_part
from sglc.passes.parallelize_forks import critical_path
from sglc.tokens.small import small_bpe
from tests.helpers_passes import evaluate, make_context
from tests.passes.random_modules import random_module

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-50, 50),
                    st.floats(allow_nan=False, width=16), st.text(max_size=6))


def program(*lines: str, args: str = "", returns: Sequence[str] = ()) -> Module:
    """A module with one program of these lines."""
    said = ", ".join(f'"{r}"' for r in returns)
    body = "\n".join(lines)
    return ir.parse(f"program @main({args}) {f'returns ({said})' if said else ''} {{\n"
                    f"{body}\nprompt.return %p\n}}\n")


def run(module: Module, spec: str, context: PassContext | None = None) -> Module:
    return PassManager(spec).run(module, context or make_context())


def names(module: Module) -> list[str]:
    return [op.name for op in module.walk()]


# --- fold -------------------------------------------------------------------------------------
@given(st.sampled_from(["eq", "lt", "not", "add", "mul", "getitem", "len", "str", "repr", "int",
                        "text.upper", "text.find", "text.zfill", "contains", "is_none", "mod"]),
       st.lists(SCALARS, min_size=1, max_size=2), st.sampled_from(["any", "text", "bool", "int"]))
def test_computes_fold_as_python_computes(fn: str, values: list[Any], kind: str) -> None:
    try:
        folded = compute_value(fn, [Lit(v) for v in values], kind)
    except Unknown:
        return
    assert repr(folded.value) == repr(compute.function(fn)(*values))


@given(st.sampled_from(["", "r", "s", "a"]), st.sampled_from(["", ">4", "d", ".2f", "%", "x"]),
       SCALARS)
def test_formats_fold_as_python_formats(conversion: str, spec: str, value: Any) -> None:
    try:
        text = format_part((0, conversion, spec), [Lit(value)])
    except Unknown:
        return
    shown = "{0" + (f"!{conversion}" if conversion else "") + ":" + spec + "}"
    assert text == shown.format(value)


@pytest.mark.parametrize(("fn", "values"), [
    ("pow", (9, 9**9)), ("repeat", ("x", 10**9)), ("text.zfill", ("1", 10**9)),
    ("truediv", (1, 0)), ("text.index", ("a", "b")), ("len", ((1, 2),)), ("text.split", ("a b",)),
])
def test_huge_raising_and_ambiguous_values_are_left(fn: str, values: tuple[Any, ...]) -> None:
    with pytest.raises(Unknown):
        compute_value(fn, [Lit(v) for v in values], "any")


def test_minus_zero_is_not_zero() -> None:
    module = program("%p = prompt.root",
                     "%a: !text = prompt.compute -0.0 {fn = \"str\"}",
                     "%b: !text = prompt.compute 0.0 {fn = \"str\"}",
                     "prompt.bind %a {name = \"a\"}", "prompt.bind %b {name = \"b\"}")
    out = evaluate(run(module, "hoist-prefixes,fold,hoist-prefixes"))
    assert out.variables == {"a": "-0.0", "b": "0.0"}


def test_select_with_read_scores_is_asked() -> None:
    module = program("%r = prompt.root",
                     '%p, %c: !choice<"a">, %s = prompt.select %r, "a" {path = [0]}',
                     'prompt.meta %s {name = "c"}')
    assert "prompt.select" in names(run(module, "fold"))


def test_a_format_that_may_raise_keeps_its_place_before_a_host_call() -> None:
    module = program('%t = prompt.format "no ", %x {parts = [[0, "", ""], [1, "", "d"]]}',
                     '%h: !any = prompt.host "k" {fn = "f"}', "%r = prompt.root",
                     "%p = prompt.append %r, %t", args="%x: !text")
    out = evaluate(run(module, "fold,hoist-prefixes,fold,parallelize-forks"), {"x": "text"})
    assert out.error == "ValueError" and out.events == []


# --- hoist-prefixes ---------------------------------------------------------------------------
def test_reads_of_opaque_values_stay_apart() -> None:
    """The user's code may change the object between them."""
    main = Program("main", [("x", ANY)])
    for _ in range(2):
        size = main.body.append(Op("prompt.compute", main.args, {"fn": "len"}, (INT,)))
        main.body.append(Op("prompt.host", (*main.args, *size.results), {"fn": "f"}, (ANY,)))
    root = main.body.append(Op("prompt.root", (), {}, (Type("prompt"),)))
    main.body.append(Op("prompt.return", root.results))
    out = run(Module([main]), "hoist-prefixes")
    assert names(out).count("prompt.compute") == 2


def test_statistics_say_what_was_saved() -> None:
    module = program("%p = prompt.root", *[line for i in range(3) for line in (
        f'%a{i} = prompt.append %p, "12345"',
        f"%b{i}, %t{i}: !text, %m{i} = prompt.gen %a{i} {{path = [{i}]}}")])
    manager = PassManager("hoist-prefixes")
    manager.run(module, make_context())
    assert manager.records[0].stats == {"merged": 2, "hoisted": 0, "moved": 0, "tokens": 10}


# --- eliminate-dead ---------------------------------------------------------------------------
def test_unknown_output_names_the_variables() -> None:
    module = program("%p = prompt.root", 'prompt.bind "x" {name = "known"}')
    with pytest.raises(UnknownVariable, match="known"):
        run(module, "eliminate-dead{outputs=other}")


def test_pure_host_calls_nobody_reads_go() -> None:
    module = program("%p = prompt.root", '%a: !any = prompt.host "k" {fn = "f", pure = true}',
                     '%b: !any = prompt.host "k" {fn = "f"}')
    assert names(run(module, "eliminate-dead")).count("prompt.host") == 1


# --- parallelize-forks ------------------------------------------------------------------------
def test_siblings_that_python_reads_one_by_one_are_issued_together() -> None:
    lines = ["%p = prompt.root"]
    for i in range(4):
        lines += [f"%b{i}, %t{i}: !text, %m{i} = prompt.gen %p {{path = [{i}]}}",
                  f'%h{i}: !any = prompt.host %t{i} {{fn = "print"}}']
    module = program(*lines)
    assert critical_path(module.programs["main"]) == 4
    manager = PassManager("parallelize-forks")
    out = manager.run(module)
    assert critical_path(out.programs["main"]) == 1
    assert manager.records[0].stats["width"] == 4
    assert [op.operands[0].name for op in out.walk()  # type: ignore[union-attr]
            if op.name == "prompt.host"] == ["t0", "t1", "t2", "t3"]


# --- tokenize ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("may_stop", "attrs", "known"), [
    (True, "", False), (False, "", True), (False, 'stop = ["x"]', False),
    (False, 'dtype = "int"', False), (False, "max_tokens = 3", True),
])
def test_text_after_a_gen_is_constant_only_without_stops(may_stop: bool, attrs: str,
                                                         known: bool) -> None:
    more = f", {attrs}" if attrs else ""
    module = program("%r = prompt.root",
                     f"%q, %t: !text, %m = prompt.gen %r {{path = [0]{more}}}",
                     '%p = prompt.append %q, "after"')
    out = names(run(module, "tokenize", make_context(may_stop=may_stop)))
    assert ("kv.ids" in out) == known and ("kv.encode" in out) != known


def test_what_all_arms_end_in_is_known_after_them() -> None:
    arm = '%{0} = prompt.append %r, "{0}"\n%{0}2 = prompt.special %{0} {{token = "<|im_end|>"}}'
    module = program("%r = prompt.root", "%q: !prompt = prompt.if %c then {", arm.format("a"),
                     "prompt.yield %a2", "} else {", arm.format("b"), "prompt.yield %b2", "}",
                     '%p = prompt.append %q, "after"', args="%c: !bool")
    assert "kv.encode" not in names(run(module, "tokenize"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("ab \n.é", max_size=60), min_size=1, max_size=6), st.booleans())
def test_constants_are_encoded_as_prompts_are(texts: list[str], cuts: bool) -> None:
    """The evaluator checks ids against whole runs, and `append_encoded` checks the tails."""
    lines = ["%p0 = prompt.root"]
    lines += [f"%p{i + 1} = prompt.append %p{i}, {quote(t)}" for i, t in enumerate(texts)]
    module = ir.parse("program @main() {\n" + "\n".join(lines)
                      + f"\nprompt.return %p{len(texts)}\n}}\n")
    context = make_context(None if cuts else small_bpe())
    assert evaluate(run(module, "tokenize", context), {}, context).text == "".join(texts)


def quote(text: str) -> str:
    return '"' + text.replace("\n", "\\n") + '"'


def test_passes_say_what_they_need() -> None:
    fork = program("%r = prompt.root", "%p, %q = prompt.fork %r {size = 2}")
    with pytest.raises(IRError, match="run functionalize before"):
        run(fork, "tokenize")
    with pytest.raises(IRError, match="needs a tokenizer"):
        PassManager("tokenize").run(fork)
    with pytest.raises(IRError, match="run tokenize before"):
        run(fork, "schedule")
    special = program("%r = prompt.root", '%p = prompt.special %r {token = "<none>"}')
    with pytest.raises(LanguageError, match="no control token"):
        run(special, "tokenize")
    role = program("%r = prompt.root", '%p = prompt.role_begin %r {role = "user"}')
    with pytest.raises(TokenError, match="no chat template"):
        PassManager("lower-roles").run(role)


# --- schedule ---------------------------------------------------------------------------------
def test_ranks_put_longer_chains_first() -> None:
    for seed in range(30):
        module = random_module(Random(seed))
        out = run(module, "functionalize,lower-roles,fold,tokenize,schedule")
        issues = [op for op in out.walk() if op.name == "plan.issue"]
        assert sorted(op.attrs["rank"] for op in issues) == list(range(len(issues)))
        for op in issues:  # a call that feeds another directly is ranked before it
            for user in op.results[0].uses:
                parent = user.block.parent if user.block else None
                if user.name in ("kv.decode", "kv.score") and isinstance(parent, Op):
                    assert op.attrs["rank"] < parent.attrs["rank"]


def test_shared_ids_open_every_row() -> None:
    context = make_context(rows=4)
    module = program("%r = prompt.root", '%q = prompt.append %r, "All rows begin so. "',
                     "%u = prompt.append %q, %x",
                     "%p, %t: !text, %m = prompt.gen %u {path = [0]}", args="%x: !text")
    out = run(module, "tokenize,liveness,schedule", context)
    group = out.programs["main"].body.ops[0]
    shared = group.attrs["shared"]
    assert group.attrs["rows"] == 4 and group.attrs["shared_tokens"] == len(shared)
    assert bytes(shared) == b"All rows begin so. "
    assert [op.attrs["uses"] for op in out.walk() if op.name == "kv.pin"] == [1]
    for x in ("", "é", "  tail"):
        (key,) = evaluate(out, {"x": x}, context).calls
        assert key[1][:len(shared)] == shared


