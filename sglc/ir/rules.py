"""What operations demand beyond being well formed: signatures, prompt chains, roles, paths,
choices, releases.

`Facts` is fed each op of a program in order by the verifier.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sglc.ir import compute
from sglc.ir.module import Block, Lit, Op, Operand, Value
from sglc.ir.ops import OpDef
from sglc.ir.signatures import (
    ADMITS,
    BRANCHES,
    CALLS,
    CHAINS,
    LOOPS,
    PROMPTS,
    ROOTS,
    YIELDING,
    class_at,
    count_fits,
    count_text,
    fits,
    offsets,
)
from sglc.ir.types import ANY, INT, is_text, list_of

_UNKNOWN = "?"  # a role state that cannot be told: both opening and closing are fine


def shape_problems(op: Op, definition: OpDef) -> list[str]:
    """What is wrong with the numbers, types and attribute names of an op.

    Depends on nothing but the op's name, type names and attribute names.
    """
    out: list[str] = []
    for what, classes, given in (("operand", definition.operands, op.operands),
                                 ("result", definition.results, op.results)):
        if not count_fits(classes, len(given)):
            out.append(f"has {count_text(classes)} {what}s, {len(given)} given")
        for index, value in enumerate(given):
            kind = class_at(classes, index)
            if kind is not None and value.type.name not in ADMITS[kind]:
                out.append(f"{what} {index} is !{value.type.name}, not {_class_text(kind)}")
    given_names = op.attrs.keys()
    missing = [a for a in definition.attrs if a not in given_names]
    if missing:
        out.append(f"lacks the attribute {', '.join(missing)}")
    unknown = given_names - {*definition.attrs, *definition.optional}
    if unknown:
        out.append(f"has no attribute {', '.join(sorted(map(str, unknown)))}")
    return out or _chain_problems(op)


def _class_text(kind: str) -> str:
    if kind == "value":
        return "a known type"
    return " or ".join(f"!{name}" for name in sorted(ADMITS[kind]))


def _chain_problems(op: Op) -> list[str]:
    """A prompt comes from a root, an argument, a branch, or another prompt of its kind."""
    if op.name in YIELDING or op.name in LOOPS or op.name.endswith(".item"):
        return []
    source: str | None = None
    if op.name in CHAINS:
        source = op.operands[0].type.name
    elif op.name in ROOTS:
        source = "prompt" if op.name == "prompt.root" else "kv"
    out = []
    for result in op.results:
        name = result.type.name
        continues = result.index == 0 or op.name == "prompt.fork"
        if name in PROMPTS and (source is None or not continues):
            out.append(f"result {result.index} is a prompt that comes from no root")
        elif name in PROMPTS and name != source:
            out.append(f"continues a !{source} with a !{name}")
    return out


class Facts:
    """What is known along a program: open roles, paths taken, sequences released.

    A region that excludes others has its own facts (`branch`), merged when all are known.
    """

    def __init__(self, report: Callable[[Op | None, str], None]) -> None:
        self.report = report
        self.roles: dict[Value, str] = {}  # prompts with an open message; absent: none is open
        self.paths: dict[Any, Op] = {}
        self.released: set[Value] = set()

    def branch(self) -> Facts:
        """The facts at the start of one of several regions of which one runs."""
        out = Facts(self.report)
        out.roles = self.roles
        out.released = set(self.released)
        return out

    def merge(self, branches: Sequence[Facts]) -> None:
        """After such regions: whatever may have happened in one of them."""
        paths: dict[Any, Op] = {}
        for branch in branches:
            paths.update(branch.paths)
            self.released |= branch.released
        for path, call in paths.items():
            self.call(call, path)

    def arguments(self, block: Block, parent: Op | None) -> None:
        """The arguments of a program (parent is None) or a region."""
        if parent is None:
            self.roles.update((a, _UNKNOWN) for a in block.args if a.type.name in PROMPTS)
            return
        args = block.args
        if parent.name in LOOPS:
            if not args or args[0].type != INT:
                self.report(parent, "a loop's first argument is the number of the round, an !int")
                return
            args = args[1:]
        given = parent.operands[1:] if parent.name in BRANCHES | LOOPS else ()
        if (len(given) != len(args)
                or not all(fits(o.type, a.type) for o, a in zip(given, args, strict=True))):
            self.report(parent, "the arguments of a region are not the operands after the first")
            return
        for value, arg in zip(given, args, strict=True):
            if isinstance(value, Value) and value in self.roles:
                self.roles[arg] = self.roles[value]

    def op(self, op: Op, definition: OpDef) -> None:
        """Check an op whose shape is right, after its regions, and learn from it."""
        name = op.name
        if self.released:
            for operand in op.operands:
                if isinstance(operand, Value) and operand in self.released:
                    self.report(op, f"{operand!r} is used after its release")
        rule = _RULES.get(name)
        if rule is not None:
            rule(self, op)
        if name in CALLS:
            if "offset" in op.attrs:  # the path is complete at run time only
                self.offset(op, op.attrs["path"])
            else:
                self.call(op, op.attrs["path"])
        if self.roles and name in CHAINS and name not in _ROLE_OPS:
            self.set_role(op, self.role(op.operands[0]))

    # --- paths ----------------------------------------------------------------------------
    def call(self, op: Op, path: Any) -> None:
        if type(path) is not tuple:
            self.report(op, f"path is not a list: {path!r}")
            return
        first = self.paths.setdefault(path, op)
        if first is not op:
            self.report(op, f"the path {list(path)} is also that of {first!r}")

    def offset(self, op: Op, path: Any) -> None:
        at = op.attrs["offset"]
        if type(path) is not tuple or type(at) is not tuple or not all(
                type(n) is int and 0 <= n < len(path) for n in at) or len(set(at)) < len(at):
            self.report(op, f"offset is no list of places in the path: {at!r}")
        elif len(op.operands) < 1 + len(at) or not all(
                o.type.name in ("int", "any") for o in op.operands[len(op.operands) - len(at):]):
            self.report(op, f"lacks the {len(at)} !int operands of offset")

    # --- roles ----------------------------------------------------------------------------
    def role(self, prompt: Operand) -> str | None:
        return self.roles.get(prompt) if isinstance(prompt, Value) else None

    def set_role(self, op: Op, role: str | None) -> None:
        if role is not None:
            self.roles.update((r, role) for r in op.results if r.type.name in PROMPTS)

    def history(self, op: Op) -> None:
        """The roles before: texts, and lists that operands repeat."""
        given = op.attrs.get("history", ())
        repeated = [h for h in given if type(h) is tuple] if type(given) is tuple else []
        if len(op.operands) != 1 + len(repeated) or not all(
                o.type.name in ("int", "any") for o in op.operands[1:]):
            self.report(op, f"has {len(op.operands) - 1} counts for {len(repeated)} repetitions")

    def role_begin(self, op: Op) -> None:
        self.history(op)
        role, open_role = op.attrs["role"], self.role(op.operands[0])
        if type(role) is not str:
            self.report(op, f"role is not a text: {role!r}")
            return
        if open_role not in (None, _UNKNOWN):
            self.report(op, f"opens {role!r} while {open_role!r} is open")
        self.roles[op.results[0]] = role

    def role_end(self, op: Op) -> None:
        self.history(op)
        role, open_role = op.attrs["role"], self.role(op.operands[0])
        if open_role is None:
            self.report(op, f"closes {role!r} where no message is open")
        elif open_role not in (role, _UNKNOWN):
            self.report(op, f"closes {role!r} while {open_role!r} is open")

    def concat(self, op: Op) -> None:
        """parent, child, base: what the child did after base, done to the parent."""
        parent, child, base = map(self.role, op.operands)
        self.set_role(op, child if parent == base else _UNKNOWN)

    def join(self, op: Op) -> None:
        """parent, fork point, children: as concat for each child, or the parent."""
        parent, point, *children = map(self.role, op.operands)
        same = all(role == parent for role in (point, *children))
        self.set_role(op, parent if same else _UNKNOWN)

    def merge_roles(self, op: Op) -> None:
        """The results of regions: known where all yields agree."""
        for result in op.results:
            if result.type.name in PROMPTS:
                roles = {self.role(end.operands[result.index]) for end in _ends(op)
                         if result.index < len(end.operands)}
                role = roles.pop() if len(roles) == 1 else _UNKNOWN
                if role is not None:
                    self.roles[result] = role

    # --- single operations ----------------------------------------------------------------
    def choices(self, op: Op) -> None:
        choices = op.operands[1:len(op.operands) - len(offsets(op))]
        given = [o.value for o in choices if isinstance(o, Lit)]
        if not choices:
            self.report(op, "has no choices")
        if not all(is_text(o.type) or o.type == ANY for o in choices):
            self.report(op, "a choice is not a text")
        if "" in given:
            self.report(op, "has an empty choice")
        repeated = [text for text, count in Counter(given).items() if count > 1]
        if repeated:
            self.report(op, f"has the same choice twice: {repeated}")
        self.then(op)

    def then(self, op: Op) -> None:
        """Outcomes, each with what follows it."""
        given = op.attrs.get("then", ())
        if type(given) is not tuple or not all(
                type(row) is tuple and row and type(row[0]) is str and all(
                    type(piece) is str or (type(piece) is int and piece >= 0) for piece in row)
                for row in given):
            self.report(op, "then is no list of outcomes, each with texts and tokens")

    def format(self, op: Op) -> None:
        parts = op.attrs["parts"]
        good = type(parts) is tuple
        for part in parts if good else ():
            if type(part) is str:
                continue
            good = (good and type(part) is tuple and [type(p) for p in part] == [int, str, str]
                    and 0 <= part[0] < len(op.operands))
        if not good:
            self.report(op, f"parts must be texts and (operand index, conversion, format) of "
                            f"{len(op.operands)} operands: {parts!r}")

    def compute(self, op: Op) -> None:
        fn = op.attrs["fn"]
        if type(fn) is not str or not compute.known(fn):
            self.report(op, f"unknown function {fn!r}")

    def fork(self, op: Op) -> None:
        size = op.attrs["size"]
        if type(size) is not int or size != len(op.results):
            self.report(op, f"size is {size!r} for {len(op.results)} results")

    def switch(self, op: Op) -> None:
        labels = [r.label for r in op.regions]
        if len(set(labels)) < len(labels):
            self.report(op, f"cases share a label: {labels}")
        if "default" in labels[:-1] and "default" not in op.operands[0].type.args:
            self.report(op, "the default case is not the last")
        kind = op.operands[0].type
        if labels and "default" not in labels:
            missing = [text for text in kind.args if text not in labels]
            if kind.name == "text":
                self.report(op, "a switch on a !text needs a default case")
            elif kind.name == "choice" and missing:
                self.report(op, f"no case for {missing}")
        self.merge_roles(op)

    def loop(self, op: Op) -> None:
        """What a round yields: the carried values, then those that are collected."""
        region = op.regions[0]
        end = region.ops[-1] if region.ops else None
        collected = op.attrs.get("collected", 0)
        if end is None or end.name != "prompt.yield":
            return  # reported already
        if type(collected) is not int or not 0 <= collected <= len(end.operands):
            self.report(op, f"collected is {collected!r}")
            return
        carried = len(end.operands) - collected
        if carried != len(op.operands) - 1:
            self.report(end, f"yields {carried} carried values for {len(op.operands) - 1}")
            return
        if len(op.results) != len(end.operands):
            self.report(op, f"has {len(op.results)} results for {len(end.operands)} values")
            return
        for value, arg, result in zip(end.operands, region.args[1:], op.results, strict=False):
            if not fits(value.type, arg.type) or result.type != arg.type:
                self.report(end, f"yields {value!r} for {arg!r} and {result!r}")
        for value, result in zip(end.operands[carried:], op.results[carried:], strict=True):
            if not fits(list_of(value.type), result.type):
                self.report(end, f"yields {value!r} for {result!r}")
        self.merge_roles(op)

    def item(self, op: Op) -> None:
        self.set_role(op, _UNKNOWN)

    def release(self, op: Op) -> None:
        value = op.operands[0]
        if isinstance(value, Value):
            self.released.add(value)


def _ends(op: Op) -> list[Op]:
    return [r.ops[-1] for r in op.regions
            if r.ops and r.ops[-1].name in ("prompt.yield", "plan.yield")]


_ROLE_OPS = frozenset(("prompt.role_begin", "prompt.role_end", "kv.role_begin", "kv.role_end",
                       "prompt.concat", "prompt.join",
                       "kv.concat"))
_RULES: dict[str, Callable[[Facts, Op], None]] = {
    "prompt.role_begin": Facts.role_begin, "prompt.role_end": Facts.role_end,
    "kv.role_begin": Facts.role_begin, "kv.role_end": Facts.role_end,
    "prompt.concat": Facts.concat, "kv.concat": Facts.concat, "prompt.join": Facts.join,
    "prompt.select": Facts.choices, "kv.score": Facts.choices, "kv.decode": Facts.then,
    "prompt.format": Facts.format,
    "prompt.compute": Facts.compute, "prompt.fork": Facts.fork, "prompt.switch": Facts.switch,
    "prompt.if": Facts.merge_roles, "plan.issue": Facts.merge_roles,
    "plan.group": Facts.merge_roles, "prompt.for": Facts.loop, "prompt.map": Facts.loop,
    "prompt.item": Facts.item, "kv.item": Facts.item,
    "kv.release": Facts.release,
}
