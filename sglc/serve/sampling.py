"""From a request's fields to what the engine takes: resolved options and a constraint.

`asked` and `options_of` only check; `constraint_of` may take long, and is for a thread pool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sglc import config
from sglc.config import RunOptions
from sglc.runtime import calls
from sglc.runtime.request import SamplingParams
from sglc.serve.problems import Problem
from sglc.tokens.tokenizer import Tokenizer

CONSTRAINTS = ("dtype", "regex", "json_schema", "ebnf", "choices")
_ALIASES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens",
            "sampling_seed": "seed"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Options in force (without a constraint), and the constraint's description if there is one.

    constraint: ("regex" | "json_schema" | "ebnf" | "choices" | "dtype", its value).
    logit_bias: as the engine takes it.
    """

    options: RunOptions
    constraint: tuple[str, Any] | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    def sampling_params(self, stops: tuple[str, ...] = ()) -> SamplingParams:
        """What the engine takes; `stops` are the chat template's."""
        params = calls.sampling_params(self.options, stops)
        return replace(params, logit_bias=self.logit_bias) if self.logit_bias else params


def asked(given: Mapping[str, Any], **defaults: Any) -> Asked:
    """Options from fields that were given (None: not given); `defaults` stand for the others.

    Raises Problem 400, or LanguageError for a value that no parameter can have.
    """
    values: dict[str, Any] = dict(defaults)
    for name, value in given.items():
        if value is not None:
            known = _ALIASES.get(name, name)
            if known != name and given.get(known) is not None and given[known] != value:
                raise Problem(400, f"{name} and {known} say different things", param=name,
                              code="invalid_value")
            values[known] = value
    if values.pop("stop_regex", None):
        raise Problem(400, "stop_regex is not taken from requests: matching a pattern of this "
                      "kind can take exponential time", param="stop_regex", code="unsupported")
    bias = tuple([(int(k), float(v)) for k, v in (values.pop("logit_bias", None) or {}).items()])
    found = [(k, values.pop(k)) for k in CONSTRAINTS if values.get(k) is not None]
    if len(found) > 1:
        raise Problem(400, "a request takes one constraint, not "
                      + " and ".join(k for k, _ in found), param=found[1][0],
                      code="invalid_value")
    options = replace(RunOptions(), **config.check(values))
    if not found:
        return Asked(options, None, bias)
    kind, value = found[0]
    if kind == "dtype":
        regex, stop = config.DTYPES[value]
        extra = tuple(s for s in stop if s not in options.stop)
        return Asked(replace(options, stop=options.stop + extra), ("regex", regex), bias)
    if kind == "json_schema" and not isinstance(value, str):
        value = json.dumps(value)
    if kind == "choices":
        value = tuple(value)
    return Asked(options, (kind, value), bias)


def check_bias(what: Asked, vocab_size: int) -> None:
    """Raises Problem 400 for a bias of a token that there is not."""
    for token, _ in what.logit_bias:
        if token >= vocab_size:
            raise Problem(400, f"logit_bias names the token {token}; there are {vocab_size}",
                          param="logit_bias", code="invalid_value")


def constraint_of(what: Asked, tokenizer: Tokenizer) -> Any:
    """The compiled constraint, or None.  Raises GrammarError or LanguageError."""
    if what.constraint is None:
        return None
    from sglc import grammar

    kind, value = what.constraint
    if kind == "regex":
        config.check_regex(value)
        return grammar.compile(regex=value, tokenizer=tokenizer)
    if kind == "choices":
        return grammar.compile(choices=value, tokenizer=tokenizer)
    if kind == "ebnf":
        return grammar.compile(grammar=value, tokenizer=tokenizer)
    return grammar.compile(json_schema=value, tokenizer=tokenizer)
