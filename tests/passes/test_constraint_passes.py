"""refine-choices and lower-regex: what they note is true, and nothing runs differently for them.

On programs whose generations are constrained to few texts, may be cut short, and are compared.
"""

from __future__ import annotations

import re
from array import array
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc
from sglc import grammar, ir
from sglc.config import RunOptions
from sglc.errors import GrammarError
from sglc.grammar.canonical import Canonical
from sglc.grammar.fsm import FsmConstraint
from sglc.ir.literals import quote
from sglc.ir.module import Op
from sglc.ir.types import choice
from sglc.lang import lowering
from sglc.passes import PassManager
from sglc.passes.remarks import remarks
from sglc.runtime import calls
from tests.generators import GeneratedProgram, load
from tests.helpers_passes import make_context

REGEXES = ("yes|no", "yes|no|yesno", "[ab]{0,2}", "é|ée|漢", "x", "a(b|c)?d", "(Yes|yes|YES)",
           "(ab)*", "[0-9]{1,2}", "🙂|🙃", "")
TEXTS = ("yes", "no", "maybe", "", "y", "ab", "é", "e", "YES", "x", "ad", "1", "\ufffd", "🙂")
TESTS = ("{v} == {t!r}", "{v} != {t!r}", "{v} in ({t!r}, {u!r})", "{v}.startswith({t!r})",
         "{v}.upper() == {t!r}", "len({v}) > 2", "{t!r} in {v}", "{v}", "not {v}",
         "{v}.strip() == {t!r}", "{v} > {t!r}")
SPECS = (
    "functionalize,lower-roles,refine-choices,tokenize,liveness,schedule",
    "functionalize,lower-roles,lower-regex,tokenize,liveness,schedule",
    "functionalize,lower-roles,tokenize,lower-regex,liveness,schedule",
    "functionalize,lower-roles,refine-choices,fold,eliminate-dead,lower-regex,tokenize,liveness,"
    "schedule",
    None,  # the default one
)


@st.composite
def programs(draw: st.DrawFn) -> GeneratedProgram:
    lines = ["def prog(s, a, b, items):", "    s += a + '.'"]
    names: list[str] = []

    def block(indent: str, depth: int) -> None:
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(("gen", "gen", "text", "if", "if")))
            if kind == "gen" and len(names) < 5:
                name = f"v{len(names)}"
                options = [f"regex={draw(st.sampled_from(REGEXES))!r}"]
                if draw(st.booleans()):
                    options.append(f"max_tokens={draw(st.integers(1, 6))}")
                if draw(st.integers(0, 4)) == 0:
                    options.append(f"stop={draw(st.sampled_from(('e', 'b', 'no', '漢')))!r}")
                lines.append(f"{indent}s += sgl.gen({name!r}, {', '.join(options)}) + ';'")
                if depth == 0:
                    names.append(name)
            elif kind == "if" and names and depth < 2:
                test = draw(st.sampled_from(TESTS)).format(
                    v=f"s[{draw(st.sampled_from(names))!r}]", t=draw(st.sampled_from(TEXTS)),
                    u=draw(st.sampled_from(TEXTS)))
                lines.append(f"{indent}if {test}:")
                block(indent + "    ", depth + 1)
                if draw(st.booleans()):
                    lines.append(f"{indent}else:")
                    block(indent + "    ", depth + 1)
            else:
                lines.append(f"{indent}s += {draw(st.sampled_from(TEXTS[:6]))!r} + ','")

    block("    ", 0)
    rows = tuple({"a": a, "b": "", "items": []} for a in ("q", "", "é")[:draw(st.integers(1, 3))])
    return GeneratedProgram("\n".join(lines) + "\n", "prog", rows)


@pytest.fixture(scope="module", params=("bytes", "small"))
def model(request: pytest.FixtureRequest) -> Any:
    with sglc.HashModel(None if request.param == "bytes" else request.param) as model:
        yield model


def outcome(state: Any) -> tuple[Any, ...]:
    return state.text(), state.token_ids(), {
        n: state[n] for n in sorted(map(str, state.variable_names()))}


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(programs(), st.sampled_from(SPECS), st.sampled_from((0.0, 1.0)), st.sampled_from((4, 64)))
def test_compiled_is_eager(model: Any, tmp_path_factory: pytest.TempPathFactory,
                           generated: GeneratedProgram, spec: str | None, temperature: float,
                           most: int) -> None:
    program = sglc.program(load(generated, tmp_path_factory.getbasetemp()).prog)
    options = {"temperature": temperature, "max_new_tokens": most, "seed": 3, "backend": model}
    rows = [dict(r) for r in generated.rows]
    want = [outcome(s) for s in program.run_batch(rows, mode="eager", **options)]
    with pytest.MonkeyPatch.context() as patch:
        if spec is not None:
            patch.setattr(lowering, "pipeline", lambda *_: spec)
        got = [outcome(s) for s in program.run_batch(rows, mode="compiled", **options)]
    assert got == want


