from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from regexes import CHARACTER, EMAIL, IP, accepts
from toy_tokenizers import merged_tokenizer
from walks import walk

import sglc.grammar as grammar
from sglc.grammar import automaton as automaton_module
from sglc.grammar.automaton import Automaton
from sglc.grammar.charset import CharSet, _unicode_class, category
from sglc.grammar.disk_cache import DiskCache
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.llguidance_backend import LlguidanceConstraint
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex
from sglc.grammar.runs import kept_run, run_of
from sglc.grammar.unicode_classes import _VERSIONS, unicode_class
from sglc.grammar.vocab import Vocabulary

ARRAYS = {"a": np.arange(7, dtype=np.int16).reshape(1, 7), "b": np.zeros((0, 3), dtype=bool),
          "c": np.array([[1, -2], [3, 4]], dtype=np.int32)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGLC_CACHE", str(tmp_path))
    return tmp_path / "grammar"


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a)


def test_round_trip(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "new" / "folder")
    assert cache.load("key") is None
    cache.store("key", ARRAYS)
    found = cache.load("key")
    assert found is not None and same(found, ARRAYS)
    assert cache.load("other") is None
    with pytest.raises(ValueError):
        found["a"][0, 0] = 1
    cache.store("key", {"a": ARRAYS["a"]})
    assert list(cache.load("key") or {}) == ["a"]
    with pytest.raises(ValueError):
        cache.store("key", {"a": np.array([object()])})


def test_without_a_folder() -> None:
    cache = DiskCache(None)
    cache.store("key", ARRAYS)
    cache.shrink()
    assert cache.load("key") is None


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SGLC_CACHE", str(tmp_path))
    assert DiskCache.of_environment().folder == tmp_path / "grammar"
    monkeypatch.setenv("SGLC_GRAMMAR_CACHE", "off")
    assert DiskCache.of_environment().folder is None
    monkeypatch.setenv("SGLC_GRAMMAR_CACHE", str(tmp_path / "own"))
    assert DiskCache.of_environment().folder == tmp_path / "own"
    monkeypatch.delenv("SGLC_GRAMMAR_CACHE")
    monkeypatch.delenv("SGLC_CACHE")
    assert DiskCache.of_environment().folder == Path.home() / ".cache" / "sglc" / "grammar"


def test_damaged_files_are_missing_files(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.store("key", ARRAYS)
    path = cache.path("key")
    assert path is not None
    data = path.read_bytes()
    rng = random.Random(0)
    for i in [0, 8, 39, 40, 41, 48, 60, len(data) - 1, *rng.sample(range(len(data)), 20)]:
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1:])
        assert cache.load("key") is None, i
        path.write_bytes(data[:i])
        assert cache.load("key") is None, i
    path.write_bytes(data)
    assert cache.load("key") is not None
    # The file of another key in its place is whole, but the right one is written again.
    cache.store("other", {"a": ARRAYS["a"]})
    path.unlink()
    path.mkdir()
    assert cache.load("key") is None
    cache.store("key", ARRAYS)  # cannot be written: no error


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    cache = DiskCache(tmp_path / "file")
    cache.store("key", ARRAYS)
    assert cache.load("key") is None


def test_the_size_is_limited(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, most=40_000)
    block = {"a": np.zeros(900, dtype=np.int32)}
    for i in range(30):
        cache.store(f"key {i}", block)
        path = cache.path(f"key {i}")
        assert path is not None
        os.utime(path, (i, i))
    cache.load("key 0")  # used just now
    cache.shrink()
    kept = [i for i in range(30) if (p := cache.path(f"key {i}")) and p.exists()]
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 40_000
    assert 0 in kept and 29 in kept and 1 not in kept
    cache.store("large", {"a": np.zeros(20_000, dtype=np.int32)})
    assert cache.load("large") is None


@pytest.mark.parametrize("pattern", [IP, CHARACTER, EMAIL, "(?s).*", r"\w{1,50}", "é|ê"])
def test_automata_are_the_same_from_arrays(pattern: str) -> None:
    made = Automaton(parse_regex(pattern), Limits())
    found = Automaton.from_arrays(made.arrays())
    assert (found.rows, found.accepting, found.infinite) == (made.rows, made.accepting,
                                                             made.infinite)
    assert found.longest_text() == made.longest_text() and found.forced(0) == made.forced(0)
    assert (found.step == made.step).all() and found.atoms.count == made.atoms.count
    for change in ({"step": made.step[1:]}, {"step": made.step + np.int16(len(made.rows))},
                   {"table": made.front.table[1:]}, {"table": made.front.table + np.int32(1)},
                   {"accepting": np.array([True] * (len(made.rows) + 1))}):
        with pytest.raises((ValueError, IndexError)):
            Automaton.from_arrays(made.arrays() | change)


