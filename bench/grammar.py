"""Constraints: ours beside each installed peer's, on one vocabulary and in one run.

For each case and engine: compile time, cold (nothing kept) and, ours, from the disk cache; size of
tables; masks along a sample text at the first and at later visits of a state (50th and 99th
percentile); advance; and the share of the sample's bytes that the engine forces.

    python -m bench.grammar [--repeat 5] [--cases harry,ip] [--engines sglc,llguidance] [--tables]

Peers: pip install outlines-core llguidance xgrammar (each is left out where it is missing; the
first needs minutes for the larger cases).  Times are the best of `--repeat` turns for compiling and
for each mask; on a loaded machine quote the ratios.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglc import grammar
from sglc.grammar.disk_cache import DiskCache
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.llguidance_backend import _TokenSource
from sglc.grammar.tables import token_tables
from sglc.grammar.token_index import Recent, TokenIndex
from sglc.progress import Progress
from sglc.tokens.tokenizer import Tokenizer

CHARACTER = (
    r"""\{\n    "name": "[\w\d\s]{1,16}",\n"""
    r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater"""
    r"""|order of the phoenix)",\n    "wand": \{\n        "wood": "[\w\d\s]{1,16}",\n"""
    r"""        "core": "[\w\d\s]{1,16}",\n        "length": [0-9]{1,2}\.[0-9]{0,2}\n    \},\n"""
    r"""    "alive": "(Alive|Deceased)",\n    "patronus": "[\w\d\s]{1,16}",\n"""
    r"""    "bogart": "[\w\d\s]{1,16}"\n\}""")
HARRY = """{
    "name": "Harry Potter",
    "house": "Gryffindor",
    "blood status": "Half-blood",
    "occupation": "student",
    "wand": {
        "wood": "Holly",
        "core": "Phoenix feather",
        "length": 11.0
    },
    "alive": "Alive",
    "patronus": "Stag",
    "bogart": "Dementor"
}"""
CHOICES = [f"{kind} {size} {color} box" for kind in ("large", "small", "round", "flat")
           for size in ("wooden", "paper", "steel", "glass", "stone")
           for color in ("red", "green", "blue", "white", "black")]
PERSON = {"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 40}, "age": {"type": "integer"},
    "email": {"type": "string"}, "active": {"type": "boolean"},
    "role": {"enum": ["admin", "user", "guest"]}, "score": {"type": "number"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "city": {"type": "string"}, "note": {"type": ["string", "null"]},
    "level": {"type": "integer", "minimum": 0, "maximum": 10}},
    "required": ["name", "age", "email", "active", "role", "score", "tags", "city", "note",
                 "level"], "additionalProperties": False}
ADA = {"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "active": True,
       "role": "admin", "score": 9.75, "tags": ["math", "engines"], "city": "London",
       "note": None, "level": 7}
TREE = {"$defs": {"node": {"type": "object", "properties": {
    "value": {"type": "integer"}, "children": {"type": "array",
                                               "items": {"$ref": "#/$defs/node"}}},
    "required": ["value", "children"], "additionalProperties": False}}, "$ref": "#/$defs/node"}
OAK = {"value": 1, "children": [{"value": 22, "children": []},
                                {"value": 3, "children": [{"value": 4, "children": []}]}]}


@dataclass(frozen=True, slots=True)
class Case:
    """A constraint and a text that fits it; `regex` or `schema`."""

    name: str
    sample: str
    regex: str = ""
    schema: dict[str, Any] | None = None


