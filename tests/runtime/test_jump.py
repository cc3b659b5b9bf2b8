"""Jump-forward changes how many times the model is asked, and nothing else."""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sglc
from sglc import grammar
from sglc.backends.hash_model import open_tokenizer
from sglc.errors import GrammarError
from sglc.grammar.canonical import Canonical
from sglc.grammar.fsm import FsmConstraint
from sglc.runtime.engine import EngineCore
from sglc.runtime.hash_model import HashRunner
from sglc.runtime.request import Request, Result, SamplingParams
from tests.grammar.regexes import CHARACTER, DATE, EMAIL, IP, PATTERNS
from tests.reference_calls import Run, WholeModel, generate, gumbel
from tests.reference_jump import dictated
from tests.runtime.common import Bytes, Pending, ask, request
from tests.runtime.common import engine as hash_engine

SLOW = settings().max_examples >= 1000  # the slow profile

FIELDS = (
    r"""\{"id": [0-9]{1,4}, "name": "[a-z ]{1,12}", "age": [0-9]{1,2}, "city": "(Paris|Prague|"""
    r"""Rome|Porto)", "email_verified": (true|false), "account_status": "(active|inactive)", """
    r""""favourite_color": "(red|green|grey)", "height_in_cm": 1[0-9]{2}, "is_member": """
    r"""(true|false), "membership_level": "(gold|silver|bronze)", "language": "(en|fr|de|es)", """
    r""""country_of_birth": "(France|Finland|Italy)"\}""")

WORDS = st.sampled_from([
    '{"name": "', '", "age": ', "true", "the answer is ", "\n    ", "  ", "é漢", "Gryffindor",
    ": ", "ab", "a", "e", " the", ".", "1", "12", "\n\n", '"}', "-"])
OPEN = st.sampled_from([
    "[a-z]{1,4}", r"\w{1,5}", "[0-9]{1,2}", "[0-9]+", "(?:true|false)", "(?:the|then|there)",
    " ?", "[é漢]{2}", r"[^\n]{0,6}", "(?: a| ab| abc)", "(?s:.){3}", r"\s?", "(?:x|xy|xyz)+"])
TEMPLATES = st.lists(st.one_of(WORDS.map(re.escape), WORDS.map(re.escape), OPEN),
                     min_size=1, max_size=7).map("".join)
SAMPLING = st.fixed_dictionaries({
    "temperature": st.sampled_from([0.0, 1.0, 1.0]),
    "max_tokens": st.sampled_from([1, 3, 8, 30, 60]),
    "min_tokens": st.sampled_from([0, 0, 5]),
    "ignore_eos": st.booleans(),
    "frequency_penalty": st.sampled_from([0.0, 0.0, 0.7]),
    "repetition_penalty": st.sampled_from([1.0, 1.0, 1.3]),
    "top_p": st.sampled_from([1.0, 0.7]),
    "stop": st.sampled_from([(), (), ("e",), ("swer", ": "), ("漢",), (' "', "\n")]),
    "stop_regex": st.sampled_from([(), (), (r"[0-9]\W",)]),
    "stop_token_ids": st.sampled_from([(), (), (ord("e"), 300, 34)]),
    "no_stop_trim": st.booleans(),
    "logprobs": st.sampled_from([False, False, False, True]),
})


class WholeHead(HashRunner):
    """A model that cannot compute the logits of some tokens alone."""

    logits_of = None  # type: ignore[assignment]


@pytest.fixture(scope="module", params=["bytes", "small", "smollm2"])
def cores(request: pytest.FixtureRequest) -> Any:
    """Engines that differ in how they jump and in room, over one tokenizer."""
    tok = open_tokenizer(None if request.param == "bytes" else request.param)
    out = {
        "off": hash_engine(tok, jump_forward="off"),
        "safe": hash_engine(tok),
        "small steps": hash_engine(tok, max_batch_tokens=3),
        "tight": hash_engine(tok, kv_tokens=120, max_batch_tokens=16),
        "crowded": hash_engine(tok, kv_tokens=600),
        "no cache": hash_engine(tok, radix_cache=False),
        "whole head": EngineCore(WholeHead(tok.vocab_size, tok), tok, kv_tokens=4096),
    }
    yield SimpleNamespace(tok=tok, name=request.param, **{"all": out})
    for core in out.values():
        core.close()


def compiled(pattern: str, tok: Any) -> Any:
    try:
        return grammar.compile(regex=pattern, tokenizer=tok)
    except GrammarError:
        return None


