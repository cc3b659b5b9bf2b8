"""What a pass is, what it is given, and what it leaves behind.

A pass changes a module in place.  It is a frozen dataclass: its fields are its options, and
`str(pass)` is the spec that makes it again.  This module knows no particular pass.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal

from sglc.errors import Place
from sglc.ir.module import Module

if TYPE_CHECKING:
    from sglc.tokens.templates import Template
    from sglc.tokens.tokenizer import Tokenizer

Preserves = Literal["text", "distribution", "quality"]

PRESERVES: tuple[Preserves, ...] = ("text", "distribution", "quality")
"""What a pass may leave unchanged, from the strictest promise to the weakest."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One recorded rewrite: the rule, what it did in a few words, and the source place."""

    rule: str
    before: str
    after: str
    place: Place | None


@dataclass(slots=True)
class PassContext:
    """What passes know beside the module; model-free passes work with an empty one.

    rows: instances of the program in the batch.
    may_stop: whether gens can end, or come out, in a way that they do not say themselves: the
        run's or the template's stop strings, the run's `stop_token_ids`, `n` or `heal`.  While
        they can, the text after a gen may begin with what the stop cut off.
    max_tokens, temperature: the run's, for gens that give none; None if not known.
    rewrites: where rewrites are recorded; None records nothing.
    """

    tokenizer: Tokenizer | None = None
    template: Template | None = None
    rows: int = 1
    may_stop: bool = True
    max_tokens: int | None = None
    rewrites: list[Rewrite] | None = None
    temperature: float | None = None

    def record(self, rule: str, before: object, after: object, place: Place | None) -> None:
        """Note a rewrite, if anyone asked for them."""
        if self.rewrites is not None:
            self.rewrites.append(Rewrite(rule, str(before), str(after), place))


@dataclass(frozen=True)
class Pass(ABC):
    """A transformation of a module.

    name: as written in a pipeline spec.  preserves: "text" (same ids for the same seed),
    "distribution" (same distribution of outputs), or "quality" (only as good as before).
    """

    name: ClassVar[str]
    preserves: ClassVar[Preserves] = "text"

    @abstractmethod
    def run(self, module: Module, context: PassContext) -> dict[str, int]:
        """Change `module` in place; returns statistics by name."""

    def __str__(self) -> str:
        options = []
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default:
                options.append(f"{f.name.replace('_', '-')}={_option_text(value)}")
        return self.name + ("{" + " ".join(options) + "}" if options else "")


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join([_option_text(v) for v in value])
    text = str(value)
    plain = text and all(c.isalnum() or c in "_-." for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
