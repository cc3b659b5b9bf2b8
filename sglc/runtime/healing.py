"""Token healing: which tokens at a prompt's end a generation may write anew.

The rule (see `gen`): those from the first one on at which a longer token could stand, one that
spells all the rest of the prompt and goes on as the generation's constraint allows.  Knows prompts
and constraints, no engine.
"""

from __future__ import annotations

from typing import Any

from sglc.grammar.prefixed import goes_on
from sglc.grammar.token_index import TokenIndex
from sglc.tokens.prompt import Prompt


def held_back(prompt: Prompt, constraint: Any) -> tuple[int, ...]:
    """The ids at the prompt's end that are held back; () where nothing is to be healed.

    Only ids of the last run of text, and never all of the prompt.  constraint: of the
    generation, None if it has none.
    """
    ids, tokenizer = prompt.token_ids(), prompt.tokenizer
    first = max(prompt.run_start(), 1)
    longest = TokenIndex.of(tokenizer).vocab.longest
    found, rest = len(ids), b""
    for at in range(len(ids) - 1, first - 1, -1):
        rest = tokenizer.byte_table[ids[at]] + rest
        if len(rest) >= longest:
            break
        if tokenizer.byte_table[ids[at]] and goes_on(rest, constraint, tokenizer):
            found = at
    return tuple(ids[found:])
