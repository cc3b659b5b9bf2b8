"""The passes page: what each pass did, the IR before and after it, and its recorded rewrites."""

from __future__ import annotations

from typing import Any

from sglc.passes.base import Rewrite
from sglc.viz.diff import ranges
from sglc.viz.escape import short
from sglc.viz.markup import Html, el, many, table
from sglc.viz.pages import Page
from sglc.viz.pages.places import Places, brief
from sglc.viz.subject import Step, Subject

_PLAIN = 400  # lines of a diff without scripts
_REWRITES = 300  # of one pass
_WORDS = 300  # characters of what a rewrite says


def page(subject: Subject, places: Places) -> Page:
    texts = [subject.before, *[s.text for s in subject.steps]]
    lines: dict[str, int] = {}
    versions: list[list[int]] = []
    version_of: list[int] = []  # of the text after each pass, the first one before any
    for i, text in enumerate(texts):
        if i == 0 or text != texts[i - 1]:
            versions.append([lines.setdefault(line, len(lines))
                             for line in text.rstrip("\n").split("\n")])
        version_of.append(len(versions) - 1)
    steps: list[dict[str, Any]] = []
    for i, step in enumerate(subject.steps):
        before, after = version_of[i], version_of[i + 1]
        steps.append({
            "name": step.record.name, "spec": step.record.spec, "before": before, "after": after,
            "diff": [] if before == after else ranges(versions[before], versions[after]),
            "figures": _figures(step),
            "rewrites": [_rewrite(r, places) for r in step.rewrites[:_REWRITES]],
            "more": max(0, len(step.rewrites) - _REWRITES)})
    body = many(el("p", _summary(subject), class_="lead"),
                el("div", id="slider"),
                el("div", figures(subject), class_="scroll"),
                el("div", [_plain(step, texts[i]) for i, step in enumerate(subject.steps)
                           if step.text != texts[i]], class_="plain"))
    return Page("passes", "Passes", body,
                {"lines": list(lines), "versions": versions, "steps": steps})


def _summary(subject: Subject) -> str:
    if not subject.steps:
        return "No pass ran: the program runs in the eager interpreter."
    first, last = subject.steps[0].record, subject.steps[-1].record
    words = [f"{len(subject.steps)} passes, {sum(len(s.rewrites) for s in subject.steps)} "
             f"recorded rewrites: {first.ops_before} → {last.ops} operations",
             f"{_change(first.calls_before, last.calls)} model calls"]
    if first.prefill_before is not None and last.prefill is not None:
        words.append(f"{first.prefill_before} → {last.prefill} of constant prompt (with the text "
                     "of chat templates from lower-roles on)")
    return ", ".join(words) + "."


def figures(subject: Subject) -> Html:
    """A table of what each pass did."""
    rows = []
    for i, step in enumerate(subject.steps):
        r = step.record
        tokens = "" if r.prefill is None else str(r.prefill)
        if r.prefill != r.prefill_before:
            tokens = f"{r.prefill_before} → {tokens}"
        rows.append((str(i + 1), r.spec, _change(r.ops_before, r.ops),
                     _change(r.calls_before, r.calls), tokens, str(len(step.rewrites) or ""),
                     f"{r.seconds * 1e3:.2f}", _stats(step)))
    return table(("", "pass", "operations", "model calls", "constant tokens", "rewrites", "ms",
                  "what it did"), rows, class_="passes")


def _figures(step: Step) -> list[tuple[str, str]]:
    r = step.record
    out = [("operations", _change(r.ops_before, r.ops)),
           ("model calls", _change(r.calls_before, r.calls)),
           ("calls saved", str(r.calls_before - r.calls))]
    if r.prefill is not None and r.prefill_before is not None:
        saved = r.prefill_before.tokens - r.prefill.tokens
        exact = r.prefill.exact and r.prefill_before.exact
        out += [("constant tokens", f"{r.prefill_before} → {r.prefill}"),
                (f"tokens {'saved' if saved >= 0 else 'added'}",
                 f"{'=' if exact else '~'} {abs(saved)}")]
    return [*out, ("time", f"{r.seconds * 1e3:.2f} ms"), ("what it did", _stats(step) or "nothing")]


def _stats(step: Step) -> str:
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in step.record.stats.items() if v)


def _change(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} → {after}"


def _rewrite(r: Rewrite, places: Places) -> dict[str, Any]:
    return {"rule": r.rule, "before": short(r.before, _WORDS), "after": short(r.after, _WORDS),
            "place": places.key(r.place), "where": brief(r.place)}


def _plain(step: Step, before: str) -> Html:
    old, new = before.split("\n"), step.text.split("\n")
    found: list[str] = []
    for kind, i, j, k, m in ranges(old, new):
        if kind == "e":
            found += [f"@@ {j - i} equal lines"]
        else:
            found += [*(f"-{line}" for line in old[i:j]), *(f"+{line}" for line in new[k:m])]
    shown = [el("span", line + "\n", class_={"+": "added", "-": "removed"}.get(line[:1]))
             for line in found[:_PLAIN]]
    if len(found) > _PLAIN:
        shown.append(el("span", f"… {len(found) - _PLAIN} more lines\n"))
    return el("details", el("summary", f"{step.record.name}: what it changed"),
              el("pre", shown, class_="diff"))
