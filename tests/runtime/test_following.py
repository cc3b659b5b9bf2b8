"""Constraints that follow all rows by a device's tables do what they do token by token."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglc import grammar
from sglc.backends.hash_model import open_tokenizer
from sglc.errors import GrammarError
from sglc.grammar.canonical import REACHES, Canonical
from sglc.kernels.follow_tokens import follow_tokens_torch
from sglc.kernels.fsm import NO_TABLE
from sglc.runtime.admission import Admission
from sglc.runtime.cuda.device_tables import DeviceTables
from sglc.runtime.following import follow
from sglc.runtime.sampler import unpack
from sglc.runtime.sequence import Sequence
from tests.grammar.regexes import CHARACTER, PATTERNS
from tests.runtime.common import Bytes, request
from tests.runtime.test_jump import FIELDS, TEMPLATES

TOKENIZERS = {"bytes": Bytes(), "small": open_tokenizer("small"),
              "smollm2": open_tokenizer("smollm2")}


def admission(tok: Any, tables: bool) -> Admission:
    made = Admission(tok, tok.vocab_size, 4096, 4096, jumps=True,
                     aside=(lambda make: make()) if tables else None)
    made.rules.uses = 1
    return made


def opened(way: Admission, tok: Any, rule: Any, options: dict[str, Any], plain: bool) -> Sequence:
    """A row; `plain`: somebody looks at each of its tokens, so none is leapt over."""
    if plain:
        options = {**options, "on_text": lambda text: None}
    return way.open(request(tok.encode("q: "), constraint=rule, **options), 0,
                    None, False)  # type: ignore[arg-type]


def seen(seq: Sequence) -> Any:
    draw = seq.draw
    out = (list(seq.ids), seq.count, seq.forced, seq.sampled_at, seq.decoding, draw.index,
           seq.finished, seq.reason, seq.matched, str(seq.error), seq.target, seq.want)
    return out if seq.finished else (*out, draw.state, draw.words.tobytes())


def states_after(tables: DeviceTables, draws: list[Any], tokens: list[int]) -> list[int]:
    """Where the tables say that rows are, as `follow` takes it."""
    tables.hold([draw.rule for draw in draws])
    if tables.packed is None:
        return []
    now = [NO_TABLE if draw.rule is None or not draw.rule.there
           else tables.number(draw.rule) << 32 | draw.rule.numbers[draw.state] for draw in draws]
    found = follow_tokens_torch(tables.packed, torch.tensor(now), torch.zeros(1).long(),
                                torch.tensor(tokens))
    return found[1].numpy().astype(np.int32).tolist()


def walk(tok: Any, patterns: list[str], rows: int, seed: int, odd: float,
         options: dict[str, Any]) -> tuple[int, int]:
    """Rows that follow by tables, beside rows that do not; (tokens followed at once, in all)."""
    rules = []
    for pattern in patterns:
        try:
            rules.append(grammar.compile(regex=pattern, tokenizer=tok))
        except GrammarError:
            continue
    if not rules:
        return 0, 0
    rng = np.random.default_rng(seed)
    ways = admission(tok, True), admission(tok, False)
    pairs = [(opened(ways[0], tok, rules[i % len(rules)], options, False),
              opened(ways[1], tok, rules[i % len(rules)], options, True)) for i in range(rows)]
    tables = DeviceTables(-(-tok.vocab_size // 32), torch.device("cpu"), 1 << 24)
    at_once = drawn = 0
    for _ in range(80):
        for seq, twin in pairs:
            assert seen(seq) == seen(twin)
        pairs = [p for p in pairs if not p[0].finished]
        if not pairs:
            break
        void = {seq for seq, _ in pairs if rng.random() < odd}
        tokens = []
        for seq, _ in pairs:
            allowed = np.flatnonzero(unpack(seq.draw.words, tok.vocab_size))
            token = int(rng.choice(allowed)) if len(allowed) else -1
            tokens.append(int(rng.integers(-2, tok.vocab_size)) if rng.random() < odd else token)
        step = SimpleNamespace(samples=[(seq, 0) for seq, _ in pairs], void=void)
        states = states_after(tables, [seq.draw for seq, _ in pairs], tokens) or [-1] * len(pairs)
        kept = [seq.draw.number for seq, _ in pairs]
        follow(step, states)  # type: ignore[arg-type]
        for (seq, twin), token, state, before in zip(pairs, tokens, states, kept, strict=True):
            known = state >= 0
            if seq in void:
                assert seq.draw.number == before
                continue
            drawn += 1
            at_once += known
            assert seq.accept(token, None, known) == twin.accept(token)
    return at_once, drawn


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(TEMPLATES, PATTERNS), min_size=1, max_size=3), st.integers(1, 12),
       st.integers(0, 99), st.sampled_from([0.0, 0.05]), st.fixed_dictionaries({
           "max_tokens": st.sampled_from([1, 5, 20, 60]),
           "ignore_eos": st.booleans(),
           "stop_token_ids": st.sampled_from([(), (), (ord("e"), 300, 34)]),
           "repetition_penalty": st.sampled_from([1.0, 1.0, 1.0, 1.3])}))
def test_as_token_by_token(name: str, patterns: list[str], rows: int, seed: int, odd: float,
                           options: dict[str, Any]) -> None:
    walk(TOKENIZERS[name], patterns, rows, seed, odd, options)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_most_rows_follow_at_once(name: str) -> None:
    at_once, drawn = walk(TOKENIZERS[name], [CHARACTER, FIELDS], 16, 3, 0.0, {"max_tokens": 400})
    assert at_once > 0.4 * drawn > 100, (at_once, drawn)


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=12),
       st.lists(st.integers(0, 40_000), max_size=12), st.text('aé漢 ".1', min_size=0, max_size=6),
       st.sampled_from([b'"', b" ", b"a", b"1", b"\n", b"\xc3"]))
@settings(max_examples=200, deadline=None)
def test_reaches(ids: list[int], other: list[int], text: str, then: bytes) -> None:
    """What the last tokens tell surely, they tell whatever comes before them."""
    tok = TOKENIZERS["smollm2"]
    rule = Canonical.of(tok)
    ids = ids + tok.encode(text)
    data, reach = rule.before(array("q", ids), 0, then)
    if reach:
        assert rule.before(array("q", ids[-reach:]), 0, then)[0] == data
        if reach in REACHES:
            assert rule.before(array("q", other + ids[-reach:]), 0, then) == (data, reach)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_choices_are_choices(name: str) -> None:
    """Where tables alone tell that a token is drawn, looking at the state says so too."""
    tok = TOKENIZERS[name]
    free = 0
    for pattern in (CHARACTER, FIELDS, "(?:é漢|é字)+!{3}", "(?:the cat|the car)s? sat", "a{9}b?"):
        rule = admission(tok, True).rules.of(grammar.compile(regex=pattern, tokenizer=tok))
        for number in range(0, len(rule.free), 1 + len(rule.free) // 500):
            if rule.free[number]:
                outlook = rule.outlook(rule.state_of(number))
                assert outlook.choice is not None
                assert not rule.constraint.jump(outlook.state)
                free += 1
    assert free > 100


@pytest.mark.parametrize("began", [False, True])
def test_tables_that_come_while_a_run_is_looked_for(began: bool) -> None:
    """What was found without them is not remembered beside what is found with them."""
    tok = TOKENIZERS["smollm2"]  # whose borders are known, so that runs are remembered
    way = admission(tok, False)
    rule = way.rules.of(grammar.compile(regex="one of:[0-9], two of:[0-9]", tokenizer=tok))
    plain = rule._run

    def late(*given: Any) -> Any:
        found = plain(*given)
        if rule.tables is None:
            rule.make()
        return found

    numbers = []
    for turn in range(3):
        if turn or not began:
            rule._run = late  # type: ignore[method-assign]
        seq = opened(way, tok, rule.constraint, {}, False)
        rule._run = late  # type: ignore[method-assign]
        first = seq.draw.number
        assert not seq.accept(*tok.encode("7"))
        assert tok.decode(seq.ids) == "q: one of:7, two of:"
        numbers.append((first, seq.draw.number))
    assert rule.tables is not None
    assert numbers[0][0] < 0 <= min(numbers[1])
    assert numbers[1] == numbers[2]
