"""Regular constraints: an automaton and a vocabulary behind the `Constraint` protocol.

Masks are made when first asked for and kept.  All state is immutable or memoised by whole
values, so that threads may share a constraint: at worst two make the same mask.
"""

from __future__ import annotations

import numpy as np

from sglc.errors import GrammarError
from sglc.grammar.automaton import Automaton
from sglc.grammar.liveness import Liveness
from sglc.grammar.token_index import TokenIndex
from sglc.grammar.walk import Front, Walker
from sglc.grammar.wide import WideSets

_MASK_BYTES = 64 << 20  # kept masks of one constraint


class FsmConstraint:
    """The texts of a regular language over one tokenizer.  States are small ints."""

    def __init__(self, automaton: Automaton, index: TokenIndex, source: str) -> None:
        vocab = index.vocab
        self.automaton = automaton
        self.index = index
        self.source = source
        self.nodes = automaton.front.nodes
        self.walker = Walker(automaton, vocab)
        self._texts = vocab.texts
        self._eos = vocab.eos
        self._masks: dict[int, np.ndarray] = {}
        self._rows: dict[bytes, np.ndarray] = {}
        self._forced: dict[int, bytes] = {}
        self.liveness = Liveness(automaton, vocab, self._successors)
        if not (automaton.accepting and self.liveness.live(0)):
            raise GrammarError(
                "SGLC505", f"no text of {source} can be written",
                why=("the constraint has no text at all" if not automaton.accepting else
                     "the tokenizer has no tokens for what every text needs"))
        self._wide = (WideSets(automaton, index, self.walker)
                      if self.liveness.everything else None)

    def start(self) -> int:
        return 0

    def accepting(self, state: int) -> bool:
        q, node = divmod(state, self.nodes)
        return not node and self.automaton.accepting[q]

    def mask(self, state: int) -> np.ndarray:
        """Allowed tokens as packed int32 words; read-only, kept, not to be written to."""
        found = self._masks.get(state)
        return found if found is not None else self._make_mask(state)

    def advance(self, state: int, token_id: int) -> int | None:
        """The state after the token, None where it is not allowed."""
        if not 0 <= token_id < len(self._texts):
            return None
        text = self._texts[token_id]
        if not text:
            return state if token_id in self._eos and self.accepting(state) else None
        return self.read(state, text)

    def read(self, state: int, text: bytes) -> int | None:
        """The state after some bytes, None where they are not allowed."""
        walker = self.walker
        table, step, codes, atoms = (walker.table_view, walker.step_view, walker.codes,
                                     walker.atoms)
        q, node = divmod(state, self.nodes)
        for byte in text:
            code = table[(node << 8) + byte]
            q = step[q * codes + code]
            if q < 0:
                return None
            node = code - atoms + 1 if code >= atoms else 0
        state = q * self.nodes + node
        return state if self.liveness.everything or self.liveness.live(state) else None

    def jump(self, state: int) -> bytes:
        """The longest run of whole characters that every accepted continuation starts with."""
        found = self._forced.get(state)
        if found is None:
            found = self._forced[state] = self.automaton.forced(state)
        return found

    def max_tokens(self) -> int | None:
        """The bytes of the longest accepted text (a token has at least one), None if
        unbounded.  EOS is not counted."""
        left = self.automaton.bytes_left
        return None if left is None else left[0]

    def longest_text(self) -> str | None:
        """An accepted text of the most UTF-8 bytes, None if there are texts without bound."""
        return self.automaton.longest_text()

    def _make_mask(self, state: int) -> np.ndarray:
        vocab = self.index.vocab
        q, node = divmod(state, self.nodes)
        base: np.ndarray | None = None
        found: list[np.ndarray] = []
        if self._wide is None:
            found.append(self._live_tokens(q, node))
        else:
            if not node:
                base = self._wide.mask(q, found)
            if base is None:
                self.walker.tokens(self.walker.root(q, node), found)
        allowed = np.zeros(vocab.words * 32, dtype=bool)
        for ids in found:
            allowed[ids] = True
        allowed[vocab.twins] = allowed[vocab.twin_of]
        if self.accepting(state):
            allowed[list(vocab.eos)] = True
        words: np.ndarray = vocab.pack(allowed)
        if base is not None:
            words = words | base
        if len(self._rows) * words.nbytes > _MASK_BYTES:
            self._masks, self._rows = {}, {}
        kept = self._rows.setdefault(words.tobytes(), words)
        kept.flags.writeable = False
        self._masks[state] = kept
        return kept

    def below(self, node: int) -> np.ndarray:
        """The tokens strictly below a node of the vocabulary's trie whose bytes from there on
        may begin a text (twins left out)."""
        return self._live_below(Front(np.array([node], np.int32), np.zeros(1, np.int64),
                                      np.zeros(1, np.int64)))

    def _live_tokens(self, q: int, node: int) -> np.ndarray:
        """The allowed tokens where some states cannot be finished in tokens."""
        return self._live_below(self.walker.root(q, node))

    def _live_below(self, front: Front) -> np.ndarray:
        found: list[np.ndarray] = []
        states: list[tuple[np.ndarray, np.ndarray]] = []
        self.walker.tokens(front, found, states)
        if not found:
            return np.zeros(0, np.int32)
        ends = np.concatenate([a * self.nodes + b for a, b in states])
        every: np.ndarray = np.concatenate(found)
        return every if self.liveness.everything else every[self.liveness.filter(ends)]

    def _successors(self, state: int) -> np.ndarray:
        """The states that tokens lead to, whether or not they can be finished."""
        states: list[tuple[np.ndarray, np.ndarray]] = []
        self.walker.tokens(self.walker.root(*divmod(state, self.nodes)), [], states)
        ends = [a * self.nodes + b for a, b in states]
        return np.unique(np.concatenate(ends)) if ends else np.zeros(0, np.int64)
