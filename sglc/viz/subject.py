"""What the viewer is given: a compiled program with all that is known of it, as plain data.

The language gathers it (`lang/viewing.py`); nothing here runs or compiles anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sglc.errors import Diagnostic, Place
from sglc.ir.module import Module
from sglc.passes.base import Rewrite
from sglc.passes.manager import PassRecord
from sglc.plan.cost import Machine, Outlook
from sglc.plan.figures import Beside
from sglc.tokens.tokenizer import Tokenizer
from sglc.viz.samples import Sample


@dataclass(frozen=True, slots=True)
class Step:
    """One pass.  text: the IR after it; rewrites: what it recorded."""

    record: PassRecord
    text: str
    rewrites: tuple[Rewrite, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A compiled program.

    place, lines: where its function is written, and how many lines that takes.  stages: modules
    by name, none if it was not captured.  before, steps: the IR before the first pass, and the
    passes.  tokenizer, tokens: what tokens were counted with (None: there are none), and its
    name.  kv_bytes: of a token's KV, if the model is known.  rows: of the batch that `outlook`
    is for.  actual, samples: figures and course of a run of it.
    """

    name: str
    place: Place
    lines: int = 1
    stages: Mapping[str, Module] = field(default_factory=dict)
    before: str = ""
    steps: Sequence[Step] = ()
    breaks: Sequence[Diagnostic] = ()
    remarks: Sequence[Diagnostic] = ()
    assumed: Mapping[str, int] = field(default_factory=dict)
    paths: int = 0
    tokenizer: Tokenizer | None = None
    tokens: str = ""
    kv_bytes: int | None = None
    rows: int = 1
    outlook: Outlook | None = None
    machine: Machine | None = None
    actual: Beside | None = None
    samples: Sequence[Sample] = ()

    @property
    def drawn(self) -> Module | None:
        """The module that the graph shows: the last one."""
        found = [self.stages[s] for s in ("plan", "kv", "prompt", "traced") if s in self.stages]
        return found[0] if found else None
