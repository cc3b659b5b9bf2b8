"""The plan page: which calls run when, the KV that they hold against the capacity, and how a run
compared with that.

The predicted course is the cost model's simulation (`plan/step_costs.py`), from an empty cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from sglc.ir.module import Op
from sglc.plan.cost import Outlook
from sglc.viz.charts import LEFT, TOP, Frame, thinned
from sglc.viz.escape import TIMES, escaped, short
from sglc.viz.markup import Html, el, many, raw
from sglc.viz.pages import Page
from sglc.viz.pages.places import brief
from sglc.viz.samples import Sample
from sglc.viz.shapes import text
from sglc.viz.subject import Subject

_WIDE = 1040.0
_LANE = 26.0
_LANES = 40
_BINS = 240
_NAME = 22  # characters


@dataclass(slots=True)
class Lane:
    """The requests of one place in the program, over all rows.  spans: their first and last
    steps."""

    name: str
    kind: str
    where: str
    spans: list[tuple[int, int]] = field(default_factory=list)


def page(subject: Subject) -> Page:
    found = subject.outlook
    if found is None:
        return Page("plan", "Plan", el(
            "p", "A plan belongs to a batch: give arguments (--arg, --batch; viz(batch=...)) to "
            "see when its calls run and what KV they hold.", class_="lead"))
    rows = "1 row" if subject.rows == 1 else f"{subject.rows} rows"
    parts: list[object] = [
        el("p", f"{rows}, from an empty cache: {len(found.works)} requests in "
           f"about {found.run.steps} model steps, as the cost model sees it.", class_="lead"),
        el("h3", "Groups over time"),
        el("p", "Each lane is one place in the program; its height at a step is how many of its "
           "requests are under way.", class_="note"),
        el("div", raw(_gantt(lanes(found), found.run.steps)), class_="scroll"),
        el("h3", "KV held, predicted"), el("div", raw(_held(subject, found)), class_="scroll")]
    capacity = None if subject.machine is None else subject.machine.kv_tokens
    if capacity is not None and found.run.peak > capacity:
        parts.append(el("p", "That is as if memory sufficed.  Where it does not, calls wait, and "
                        "what was evicted is computed again.", class_="note"))
    if subject.samples:
        parts += [el("h3", "KV held, as it was"),
                  el("div", raw(_actual(subject.samples)), class_="scroll")]
    return Page("plan", "Plan", many(parts))


def lanes(found: Outlook) -> list[Lane]:
    """The lanes, in the order in which they start."""
    out: dict[object, Lane] = {}
    for work, span in zip(found.works, found.run.spans, strict=True):
        row, number = work.call
        call = found.plans[row].calls[number]
        lane = _lane(call.op, call.ahead)
        out.setdefault((lane.name, lane.where), lane).spans.append(span)
    return sorted(out.values(), key=lambda lane: min(lane.spans))


def _lane(op: Op | None, ahead: bool) -> Lane:
    kind = "special" if ahead else "select" if op is not None and op.name == "kv.score" else "gen"
    name = "" if op is None else str(op.attrs.get("name") or "")
    word = "prefill" if ahead else kind
    return Lane(f"{word} {name}".strip(), kind, brief(op.loc if op is not None else None))


def _gantt(found: Sequence[Lane], steps: int) -> str:
    frame = Frame(_WIDE, _LANE * min(len(found), _LANES), max(steps, 1), 1)
    parts = frame.across("model steps")
    for i, lane in enumerate(found[:_LANES]):
        base = TOP + (i + 1) * _LANE - 3
        counts = _counts(lane.spans, max(steps, 1))
        most = max(counts)
        many_ = f" {TIMES}{len(lane.spans)}" if len(lane.spans) > 1 else ""
        parts.append(text(LEFT - 8, base - 6, short(lane.name, _NAME) + many_, "small", "end"))
        path, width, j = [], _WIDE / len(counts), 0
        for count, same in groupby(counts):
            long = len(list(same))
            if count:
                high = (_LANE - 7) * (0.35 + 0.65 * count / most)
                path.append(f"M{LEFT + j * width:.1f},{base:.1f} v{-high:.1f} "
                            f"h{long * width:.1f} v{high:.1f} Z")
            j += long
        parts.append(
            f'<g><title>{escaped(lane.name)}, {escaped(lane.where)}: {len(lane.spans)} '
            f'requests, {most} at once at most, steps {min(lane.spans)[0]} to '
            f'{max(e for _, e in lane.spans)}</title>'
            f'<path class="lane {lane.kind}" d="{" ".join(path)}"/></g>')
    if len(found) > _LANES:
        parts.append(text(LEFT, TOP + 8, f"and {len(found) - _LANES} more", "small"))
    return frame.svg(parts, "calls over time")


def _counts(spans: Sequence[tuple[int, int]], steps: int) -> list[int]:
    """How many requests are under way, in equal stretches of time."""
    bins = min(_BINS, steps)
    change = [0] * (bins + 1)
    for start, end in spans:
        first = min(bins - 1, max(0, start - 1) * bins // steps)
        change[first] += 1
        change[max(first + 1, min(bins, -(-end * bins // steps)))] -= 1
    out, now = [], 0
    for c in change[:-1]:
        now += c
        out.append(now)
    return out


def _held(subject: Subject, found: Outlook) -> str:
    capacity = None if subject.machine is None else subject.machine.kv_tokens
    points = thinned(_course(found.run.held))
    most = max([t for _, t in points], default=0.0)
    near = capacity is not None and capacity <= 6 * most
    top = max(most, capacity or 0.0) if near else most
    frame = Frame(_WIDE, 170, max(found.run.steps, 1), top * 1.08 or 1.0)
    parts = [f'<path class="area" d="{frame.stairs([(0.0, 0.0), *points])}"/>',
             *frame.across("model steps"), *frame.up("tokens of KV")]
    if capacity is not None and near:
        y = frame.y(capacity)
        parts.append(f'<path class="limit" d="M{LEFT},{y:.1f} h{_WIDE}"/>')
        parts.append(text(LEFT + _WIDE, y - 5, f"capacity {capacity:,}", "small", "end"))
    else:
        said = "capacity not known" if capacity is None else f"capacity {capacity:,}, far above"
        parts.append(text(LEFT + _WIDE, TOP + 8, said, "small", "end"))
    return frame.svg(parts, f"KV tokens held, at most {most:.0f}")


def _course(held: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """What is held from when on: a step takes from the number before it to its own."""
    out: list[tuple[float, float]] = []
    last = None
    for step, tokens in held:
        begins = step - 1.0 if step != last else float(step)
        out.append((max(begins, out[-1][0] if out else 0.0), tokens))
        last = step
    return out


def _actual(samples: Sequence[Sample]) -> Html | str:
    known = [(s.seconds, float(s.in_use or 0)) for s in samples if s.in_use is not None]
    total = max([s.total for s in samples], default=0)
    most = max([t for _, t in known], default=0.0)
    near = total <= 6 * most
    frame = Frame(_WIDE, 170, max([x for x, _ in known], default=0.0) or 1.0,
                  (max(total, most) if near else most) * 1.08 or 1.0)
    parts = [f'<path class="actual" d="{frame.polyline(thinned(known))}"/>',
             *frame.across("seconds"), *frame.up("tokens of KV")]
    if near and total:
        y = frame.y(total)
        parts.append(f'<path class="limit" d="M{LEFT},{y:.1f} h{_WIDE}"/>')
        parts.append(text(LEFT + _WIDE, y - 5, f"capacity {total:,}", "small", "end"))
    return frame.svg(parts, f"KV tokens in use during the run, at most {most:.0f}")
