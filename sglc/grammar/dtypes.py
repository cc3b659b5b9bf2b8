"""The regexes of typed generation, as SGLang has them since 0.2.13."""

from __future__ import annotations

from sglc.errors import GrammarError

REGEX_INT = r"[-+]?[0-9]+[ \n]*"
REGEX_FLOAT = r"[-+]?[0-9]*\.?[0-9]+[ \n]*"
REGEX_BOOL = r"(True|False)"
REGEX_STR = r"\"[\w\d\s]*\""

_REGEXES = {"int": REGEX_INT, "float": REGEX_FLOAT, "bool": REGEX_BOOL, "str": REGEX_STR}


def dtype_regex(dtype: type | str) -> str:
    """The regex for `int`, `float`, `bool` or `str`, given as the type or its name."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", repr(dtype))
    if name not in _REGEXES:
        raise GrammarError("SGLC004", f"dtype must be int, float, bool or str, not {dtype!r}")
    return _REGEXES[name]
