"""The cost page: what the batch is expected to cost, what it did cost, and where tokens go."""

from __future__ import annotations

from dataclasses import fields

from sglc.plan.figures import Figure
from sglc.viz.escape import TIMES, short
from sglc.viz.facts import Facts
from sglc.viz.markup import el, many, table
from sglc.viz.pages import Page
from sglc.viz.pages.graph import Graph, size, title
from sglc.viz.pages.places import brief
from sglc.viz.picture import Node
from sglc.viz.subject import Subject

_MOST = 20  # rows of texts
_WORDS = {"prefill": "prompt tokens to compute", "least": "  each distinct prefix once",
          "alone": "  if rows shared nothing", "select": "  of choices only",
          "decode": "tokens to generate", "kv_peak": "KV peak", "working_set": "working set",
          "calls": "model calls", "chain": "  one after the other", "steps": "model steps",
          "seconds": "seconds"}


def page(subject: Subject, graph: Graph) -> Page:
    parts: list[object] = []
    if subject.outlook is not None:
        cost = subject.outlook.cost
        rows_ = f"{cost.rows} row{'s' if cost.rows != 1 else ''}"
        parts.append(el("p", f"{rows_}, from an empty cache: = exact, <= at most, ~ about.",
                        class_="lead"))
        rows = [(_WORDS.get(f.name, f.name), str(value), _bytes(subject, f.name, value))
                for f in fields(cost) if isinstance(value := getattr(cost, f.name), Figure)]
        parts.append(table(("", "predicted", "memory"), rows, class_="figures"))
    else:
        parts.append(el("p", "What a batch costs needs its arguments: give --arg or --batch, or "
                        "viz(batch=...).", class_="lead"))
    if subject.actual is not None:
        parts += [el("h3", "Predicted and actual"), table(
            ("", "predicted", "actual", ""),
            [(line.what, str(line.predicted), f"{line.actual:,.4g}",
              "an estimate" if line.predicted.mark == "~" else
              "as predicted" if line.holds else "not as predicted")
             for line in subject.actual.lines], class_="figures")]
    parts += [el("h3", "Where the constant tokens are"), _texts(subject, graph)]
    return Page("cost", "Cost", many(parts))


def _texts(subject: Subject, graph: Graph) -> object:
    if subject.tokenizer is None:
        return el("p", "The backend takes text: there are no tokens to count.")
    groups: dict[tuple[object, ...], list[tuple[Node, Facts]]] = {}
    for n, f in graph.facts.items():  # what a line writes several times is one row
        if n.kind == "text":
            place = n.ops[0].loc if n.ops else None
            alike = place, len(n.pieces), len(f.readers), f.everywhere
            groups.setdefault(alike if place is not None else (n,), []).append((n, f))
    known = [(sum(f.tokens.value or 0 for _, f in group), group) for group in groups.values()]
    known.sort(key=lambda item: -item[0])
    total = sum(tokens for tokens, _ in known) or 1
    rows = [(f"{'=' if all(f.tokens.mark == '=' for _, f in group) else '~'} {tokens:,}",
             f"{100 * tokens / total:.0f} %", str(len(group[0][1].readers)),
             "all rows" if group[0][1].everywhere else "one row",
             short(title(group[0][0]), 90) + (f" {TIMES}{len(group)}" if len(group) > 1 else ""),
             brief(group[0][0].ops[0].loc if group[0][0].ops else None))
            for tokens, group in known[:_MOST]]
    left = known[_MOST:]
    more = el("p", f"and {len(left)} more of {sum(t for t, _ in left):,} tokens in all",
              class_="note") if left else None
    return el("div", table(("tokens", "share", "calls", "shared by", "text", "place"), rows), more,
              class_="scroll")


def _bytes(subject: Subject, name: str, figure: Figure) -> str:
    if name not in ("kv_peak", "working_set") or subject.kv_bytes is None or figure.value is None:
        return ""
    return f"{figure.mark} {size(figure.value * subject.kv_bytes)}"