def lowered(regex: str, tokenizer: Any) -> Op:
    """The gen of a program of one, after both passes."""
    module = ir.parse("program @p() {\n%p0 = prompt.root\n%p1, %a: !text, %m = prompt.gen %p0 "
                      f"{{path = [0], regex = {quote(regex)}}}\nprompt.return %p1\n}}")
    context = make_context(tokenizer, may_stop=False, max_tokens=50)
    after = PassManager("refine-choices,lower-regex").run(module, context)
    (program,) = after.programs.values()
    (gen,) = [op for op in program.walk() if op.name == "prompt.gen"]
    return gen


@settings(suppress_health_check=list(HealthCheck), deadline=None)
@given(st.sampled_from((*REGEXES, "ab{1,3}[cd]", r'\{"name": "[a-z]{1,4}"\}', "(the|then) cat",
                        "[é-ü]{2}!", r"\w{1,9}", "the end( of)?")), st.integers(0, 10**6))
def test_notes_hold_for_every_walk(model: Any, regex: str, seed: int) -> None:
    """The longest text, the most tokens, what comes first, and the texts of a choice."""
    tokenizer = model.tokenizer
    gen = lowered(regex, tokenizer)
    result = model.generate("A: ", sampling={
        "regex": regex, "temperature": 1.0, "max_new_tokens": 50, "sampling_seed": seed})
    text, ids = result.text, result.ids
    attrs = gen.attrs
    if re.fullmatch(regex, text):
        assert len(text.encode()) <= attrs.get("longest", 1 << 30)
        if gen.results[1].type.name == "choice":
            assert text in gen.results[1].type.args
    assert len(ids) <= attrs.get("most_tokens", 1 << 30)
    forced = attrs.get("forced", ())
    assert tuple(ids[:len(forced)]) == forced[:len(ids)]


def test_nothing_is_compiled_twice(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run finds the very constraint of the pass, and its first tokens."""
    regex = r'\{"answer": (true|false)\}'
    gen = lowered(regex, model.tokenizer)
    monkeypatch.setattr("sglc.grammar.compiler._regular", None)
    monkeypatch.setattr("sglc.grammar.canonical.Canonical._tokens", None)
    found = calls.constraint_for(RunOptions(regex=regex), model.tokenizer)
    assert isinstance(found, FsmConstraint)
    assert found is grammar.compile(regex=regex, tokenizer=model.tokenizer)
    rule = Canonical.of(model.tokenizer, model.tokenizer.vocab_size + 64)
    assert rule.tokens(found, found.start(), array("q", [5, 6]), 2) == gen.attrs["forced"]
    assert gen.attrs["forced"] and gen.results[1].type == choice(
        '{"answer": false}', '{"answer": true}')


def test_languages_are_listed_or_not() -> None:
    def texts(regex: str, most: int) -> tuple[str, ...] | None:
        constraint = grammar.compile(regex=regex, tokenizer=make_context().tokenizer)
        assert isinstance(constraint, FsmConstraint)
        return constraint.automaton.texts(most)

    assert texts("b|a|aa?", 8) == ("a", "aa", "b")
    assert texts("[a-c]{2}", 9) == tuple(x + y for x in "abc" for y in "abc")
    assert texts("[a-c]{2}", 8) is None and texts(r"\w", 64) is None
    assert texts("a*", 64) is None and texts("", 1) == ("",)
    assert texts("(a|b){60}", 64) is None


def test_wrong_constraints_are_the_run_s_to_report(model: Any) -> None:
    @sglc.program
    def late(s: Any, ask: bool) -> None:
        s += "a" + sglc.gen("x", regex="yes|no", max_tokens=4)
        if ask:
            s += sglc.gen("y", regex="a(?=b)")

    with pytest.raises(GrammarError):
        late.run(ask=True, backend=model).sync()
    assert late.run(ask=False, backend=model)["x"] in ("yes", "no")


def test_comparisons_that_the_constraint_rules_out_are_told() -> None:
    def found(regex: str, text: str, fn: str = "eq", **attrs: Any) -> list[str]:
        more = "".join(f", {k} = {v}" for k, v in attrs.items())
        module = ir.parse(
            "program @p() {\n%p0 = prompt.root\n%p1 = prompt.append %p0, \"a\"\n"
            f"%p2, %a: !text, %m = prompt.gen %p1 {{name = \"x\", path = [0], "
            f"regex = {quote(regex)}{more}}}\n"
            f"%b: !bool = prompt.compute %a, {quote(text)} {{fn = \"{fn}\"}}\n"
            "%p3: !prompt = prompt.if %b then {\n%p4 = prompt.append %p2, \"!\"\n"
            "prompt.yield %p4\n} else {\nprompt.yield %p2\n}\nprompt.return %p3\n}")
        return [f"{d.what}; {d.why}; {d.effect}" for d in remarks(module, make_context())
                if d.code == "SGLC421"]

    (said,) = found("yes|no", "Yes")
    assert said.startswith('the gen "x" is never \'Yes\'; its constraint allows = 2 texts: '
                           "'no', 'yes'; the comparison is always false")
    (said,) = found("[0-9]", "ten", "ne")
    assert "= 10 texts: '0', '1', '2', '3', '4' and 5 more" in said and "always true" in said
    assert found("yes|no", "yes") == found("[a-z]+", "Yes") == found("yes|no", "Y", "gt") == []
    assert found("yes|no", "y") == []  # where max_tokens cuts it
