"""The cost model: what a batch will cost, before it runs or given what its calls gave.

All rows go into one prefix tree (`dry_run.py`), of which tokens are counted as the engine does:
a position is prefill if some request needs it and no request writes it.  A figure is exact only
if no other can come out: all text that stands before a call is known, the calls are, and no ids
that are not known stand beside others behind which something is computed (they could be equal,
and be shared).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sglc.ir.module import Program
from sglc.plan.draft_calls import Setting, Told
from sglc.plan.drafts import UNBOUNDED
from sglc.plan.dry_run import DryRun
from sglc.plan.figures import Cost, Figure, about, at_most, exact
from sglc.plan.peak import peak, shape_of
from sglc.plan.prefix_tree import Node, PrefixTree, above
from sglc.plan.row_plan import PlannedCall, RowPlan
from sglc.plan.step_costs import Simulated, StepCost, Work, simulate


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of the backend.  kv_tokens, context_length: None if not known; step_tokens,
    running: tokens and requests of a step; step: what it costs, None without calibration."""

    kv_tokens: int | None = None
    context_length: int | None = None
    step_tokens: int = 512
    running: int = 256
    step: StepCost | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """An instance: its program at the plan or kv stage, arguments by IR name, and what its calls
    gave, if that is known."""

    program: Program
    arguments: Mapping[str, Any]
    told: Mapping[Any, Told] | None = None


def cost(rows: Iterable[Row], setting: Setting, machine: Machine | None = None, *,
         at_once: int | None = None, unknown: int = 0) -> Cost:
    """The cost of a batch, from an empty cache.

    at_once: rows that run at a time, whichever these are (all of them).  unknown: rows of which
    there is no program.
    """
    return _Counted(rows, setting, machine or Machine(), at_once, unknown).cost()


@dataclass(frozen=True, slots=True)
class Outlook:
    """A batch's cost, and the simulated run that its steps were taken from: the calls of each
    row, and for each request its call (row, number)."""

    cost: Cost
    run: Simulated
    plans: tuple[RowPlan, ...]
    works: tuple[Work, ...]


def outlook(rows: Iterable[Row], setting: Setting, machine: Machine | None = None, *,
            unknown: int = 0) -> Outlook:
    """What a batch will cost and when its calls will run, from an empty cache."""
    counted = _Counted(rows, setting, machine or Machine(), None, unknown)
    found = counted.cost()
    return Outlook(found, counted.run, tuple(counted.plans), tuple(counted.works))


