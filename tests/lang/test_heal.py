"""Token healing: `gen(heal=True)` generates across the border to the text before it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import sglc as sgl
from sglc.errors import LanguageError
from sglc.runtime.healing import held_back
from sglc.runtime.stops import StopWatcher
from sglc.tokens.prompt import Prompt
from sglc.tokens.small import small_bpe
from tests.ties import Recorder, assert_equal_up_to_ties

MODES = ("eager", "compiled")
SLOW = settings().max_examples >= 1000  # the slow profile
TEXTS = st.text(st.sampled_from(list("abe t.:/\n{\"é1")), min_size=1, max_size=12)
OPTIONS: list[dict[str, Any]] = [
    {}, {"regex": r"[a-z /.]{1,9}"}, {"choices_regex": 1}, {"stop": ["e", " t", "//"]},
    {"stop_regex": r"[aeiou]"}, {"ignore_eos": True}, {"no_stop_trim": True, "stop": "t"},
    {"min_tokens": 3}, {"max_tokens": 1}, {"max_tokens": 0}, {"dtype": int},
    {"top_logprobs_num": 2}, {"frequency_penalty": 1.0},
]
for _options in OPTIONS:
    if _options.pop("choices_regex", None):
        _options["regex"] = r"(the|e|//www|a)"


class Flag(BaseModel):
    on: bool


@pytest.fixture(scope="module", params=[None, "small", "smollm2"])
def model(request: pytest.FixtureRequest) -> Iterator[Any]:
    with sgl.HashModel(request.param) as m:
        yield m


def program(options: dict[str, Any]) -> Any:
    @sgl.program
    def ask(s: Any, q: str) -> None:
        s += "go " + q + sgl.gen("x", **{"max_tokens": 6, **options})
        s += " and" + sgl.gen("y", max_tokens=2, heal=True)

    return ask


HEALED = [program({**options, "heal": True}) for options in OPTIONS]
PLAIN = [program(options) for options in OPTIONS]


@settings(max_examples=400 if SLOW else 13)
@given(st.integers(0, len(OPTIONS) - 1), TEXTS, st.integers(0, 5), st.sampled_from([0, 1]))
def test_modes_agree_and_text_is_whole(model: Any, which: int, q: str, seed: int,
                                       temperature: int) -> None:
    options: dict[str, Any] = {"backend": model, "seed": seed, "temperature": temperature}
    eager, compiled = (HEALED[which].run(q=q, mode=m, **options) for m in MODES)
    assert eager.text() == compiled.text() and eager.token_ids() == compiled.token_ids()
    assert [eager[v] for v in "xy"] == [compiled[v] for v in "xy"]
    for v in "xy":  # what the cache holds may differ
        one, two = (dict(s.get_meta_info(v), cached_tokens=0) for s in (eager, compiled))
        assert one == two
    tokenizer = model.tokenizer
    text, ids = eager.text(), eager.token_ids()
    assert text == "go " + q + eager["x"] + " and" + eager["y"]
    if "\ufffd" not in text and not set(ids) & (tokenizer.special_ids | tokenizer.eos_ids):
        assert tokenizer.decode(ids) == text
    given = OPTIONS[which]
    if "regex" in given and eager.get_meta_info("x")["finish_reason"]["type"] != "length":
        assert re.fullmatch(given["regex"], eager["x"])
    if given.get("stop") and not given.get("no_stop_trim"):
        assert not any(stop in eager["x"] for stop in given["stop"])
    streamed = HEALED[which].run(q=q, mode=MODES[seed % 2], stream=True, **options)
    assert "".join(streamed.text_iter("x")) == eager["x"]
    assert "".join(streamed.text_iter()) == text
    if model.tokenizer.name == "bytes" or given.get("max_tokens") == 0:  # nothing to heal in x
        assert PLAIN[which].run(q=q, mode="eager", **options)["x"] == eager["x"]


def test_it_changes_tokens(model: Any) -> None:
    """On the tokenizers that have longer tokens, healed spans take the place of prompt ids."""
    tokenizer = model.tokenizer
    changed = 0
    for q in ("the", "b t"):
        before = Prompt.empty(tokenizer).append("go " + q)
        for seed in range(3):
            state = HEALED[5].run(q=q, backend=model, seed=seed)
            ids = state.token_ids()
            n = len(before.token_ids())
            kept = n - len(held_back(before, None))
            assert ids[:kept] == before.token_ids().tolist()[:kept]
            changed += ids[:n] != before.token_ids().tolist()
    assert (changed > 0) == (max(map(len, tokenizer.byte_table)) > 1)


@settings(max_examples=400 if SLOW else 10)
@given(TEXTS, st.sampled_from([None, r"[a-z ]+", r"//[a-z]+", r"[0-9]+"]))
def test_what_is_held_back(model: Any, q: str, regex: str | None) -> None:
    """By definition: from the first token on where a longer one fits; never all tokens, never
    others than of the last run of text."""
    tokenizer = model.tokenizer
    constraint = None if regex is None else sgl.grammar.compile(regex=regex, tokenizer=tokenizer)
    control = next(iter(tokenizer.special_ids))
    table = [t for i, t in enumerate(tokenizer.byte_table)
             if t and i not in tokenizer.special_ids | tokenizer.eos_ids]
    letters = {t: i for i, t in reversed(list(enumerate(tokenizer.byte_table))) if len(t) == 1}

    def fits(text: bytes) -> bool:
        state = None if constraint is None else constraint.start()
        for byte in text:
            if constraint is not None:
                state = constraint.advance(state, letters[bytes((byte,))])
                if state is None:
                    return False
        return True

    empty = Prompt.empty(tokenizer)
    for prompt in (empty.append(q), empty.append("ab").special(control).append(q),
                   empty.append("ab").generated((tokenizer.encode("a")[0],)).append(q)):
        ids = prompt.token_ids().tolist()
        first = max(1, prompt.run_start())
        expected = next((i for i in range(first, len(ids)) if (
            rest := tokenizer.decode_bytes(ids[i:])) and any(
                t.startswith(rest) and len(t) > len(rest) and fits(t[len(rest):])
                for t in table)), len(ids))
        assert held_back(prompt, constraint) == tuple(ids[expected:])
    for prompt in (empty, empty.append(q).special(control),
                   empty.append(q).generated((tokenizer.encode("a")[0],)),
                   empty.append(q).generated(())):
        assert held_back(prompt, constraint) == ()


@pytest.mark.parametrize("mode", MODES)
def test_no_text_before(model: Any, mode: str) -> None:
    """Behind control tokens and generated ones there is nothing to heal: ids are as without."""
    name = next(iter(model.tokenizer.special))

    def run(heal: bool) -> Any:
        @sgl.program
        def behind(s: Any) -> None:
            s += "a t" + sgl.special(name) + sgl.gen("x", max_tokens=4, heal=heal)
            s += sgl.gen("y", max_tokens=4, heal=heal)

        return behind.run(backend=model, mode=mode, seed=2).token_ids()

    assert run(True) == run(False)


def test_joins_and_forks(model: Any) -> None:
    @sgl.program
    def joined(s: Any) -> None:
        s += "go to t"
        both = s.fork(2)
        for i, f in enumerate(both):
            f += sgl.gen(f"x{i}", max_tokens=4, heal=True)
        both.join("concate_and_append")
        s += "!" + sgl.gen("y", max_tokens=2, heal=True)

    for seed in range(3):
        one, two = (joined.run(mode=m, backend=model, seed=seed) for m in MODES)
        assert one.text() == two.text() and one.token_ids() == two.token_ids()
        tokenizer = model.tokenizer
        if not set(one.token_ids()) & (tokenizer.special_ids | tokenizer.eos_ids) and \
                "\ufffd" not in one.text():
            assert tokenizer.decode(one.token_ids()) == one.text()


@pytest.mark.parametrize("mode", MODES)
def test_samples_schema_and_batches(model: Any, mode: str) -> None:
    @sgl.program
    def answer(s: Any, q: str) -> None:
        s += q + sgl.gen("flag", schema=Flag, heal=True, max_tokens=40)
        s += " t" + sgl.gen("many", n=3, max_tokens=4, heal=True)

    rows = [{"q": q} for q in ("x ", "the answer: ", 'json {"', "é")]
    for state in answer.run_batch(rows, backend=model, mode=mode, seed=1):
        assert type(state["flag"]) is Flag and len(state["many"]) == 3
        text = "".join(state.text_iter("flag"))
        assert json.loads(text) == {"on": state["flag"].on}
        assert f"{text} t{state['many'][0]}" in state.text()


@pytest.mark.parametrize("jump", ["off", "safe"])
def test_jumps(jump: str) -> None:
    with sgl.HashModel("smollm2") as one, sgl.HashModel("smollm2", jump_forward=jump) as two:
        for seed in range(3):
            a, b = (HEALED[2].run(q=" http:", backend=m, seed=seed) for m in (one, two))
            assert a.token_ids() == b.token_ids()


def test_stop_tokens_begin_behind_the_held_back_text() -> None:
    with sgl.HashModel("smollm2") as model:
        colon, = model.tokenizer.encode(":")

        @sgl.program
        def ask(s: Any) -> None:
            s += "go to http:" + sgl.gen("x", max_tokens=4, heal=True, regex=r":?[0-9]{2,}",
                                         stop_token_ids=[colon], ignore_eos=True)

        state = ask.run(backend=model, seed=1)
        meta = state.get_meta_info("x")
        assert meta["completion_tokens"] > 1
        assert state["x"] == "" or state["x"][0] in ":0123456789"


def test_a_stop_in_the_token_across_the_border() -> None:
    """The prompt keeps its tokens where nothing whole is left of what was generated."""
    with sgl.HashModel("smollm2") as model:
        tokenizer = model.tokenizer
        before = Prompt.empty(tokenizer).append("go to http:").token_ids().tolist()

        @sgl.program
        def ask(s: Any) -> None:
            s += "go to http:" + sgl.gen("x", max_tokens=4, heal=True, regex=r"//x", stop="/x")

        for mode in MODES:
            state = ask.run(backend=model, seed=1, mode=mode)
            assert state["x"] == "/" and state.text() == "go to http:/"
            assert state.token_ids() == before + tokenizer.encode("/")
            assert "".join(ask.run(backend=model, seed=1, mode=mode, stream=True).text_iter("x")) \
                == "/"


def test_run_level_and_bad_values() -> None:
    with sgl.HashModel("smollm2") as model:
        plain, healed = (PLAIN[1].run(q=" http:", backend=model, seed=3, heal=heal)
                         for heal in (False, True))
        assert healed.token_ids() == HEALED[1].run(q=" http:", backend=model, seed=3).token_ids()
        assert plain.token_ids() != healed.token_ids()
        with pytest.raises(LanguageError, match="SGLC008"):
            model.generate("a", sampling={"heal": True})
    with pytest.raises(LanguageError, match="SGLC004"):
        sgl.gen("x", heal="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("q, wanted", [("The link is http:", "://"),
                                       ("I am going to the super", "supermarket")])
def test_it_helps_a_real_model(engine: Any, q: str, wanted: str) -> None:
    tokenizer = engine.tokenizer

    def run(heal: bool, mode: str) -> tuple[Any, Recorder]:
        backend = Recorder(engine)

        @sgl.program
        def go(s: Any) -> None:
            s += q + sgl.gen("x", max_tokens=8, heal=heal)

        return go.run(backend=backend, mode=mode, temperature=0), backend

    plain, _ = run(False, "eager")
    assert plain.token_ids()[:len(tokenizer.encode(q))] == tokenizer.encode(q)
    (eager, ours), (compiled, theirs) = run(True, "eager"), run(True, "compiled")
    assert_equal_up_to_ties(ours, theirs, eager, compiled)
    for state in (eager, compiled):
        ids = state.token_ids()
        assert ids != plain.token_ids() and ids == tokenizer.encode(state.text())
        assert any(wanted in tokenizer.decode([i]) for i in ids)
        assert state.text() == q + state["x"]


PIECES = [b"a", b"b", b"ab", b"a b", b" ", "é".encode(), b"\xc3", b"\xa9", b"ba"]


@given(st.lists(st.integers(0, 8), min_size=1, max_size=3), st.lists(st.integers(0, 8)),
       st.lists(st.sampled_from(["a", "ba", " ", "é", "ab"]), max_size=2),
       st.sampled_from([(), ("a+b",), ("[é ]",)]), st.booleans())
def test_stops_skip_the_held_back_text(head: list[int], tokens: list[int], stops: list[str],
                                       patterns: tuple[str, ...], trim: bool) -> None:
    """Behind whole tokens to skip, matches and streams are those of the rest alone."""
    skip = sum(len(PIECES[i]) for i in head)
    one = StopWatcher(PIECES, stops, patterns, trim=trim, skip=skip)
    two = StopWatcher(PIECES, stops, patterns, trim=trim)
    assert [one.push(i) for i in head] == [None] * len(head) and one.ready() == ""
    for i in tokens:
        found, wanted = one.push(i), two.push(i)
        if wanted is not None:
            assert found is not None and found.matched == wanted.matched
            assert found.leftover == wanted.leftover
            assert found.kept == wanted.kept + len(head)
            return
        assert found is None and one.ready() == two.ready()


def test_healed_prompts() -> None:
    tokenizer = small_bpe()
    before = Prompt.empty(tokenizer).append("go to t")
    ids = before.token_ids().tolist()
    held, new = (ids[-1],), tuple(tokenizer.encode("the end"))
    healed = before.healed(held, new, "he end")
    assert healed.token_ids().tolist() == [*ids[:-1], *new] and healed.text() == "go to the end"
    assert healed.text_since(before) == "he end" and healed.run_start() == len(ids) - 1 + len(new)
    assert before.append_since(healed, before).token_ids() == healed.token_ids()
    other = before.append(".")  # does not end in what was held back
    assert other.append_since(healed, before).token_ids().tolist() == tokenizer.encode(
        "go to t.he end")
    border = before.generated(())
    assert border.healed(held, new, "he").token_ids().tolist() == [*ids, *tokenizer.encode("he")]