def test_a_constraint_seen_before_is_not_built_again(folder: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"type": "object", "properties": {
        "a": {"type": "integer", "minimum": 3}, "b": {"type": "string", "maxLength": 5}}}
    choices = [f"choice {i * 7919 % 997}" for i in range(50)]
    first = [grammar.compile(**what, tokenizer=merged_tokenizer(500)) for what in (
        {"regex": CHARACTER}, {"json_schema": schema}, {"choices": choices})]
    assert all(isinstance(c, FsmConstraint) for c in first)

    def refuse(*args: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(automaton_module, "determinize", refuse)
    monkeypatch.setattr("sglc.grammar.compiler.parse_regex", refuse)
    tokenizer = merged_tokenizer(500)
    for before, what in zip(first, ({"regex": CHARACTER}, {"json_schema": schema},
                                    {"choices": choices}), strict=True):
        again = grammar.compile(**what, tokenizer=tokenizer)
        assert isinstance(again, FsmConstraint) and isinstance(before, FsmConstraint)
        states = [s for s in range(0, 40 * again.nodes, again.nodes)
                  if s < len(again.automaton.accepting) * again.nodes]
        for state in states:
            assert (again.mask(state) == before.mask(state)).all()
            assert again.jump(state) == before.jump(state)
    # Damaged: built again, which is refused here.
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(AssertionError, match="built again"):
        grammar.compile(regex=CHARACTER, tokenizer=merged_tokenizer(500))


def test_damaged_files_are_written_again(folder: Path) -> None:
    category.cache_clear()
    grammar.compile(regex=IP, tokenizer=merged_tokenizer(300))
    files = {f: f.read_bytes() for f in folder.iterdir()}
    for file in files:
        file.write_bytes(b"damaged")
    category.cache_clear()
    tokenizer = merged_tokenizer(300)
    constraint = grammar.compile(regex=IP, tokenizer=tokenizer)
    assert re.fullmatch(IP, walk(constraint, tokenizer, random.Random(0)))
    assert {f: f.read_bytes() for f in folder.iterdir()} == files


def test_that_a_pattern_is_too_large_is_kept(folder: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, limits = r"(a|b)*a(a|b){9}\w?", Limits(states=100)
    first = grammar.compile(regex=pattern, tokenizer=merged_tokenizer(300), limits=limits)
    assert isinstance(first, LlguidanceConstraint)
    monkeypatch.setattr(automaton_module, "build_nfa", None)
    again = grammar.compile(regex=pattern, tokenizer=merged_tokenizer(300), limits=limits)
    assert isinstance(again, LlguidanceConstraint)


@pytest.mark.parametrize("letter", "dsw")
def test_written_classes_are_those_of_re(letter: str) -> None:
    """And on a Python with other Unicode tables they are read off these."""
    written = unicode_class(letter)
    if unicodedata.unidata_version in _VERSIONS:
        assert written is not None and CharSet(written) == _unicode_class(letter)
    else:
        assert written is None


def test_unicode_tables_and_runs_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglc.grammar.charset.unicode_class", lambda _: None)
    category.cache_clear()
    first = {letter: category(letter, False) for letter in "dswDSW"}
    category.cache_clear()
    assert {letter: category(letter, False) for letter in "dswDSW"} == first
    vocab = Vocabulary(merged_tokenizer(5000))
    cache = DiskCache(folder)
    for charset in (first["w"], CharSet([(0, 0x10FFFF)]), CharSet([(97, 122)])):
        one, two = kept_run(charset, vocab, cache), kept_run(charset, vocab, cache)
        three = run_of(charset, vocab)
        for name in three.__slots__:
            a, b, c = (getattr(r, name) for r in (one, two, three))
            assert np.array_equal(a, b) and np.array_equal(b, c), name


def test_two_processes(folder: Path) -> None:
    """The cache of one process serves another, with other hash seeds."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "import hashlib\nimport sglc.grammar as g\n"
            "from toy_tokenizers import merged_tokenizer\nfrom regexes import CHARACTER\n"
            "c = g.compile(regex=CHARACTER, tokenizer=merged_tokenizer(400))\n"
            "print(hashlib.sha256(b''.join(c.mask(q * c.nodes).tobytes() for q in range(50)))"
            ".hexdigest())")
    out = [subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], check=True, text=True,
        capture_output=True, env=os.environ | {"PYTHONHASHSEED": str(seed)}).stdout
        for seed in (1, 2)]
    assert out[0] == out[1] and len(list(folder.iterdir())) >= 2


def test_language_survives(folder: Path) -> None:
    for _ in range(2):
        found = grammar.compile(regex=EMAIL, tokenizer=merged_tokenizer(300))
        assert isinstance(found, FsmConstraint)
        assert accepts(found.automaton, "a@b.org") and not accepts(found.automaton, "a@b")