def seen(result: Result) -> Any:
    assert result.error is None, result.error
    return (result.ids, result.text, result.leftover, result.finish_reason, result.matched,
            result.output_tokens, len(result.logprobs))


def judged(tok: Any, asked: Request, pattern: str | None,
           ebnf: str | None = None) -> tuple[Any, ...]:
    """Ids, leftover text, and what stopped it, by the reference."""
    run = Run(WholeModel(HashRunner(tok.vocab_size, tok)), tok, None, None, 0, 0)  # type: ignore
    p = asked.sampling
    made = generate(run, list(asked.ids), SimpleNamespace(  # type: ignore[arg-type]
        **{name: getattr(p, name) for name in SamplingParams.__dataclass_fields__},
        regex=pattern, json_schema=None, ebnf=ebnf), asked.key)
    return made.ids, made.leftover, made.finish.get("matched")


def check(cores: Any, patterns: list[str], options: dict[str, Any],
          names: Sequence[str] | None = None, judge: bool = True) -> None:
    tok = cores.tok
    bound = [(p, c) for p in patterns if (c := compiled(p, tok)) is not None]

    def batch() -> list[Request]:
        return [request(tok.encode("q: " * (1 + n % 2)), constraint=c, key=n * 977, **options)
                for n, (_, c) in enumerate(bound)]

    want = [seen(r) for r in ask(cores.all["off"], batch())]
    for name in names or cores.all:
        core = cores.all[name]
        assert [seen(r) for r in ask(core, batch())] == want, name
        assert core.wait_idle(10)
        core.check()
    if judge:
        for asked, (pattern, _), got in zip(batch(), bound, want, strict=True):
            assert judged(tok, asked, pattern) == (got[0], got[2], got[4]), pattern


@settings(max_examples=1000 if SLOW else 25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(TEMPLATES, min_size=1, max_size=4), SAMPLING)
def test_off_safe_and_the_reference_agree(
        cores: Any, patterns: list[str], options: dict[str, Any]) -> None:
    check(cores, patterns, options)


@settings(max_examples=1000 if SLOW else 15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PATTERNS, min_size=1, max_size=4), SAMPLING)
def test_any_pattern(cores: Any, patterns: list[str], options: dict[str, Any]) -> None:
    check(cores, patterns, options)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_character_regex(cores: Any, temperature: float) -> None:
    options = {"temperature": temperature, "max_tokens": 400}
    check(cores, [CHARACTER, FIELDS, IP, DATE, EMAIL], options, ("safe", "crowded"), judge=False)
    tok = cores.tok
    for pattern in (CHARACTER, FIELDS):
        counts = {}
        for name in ("off", "safe"):
            core = cores.all[name]
            before = core.stats()
            asked = request(tok.encode("Who?"), constraint=compiled(pattern, tok), **options)
            got = ask(core, [asked])[0]
            after = core.stats()
            counts[name] = after.forward_passes - before.forward_passes
            assert re.fullmatch(pattern, got.text)
            assert (after.decode_tokens - before.decode_tokens
                    + after.forced_tokens - before.forced_tokens) <= got.output_tokens
            if name == "off":
                assert after.forced_tokens == before.forced_tokens
            else:
                sampled = got.output_tokens - (after.forced_tokens - before.forced_tokens)
                assert sampled <= counts[name] + 1
        assert counts["safe"] <= 0.6 * counts["off"], counts


GRAMMAR = r"""start: "{" field (", " field)? "}"
field: "\"the answer\": " value
value: "[" value ", end of list]" | /[0-9]{1,2}/ | "true" | "é漢字"
"""


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_context_free_grammar(cores: Any, temperature: float) -> None:
    """Through llguidance."""
    tok = cores.tok
    constraint = grammar.compile(grammar=GRAMMAR, tokenizer=tok)

    def batch() -> list[Request]:
        return [request(tok.encode("q"), constraint=constraint, key=n, max_tokens=80,
                        temperature=temperature) for n in range(4)]

    want = [seen(r) for r in ask(cores.all["off"], batch())]
    for name in ("safe", "small steps", "tight"):
        before = cores.all[name].stats().forced_tokens
        assert [seen(r) for r in ask(cores.all[name], batch())] == want, name
        assert cores.all[name].stats().forced_tokens > before + 10
    for asked, got in list(zip(batch(), want, strict=True))[:2]:
        assert judged(tok, asked, None, GRAMMAR) == (got[0], got[2], got[4])


