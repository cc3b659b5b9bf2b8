"""JSON schemas, context-free grammars and very large regexes, through llguidance.

The library is imported when first needed.  What it cannot enforce it refuses, and so does this
module, with the library's words.  Its matchers change as they read, so a state here holds its own
copy; and while the next bytes are forced its masks allow one token only, where the protocol asks
for the plain set, so those masks are made here.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.errors import GrammarError
from sglc.grammar.token_index import TokenIndex
from sglc.grammar.vocab import Vocabulary
from sglc.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


def from_schema(schema: str, separators: tuple[str, str], tokenizer: Tokenizer,
                reason: str) -> LlguidanceConstraint:
    """The constraint to JSON that fits `schema` (JSON text); `reason`: why it comes here."""
    comma, colon = separators
    style = {"whitespace_flexible": False, "item_separator": comma, "key_separator": colon,
             "lenient": False}
    matcher = _library(f"{reason} is left to llguidance").LLMatcher
    try:
        return _compiled(matcher.grammar_from_json_schema(schema, overrides=style), tokenizer,
                         "the JSON schema")
    except ValueError as bad:
        if not isinstance(bad, GrammarError):
            raise GrammarError("SGLC011", "the JSON schema cannot be enforced",
                               why=str(bad)) from bad
        if bad.code != "SGLC011":
            raise
        raise GrammarError("SGLC011", "the JSON schema cannot be enforced",
                           why=f"{bad.diagnostic.why} (llguidance was asked because of: "
                               f"{reason})") from bad


def from_grammar(grammar: str, tokenizer: Tokenizer) -> LlguidanceConstraint:
    """The constraint to a Lark grammar, or to an EBNF one with `::=`."""
    library = _library()
    if "::=" in grammar:
        from llguidance.gbnf_to_lark import gbnf_to_lark

        try:
            grammar = gbnf_to_lark(grammar)
        except Exception as bad:  # the converter's errors have no common type
            raise GrammarError("SGLC011", "the grammar cannot be read", why=str(bad)) from bad
    return _compiled(library.LLMatcher.grammar_from_lark(grammar), tokenizer, "the grammar")


def from_regex(regex: str, tokenizer: Tokenizer, source: str,
               reason: str) -> LlguidanceConstraint:
    """The constraint to a regex of plain sets (see `render.py`); `source`: what it was made of;
    `reason`: why it comes here."""
    matcher = _library(f"{source} is left to llguidance: {reason}").LLMatcher
    try:
        return _compiled(matcher.grammar_from_regex(regex), tokenizer, source)
    except GrammarError as bad:
        raise GrammarError("SGLC006", f"{source} is too large: {reason}",
                           why=f"nor does llguidance take it ({bad.diagnostic.why})") from bad


def _library(reason: str = "JSON schemas and grammars are compiled by llguidance") -> Any:
    try:
        import llguidance
    except ImportError as missing:
        raise GrammarError("SGLC011", "the package llguidance is needed", why=reason,
                           fixes=("pip install llguidance", "pip install 'sglc[local]'"),
                           ) from missing
    return llguidance


def _compiled(grammar: str, tokenizer: Tokenizer, source: str) -> LlguidanceConstraint:
    index = TokenIndex.of(tokenizer)
    shared = index.shared.get("llguidance", lambda: _tokenizer(tokenizer, index.vocab))
    matcher_type = _library().LLMatcher
    bad, messages = matcher_type.validate_grammar_with_warnings(grammar, shared)
    if bad or messages:
        raise GrammarError("SGLC011", f"{source} cannot be enforced",
                           why=_short("; ".join(m.strip() for m in messages)))
    matcher = matcher_type(shared, grammar, log_level=0)
    if matcher.is_error():
        raise GrammarError("SGLC011", f"{source} cannot be enforced",
                           why=_short(matcher.get_error()))
    constraint = LlguidanceConstraint(matcher, index.vocab)
    if not constraint.mask(constraint.start()).any():
        raise GrammarError("SGLC505", f"no text of {source} can be written",
                           why="the tokenizer has no token to start with")
    return constraint


def _tokenizer(tokenizer: Tokenizer, vocab: Vocabulary) -> LLTokenizer:
    """llguidance's view of the tokenizer: tokens without text get names that no text holds."""
    library = _library()
    wrapper = library.TokenizerWrapper(_TokenSource(tokenizer, vocab))
    made: LLTokenizer = library.LLTokenizer(wrapper, n_vocab=vocab.size,
                                            eos_token=sorted(vocab.eos) or None)
    return made


class _TokenSource:
    """What llguidance's TokenizerWrapper asks for."""

    def __init__(self, tokenizer: Tokenizer, vocab: Vocabulary) -> None:
        control = [i for i, text in enumerate(vocab.texts) if not text]
        self.eos_token_id = min(vocab.eos, default=control[0] if control else 0)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [text or b"\xff<%d>" % i for i, text in enumerate(vocab.texts)]
        self.special_token_ids = control
        self.encode = tokenizer.encode

    def __call__(self, text: bytes) -> list[int]:
        return self.encode(text.decode("utf-8", "replace"))


class State:
    """A matcher that has read `tokens`.  Never changes to the outside; equal by tokens."""

    __slots__ = ("_hash", "jump", "mask", "matcher", "tokens")

    def __init__(self, matcher: LLMatcher, tokens: tuple[int, ...]) -> None:
        self.matcher = matcher
        self.tokens = tokens
        self.mask: np.ndarray | None = None
        self.jump: bytes | None = None
        self._hash = hash(tokens)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, State) and self.tokens == other.tokens)


