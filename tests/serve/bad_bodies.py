"""Requests that make no sense, by hand: (path, body) pairs; bytes are sent as they are."""

from __future__ import annotations

import gzip
import json
from typing import Any

GEN, COMP, CHAT, PROG = "/generate", "/v1/completions", "/v1/chat/completions", "/v1/programs"
_USER = [{"role": "user", "content": "x"}]
_BASE: dict[str, dict[str, Any]] = {
    GEN: {"text": "x"}, COMP: {"prompt": "x"}, CHAT: {"messages": _USER},
    PROG: {"ir": "", "rows": [{}]}}
_BAD_VALUES: dict[str, list[Any]] = {
    "temperature": [-1, "hot", [], {}, 1e308, True],
    "top_p": [0, -0.5, 1.5, "x"], "top_k": [-2, 1.5, "x", 2**40],
    "n": [0, -1, 17, 2**31, 1.5, "2"], "stop": ["", [""], 5, ["x"] * 17, "x" * 300, [None]],
    "seed": [1.5, "x", []], "presence_penalty": [3, -3, "x"], "frequency_penalty": [9, "x"],
    "max_tokens": [-1, 1.5, "many", 2**40], "regex": [5, "(", "a" * 70_000, "(?=a)b", "\\1"],
    "json_schema": [5, "{", '{"type": "nonsense"}', {"$ref": "#/nowhere"}],
    "choices": [[], [""], "ab", [1], ["a", "a"]], "ebnf": ["root ::= (", 5],
    "stream": ["yes", 1], "no_such_field": [1],
    "logit_bias": [{"1": 101}, {"a": 1}, {"-1": 1}, {"999999": 1}, []],
    "min_tokens": [-1], "stop_token_ids": [[-1], ["x"], [1] * 65],
}
_RENAMED = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}
_NOT_SAMPLING = ("stream", "no_such_field")


def cases() -> list[tuple[str, Any]]:
    """More than 200 of them."""
    out: list[tuple[str, Any]] = []
    for name, values in _BAD_VALUES.items():
        for value in values:
            for path in (COMP, CHAT):
                out.append((path, {**_BASE[path], name: value}))
            if name in _NOT_SAMPLING:
                out.append((GEN, {"text": "x", name: value}))
            else:
                out.append((GEN, {"text": "x", "sampling_params": {
                    _RENAMED.get(name, name): value}}))
    for path in _BASE:
        out += [(path, raw) for raw in (
            b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"{} {}",
            b"[" * 100_000, b'{"a":' * 70 + b"1" + b"}" * 70, b'{"text": NaN}',
            b'{"text": "x", "temperature": Infinity}', b'{"text": "x", "seed": ' + b"9" * 5000
            + b"}", b'{"n": 1e400}', b'{"text": "x", "text": "y"}', b'{"text": "\\ud800"',
            gzip.compress(json.dumps(_BASE[path]).encode()))]
    out += [(CHAT, {"messages": m}) for m in (
        [], [{}], "x", [{"role": "user"}], [{"role": "robot", "content": "x"}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "audio"}]}], _USER * 257,
        [{"role": "user", "content": "x", "extra": 1}])]
    out += [(CHAT, {"messages": _USER, "response_format": f}) for f in (
        5, {}, {"type": "xml"}, {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}})]
    out += [(COMP, {"prompt": p}) for p in (
        [], [[]], None, 5, [1, "a"], [[1], "a"], {"a": 1}, ["x"] * 257, [10**9], [-1], "")]
    out += [(GEN, b) for b in (
        {"text": None}, {"text": 5}, {"text": [5]}, {"input_ids": []}, {"input_ids": ["a"]},
        {"input_ids": [[1], 2]}, {"text": "x", "sampling_params": []},
        {"text": "x", "sampling_params": 5}, {"text": "x", "image_data": "file:///etc/passwd"},
        {"text": "x" * 70_000}, {"text": "x", "logprob_start_len": "a"},
        {"text": "x", "top_logprobs_num": 1000, "return_logprob": True})]
    out += [(PROG, b) for b in (
        {"ir": "x"}, {"rows": [{}]}, {"ir": 5, "rows": [{}]}, {"ir": "x", "rows": []},
        {"ir": "x" * 1_000_001, "rows": [{}]}, {"ir": "program @p() {\n}", "rows": [{}]},
        {"ir": "x", "rows": [[]]}, {"ir": "x", "rows": [{}], "level": 9},
        {"ir": "x", "rows": [{}], "options": {"max_tokens": -1}})]
    return out