@pytest.mark.parametrize("name", ["bytes", "small", "smollm2"])
def test_the_rule_is_the_plain_one(name: str) -> None:
    """Against trying every token, along random texts."""
    tok = open_tokenizer(None if name == "bytes" else name)
    rule = Canonical(tok, tok.vocab_size)
    rng = np.random.default_rng(5)
    found = 0
    for pattern in (CHARACTER, FIELDS, DATE, "(?:é漢|é字)+!{3}", "(?:the cat|the car)s? sat",
                    '"(?:[a-z]+|(?: and){3})"', "a{40}b?", "(?:ab){30}[cd]"):
        constraint = compiled(pattern, tok)
        state, ids = constraint.start(), []
        while len(ids) < 60:
            words = constraint.mask(state)
            options = [i for i in np.flatnonzero(np.unpackbits(
                words.view(np.uint8), bitorder="little")).tolist() if i not in tok.eos_ids]
            if not options:
                break
            want = dictated(tok, constraint, state, ids)
            assert rule.tokens(constraint, state, array("q", [7, *ids]), 1) == tuple(want)
            assert rule.sole(words) == (options[0] if words_allow_one(words) else -1)
            found += len(want)
            # Often what the rule says, else anything.
            token = want[0] if want and rng.random() < 0.8 else int(rng.choice(options))
            ids.append(token)
            state = constraint.advance(state, token)
    assert found > 100


def words_allow_one(words: np.ndarray) -> bool:
    return sum(int(w).bit_count() for w in words.view(np.uint32)) == 1


def test_what_is_forced_is_what_the_tokenizer_writes() -> None:
    """Wherever the model does not choose the tokens, the ids are those of the text."""
    tok = open_tokenizer("smollm2")
    with hash_engine(tok) as core:
        for pattern in (re.escape('{"name": "Harry Potter", "house": "Gryffindor"}'),
                        "(?:The|A) quick brown fox jumps over the lazy dog\\.",
                        r"\{\n    \"wand\": \{\n        \"wood\": (?:1|2)\n    \}\n\}"):
            for key in range(3):
                got = ask(core, [request(tok.encode("q"), key=key,
                                         constraint=compiled(pattern, tok))])[0]
                assert re.fullmatch(pattern, got.text)
                assert list(got.ids) == tok.encode(got.text)


def test_all_forced_needs_no_model() -> None:
    tok = open_tokenizer("small")
    with hash_engine(tok) as core:
        constraint = compiled("the answer is 42", tok)
        got = ask(core, [request(tok.encode("q"), constraint=constraint)])[0]
        assert (got.text, got.finish_reason) == ("the answer is 42", "constraint")
        assert list(got.ids) == tok.encode(got.text)
        cut = ask(core, [request(tok.encode("q"), constraint=constraint, max_tokens=3)])[0]
        assert (cut.ids, cut.finish_reason) == (got.ids[:3], "length")
        stopped = ask(core, [request(tok.encode("q"), constraint=constraint, stop=("swe",))])[0]
        assert (stopped.text, stopped.matched) == ("the an", "swe")
        stats = core.stats()
        assert (stats.forward_passes, stats.prefill_tokens, stats.decode_tokens) == (0, 0, 0)
        assert stats.forced_tokens == sum(r.output_tokens for r in (got, cut, stopped))


def test_forced_tokens_are_counted_apart() -> None:
    tok = Bytes()
    with hash_engine(tok) as core:
        pattern = "(?:yes|no), and that is (?:all|it)!!"
        got = ask(core, [request("q: ", constraint=compiled(pattern, tok))])[0]
        stats = core.stats()
        assert stats.prefill_tokens == 3
        # Two choices by one letter; all else is forced, and the last run of it needs no KV.
        assert got.output_tokens == len(got.ids) == stats.forced_tokens + 2
        assert stats.forward_passes == 2
        assert stats.decode_tokens == 1
        assert stats.kv_cached == 3 + got.text.index("at is ") + len("at is ")
        core.check()
        # What was forced is in the cache like all else: only the hidden state is made again.
        again = request([*b"q: ", *got.ids[:5]], max_tokens=2)
        ask(core, [again])
        assert core.stats().prefill_tokens == 3


def test_a_stream_gives_forced_text() -> None:
    tok = open_tokenizer("smollm2")
    with hash_engine(tok) as core:
        parts: list[str] = []
        asked = request(tok.encode("q"), constraint=compiled(FIELDS, tok), on_text=parts.append,
                        max_tokens=400)
        got = ask(core, [asked])[0]
        assert "".join(parts) == got.text
        assert len(parts) > 10