class LlguidanceConstraint:
    """A `Constraint` over llguidance's matchers."""

    def __init__(self, matcher: LLMatcher, vocab: Vocabulary) -> None:
        self.vocab = vocab
        self._start = State(matcher, ())
        self._lock = Lock()  # reading a matcher changes its caches
        text = np.zeros(vocab.words * 32, dtype=bool)
        text[[i for i, t in enumerate(vocab.texts) if t]] = True
        self._text_words = vocab.pack(text)
        ends = np.zeros(vocab.words * 32, dtype=bool)
        ends[list(vocab.eos)] = True
        self._eos_words = vocab.pack(ends)

    def start(self) -> State:
        return self._start

    def accepting(self, state: State) -> bool:
        with self._lock:
            return bool(state.matcher.is_accepting())

    def mask(self, state: State) -> np.ndarray:
        """Allowed tokens as packed int32 words; read-only."""
        if state.mask is None:
            forced = self.jump(state)
            with self._lock:
                words = (self._forced_words(state.matcher, forced) if forced
                         else self._plain_words(state.matcher)) & self._text_words
                if state.matcher.is_accepting():
                    words = words | self._eos_words
            words.flags.writeable = False
            state.mask = words
        return state.mask

    def advance(self, state: State, token_id: int) -> State | None:
        """The state after the token, None where it is not allowed."""
        if not 0 <= token_id < self.vocab.size:
            return None
        if not self.vocab.texts[token_id]:
            return state if token_id in self.vocab.eos and self.accepting(state) else None
        with self._lock:
            matcher = state.matcher.deep_copy()
            consumed = matcher.try_consume_tokens([token_id])
            self._check(matcher)
        return State(matcher, (*state.tokens, token_id)) if consumed == 1 else None

    def jump(self, state: State) -> bytes:
        """The bytes that every accepted continuation starts with, as far as llguidance sees."""
        if state.jump is None:
            with self._lock:
                state.jump = (b"" if state.matcher.is_accepting()
                              else bytes(state.matcher.deep_copy().compute_ff_bytes()))
        return state.jump

    def max_tokens(self) -> int | None:
        """None: llguidance does not tell."""
        return None

    def longest_text(self) -> str | None:
        """None: llguidance does not tell."""
        return None

    def _plain_words(self, matcher: LLMatcher) -> np.ndarray:
        copy = matcher.deep_copy()
        words = np.frombuffer(copy.compute_bitmask(), dtype=np.int32)
        self._check(copy)
        return words[:self.vocab.words]

    def _forced_words(self, matcher: LLMatcher, forced: bytes) -> np.ndarray:
        """The mask where the text goes on with `forced`: the tokens that are a part of it, and
        those that it is a part of, if the matcher takes them."""
        vocab = self.vocab
        path = self._path(forced)
        candidates = [vocab.token[path[1:]]]
        if len(path) > len(forced):
            begin, end = int(vocab.first[path[-1]]), int(vocab.first[path[-1] + 1])
            later = self._first_bytes(matcher, forced)
            for child in range(begin, end):
                if later is None or later[vocab.byte[child]]:
                    first, last = child, child + 1
                    while first < last:  # the nodes of a subtree are consecutive on each level
                        candidates.append(vocab.token[first:last])
                        first, last = int(vocab.first[first]), int(vocab.first[last])
        allowed = np.zeros(vocab.words * 32, dtype=bool)
        copy = matcher.deep_copy()
        for token in np.concatenate(candidates).tolist():
            if token >= 0 and copy.validate_tokens([token]) == 1:
                allowed[token] = True
        self._check(copy)
        allowed[vocab.twins] = allowed[vocab.twin_of]
        return vocab.pack(allowed)

    def _path(self, text: bytes) -> list[int]:
        """The trie's nodes along `text`, from the root as far as there are any."""
        vocab, path = self.vocab, [0]
        for wanted in text:
            begin, end = int(vocab.first[path[-1]]), int(vocab.first[path[-1] + 1])
            at = begin + int(np.searchsorted(vocab.byte[begin:end], wanted))
            if at == end or vocab.byte[at] != wanted:
                break
            path.append(at)
        return path

    def _first_bytes(self, matcher: LLMatcher, forced: bytes) -> np.ndarray | None:
        """bool [256]: what may come after `forced`; None if that cannot be told."""
        copy, rest = matcher.deep_copy(), forced
        while rest:
            ends = [token for node in self._path(rest)[1:]
                    if (token := int(self.vocab.token[node])) >= 0]
            if not ends or copy.try_consume_tokens([ends[-1]]) != 1:
                return None
            rest = rest[len(self.vocab.texts[ends[-1]]):]
        bits = np.unpackbits(np.frombuffer(copy.compute_bitmask(), np.uint8), bitorder="little")
        later = np.zeros(256, dtype=bool)
        for token in np.flatnonzero(bits[:self.vocab.size]).tolist():
            text = self.vocab.texts[token]
            if text:
                later[text[0]] = True
        return None if copy.is_error() else later

    def _check(self, matcher: LLMatcher) -> None:
        if matcher.is_error():
            raise GrammarError("SGLC011", "the constraint failed while it was applied",
                               why=_short(matcher.get_error()))


def _short(message: str) -> str:
    """The library's message without the state of its parser, which it appends."""
    return message.partition("<state>")[0].partition("<backtrace>")[0].strip()[:500]
