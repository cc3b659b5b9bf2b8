"""Options of generations and runs: names, ranges, defaults and how they combine.

`GenParams` is what one `gen` says (None: not said); `RunOptions` is what `run()` says for all of
them.  `resolve` combines the two.  This module knows no tokenizer, model or program.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from sglc.errors import LanguageError

REGEX_INT = r"[-+]?[0-9]+[ \n]*"
REGEX_FLOAT = r"[-+]?[0-9]*\.?[0-9]+[ \n]*"
REGEX_BOOL = r"(True|False)"
REGEX_STR = r"\"[\w\d\s]*\""

# dtype -> (regex, stop strings added); SGLang's later forms (compat: since #1082).
DTYPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "int": (REGEX_INT, (" ", "\n")),
    "float": (REGEX_FLOAT, (" ", "\n")),
    "bool": (REGEX_BOOL, ()),
    "str": (REGEX_STR, ()),
}

CONSTRAINTS = ("dtype", "regex", "json_schema", "ebnf")
"""Parameters that say what a generated text must be: at most one is given."""

CHOICES_METHODS = ("token_length_normalized", "greedy_token_selection",
                   "unconditional_likelihood_normalized")


@dataclass(frozen=True, slots=True)
class GenParams:
    """Parameters of one `gen`; None means: as the run says."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    stop_token_ids: tuple[int, ...] | None = None
    stop_regex: tuple[str, ...] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    no_stop_trim: bool | None = None
    n: int | None = None
    seed: int | None = None
    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    dtype: str | None = None
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    heal: bool | None = None

    def given(self) -> dict[str, Any]:
        """The parameters that were said, by name."""
        return {f: v for f in _FIELDS if (v := getattr(self, f)) is not None}


