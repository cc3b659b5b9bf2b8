"""Lists whose length is known at run time only: what a body may do with one but go through it.

Their sizes, items, slices, the builtin functions of them, and which of them host calls are given.
Loops over them are traced in `loops.py`.
"""

from __future__ import annotations

from typing import Any

from sglc.ir import types
from sglc.ir.module import Lit, Operand, Value
from sglc.trace.frozen import Frozen
from sglc.trace.groups import LoopGroup
from sglc.trace.guards import MISSING, Guard, uniform
from sglc.trace.hosts import Built, Given
from sglc.trace.regions import Regions
from sglc.trace.rounds import Frame
from sglc.trace.sequences import Seq
from sglc.trace.state import TraceState
from sglc.trace.symbols import Sym

_WHOLE = (sorted, max, min, sum, any, all)  # of the items' values


class Lists(Regions):
    """The part of a session that knows lists of run-time length, and forks of run-time size.

    groups: these forks.  frames: the loops that are being traced, outermost first.
    shown: lists that host calls were given.  filled: sizes of lists in arguments, which the
    shape of the arguments says are at least 1.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups: list[LoopGroup] = []
        self.frames: list[Frame] = []
        self.shown: dict[Operand, None] = {}
        self.filled: set[Operand] = set()

    def restart(self) -> None:
        super().restart()
        self.groups, self.frames = [], []
        self.shown, self.filled = {}, set()

    def sequence(self, value: Any) -> Seq | None:
        """What a loop over the value goes through, if it has run-time length."""
        if isinstance(value, Seq):
            return value
        if isinstance(value, LoopGroup):
            return Seq(self, value.size, lambda i: self._child_of(value, i),
                       "the states of a fork", made=True)
        if self.dynamic and isinstance(value, Sym) and value.recipe and value.example is MISSING:
            value.type = types.JSON  # an argument that is not given: taken to be a list of texts
            if isinstance(value.operand, Value) and value.operand.op is None:
                value.operand.type = types.JSON
            return self._of_list(value, [""], "an argument")
        return None

    def list_given(self, operand: Operand, recipe: Any, example: list[Any], what: str) -> Seq:
        """An argument that is a list of items of one shape."""
        return self._of_list(Sym(self, operand, types.JSON, recipe, example), example, what)

    def _part(self, whole: Sym, what: str) -> Seq:
        """A list that is made from an argument."""
        if whole.example is MISSING:
            return self._of_list(whole, [""], what)  # as the argument itself
        if not isinstance(whole.example, list) or not whole.example:
            raise self.need(whole, "the items")
        return self._of_list(whole, whole.example, what)

    def _of_list(self, whole: Sym, example: list[Any], what: str) -> Seq:
        size = self.compute("len", whole)
        if whole.recipe is None or _is_part(whole.recipe):
            self.filled.add(size.operand)

        def pick(number: Sym) -> Any:
            return self._element(whole.operand, number.operand, example[0], f"an item of {what}")

        return Seq(self, size, pick, what, whole)

    def _element(self, operand: Operand, key: Operand, example: Any, what: str) -> Any:
        """An item of a list or dict in a loop, of the shape of an example."""
        if example is None or type(example) is bool:
            return example  # all items are the same there
        kind = type(example)
        plain = kind in (str, int, float)
        type_ = types.of_literal(example) if plain else (
            types.JSON if kind in (list, tuple, dict) else types.ANY)
        value = self.emit("prompt.compute", (operand, key), {"fn": "getitem"}, (type_,)).results[0]
        if kind is list and uniform(example):
            return self._of_list(Sym(self, value, types.JSON, None, example), example, what)
        if kind in (list, tuple, dict):
            keys = list(example) if kind is dict else list(range(len(example)))
            items = [self._element(value, Lit(k), example[k], what) for k in keys]
            return Frozen(self, kind, items, keys if kind is dict else None, what)
        return Sym(self, value, type_)

    def still_as_given(self, seq: Seq) -> None:
        """Refuse a list once the user's Python may have changed it."""
        if (self.hosts and not seq.made) or (
                seq.whole is not None and seq.whole.operand in self.shown):
            raise self.need(seq, "the items, after a call,")

    def _for_host(self, value: Any) -> Any:
        """A list of run-time length, for a host call: an argument itself, or a list of its own
        (what the call does to it is not seen: the body must not read the list again)."""
        if not isinstance(value, Seq):
            return super()._for_host(value)
        whole = value.value()
        if not value.made and whole.recipe is not None and _is_part(whole.recipe):
            return Given(whole.recipe)
        if not value.made or not _is_list_of_plain(whole.type):
            raise self.need(value, "the items, for a call,")
        self.shown[whole.operand] = None
        return Built(_copied, (whole,))

    def item_of(self, seq: Seq, key: Any) -> Any:
        """`seq[key]`."""
        self.still_as_given(seq)
        if isinstance(key, Sym):
            if any(f.number is key.operand and self._same_size(f.size, seq.size)
                   for f in self.frames):
                return seq.pick(key)
            raise self.need(seq, "an item")
        if isinstance(key, slice):
            whole = seq.whole
            if whole is None or whole.recipe is None or any(
                    type(k) not in (int, type(None)) for k in (key.start, key.stop, key.step)):
                raise self.need(seq, "a slice")
            part = self.compute("slice", whole, key.start, key.stop, key.step)
            return self._part(part, f"a slice of {seq.what}")
        if type(key) is not int:
            raise self.need(seq, "an item")
        self.at_least(seq.size, key + 1 if key >= 0 else -key)
        return seq.pick(Sym(self, Lit(key), types.INT))

    def at_least(self, size: Sym, least: int) -> None:
        """Rely on a size: a guard."""
        if (size.recipe is not None and size.example is MISSING) or (
                least == 1 and size.operand in self.filled):
            return  # not to be run, or known
        if size.recipe is None or size.example < least:
            raise self.need(size, "the number of items")
        self.guards.setdefault(Guard(("fn", "ge", size.recipe, ("lit", least)), True))

    def _same_size(self, a: Sym, b: Sym) -> bool:
        """Whether two sizes are the same in all runs of this variant: by a guard."""
        if a.operand == b.operand:
            return True
        if a.recipe is None or b.recipe is None or a.example != b.example:
            return False
        if a.example is MISSING:
            return True  # not to be run
        self.guards.setdefault(Guard(("fn", "eq", a.recipe, b.recipe), True))
        return True

    def builtin(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A builtin function of sequences; NotImplemented for anything else."""
        if fn is range:
            return self._range(args)
        found = [self.sequence(a) for a in args]
        if not any(s is not None for s in found):
            return NotImplemented
        first = found[0]
        if fn is len and first is not None:
            self.still_as_given(first)
            return first.size
        if fn is list and first is not None and isinstance(args[0], Seq):
            if first.made or first.whole is None:
                return first  # nothing changes it
            copy = self.compute("slice", first.whole, None, None, None)
            return Seq(self, first.size, first.pick, first.what, copy)
        if fn is tuple and first is not None and isinstance(args[0], Seq):
            return Seq(self, first.size, first.pick, first.what, made=first.made)
        if fn is isinstance and first is not None and first.whole is not None:
            return issubclass(list, args[1])
        if fn in _WHOLE and len(args) == 1 and not kwargs and first is not None and (
                first.whole is not None and first.whole.recipe is not None):
            made = self.compute(fn.__name__, first.value())
            return made if fn is not sorted else self._part(made, f"{first.what}, sorted")
        if fn is reversed and first is not None and isinstance(args[0], Seq):
            last, forward = self.compute("sub", first.size, 1), first.pick
            return Seq(self, first.size, lambda i: forward(self.compute("sub", last, i)),
                       first.what, made=first.made)
        if fn is enumerate and first is not None:
            start = args[1] if len(args) > 1 else kwargs.get("start", 0)
            pick = first.pick
            return Seq(self, first.size, lambda i: (i if start == 0 else self.compute(
                "add", i, start), pick(i)), first.what, made=first.made)
        if fn is zip:
            if any(s is None or not self._same_size(s.size, found[0].size)  # type: ignore
                   for s in found):
                raise self.need(args[0], "the number of items")
            picks = [s.pick for s in found if s is not None]
            return Seq(self, found[0].size,  # type: ignore[union-attr]
                       lambda i: tuple(p(i) for p in picks), "zip()",
                       made=all(s.made for s in found if s is not None))
        if any(isinstance(a, LoopGroup) for a in args):
            raise self.need(args[0], "the number of forks")
        return NotImplemented

    def _range(self, args: tuple[Any, ...]) -> Any:
        if not any(isinstance(a, Sym) for a in args) or len(args) > 2:
            return NotImplemented
        start, stop = args if len(args) == 2 else (0, args[0])
        size = stop if type(start) is int and start == 0 else self.compute("sub", stop, start)
        if size.type != types.INT or not self._is_given(size.operand):
            return NotImplemented
        if size.recipe is not None:
            if size.example is not MISSING and (type(size.example) is not int
                                                or size.example < 1):
                return NotImplemented
            self.at_least(size, 1)
            size = Sym(self, size.operand, types.INT, size.recipe, size.example)
        return Seq(self, size, lambda i: i if type(start) is int and start == 0 else self.compute(
            "add", i, start), "range()", made=True)

    def _is_given(self, operand: Operand) -> bool:
        """Whether arguments and numbers of rounds alone say what a value is."""
        if isinstance(operand, Lit):
            return True
        op = operand.op
        if op is None:
            return operand in self.recorder.root.builder.block.args or any(
                operand is f.number for f in self.frames)
        return op.name in ("prompt.compute", "prompt.format") and all(
            map(self._is_given, op.operands))

    def joined(self, separator: str, seq: Seq) -> Any:
        """`separator.join(seq)`."""
        whole = seq.value()
        if whole.type != types.list_of(types.TEXT):
            return self.compute("text.join", separator, whole)
        op = self.emit("prompt.compute", (Lit(separator), whole.operand), {"fn": "text.join"},
                       (types.TEXT,))
        return Sym(self, op.results[0], types.TEXT)

    # -- forks of run-time size -------------------------------------------------------------
    def child(self, group: LoopGroup, number: Operand) -> TraceState | None:
        """The state of a fork that the round of this number works on; None outside loops."""
        for frame in self.frames:
            if frame.number is number and self._same_size(frame.size, group.size):
                if group not in frame.children:
                    frame.children[group] = group.state(number)
                return frame.children[group]
        return None

    def _child_of(self, group: LoopGroup, number: Sym) -> TraceState:
        child = self.child(group, number.operand)
        if child is None:
            raise self.need(number, "the number of a state")
        return child

    def listed(self, group: LoopGroup, values: Operand) -> Seq:
        """A variable of all states of a fork, as a list."""
        return self.collected(values, group.size)

    def collected(self, values: Operand, size: Sym) -> Seq:
        element = values.type.args[0]
        assert isinstance(element, types.Type)

        def pick(number: Sym) -> Any:
            op = self.emit("prompt.compute", (values, number.operand), {"fn": "getitem"},
                           (element,))
            return Sym(self, op.results[0], element)

        return Seq(self, size, pick, "a list of the loop's", Sym(self, values, values.type),
                   made=True)


def _is_part(recipe: Any) -> bool:
    """Whether a recipe is an argument itself, or a part of one."""
    return recipe[0] == "arg" or (recipe[0] == "item" and _is_part(recipe[1]))


def _is_list_of_plain(type_: types.Type) -> bool:
    """Whether it is a list of values that never change."""
    return type_.name == "list" and isinstance(type_.args[0], types.Type) and (
        types.is_text(type_.args[0]) or type_.args[0].name in ("int", "float", "bool"))


def _copied(items: list[Any]) -> list[Any]:
    return list(items[0])
