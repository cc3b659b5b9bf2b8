"""How a model is divided among ranks: attention by heads, MLPs by their width.

Ranks that outnumber the key/value heads share one, and have its queries among them.  Where
weights are, and how ranks add up, is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sglc.errors import ModelError
from sglc.runtime.models.shape import LlamaConfig

Span = tuple[int, int]  # from, up to


@dataclass(frozen=True, slots=True)
class Split:
    """The part of rank `rank` of `size`."""

    rank: int
    size: int

    def width(self, count: int) -> Span:
        """Its part of so many columns of an MLP."""
        return count * self.rank // self.size, count * (self.rank + 1) // self.size

    def kv_heads(self, c: LlamaConfig) -> Span:
        """Its key/value heads."""
        if self.size <= c.kv_heads:
            return self.width(c.kv_heads)
        head = c.kv_heads * self.rank // self.size
        return head, head + 1

    def heads(self, c: LlamaConfig) -> Span:
        """Its query heads, which attend to its key/value heads."""
        queries = c.heads // c.kv_heads
        first, end = self.kv_heads(c)
        if self.size <= c.kv_heads:
            return first * queries, end * queries
        sharing = [r for r in range(self.size) if c.kv_heads * r // self.size == first]
        at, n = sharing.index(self.rank), len(sharing)
        start = first * queries
        return start + queries * at // n, start + queries * (at + 1) // n

    def part(self, c: LlamaConfig) -> LlamaConfig:
        """The model that this rank computes."""
        def size(span: Span) -> int:
            return span[1] - span[0]

        experts = c.experts and replace(c.experts, size=size(self.width(c.experts.size)),
                                        shared_size=size(self.width(c.experts.shared_size)))
        return replace(c, heads=size(self.heads(c)), kv_heads=size(self.kv_heads(c)),
                       intermediate_size=size(self.width(c.intermediate_size)), experts=experts)


def check_split(c: LlamaConfig, size: int, *, even: bool) -> None:
    """Raises ModelError (SGLC504) if the model cannot be divided among so many ranks.

    even: all parts have to be of the same shape.
    """
    widths = {"heads": c.heads, "columns of an MLP": c.intermediate_size}
    if c.experts is not None:
        widths["columns of an expert"] = c.experts.size
        if c.experts.shared_size:
            widths["columns of the shared expert"] = c.experts.shared_size
    for name, count in widths.items():
        if count < size:
            raise _impossible(size, f"it has {count} {name}, fewer than {size}", count)
    if not even:
        return
    for name, count in widths.items():
        if count % size:
            raise _impossible(size, f"its {count} {name} do not divide by {size}", count)
    if c.kv_heads % size and size % c.kv_heads:
        raise _impossible(size, f"its {c.kv_heads} key/value heads neither divide by {size} nor "
                                f"divide {size}", c.kv_heads)


def _impossible(size: int, why: str, count: int) -> ModelError:
    less = max((n for n in range(1, size) if count % n == 0), default=1)
    return ModelError("SGLC504", f"the model cannot be spread over {size} ranks", why=why,
                      fixes=(f"use tp={less}",))
