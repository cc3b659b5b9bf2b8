"""`compile`: a regex, choices, a dtype, a JSON schema or a grammar -> Constraint.

Regular constraints get their own automaton; what is not regular, or too large for one, goes to
llguidance behind the same protocol.  Which of the two is decided by counts alone, so the same
constraint always takes the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from sglc.collector import collection_paused
from sglc.errors import GrammarError
from sglc.grammar import llguidance_backend
from sglc.grammar.constraint import Constraint
from sglc.grammar.dtypes import dtype_regex
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.grammar_text import grammar_node
from sglc.grammar.json_reader import ANNOTATIONS, KEYWORDS
from sglc.grammar.json_schema import schema_node
from sglc.grammar.json_shapes import Unsupported
from sglc.grammar.kept import KeptText
from sglc.grammar.nfa import Limits, TooLarge
from sglc.grammar.regex_parser import MAX_PATTERN, parse_regex
from sglc.grammar.render import has_anchor, to_regex
from sglc.grammar.schema import check_ends, check_spelling, closed, schema_text
from sglc.grammar.syntax import Node, shortest, words
from sglc.grammar.token_index import TokenIndex
from sglc.tokens.tokenizer import Tokenizer

_JSON_SPACE = " \t\n\r"
_SHOWN = 80  # characters of a pattern in a message
MAX_TEXT = 500_000
"""Characters of a JSON schema, and of all choices together."""


def compile(*, regex: str | None = None, choices: Iterable[str] | None = None,
            json_schema: Any = None, grammar: str | None = None, dtype: type | str | None = None,
            separators: tuple[str, str] = (", ", ": "), tokenizer: Tokenizer,
            limits: Limits | None = None) -> Constraint:
    """The constraint to exactly the texts that one of these describes:

    `regex`: those that Python's `re.fullmatch` accepts; `choices`: one of these strings;
    `dtype`: `int`, `float`, `bool` or `str`; `json_schema`: JSON that fits a schema (text, dict,
    pydantic model or type), with `separators` after members and keys, as far as
    `json_schema.py` writes it; `grammar`: a Lark grammar with the rule `start`, or an EBNF one
    with `root ::= ...`.

    Compiled constraints are kept with the tokenizer.  Raises GrammarError: SGLC006 for a bad
    regex, SGLC005 for bad choices, SGLC011 for a schema or grammar that cannot be enforced,
    SGLC505 where the tokenizer can write none of the texts.
    """
    given = {"regex": regex, "choices": choices, "json_schema": json_schema, "grammar": grammar,
             "dtype": dtype}
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        raise GrammarError("SGLC004", "a constraint needs exactly one of " + ", ".join(given)
                           + f", not {' and '.join(kinds) or 'none'}")
    limits = limits or Limits()
    index = TokenIndex.of(tokenizer)
    with collection_paused():
        return _compile(regex, choices, json_schema, grammar, dtype, separators, tokenizer, index,
                        limits)


def _compile(regex: str | None, choices: Iterable[str] | None, json_schema: Any,
             grammar: str | None, dtype: type | str | None, separators: tuple[str, str],
             tokenizer: Tokenizer, index: TokenIndex, limits: Limits) -> Constraint:
    if dtype is not None:
        regex = dtype_regex(dtype)
    if json_schema is not None:
        text, style = schema_text(json_schema), _checked_separators(separators)
        if len(text) > MAX_TEXT:
            raise GrammarError("SGLC011", f"the JSON schema has {len(text)} characters, more than "
                                          f"{MAX_TEXT}")
        return index.constraints.get(
            ("json_schema", text, style, limits),
            lambda: _schema(text, style, tokenizer, index, limits))
    if grammar is not None:
        if len(grammar) > MAX_PATTERN:
            raise GrammarError("SGLC011", f"the grammar has {len(grammar)} characters, more than "
                                          f"{MAX_PATTERN}")
        return index.constraints.get(
            ("grammar", grammar, limits), lambda: _grammar(grammar, tokenizer, index, limits))
    key: tuple[Any, ...]
    parse: Callable[[], Node]
    if choices is not None:
        strings = _checked_choices(choices)
        key, source = ("choices", strings, limits), ("the one choice" if len(strings) == 1 else
                                                f"{len(strings)} choices")

        def parse() -> Node:
            return words(strings)
    else:
        pattern = regex or ""
        key, source = ("regex", pattern, limits), f"the regex {_short(pattern)}"

        def parse() -> Node:
            return parse_regex(pattern)

    def make() -> Constraint:
        text = KeptText(key, parse, index.disk)
        return index.constraints.get(
            ("tree", text.canonical, limits),
            lambda: _regular(text, tokenizer, index, limits, source))

    return index.constraints.get(key, make)


def _regular(text: KeptText, tokenizer: Tokenizer, index: TokenIndex, limits: Limits,
             source: str) -> Constraint:
    try:
        automaton = text.automaton(limits)
    except TooLarge as large:
        if has_anchor(text.node):
            raise GrammarError("SGLC006", f"{source} is too large", why=str(large),
                               fixes=("lower its repeat counts", "leave out inner anchors"),
                               ) from large
        if shortest(text.node) > MAX_PATTERN:
            raise GrammarError("SGLC006", f"{source} is too large", why=f"each of its texts has "
                               f"more than {MAX_PATTERN} characters") from large
        return llguidance_backend.from_regex(to_regex(text.node), tokenizer, source, str(large))
    return FsmConstraint(automaton, index, source)


def _schema(text: str, separators: tuple[str, str], tokenizer: Tokenizer, index: TokenIndex,
            limits: Limits) -> Constraint:
    schema = json.loads(text)
    check_spelling(schema, KEYWORDS | ANNOTATIONS)
    kept = KeptText(("json_schema", text, separators, limits),
                    lambda: schema_node(schema, separators, limits), index.disk)
    try:
        return index.constraints.get(
            ("tree", kept.canonical, limits),
            lambda: FsmConstraint(kept.automaton(limits), index, "the JSON schema"))
    except (Unsupported, TooLarge) as why:
        check_ends(schema)
        return llguidance_backend.from_schema(json.dumps(closed(schema)), separators, tokenizer,
                                              str(why))


def _grammar(text: str, tokenizer: Tokenizer, index: TokenIndex, limits: Limits) -> Constraint:
    kept = KeptText(("grammar", text), lambda: grammar_node(text), index.disk)
    try:
        return index.constraints.get(
            ("tree", kept.canonical, limits),
            lambda: FsmConstraint(kept.automaton(limits), index, "the grammar"))
    except (Unsupported, TooLarge):
        return llguidance_backend.from_grammar(text, tokenizer)


def _checked_separators(separators: tuple[str, str]) -> tuple[str, str]:
    comma, colon = separators
    if comma.strip(_JSON_SPACE) != "," or colon.strip(_JSON_SPACE) != ":":
        raise GrammarError("SGLC011", "separators must be a comma and a colon with white space, "
                                      f"not {separators!r}")
    return comma, colon


def _checked_choices(choices: Iterable[str]) -> tuple[str, ...]:
    if isinstance(choices, str):
        raise GrammarError("SGLC005", "choices must be a list of strings, not one string")
    strings = tuple(choices)
    if not strings or not all(isinstance(c, str) and c for c in strings):
        raise GrammarError("SGLC005", "choices must be a non-empty list of non-empty strings")
    size = sum(map(len, strings))
    if size > MAX_TEXT:
        raise GrammarError("SGLC006", f"the choices have {size} characters, more than {MAX_TEXT}")
    if len(set(strings)) != len(strings):
        twice = next(c for i, c in enumerate(strings) if c in strings[:i])
        raise GrammarError("SGLC005", f"the choice {_short(twice)} comes up twice")
    return strings


def _short(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
