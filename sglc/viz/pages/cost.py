"""The cost page: what the batch is expected to cost, what it did cost, and where tokens go."""

from __future__ import annotations

from dataclasses import fields

from sglc.plan.figures import Figure
from sglc.viz.escape import short
from sglc.viz.markup import el, many, table
from sglc.viz.pages import Page
from sglc.viz.pages.graph import Graph, size, title
from sglc.viz.pages.places import brief
from sglc.viz.subject import Subject

_MOST = 40  # boxes named
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
    known = [(f.tokens.value or 0, n, f) for n, f in graph.facts.items() if n.kind == "text"]
    known.sort(key=lambda item: -item[0])
    total = sum(tokens for tokens, _, _ in known) or 1
    rows = [(str(f.tokens), f"{100 * tokens / total:.0f} %", str(len(f.readers)),
             "all rows" if f.everywhere else "one row", short(title(n), 90),
             brief(n.ops[0].loc if n.ops else None)) for tokens, n, f in known[:_MOST]]
    return el("div", table(("tokens", "share", "calls", "shared by", "text", "place"), rows),
              class_="scroll")


def _bytes(subject: Subject, name: str, figure: Figure) -> str:
    if name not in ("kv_peak", "working_set") or subject.kv_bytes is None or figure.value is None:
        return ""
    return f"{figure.mark} {size(figure.value * subject.kv_bytes)}"