class _Counted:
    def __init__(self, rows: Iterable[Row], setting: Setting, machine: Machine,
                 at_once: int | None, unknown: int) -> None:
        self.tree = PrefixTree()
        dry = DryRun(self.tree, setting)
        self.plans: list[RowPlan] = [dry.row(r.program, r.arguments, r.told) for r in rows]
        self.machine = machine
        self.unknown = unknown
        self.rows = len(self.plans)
        self.at_once = self.rows if at_once is None else min(at_once, self.rows)
        self.complete = not unknown and all(p.complete for p in self.plans)
        # Paths are final only now: nodes are split while rows are added.
        self.calls = [call for plan in self.plans for call in plan.calls]
        self.chances: dict[Node, float] = {}
        self._mark()
        self.sure = self._all_happen and self._fits() and not self._ambiguous()

    def _mark(self) -> None:
        """Note which nodes are read and written, and by how many rows."""
        # What holds of a node holds of those above it: each walk ends where another went.
        for number, plan in enumerate(self.plans, 1):
            for call in plan.calls:
                for span in call.spans:
                    for node in span.end.path():
                        if self.chances.get(node, -1.0) >= call.chance:
                            break
                        node.read = True
                        self.chances[node] = call.chance
                    for node in span.given.path():
                        if node.row == number:
                            break
                        node.row = number
                        node.rows += 1
                    for node in span.writes():
                        node.written = True

    def _raced(self) -> set[Node]:
        """What one call writes and another needs that does not wait for it: both may compute it.
        Where ids are not known yet, nobody else can need them."""
        writers: dict[Node, set[tuple[int, int]]] = {}
        for row, plan in enumerate(self.plans):
            for call in plan.calls:
                for span in call.spans:
                    for node in span.writes():
                        if node.known:
                            writers.setdefault(node, set()).add((row, call.number))
        raced: set[Node] = set()
        for row, plan in enumerate(self.plans if writers else ()):
            before: list[frozenset[int]] = []
            for call in plan.calls:
                before.append(call.needs.union(*[before[i] for i in call.needs]))
                ended = {(row, i) for i in before[-1]}
                for span in call.spans:
                    raced.update([n for n in span.given.path()
                                  if n in writers and not writers[n] & ended])
        return raced

    def _fits(self) -> bool:
        """Whether no sequence is cut short by the model's context or the pool."""
        limits = [n for n in (self.machine.kv_tokens, self.machine.context_length)
                  if n is not None]
        if not limits:
            return True
        lengths = self.tree.lengths(lambda node: node.most)
        return min(limits) > max([lengths[span.end] for call in self.calls
                                  for span in call.spans], default=0)

    def _ambiguous(self) -> bool:
        """Whether some position may be shared, or not needed, as it turns out."""
        if _reached([c for c in self.calls if c.ahead]) - _reached(
                [c for c in self.calls if not c.ahead]):
            return True  # made for a call that does not happen, or not made
        computing: dict[Node, bool] = {}  # whether something is prefilled there or below
        for node in reversed(list(self.tree.nodes())):
            here = node.read and not node.written and node.most > 0
            if here and not node.known and node.expected != node.most:
                return True
            computing[node] = here or any(computing[c] for c in node.children.values())
        for node in [self.tree.root, *self.tree.nodes()]:
            children = list(node.children.values())
            if len(children) > 1 and any(not c.known for c in children) and any(
                    computing[c] for c in children):
                return True
        return False

    # -- figures --------------------------------------------------------------------------
    def cost(self) -> Cost:
        prefill = [n for n in self.tree.nodes() if n.read and not n.written]
        choices = self._only_choices(prefill)
        alone = self._alone()
        run = self.run
        step = self.machine.step
        written = [c.written for c in self.calls]
        asked = [c for c in self.calls if not c.ahead]
        least = self._tokens(prefill)
        twice = sum([n.most for n in self._raced()])
        computed = at_most(int(least.value) + twice, least.expected) if (
            twice and least.exact and least.value is not None) else least
        working_set = self._tokens([n for n in self.tree.nodes() if n.read])
        return Cost(
            prefill=computed if self._ample(working_set) else about(least.expected), least=least,
            alone=alone, select=self._tokens(choices),
            decode=self._figure(
                sum([w.most for w in written]),
                sum([c.written.expected * c.chance for c in self.calls]),
                self._all_happen and all(w.exact for w in written)),
            kv_peak=self._peak(run.peak),
            working_set=working_set,
            calls=self._figure(len(asked), sum([c.chance for c in asked]), self._all_happen),
            chain=self._chain(), steps=about(run.steps),
            seconds=None if step is None else about(
                step.seconds(run.steps, run.tokens, run.context)),
            rows=self.rows + self.unknown, at_once=self.at_once, unknown=self.unknown,
            complete=self.complete)

    def _ample(self, working_set: Figure) -> bool:
        """Whether nothing is evicted."""
        pool = self.machine.kv_tokens
        return pool is None or (working_set.mark != "~" and working_set.value is not None
                                and working_set.value <= pool)

    @property
    def _all_happen(self) -> bool:
        return self.complete and all(p.sure for p in self.plans)

    def _tokens(self, nodes: Sequence[Node]) -> Figure:
        most = sum([n.most for n in nodes])
        if self.sure:
            return exact(most)
        return self._figure(most, sum([n.expected * self.chances[n] for n in nodes]), False)

    def _figure(self, most: int, expected: float, is_exact: bool) -> Figure:
        if is_exact:
            return exact(most)
        if not self.complete:
            return about(expected)
        return at_most(most if most < UNBOUNDED else None, expected)

    def _alone(self) -> Figure:
        """Prefill if rows shared nothing."""
        most, expected = 0, 0.0
        for plan in self.plans:
            for node in _reached(plan.calls):
                if not node.written:
                    most += node.most
                    expected += node.expected * self.chances[node]
        return exact(most) if self.sure else self._figure(most, expected, False)

    def _only_choices(self, prefill: Sequence[Node]) -> list[Node]:
        """The nodes that requests of selects need, and nothing else."""
        selects = [c for c in self.calls if c.base is not None]
        others = above([c.base for c in selects if c.base is not None])
        others |= _reached([c for c in self.calls if c.base is None])
        mine = _reached(selects)
        return [n for n in prefill if n in mine and n not in others]

    def _chain(self) -> Figure:
        """The longest chain of calls, one after the other, of a row."""
        longest = 0
        for plan in self.plans:
            chains: list[int] = []
            for call in plan.calls:
                chains.append((not call.ahead) + max([chains[i] for i in call.needs], default=0))
            longest = max([longest, *chains])
        return self._figure(longest, longest, self._all_happen)

    def _peak(self, simulated: float) -> Figure:
        pool = self.machine.kv_tokens
        held, likely = self._held((lambda node: node.most, lambda node: node.expected))
        most, expected = int(held), min(simulated, likely)
        if pool is not None:
            expected = min(expected, pool)
        if not self.complete or most >= UNBOUNDED:
            return at_most(pool, expected)
        return at_most(most if pool is None else min(most, pool), expected)

    def _held(self, sizes: Sequence[Callable[[Node], float]]) -> list[float]:
        """What running requests hold at once, in each measure: rows run side by side, up to
        `at_once`; what several of them read counts once."""
        sums = [_Sums() for _ in sizes]
        for plan in self.plans:
            if plan.calls:
                own = [_holds(call) for call in plan.calls]
                shape = shape_of(tuple([c.needs for c in plan.calls]))
                brief = _brief(plan.calls, own)
                rest = [path - brief for path in own] if brief else own
                for found, size in zip(sums, sizes, strict=True):
                    found.rows.append(peak(shape, own, size))
                    found.calls += [sum(map(size, path)) for path in own]
                    found.passing.append(sum(map(size, brief)))
                    found.longer.append(peak(shape, rest, size) if brief else found.rows[-1])
        return [self._together(found, sum([size(n) for n in self.tree.nodes() if n.rows > 1]))
                for found, size in zip(sums, sizes, strict=True)]

    def _together(self, found: _Sums, common: float) -> float:
        def most(sizes: list[float], number: int) -> float:
            return sum(sorted(sizes, reverse=True)[:number])

        # What selects alone read is held only while it is computed: the tokens of the steps under
        # way (two at most), and what was computed before of one that takes several.
        in_steps = 2 * self.machine.step_tokens + max(found.passing, default=0)
        # Nor can more than all running requests hold anything.
        return common + min(
            most(found.rows, self.at_once), most(found.calls, self.machine.running),
            most(found.longer, self.at_once) + min(most(found.passing, self.at_once), in_steps))

    @cached_property
    def run(self) -> Simulated:
        """The steps that the requests take."""
        return simulate(self.works, self.machine.step_tokens, self.machine.running)

    @cached_property
    def works(self) -> list[Work]:
        """All requests."""
        works = []
        lengths = self.tree.lengths(lambda node: node.expected)
        for row, plan in enumerate(self.plans):
            for call in plan.calls:
                needs = tuple([(row, i) for i in call.needs])
                each = call.written.expected / max(1, len(call.spans))
                for span in call.spans:
                    works.append(Work(
                        tuple(span.given.path()), round(each),
                        lengths[span.end], (row, call.number), needs,
                        call.rank))
        return works


@dataclass(slots=True)
class _Sums:
    """What is held, of each row: at once, without what selects alone read, and that; and of each
    call."""

    rows: list[float] = field(default_factory=list)
    longer: list[float] = field(default_factory=list)
    passing: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)


def _reached(calls: Iterable[PlannedCall]) -> set[Node]:
    """All that calls' requests read and write."""
    return above([span.end for call in calls for span in call.spans])


def _holds(call: PlannedCall) -> set[Node]:
    """What the requests of a call hold while they run, less what other rows read too.  What they
    write they have for themselves, whatever it is."""
    held: set[Node] = set()
    for span in call.spans:
        held.update([node for node in span.given.path() if node.rows == 1])
        writes = list(span.writes())
        held.add(Node(None, None, None, sum([n.expected for n in writes]),
                      sum([n.most for n in writes])))
    return held


def _brief(calls: Sequence[PlannedCall], held: Sequence[set[Node]]) -> set[Node]:
    """What only selects read."""
    selects: set[Node] = set()
    others: set[Node] = set()
    for call, nodes in zip(calls, held, strict=True):
        (others if call.base is None else selects).update(nodes)
    return selects - others
