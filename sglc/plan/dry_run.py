"""A program gone through for one row without running it: which model calls there are, on what.

Text that the arguments give is known; what gens write is stood in for by blocks of as many tokens
as they may be, unless their outcomes are given.  All arms of a branch that a model decides are
gone through.  The rules of prompts and calls are those of `tokens/prompt.py` and of the runtime;
nothing here calls a model or the user's Python.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from sglc.errors import SglcError
from sglc.ir.module import Block, Lit, Op, Operand, Program, Value
from sglc.ir.signatures import BRANCHES, LOOPS, awaited, offsets
from sglc.ir.types import KV
from sglc.plan.draft_calls import CallDrafts, Setting, Told, Written, as_text
from sglc.plan.drafts import UNBOUNDED, Border, Draft
from sglc.plan.open_values import FAILED, computed, either, formatted, is_known, unknown
from sglc.plan.prefix_tree import PrefixTree, Span
from sglc.plan.row_plan import PlannedCall, RowPlan, Ways
from sglc.tokens.images import USUAL as USUAL_IMAGE
from sglc.tokens.images import place_image

_WAYS = 16  # alternatives of a prompt that are told apart
_NOTHING: frozenset[int] = frozenset()
_MARKS = ("kv.release", "kv.pin", "plan.await", "prompt.bind", "prompt.meta", "prompt.message",
          "plan.yield", "prompt.yield", "prompt.return")


class DryRun:
    """Goes through rows that share one prefix tree."""

    def __init__(self, tree: PrefixTree, setting: Setting) -> None:
        self.tree = tree
        self.setting = setting
        self.calls = CallDrafts(tree, setting)
        self._rows = 0

    def row(self, program: Program, arguments: Mapping[str, Any],
            told: Mapping[Any, Told] | None = None) -> RowPlan:
        """The calls of one row.  arguments: by IR name; told: what its calls gave, by their
        keys (`("call", path)`, `("host", ordinal)`), if that is known."""
        self._rows += 1
        return _Row(self, self._rows, program, arguments, told).run()


class _Row:
    """env: values by now.  needs: the calls that each depends on.  rounds: of the loops around.
    chance, control: of the region that is gone through."""

    def __init__(self, dry: DryRun, row: int, program: Program, arguments: Mapping[str, Any],
                 told: Mapping[Any, Told] | None) -> None:
        self.dry, self.row, self.program, self.told = dry, row, program, told
        self.calls, self.tree, self.setting = dry.calls, dry.tree, dry.setting
        self.drafts = dry.calls.drafts
        self.plan = RowPlan()
        self.env: dict[Value, Any] = {}
        self.needs: dict[Value, frozenset[int]] = {}
        self.rounds: list[int] = []
        self.chance = 1.0
        self.control = _NOTHING
        self.hosts = _NOTHING  # what the host calls so far needed
        self.rank = 0
        for arg in program.args:
            if arg.name in arguments:
                self.env[arg] = arguments[arg.name]

    def run(self) -> RowPlan:
        self.block(self.program.body)
        return self.plan

    # -- values ---------------------------------------------------------------------------
    def value(self, operand: Operand) -> Any:
        if isinstance(operand, Lit):
            return operand.value
        if operand not in self.env:
            self.env[operand] = unknown(self.key(operand))
        return self.env[operand]

    def key(self, what: object) -> Hashable:
        """A name for something of this row and round."""
        return id(what), tuple(self.rounds), self.row

    def needed(self, operands: Sequence[Operand]) -> frozenset[int]:
        return frozenset().union(*[self.needs.get(o, _NOTHING) for o in operands
                                   if isinstance(o, Value)])

    def set(self, op: Op, value: Any, needs: frozenset[int]) -> None:
        for result in op.results:
            self.env[result], self.needs[result] = value, needs

    # -- operations -----------------------------------------------------------------------
    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)

    def op(self, op: Op) -> None:
        name = op.name
        if name in _MARKS:
            return
        if name == "plan.issue" or name == "plan.group":
            before, self.rank = self.rank, op.attrs.get("rank", self.rank)
            self.block(op.regions[0])
            self.rank = before
            self._pass(op, op.regions[0])
        elif name in BRANCHES:
            self._branch(op)
        elif name in LOOPS:
            self._loop(op)
        elif name in ("kv.decode", "kv.score"):
            self._call(op)
        elif name == "kv.prefill":
            self._prefill(op)
        elif name in ("prompt.host", "prompt.check", "prompt.break", "prompt.read"):
            self._host(op)
        else:
            self.set(op, self._pure(op), self.needed(op.operands))

    def _pass(self, op: Op, region: Block) -> None:
        """The results of an op are what its region ends with."""
        end = region.terminator
        for result, operand in zip(op.results, end.operands if end else (), strict=True):
            self.env[result] = self.value(operand)
            self.needs[result] = self.needed((operand,))

    def _pure(self, op: Op) -> Any:
        name = op.name
        if name == "kv.root":
            return self.drafts.empty()
        if name == "kv.ids":
            return op.attrs["text"]
        if name == "kv.encode":
            return self.value(op.operands[1])
        if name == "prompt.batch":
            counts = self.setting.counts
            return unknown(self.key(op)) if counts is None else counts
        values = [self.value(o) for o in op.operands]
        if any(v is FAILED for v in values):
            return FAILED
        if name == "kv.extend":
            return self._each(values[0], lambda d: self.drafts.append(d, as_text(values[1], d)))
        if name == "kv.special":
            return self._each(values[0], lambda d: self.drafts.special(d, op.attrs["id"]))
        if name == "kv.image":
            return self._image(op, values)
        if name in ("kv.role_begin", "kv.role_end"):
            return self._role(op, values)
        if name == "kv.concat":
            return self._concat(*values)
        if name == "kv.item" or (name == "prompt.compute" and op.attrs["fn"] == "getitem"):
            return computed("getitem", values, self.key(op))
        if name in ("prompt.text", "prompt.span"):
            return self._text(op, values)
        if name == "prompt.format":
            return formatted(op.attrs["parts"], values, self.key(op))
        if name == "prompt.compute":
            return computed(op.attrs["fn"], values, self.key(op))
        if name == "prompt.list":
            return values
        self.plan.complete = False  # an operation that is not known here
        return unknown(self.key(op))

    def _each(self, prompt: Any, change: Any) -> Any:
        """A change of a prompt, or of all that it may be."""
        if isinstance(prompt, Ways):
            return Ways(tuple([(chance, change(d)) for chance, d in prompt.ways]))
        if not isinstance(prompt, Draft):
            return self._some_prompt(change)
        return change(prompt)

    def _some_prompt(self, key: object) -> Draft:
        """A prompt about which nothing is known."""
        self.plan.complete = False
        return Draft(self.tree.block(self.tree.root, ("prompt", self.key(key)), 0, UNBOUNDED))

    def _role(self, op: Op, values: Sequence[Any]) -> Any:
        """As the plan executor does it (`runtime/plan_compiler.py`)."""
        counts = iter(values[1:])
        history: list[str] = []
        for role in op.attrs["history"]:
            history.extend([role] if isinstance(role, str) else role * next(counts))
        template, tokenizer = self.setting.template, self.setting.tokenizer
        side = template.open if op.name == "kv.role_begin" else template.close
        control = {**getattr(tokenizer, "added", {}), **tokenizer.special}
        pieces = side(tuple(history), op.attrs["role"])

        def add(draft: Draft) -> Draft:
            for p in pieces:
                draft = (self.drafts.append(draft, p) if isinstance(p, str)
                         else self.drafts.special(draft, control[p.name]))
            return draft

        return self._each(values[0], add)

    def _image(self, op: Op, values: Sequence[Any]) -> Any:
        """A prompt with an image, whose size is known where the image and the model are."""
        tokenizer, text = self.setting.tokenizer, op.attrs["text"]
        if not is_known(values[1]) or tokenizer.images is None:
            most = UNBOUNDED if tokenizer.images is None else tokenizer.images.most
            border = Border(None, text, ("image", self.key(op)), min(most, USUAL_IMAGE), most)
        else:
            try:
                border = Border(place_image(tokenizer, values[1]).ids, text)
            except SglcError:  # the row will raise there
                return FAILED
        return self._each(values[0], lambda d: self.drafts.add(d, border))

    def _concat(self, parent: Any, child: Any, base: Any) -> Any:
        if not (isinstance(child, Draft) and isinstance(base, Draft)):
            return self._some_prompt(child)

        def add(draft: Draft) -> Draft:
            for added in child.since(base):
                draft = self.drafts.add(draft, added)
            return draft

        return self._each(parent, add)

    def _text(self, op: Op, values: Sequence[Any]) -> Any:
        end = values[-1]
        begin = values[0] if len(values) > 1 else None
        if isinstance(end, Draft) and (begin is None or isinstance(begin, Draft)):
            return end.text(begin)
        return unknown(self.key(op))

    # -- control --------------------------------------------------------------------------
    def _branch(self, op: Op) -> None:
        selector = self.value(op.operands[0])
        control = self.needed(op.operands[:1])
        labels: list[Any] = ([True, False] if op.name == "prompt.if"
                             else [r.label for r in op.regions])
        regions = list(op.regions)
        if selector is FAILED:
            self.plan.sure = False
            self.set(op, FAILED, control)
            return
        if is_known(selector):
            if op.name == "prompt.if":
                selector = bool(selector)
            taken = labels.index(selector) if selector in labels else labels.index("default")
            regions = [regions[taken]]
        else:
            self.plan.sure = False
        outside = self.chance, self.control, self.hosts
        self.chance /= len(regions)
        self.control |= control
        ends: list[list[tuple[Any, frozenset[int]]]] = []
        hosts = self.hosts
        for region in regions:
            self.hosts = outside[2]
            for arg, operand in zip(region.args, op.operands[1:], strict=True):
                self.env[arg], self.needs[arg] = self.value(operand), self.needed((operand,))
            self.block(region)
            end = region.terminator
            ends.append([(self.value(o), self.needed((o,))) for o in (end.operands if end else ())])
            hosts |= self.hosts
        self.chance, self.control, _ = outside
        self.hosts = hosts
        for result in op.results:
            values = [end[result.index][0] for end in ends]
            self.needs[result] = control.union(*[end[result.index][1] for end in ends])
            self.env[result] = (self._either_prompt(op, values) if result.type == KV
                                else either(values, self.key(result)))

    def _either_prompt(self, op: Op, prompts: Sequence[Any]) -> Any:
        if all(p is prompts[0] for p in prompts):
            return prompts[0]
        ways: list[tuple[float, Draft]] = []
        for p in prompts:
            if isinstance(p, Ways):
                ways += [(chance / len(prompts), d) for chance, d in p.ways]
            elif isinstance(p, Draft):
                ways.append((1 / len(prompts), p))
        if len(ways) <= _WAYS:
            return Ways(tuple(ways)) if ways else FAILED
        most = max(sum(n.most for n in self.drafts.end(d).path()) for _, d in ways)
        return Draft(self.tree.block(self.tree.root, ("either", self.key(op)), 0, most))

    def _loop(self, op: Op) -> None:
        """The rounds of a loop; their number depends on arguments only."""
        region, end = op.regions[0], op.regions[0].terminator
        number, *carried = region.args
        count = self.value(op.operands[0])
        assert end is not None
        if type(count) is not int:
            self.plan.complete, count = False, 1
        state = [(self.value(o), self.needed((o,))) for o in op.operands[1:]]
        lists: list[list[Any]] = [[] for _ in op.results[len(carried):]]
        of_lists = [_NOTHING for _ in lists]
        for i in range(count):
            self.rounds.append(i)
            self.env[number] = i
            for arg, (value, needs) in zip(carried, state, strict=True):
                self.env[arg], self.needs[arg] = value, needs
            self.block(region)
            ends = [(self.value(o), self.needed((o,))) for o in end.operands]
            state = ends[:len(carried)]
            for k, (value, needs) in enumerate(ends[len(carried):]):
                lists[k].append(value)
                of_lists[k] |= needs
            self.rounds.pop()
        results = [*state, *zip(lists, of_lists, strict=True)]
        for result, (value, needs) in zip(op.results, results, strict=True):
            self.env[result], self.needs[result] = value, needs

    def _host(self, op: Op) -> None:
        """A call of the user's Python, or a read: it happens after those before it."""
        self.hosts |= self.needed(awaited(op)) | self.control
        if op.name == "prompt.read":
            return
        if op.name != "prompt.host":
            if self.told is None:
                self.plan.complete = False  # what is taken for granted may turn out otherwise
            return
        key = ("host", op.attrs.get("ordinal"))
        told = None if self.told is None else self.told.get(key)
        if told is None:
            self.plan.sure &= self.told is None
            value: Any = unknown(self.key(op)) if self.told is None else FAILED
        else:
            value = told.value
        self.set(op, value, self.hosts)

    # -- model calls ----------------------------------------------------------------------
    def _prefill(self, op: Op) -> None:
        """KV that is made ahead of the call that needs it."""
        prompt = self.value(op.operands[0])
        ways = prompt.ways if isinstance(prompt, Ways) else ((1.0, prompt),)
        for chance, draft in ways:
            if isinstance(draft, Draft):
                place = self.drafts.stable(draft)
                self.plan.calls.append(PlannedCall(
                    len(self.plan.calls), self.needed(op.operands) | self.control,
                    (Span(place, place),), None, Written(), chance * self.chance, self.rank,
                    ahead=True, op=op))

    def _call(self, op: Op) -> None:
        prompt, *rest = [self.value(o) for o in op.operands]
        shift = len(rest) - len(offsets(op))
        needs = self.needed(op.operands) | self.control
        told = None
        if self.told is not None:
            told = self.told.get(("call", _path(op, rest[shift:])))
            if told is None:  # it did not happen, or failed
                self.plan.sure = False
                self.set(op, FAILED, needs)
                return
        if prompt is FAILED or any(r is FAILED for r in rest):
            self.plan.sure = False
            self.set(op, FAILED, needs)
            return
        if not isinstance(prompt, (Draft, Ways)):
            prompt = self._some_prompt(op)
        if op.name == "kv.score" and _invalid(rest[:shift]):
            self.plan.sure = False
            self.set(op, FAILED, needs)
            return
        ways = prompt.ways if isinstance(prompt, Ways) else ((1.0, prompt),)
        self.plan.sure &= len(ways) == 1
        made: list[tuple[float, Draft]] = []
        value: Any = None
        calls: list[int] = []
        for i, (chance, draft) in enumerate(ways):
            key = (self.key(op), i)
            if op.name == "kv.decode":
                spans, written, draft, value = self.calls.gen(op, draft, key, told)
                self.plan.sure &= self.calls.samples(op)
                base = None
            else:
                base = self.drafts.end(draft)
                spans, draft, value = self.calls.select(op, draft, rest[:shift], key, told)
                written = Written()
            calls.append(len(self.plan.calls))
            self.plan.calls.append(PlannedCall(
                calls[-1], needs, tuple(spans), base, written, chance * self.chance, self.rank,
                op=op))
            made.append((chance, draft))
        after = needs | frozenset(calls)
        for result, v in zip(op.results, (made[0][1] if len(made) == 1 else Ways(tuple(made)),
                                          value, unknown(self.key(op))), strict=True):
            self.env[result], self.needs[result] = v, after


def _invalid(choices: Sequence[Any]) -> bool:
    """Whether a select among these is an error."""
    known = [c for c in choices if isinstance(c, str)]
    return "" in known or len(set(known)) < len(known)


def _path(op: Op, shifts: Sequence[Any]) -> tuple[int, ...]:
    """A call's path, where calls before it were counted at run time."""
    path = list(op.attrs["path"])
    for position, shift in zip(offsets(op), shifts, strict=True):
        path[position] += shift if type(shift) is int else 0
    return tuple(path)