CASES = [
    Case("ip", "172.16.254.1",
         r"((25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)"),
    Case("e-mail", "ada.lovelace+notes@mail.example.org",
         r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}"),
    Case("date", "2024-02-14", r"\d{4}-\d{2}-\d{2}"),
    Case("float", "-1234.5678e-12", r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"),
    Case("\\w{1,50}", "Schifffahrtsgesellschaft_1887", r"\w{1,50}"),
    Case('"[^"]{1,200}"', '"It was a bright cold day in April, and the clocks were striking."',
         r'"[^"]{1,200}"'),
    Case("100 choices", CHOICES[77], "|".join(CHOICES)),
    Case("harry", HARRY, CHARACTER),
    Case("10 fields", json.dumps(ADA), schema=PERSON),
    Case("recursive", json.dumps(OAK), schema=TREE)]


class Engine:
    """One library.  `compile` gives a fresh matcher maker; a matcher reads the sample's tokens."""

    name = ""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def compile(self, case: Case) -> Any:
        raise NotImplementedError

    def start(self, compiled: Any) -> Any:
        """A matcher before the first token."""
        raise NotImplementedError

    def mask(self, matcher: Any) -> Any:
        raise NotImplementedError

    def advance(self, matcher: Any, token: int) -> Any:
        """The matcher after the token (the same object, changed, for most), None if refused."""
        raise NotImplementedError

    def forced(self, matcher: Any) -> bytes:
        return b""

    def size(self, compiled: Any) -> int | None:
        return None

    def from_disk(self, case: Case) -> Callable[[], Any] | None:
        return None


class Ours(Engine):
    name = "sglc"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.index = TokenIndex.of(tokenizer)
        self.index.disk = DiskCache(None)
        self.constraint: Any = None

    def compile(self, case: Case) -> Any:
        self.index.constraints, self.index.runs = Recent(256), Recent(16)
        what: dict[str, Any] = ({"json_schema": case.schema} if case.schema else
                                {"choices": CHOICES} if case.name == "100 choices" else
                                {"regex": case.regex})
        self.constraint = grammar.compile(**what, tokenizer=self.tokenizer)
        return self.constraint

    def start(self, compiled: Any) -> Any:
        self.constraint = compiled
        return compiled.start()

    def mask(self, matcher: Any) -> Any:
        return self.constraint.mask(matcher)

    def advance(self, matcher: Any, token: int) -> Any:
        return self.constraint.advance(matcher, token)

    def forced(self, matcher: Any) -> bytes:
        return self.constraint.jump(matcher)

    def size(self, compiled: Any) -> int | None:
        if not isinstance(compiled, FsmConstraint):
            return None
        automaton = compiled.automaton
        return automaton.step.nbytes + automaton.front.table.nbytes

    def from_disk(self, case: Case) -> Callable[[], Any] | None:
        folder = tempfile.TemporaryDirectory()

        def run() -> Any:
            before = self.index.disk
            self.index.disk = DiskCache(Path(folder.name))
            try:
                return self.compile(case)
            finally:
                self.index.disk = before

        return run if isinstance(run(), FsmConstraint) else None


class Llguidance(Engine):
    name = "llguidance"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        import llguidance
        import llguidance.numpy

        self.library = llguidance
        vocab = TokenIndex.of(tokenizer).vocab
        wrapper = llguidance.TokenizerWrapper(_TokenSource(tokenizer, vocab))
        self.shared = llguidance.LLTokenizer(wrapper, n_vocab=vocab.size,
                                             eos_token=sorted(vocab.eos))
        self.words = llguidance.numpy.allocate_token_bitmask(1, vocab.size)

    def compile(self, case: Case) -> Any:
        kind = self.library.LLMatcher
        text = (kind.grammar_from_json_schema(
            json.dumps(case.schema), overrides={"whitespace_flexible": False,
                                                "item_separator": ", ", "key_separator": ": "})
                if case.schema else kind.grammar_from_regex(case.regex))
        matcher = kind(self.shared, text, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def start(self, compiled: Any) -> Any:
        return compiled.deep_copy()

    def mask(self, matcher: Any) -> Any:
        self.library.numpy.fill_next_token_bitmask(matcher, self.words, 0)

    def advance(self, matcher: Any, token: int) -> Any:
        return matcher if matcher.try_consume_tokens([token]) == 1 else None

    def forced(self, matcher: Any) -> bytes:
        return bytes(matcher.deep_copy().compute_ff_bytes())


class Xgrammar(Engine):
    name = "xgrammar"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        import xgrammar

        self.library = xgrammar
        info = xgrammar.TokenizerInfo(
            tokenizer.byte_table, vocab_type=xgrammar.VocabType.RAW,
            vocab_size=tokenizer.vocab_size, stop_token_ids=sorted(tokenizer.eos_ids))
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.words = xgrammar.allocate_token_bitmask(1, tokenizer.vocab_size)

    def compile(self, case: Case) -> Any:
        if case.schema:
            return self.compiler.compile_json_schema(
                json.dumps(case.schema), any_whitespace=False, separators=(", ", ": "))
        return self.compiler.compile_regex(case.regex)

    def start(self, compiled: Any) -> Any:
        return self.library.GrammarMatcher(compiled)

    def mask(self, matcher: Any) -> Any:
        matcher.fill_next_token_bitmask(self.words, 0)

    def advance(self, matcher: Any, token: int) -> Any:
        return matcher if matcher.accept_token(token) else None

    def forced(self, matcher: Any) -> bytes:
        return matcher.find_jump_forward_string().encode()

    def size(self, compiled: Any) -> int | None:
        return compiled.memory_size_bytes


class OutlinesCore(Engine):
    name = "outlines-core"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        import outlines_core
        from outlines_core.json_schema import build_regex_from_schema

        self.library, self.schema_regex = outlines_core, build_regex_from_schema
        table: dict[bytes, list[int]] = {}
        for i, token in enumerate(tokenizer.byte_table):
            if token:
                table.setdefault(token, []).append(i)
        self.vocabulary = outlines_core.Vocabulary(min(tokenizer.eos_ids), table)
        self.words = np.zeros((tokenizer.vocab_size + 31) // 32, dtype=np.int32)

    def compile(self, case: Case) -> Any:
        regex = self.schema_regex(json.dumps(case.schema)) if case.schema else case.regex
        return self.library.Index(regex, self.vocabulary)

    def start(self, compiled: Any) -> Any:
        return self.library.Guide(compiled)

    def mask(self, matcher: Any) -> Any:
        matcher.write_mask_into(self.words.ctypes.data, self.words.size, 4)

    def advance(self, matcher: Any, token: int) -> Any:
        try:
            matcher.advance(token, False)
        except ValueError:
            return None
        return matcher


ENGINES: tuple[type[Engine], ...] = (Ours, Llguidance, Xgrammar, OutlinesCore)


@dataclass(slots=True)
class Row:
    """Seconds, but for `size` in bytes and `forced` as a share."""

    compile: float
    disk: float | None
    size: int | None
    cold: np.ndarray
    warm: np.ndarray
    advance: float
    forced: float
    rejected: bool


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def measure(engine: Engine, case: Case, repeat: int) -> Row:
    """All figures of one engine and case."""
    first, compiled = timed(lambda: engine.compile(case))
    turns = repeat if first < 1 else 1
    seconds = [first]
    ids = engine.tokenizer.encode(case.sample)
    cold, warm, advance = [], [], []
    rejected = False
    for turn in range(turns):
        if turn:
            again, compiled = timed(lambda: engine.compile(case))
            seconds.append(again)
        for masks in (cold, warm, warm):
            matcher, row = engine.start(compiled), []
            for token in ids:
                row.append(timed(lambda m=matcher: engine.mask(m))[0])
                took, after = timed(lambda m=matcher, t=token: engine.advance(m, t))
                advance.append(took)
                if after is None:
                    rejected = True
                    break
                matcher = after
            masks.append(row)
    disk = None
    kept = engine.from_disk(case)
    if kept is not None:
        disk = min(timed(kept)[0] for _ in range(max(repeat, 3)))
        compiled = engine.compile(case)
    return Row(min(seconds), disk, engine.size(compiled), np.min(cold, axis=0),
               np.min(warm, axis=0), float(np.median(advance)),
               forced_share(engine, compiled, case, ids), rejected)


def forced_share(engine: Engine, compiled: Any, case: Case, ids: list[int]) -> float:
    """The bytes of the sample that the engine forces at some border of its tokens."""
    data = case.sample.encode()
    forced = np.zeros(len(data), dtype=bool)
    matcher, at = engine.start(compiled), 0
    for token in ids:
        text = engine.forced(matcher)
        same = next((i for i, (a, b) in enumerate(zip(text, data[at:], strict=False)) if a != b),
                    min(len(text), len(data) - at))
        forced[at:at + same] = True
        at += len(engine.tokenizer.byte_table[token])
        matcher = engine.advance(matcher, token)
        if matcher is None:
            break
    return float(forced.mean())


def shown(engine: str, row: Row) -> str:
    micro = [f"{1e6 * float(np.percentile(x, p)):.1f}" for x in (row.cold, row.warm)
             for p in (50, 99)]
    return (f"  {engine:14s} {1e3 * row.compile:10.2f} "
            f"{'-' if row.disk is None else f'{1e3 * row.disk:.2f}':>8s} "
            f"{'-' if row.size is None else f'{row.size / 1e6:.2f}':>8s} "
            f"{micro[0]:>9s} {micro[1]:>9s} {micro[2]:>9s} {micro[3]:>9s} "
            f"{1e6 * row.advance:8.2f} {100 * row.forced:5.0f}%"
            + ("  refuses the sample" if row.rejected else ""))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--cases", default="", help="names, by commas; default: all")
    parser.add_argument("--engines", default="", help="names, by commas; default: all installed")
    parser.add_argument("--tables", action="store_true", help="also ahead-of-time token tables")
    given = parser.parse_args()
    from sglc.backends.hash_model import HashModel

    with HashModel("smollm2") as model:
        tokenizer = model.tokenizer
    cases = [c for c in CASES if not given.cases or c.name in given.cases.split(",")]
    engines = []
    for kind in ENGINES:
        if given.engines and kind.name not in given.engines.split(","):
            continue
        try:
            took, engine = timed(lambda k=kind: k(tokenizer))
        except ImportError:
            print(f"{kind.name} is not installed")
            continue
        engines.append(engine)
        print(f"{kind.name}: tokenizer prepared in {1e3 * took:.0f} ms")
    print(f"vocabulary of {tokenizer.vocab_size}; times: compile and disk in ms, size in MB, "
          "masks and advance in us")
    print(f"  {'':14s} {'compile':>10s} {'disk':>8s} {'size':>8s} {'cold p50':>9s} "
          f"{'cold p99':>9s} {'warm p50':>9s} {'warm p99':>9s} {'advance':>8s} forced")
    bar = Progress(len(cases) * len(engines), unit="run", leave=False)
    for case in cases:
        bar.say(case.name)
        for engine in engines:
            gc.collect()
            gc.disable()
            try:
                bar.say(shown(engine.name, measure(engine, case, given.repeat)))
            except Exception as error:  # a peer's failure is a result
                bar.say(f"  {engine.name:14s} {type(error).__name__}: {str(error)[:90]}")
            finally:
                gc.enable()
            bar.step()
        if given.tables and (ours := next((e for e in engines if e.name == "sglc"), None)):
            compiled = ours.compile(case)
            if isinstance(compiled, FsmConstraint):
                took, tables = timed(lambda c=compiled: token_tables(c))
                if tables is not None:
                    bar.say(f"  tables: {len(tables.states)} states, {tables.classes} classes, "
                          f"{len(tables.rows)} rows, {tables.nbytes / 1e6:.2f} MB, "
                          f"{1e3 * took:.0f} ms")
    bar.close()


if __name__ == "__main__":
    main()