def test_an_ending_token_that_is_forced_ends() -> None:
    tok = Bytes()
    for jump in ("off", "safe"):
        with hash_engine(tok, jump_forward=jump) as core:
            got = ask(core, [request("q", constraint=compiled("abc(?:d|e)xyz", tok), key=3,
                                     stop_token_ids=(ord("y"),), min_tokens=20)])[0]
            assert (got.text[:3], got.text[4:]) == ("abc", "x") or got.text == ""
            assert got.matched == ord("y") or got.finish_reason == "constraint"


def test_jump_forward_is_checked() -> None:
    with pytest.raises(ValueError):
        EngineCore(HashRunner(300), Bytes(), kv_tokens=9, jump_forward="naive")
    with pytest.raises(sglc.errors.LanguageError):
        sglc.HashModel(jump_forward="on")
    with sglc.HashModel(jump_forward="off") as model:
        assert model.stats().forced_tokens == 0


WHO = ("Harry", "Hermione", "Ron", "Draco", "Luna", "Neville", "Ginny", "Sirius", "Remus", "Bilbo")
WHAT = ("Describe {} as JSON.\n", "Here is a record of {}:\n", "{} in JSON: ", "Write down {}.",
        "Who is {}?\n")


def gap(core: EngineCore, asked: Request, ids: tuple[int, ...], other: tuple[int, ...]) -> float:
    """By how much the model prefers one continuation to another where they part, noise included."""
    at = next(i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b)
    both = [request([*asked.ids, *ids[:at], token], "score", score_from=len(asked.ids) + at)
            for token in (ids[at], other[at])]
    values = [r.logprobs[-1] for r in ask(core, both)]
    heat = asked.sampling.temperature
    if heat:
        noise = gumbel(asked.key, at, core.runner.vocab_size)
        values = [v / heat + noise[r.ids[-1]] for v, r in zip(values, both, strict=True)]
    return abs(values[0] - values[1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("pattern", "prompts"), [
    (FIELDS, 5), pytest.param(FIELDS, 50, marks=pytest.mark.slow),
    pytest.param(CHARACTER, 50, marks=pytest.mark.slow)])
def test_a_real_model_says_the_same(
        engine: Any, pattern: str, prompts: int, temperature: float) -> None:
    tok = engine.tokenizer
    constraint = compiled(pattern, tok)
    texts = [what.format(who) for what in WHAT for who in WHO][:prompts]

    def batch() -> list[Request]:
        return [request(tok.encode(text), constraint=constraint, key=n, max_tokens=300,
                        temperature=temperature) for n, text in enumerate(texts)]

    safe = Pending(engine.core, batch()).wait(600)
    with sglc.Engine(engine.model_path, kv_tokens=16384, jump_forward="off") as other:
        off = Pending(other.core, batch()).wait(600)
        ties = 0
        for asked, a, b in zip(batch(), safe, off, strict=True):
            assert re.fullmatch(pattern, a.text)
            if a.ids != b.ids:
                assert gap(other.core, asked, a.ids, b.ids) < 1e-3, (a.text, b.text)
                ties += 1
        assert ties <= prompts // 10


def test_many_forced_bytes_are_read_a_part_at_a_time() -> None:
    """A request for a few tokens does not hold up the engine's thread for thousands, and the
    tokens are the text's."""
    tokenizer = open_tokenizer("small")
    text = " ".join([f"the {i} <answer>é漢 is\n" for i in range(3000)])
    constraint = grammar.compile(regex=re.escape(text[:50_000]), tokenizer=tokenizer)
    assert not isinstance(constraint, FsmConstraint)  # it is too large for one
    began = time.monotonic()
    read = Canonical.of(tokenizer, tokenizer.vocab_size).first(constraint)
    assert time.monotonic() - began < 0.5  # all of it took 3 s
    whole = tokenizer.encode(text)
    assert len(read) > 300 and list(read) == whole[:len(read)]
    made = []
    for jumps in ("safe", "off"):
        with EngineCore(HashRunner(tokenizer.vocab_size, tokenizer), tokenizer, kv_tokens=4096,
                        jump_forward=jumps) as core:
            found, = ask(core, [Request("generate", array("q", [1]), print, SamplingParams(
                max_tokens=1500), 3, constraint)])
        assert found.error is None and text.startswith(found.text.rstrip("\ufffd"))
        made.append(found.ids)
    assert made[0] == made[1] and list(made[0][:len(read)]) == whole[:len(read)]
