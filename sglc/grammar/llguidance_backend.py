"""JSON schemas, context-free grammars and very large regexes, through llguidance.

The library is imported when first needed.  What it cannot enforce it refuses, and so does this
module, with the library's words.  Its matchers change as they read, so a state here holds its own
copy, and is kept for the next text that begins alike; and while the next bytes are forced its masks
allow one token only, where the protocol asks for the plain set, so those masks are made here.
"""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.errors import GrammarError
from sglc.grammar.token_index import TokenIndex
from sglc.grammar.vocab import Vocabulary
from sglc.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_KEPT_BYTES = 16 << 20  # states that one constraint remembers, with their masks
_STATE_BYTES = 4096  # of a state without its mask, about
# What is forced is read ahead on the engine's thread, 0.1 ms a token, whether it is wanted or not;
# a grammar may force many thousands.
_FORCED_BYTES = 2048


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
    """A matcher that has read some tokens.  Never changes to the outside.

    States that come next are remembered (as long as there is room), so that the texts of rows and
    requests which begin alike are read once; equal states are then the same object.
    """

    __slots__ = ("accepting", "jump", "mask", "matcher", "next")

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher
        self.accepting = bool(matcher.is_accepting())
        self.mask: np.ndarray | None = None
        self.jump: bytes | None = None
        self.next: dict[int, State] = {}


class LlguidanceConstraint:
    """A `Constraint` over llguidance's matchers."""

    def __init__(self, matcher: LLMatcher, vocab: Vocabulary) -> None:
        self.vocab = vocab
        self._start = State(matcher)
        self._lock = Lock()  # reading a matcher changes its caches
        self._kept = 0  # states that are remembered
        self._most = max(_KEPT_BYTES // (vocab.words * 4 + _STATE_BYTES), 64)
        text = np.zeros(vocab.words * 32, dtype=bool)
        text[[i for i, t in enumerate(vocab.texts) if t]] = True
        self._text_words = vocab.pack(text)
        self._eos = sorted(vocab.eos)
        self._twins: dict[int, list[int]] = {}  # of the token that stands for them in the trie
        for twin, of in zip(vocab.twins.tolist(), vocab.twin_of.tolist(), strict=True):
            self._twins.setdefault(of, []).append(twin)
        # Memoryviews give Python ints, and fast.
        self._first, self._byte, self._token = vocab.first.data, vocab.byte.data, vocab.token.data

    def start(self) -> State:
        return self._start

    def accepting(self, state: State) -> bool:
        return state.accepting

    def mask(self, state: State) -> np.ndarray:
        """Allowed tokens as packed int32 words; read-only."""
        if state.mask is None:
            forced = self.jump(state)
            with self._lock:
                if forced:
                    words = self._forced_words(state.matcher, forced)
                else:
                    words = self._plain_words(state.matcher)
                    words &= self._text_words
                bits = words.view(np.uint32)
                for token in self._eos if state.accepting else ():
                    bits[token >> 5] |= np.uint32(1 << (token & 31))
            words.flags.writeable = False
            state.mask = words
        return state.mask

    def advance(self, state: State, token_id: int) -> State | None:
        """The state after the token, None where it is not allowed."""
        found = state.next.get(token_id)
        if found is not None:
            return found
        if not 0 <= token_id < self.vocab.size:
            return None
        if not self.vocab.texts[token_id]:
            return state if token_id in self.vocab.eos and state.accepting else None
        with self._lock:
            matcher = state.matcher.deep_copy()
            consumed = matcher.try_consume_tokens([token_id])
            self._check(matcher)
            if consumed != 1:
                return None
            if self._kept >= self._most:  # what is in use goes on, the rest is forgotten
                self._start.next, self._kept = {}, 0
            self._kept += 1
            return state.next.setdefault(token_id, State(matcher))

    def advance_all(self, state: State, token_ids: list[int]) -> State | None:
        """The state after all these tokens, which have texts; None where they are not allowed.
        The states between them are not made, which takes most of the time of single steps."""
        with self._lock:
            matcher = state.matcher.deep_copy()
            consumed = matcher.try_consume_tokens(token_ids)
            self._check(matcher)
            return State(matcher) if consumed == len(token_ids) else None

    def jump(self, state: State) -> bytes:
        """The bytes that every accepted continuation starts with, as far as llguidance sees; of
        many the first."""
        if state.jump is None:
            with self._lock:
                copy = state.matcher.deep_copy()
                state.jump = b"" if state.accepting else bytes(
                    copy.compute_ff_bytes())[:_FORCED_BYTES]
                self._check(copy)
        return state.jump

    def max_tokens(self) -> int | None:
        """None: llguidance does not tell."""
        return None

    def longest_text(self) -> str | None:
        """None: llguidance does not tell."""
        return None

    def _plain_words(self, matcher: LLMatcher) -> np.ndarray:
        words = np.empty(self.vocab.words, dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._check(matcher)
        return words

    def _forced_words(self, matcher: LLMatcher, forced: bytes) -> np.ndarray:
        """The mask where the text goes on with `forced`: the tokens that are a part of it, and
        those that it is a part of, if the matcher takes them."""
        first, token = self._first, self._token
        path = self._path(forced)
        candidates = [token[node] for node in path[1:]]
        if len(path) > len(forced) and first[path[-1]] < first[path[-1] + 1]:
            later = self._first_bytes(matcher, forced)
            for child in range(first[path[-1]], first[path[-1] + 1]):
                if later is None or self._byte[child] in later:
                    low, high = child, child + 1
                    while low < high:  # the nodes of a subtree are consecutive on each level
                        candidates += token[low:high].tolist()
                        low, high = first[low], first[high]
        words = np.zeros(self.vocab.words, dtype=np.int32)
        bits = words.view(np.uint32).data
        for candidate in candidates:
            if candidate >= 0 and matcher.validate_tokens([candidate]) == 1:
                for allowed in (candidate, *self._twins.get(candidate, ())):
                    bits[allowed >> 5] |= 1 << (allowed & 31)
        self._check(matcher)
        return words

    def _path(self, text: bytes) -> list[int]:
        """The trie's nodes along `text`, from the root as far as there are any."""
        first, byte, path = self._first, self._byte, [0]
        for wanted in text:
            low, high = first[path[-1]], first[path[-1] + 1]
            at = bisect_left(byte, wanted, low, high)
            if at == high or byte[at] != wanted:
                break
            path.append(at)
        return path

    def _first_bytes(self, matcher: LLMatcher, forced: bytes) -> frozenset[int] | None:
        """What may come after `forced`; None if that cannot be told."""
        copy, rest = matcher.deep_copy(), forced
        while rest:
            ends = [token for node in self._path(rest)[1:]
                    if (token := self._token[node]) >= 0]
            if not ends or copy.try_consume_tokens([ends[-1]]) != 1:
                return None
            rest = rest[len(self.vocab.texts[ends[-1]]):]
        words = self._plain_words(copy) & self._text_words
        ids = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        return None if copy.is_error() else frozenset(self.vocab.first_bytes[ids].tolist())

    def _check(self, matcher: LLMatcher) -> None:
        if matcher.is_error():
            raise GrammarError("SGLC011", "the constraint failed while it was applied",
                               why=_short(matcher.get_error()))


def _short(message: str) -> str:
    """The library's message without the state of its parser, which it appends."""
    return message.partition("<state>")[0].partition("<backtrace>")[0].strip()[:500]