_FIELDS = tuple(f.name for f in fields(GenParams))


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Defaults of a run for every `gen` in it (SGLang's, with `max_new_tokens` 128)."""

    max_tokens: int = 128
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    no_stop_trim: bool = False
    n: int = 1
    seed: int | None = None
    return_logprob: bool = False
    logprob_start_len: int = -1
    top_logprobs_num: int = 0
    return_text_in_logprobs: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    dtype: str | None = None
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    heal: bool = False
    num_api_spec_tokens: int | None = None  # the program's, for remote APIs; 0: no gen follows


@lru_cache(maxsize=4096)
def resolve(params: GenParams, run: RunOptions) -> RunOptions:
    """The options in force for a gen: what it says, else what the run says.

    A `dtype` becomes its regex, with its stop strings added.  A gen's own constraint stands in
    for the run's.  The run's seed is not a gen's (it seeds sampling keys by path), so only a
    gen's own `seed` is kept.
    """
    given = params.given()
    if any(name in given for name in CONSTRAINTS):
        given = {**dict.fromkeys(CONSTRAINTS), **given}
    merged = replace(run, **{**given, "seed": params.seed})
    if merged.dtype is not None:
        regex, stop = DTYPES[merged.dtype]
        extra = tuple(s for s in stop if s not in merged.stop)
        merged = replace(merged, regex=regex, stop=merged.stop + extra, dtype=None)
    return merged


def _fail(what: str, *fixes: str) -> LanguageError:
    return LanguageError("SGLC004", what, fixes=fixes)


def text_tuple(name: str, value: Any) -> tuple[str, ...] | None:
    """A string or a sequence of strings as a tuple; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        value = (value,)
    try:
        out = tuple(value)
    except TypeError:
        raise _fail(f"{name} must be a string or a list of strings, not {value!r}") from None
    for s in out:
        if not isinstance(s, str):
            raise _fail(f"{name} must hold strings, not {s!r}")
        if not s:
            raise _fail(f"{name} holds an empty string, which would match at once",
                        "remove the empty string")
    return out


def _int_tuple(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, int):
        value = (value,)
    out = tuple(value)
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in out):
        raise _fail(f"{name} must hold token ids (integers >= 0), not {value!r}")
    return out


def _number(name: str, value: Any, low: float, high: float, *, open_low: bool = False,
            integer: bool = False) -> Any:
    kinds = (int,) if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        kind = "an integer" if integer else "a number"
        raise _fail(f"{name} must be {kind}, not {value!r}")
    if not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        top = "inf)" if high == float("inf") else f"{high:g}]"
        raise _fail(f"{name} must be in {bracket}{low:g}, {top}, not {value!r}")
    return value


_INF = float("inf")
_RANGES: dict[str, tuple[float, float, bool, bool]] = {  # low, high, open_low, integer
    "max_tokens": (0, _INF, False, True),
    "min_tokens": (0, _INF, False, True),
    "temperature": (0, _INF, False, False),
    "top_p": (0, 1, True, False),
    "min_p": (0, 1, False, False),
    "frequency_penalty": (-2, 2, False, False),
    "presence_penalty": (-2, 2, False, False),
    "repetition_penalty": (0, 2, True, False),
    "n": (1, 4096, False, True),
    "seed": (-(2**63), 2**64 - 1, False, True),
    "logprob_start_len": (-1, _INF, False, True),
    "top_logprobs_num": (0, 1024, False, True),
}


def check(values: dict[str, Any]) -> dict[str, Any]:
    """Validated and normalised parameters (names as in GenParams); None values are dropped.

    Raises LanguageError SGLC004 for a value out of range, SGLC006 for a bad regex.
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name in ("stop", "stop_regex"):
            value = text_tuple(name, value)
            if name == "stop_regex":
                for pattern in value or ():
                    check_regex(pattern, name)
        elif name == "stop_token_ids":
            value = _int_tuple(name, value)
        elif name == "top_k":
            _number(name, value, -1, _INF, integer=True)
            if value == 0:
                raise _fail("top_k must be -1 (off) or at least 1, not 0", "use top_k=-1")
        elif name in _RANGES:
            low, high, open_low, integer = _RANGES[name]
            value = _number(name, value, low, high, open_low=open_low, integer=integer)
            if name in ("temperature", "top_p", "min_p") or name.endswith("penalty"):
                value = float(value)
        elif name == "dtype":
            value = _dtype(value)
        elif name == "regex":
            check_regex(value, name)
        elif name in ("json_schema", "ebnf"):
            if not isinstance(value, str):
                raise _fail(f"{name} must be a string, not {type(value).__name__}")
        elif name in _BOOLS:
            if not isinstance(value, bool):
                raise _fail(f"{name} must be True or False, not {value!r}")
            if name == "skip_special_tokens" and not value:
                raise LanguageError("SGLC008", "skip_special_tokens=False is not supported",
                                    why="control tokens have no text in a prompt",
                                    fixes=("read the ids from get_meta_info instead",))
        out[name] = value
    constraints = [k for k in CONSTRAINTS if k in out]
    if len(constraints) > 1:
        raise _fail(f"a gen takes one constraint, not {' and '.join(constraints)}")
    return out


_BOOLS = frozenset(("ignore_eos", "no_stop_trim", "return_logprob", "return_text_in_logprobs",
                    "skip_special_tokens", "spaces_between_special_tokens", "heal"))


def _dtype(value: Any) -> str:
    name = value if isinstance(value, str) else getattr(value, "__name__", None)
    if name not in DTYPES:
        raise _fail(f"dtype must be int, float, bool or str, not {value!r}",
                    "use regex= for another format")
    return name


def check_regex(pattern: Any, name: str = "regex") -> None:
    """Raise LanguageError SGLC006 unless `pattern` is a regular expression Python accepts."""
    import re

    if not isinstance(pattern, str):
        raise LanguageError("SGLC006", f"{name} must be a string, not {pattern!r}")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as e:
        where = f" at position {e.pos}" if getattr(e, "pos", None) is not None else ""
        raise LanguageError("SGLC006", f"bad regular expression{where}: {e}",
                            fixes=("correct the pattern", "use choices= for a fixed set of texts"),
                            ) from None
