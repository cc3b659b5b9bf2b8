"""Hostile constraints, by name; run as a script, compiles each under limits and prints what came
of it.

    python hostile.py [NAME ...]

prints one JSON object a line: name, outcome ("compiled" with the kind, or the error's code and
text), CPU seconds, and megabytes that the process grew by.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS = 2
MEGABYTES = 512


def _words(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return sorted({"".join(rng.choices("abcdefghijklmnop", k=rng.randint(4, 12)))
                   for _ in range(count)})


def _deep(levels: int, kind: str) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = ({"type": "array", "items": schema} if kind == "array" else
                  {"type": "object", "properties": {"a": schema}, "required": ["a"]}
                  if kind == "object" else {"allOf": [schema]})
    return schema


def _nested_value(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _doubling(levels: int, keyword: str) -> Any:
    defs: dict[str, Any] = {f"d{levels}": {"type": "null"}}
    for i in range(levels):
        ref = {"$ref": f"#/$defs/d{i + 1}"}
        defs[f"d{i}"] = ({"type": "object", "properties": {"a": ref, "b": ref}}
                         if keyword == "properties" else {keyword: [ref, ref]})
    return {"$ref": "#/$defs/d0", "$defs": defs}


def _shared(levels: int) -> Any:
    """A schema of a few dicts, which is huge when it is written out."""
    schema: Any = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


def _members(count: int, required: bool) -> Any:
    names = [f"member_{i}" for i in range(count)]
    return {"type": "object", "properties": {n: {"type": "integer"} for n in names},
            "required": names if required else []}


_STRING = {"type": "string"}
REGEXES: dict[str, str] = {
    "exponential-20": "(a|b)*a(a|b){20}", "exponential-12": "(a|b)*a(a|b){12}",
    "wide-count": "[a-z]{1,10000}", "fixed-count": "[a-z]{10000}",
    "count-of-count": "((a{100}){100}){100}", "counts-of-counts": "((a{1,100}){1,100}){1,100}",
    "star-of-star": "(a*)*(b*)*c", "plus-of-plus": "((a+)+)+b", "same-options": "(a|a)*(a|a)*b",
    "overlap": "(a|aa|aaa)+$", "any-star-star": "((.*)*)*x", "any-a-20": "(.*a){20}",
    "x-x": "(x+x+)+y", "gap": "(.|\n)*(foo|bar)(.|\n){0,30}qux",
    "optional-1000": "(a?){1000}a{1000}", "words-of-words": r"(\w{1,100}\s){1,100}",
    "words-10000": r"\w{1,10000}", "any-10000": ".{0,10000}", "non-ascii": "[^\x00-\x7f]{1,3000}",
    "digits-3000": r"(?:\d{1,3}){1,3000}", "two-counts": "(a{0,9999}b{0,9999})?",
    "three-counts": "(((a|b){1,50}c){1,50}d){1,50}", "any-a-gap": "(?s).*a.{15}",
    "gap-gap": "(?s).*a.{9}b.{9}", "options-1mb": "|".join(_words(130_000)),
    "options-90kb": "|".join(_words(9_000)), "open-groups": "(?:" * 33_000,
    "deep-groups": "(" * 80 + "a" + ")?" * 80, "too-deep-groups": "(" * 81 + "a" + ")" * 81,
    "long": "a" * 100_001, "bars": "|" * 99_999, "empty-groups": "()" * 49_999,
    "carets": "^" * 5_000 + "a", "lines": r"(?m)(^a{0,50}$\n?){100}",
    "lines-star": r"(?m)(^(a|b$)*\n*)*$", "fold": "(?i)[\x00-\U0010ffff]{1,50}k",
    "huge-class": "[" + "".join(chr(c) for c in range(0x4E00, 0x9000, 2)) + "]{1,50}",
    "sliding": "".join(f"[a-{chr(122 - i)}]*" for i in range(25)),
    "subsequence": ".*".join("abcdefghijklmnopqrstuvwxyz"), "empty": "a^",
    "empty-class": r"[^\w\W]",
    "surrogate": "\ud800", "unspellable": "[\x04\x06]{3}", "half-unspellable": "(a|\x04){1,2000}",
    "count-18": "a{999999999999999999}", "count-10001": "a{10001}",
    "look": "(?=.*a)(?=.*b).*", "reference": r"(.*)\1"}
OTHERS: dict[str, dict[str, Any]] = {
    "choices-100000": {"choices": _words(120_000)}, "choice-1mb": {"choices": ["a" * (1 << 20)]},
    "choices-surrogates": {"choices": ["\ud800", "\udfffb"]},
    "no-base": {"json_schema": {"type": "object", "properties": {"a": {"$ref": "#"}},
                                "required": ["a"]}},
    "itself": {"json_schema": {"$ref": "#"}},
    "loop": {"json_schema": {"$ref": "#/$defs/a", "$defs": {
        "a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}},
    "doubling-members": {"json_schema": _doubling(30, "properties")},
    "doubling-all": {"json_schema": _doubling(30, "allOf")},
    "doubling-any": {"json_schema": _doubling(30, "anyOf")},
    "any-times-any": {"json_schema": {"allOf": [
        {"anyOf": [{"type": "integer", "minimum": i}, {"type": "integer", "maximum": -i}]}
        for i in range(1, 40)]}},
    "deep-arrays": {"json_schema": _deep(3000, "array")},
    "deep-objects": {"json_schema": _deep(100, "object")},
    "deep-all": {"json_schema": _deep(400, "all")},
    "deep-const": {"json_schema": {"const": _nested_value(5000)}},
    "deep-text": {"json_schema": "[" * 100_000},
    "enum-100000": {"json_schema": {"enum": list(range(100_000))}},
    "max-length": {"json_schema": _STRING | {"maxLength": 100_000}},
    "min-length": {"json_schema": _STRING | {"minLength": 10**9}},
    "max-items": {"json_schema": {"type": "array", "items": _STRING, "maxItems": 10**6}},
    "min-items": {"json_schema": {"type": "array", "items": _STRING, "minItems": 10**6}},
    "members-2000": {"json_schema": _members(2_000, True)},
    "optional-500": {"json_schema": _members(500, False)},
    "optional-counted": {"json_schema": _members(200, False) | {"minProperties": 100}},
    "pattern": {"json_schema": _STRING | {"pattern": "(a|b)*a(a|b){25}"}},
    "pattern-length": {"json_schema": _STRING | {"pattern": "^(ab|ba)*$", "maxLength": 4000}},
    "patterns": {"json_schema": {"allOf": [_STRING | {"pattern": f"{c}.{{9}}{c}"}
                                           for c in "abcdef"]}},
    "multiple": {"json_schema": {"type": "integer", "multipleOf": 997, "maximum": 10**18}},
    "huge-bounds": {"json_schema": {"type": "number", "minimum": -1e308, "maximum": 1e308}},
    "tiny-bounds": {"json_schema": {"type": "number", "exclusiveMinimum": 1e-300,
                                    "maximum": 1e-299}},
    "huge-integers": {"json_schema": {"type": "integer", "minimum": 10**3000}},
    "one-of-200": {"json_schema": {"oneOf": [
        {"type": "object", "properties": {f"a{i}": {"type": "null"}}} for i in range(200)]}},
    "dependent-60": {"json_schema": _members(60, False) | {
        "dependentRequired": {f"member_{i}": [f"member_{i + 1}"] for i in range(59)}}},
    "grammar-doubling": {"grammar": "start: a0\n" + "".join(
        f"a{i}: a{i + 1} a{i + 1}\n" for i in range(40)) + 'a40: "x"'},
    "grammar-1mb": {"grammar": "start: " + " | ".join(f'"{w}"' for w in _words(80_000))},
    "grammar-no-base": {"grammar": 'start: "a" start'},
    "shared-parts": {"json_schema": _shared(60)},
    "grammar-deep": {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"regex": pattern} for name, pattern in REGEXES.items()}, **OTHERS}
QUICK = ("exponential-20", "gap", "options-1mb", "deep-arrays", "doubling-members", "no-base",
         "max-items", "lines", "choices-surrogates", "grammar-doubling")


def _limited(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`work` in a process of its own, with limits on memory and CPU time."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (MEGABYTES << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            found = work()
        except MemoryError:
            found = {"outcome": "MemoryError"}
        found["seconds"] = time.process_time() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        found["megabytes"] = max(grown, 0) / 1024
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(data) if data else {"outcome": f"died with status {status}",
                                          "seconds": 0.0, "megabytes": 0.0}


def main() -> None:
    from toy_tokenizers import merged_tokenizer

    import sglc.grammar as grammar
    from sglc.errors import GrammarError
    from sglc.grammar.token_index import TokenIndex

    tokenizer = merged_tokenizer(2000, seed=1, without=b"\x04\x06")
    TokenIndex.of(tokenizer)
    for name in sys.argv[1:] or CASES:
        def work(what: dict[str, Any] = CASES[name]) -> dict[str, Any]:
            try:
                constraint = grammar.compile(**what, tokenizer=tokenizer)
                constraint.mask(constraint.start())
            except GrammarError as error:
                return {"outcome": error.code, "text": str(error)}
            except (RecursionError, ValueError, TypeError, OverflowError) as error:
                return {"outcome": f"{type(error).__name__}: {error}"[:300]}
            return {"outcome": "compiled", "text": type(constraint).__name__}

        print(json.dumps({"name": name, **_limited(work)}), flush=True)


if __name__ == "__main__":
    main()
