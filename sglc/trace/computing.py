"""Operations on symbolic values, and what Python wants to know of them.

Operations that cannot raise are pure IR ops; others are host calls, in their place.  Concrete
values come from the arguments under a guard, by exploring both outcomes, or as facts.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sglc.ir import compute, types
from sglc.ir.module import Lit, Value
from sglc.runtime.copies import plain_copy
from sglc.trace.breaks import NotMergeable, PathEnd
from sglc.trace.frozen import Frozen
from sglc.trace.guards import MISSING, Guard, Recipe, snapshot
from sglc.trace.hosts import changed_size, describe_iterable, is_end, next_or_end
from sglc.trace.outside import OutsideReads, type_of
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Sym, contains_symbol

ASSUMED_COUNT = 2  # for lengths and counts that `sglc compile` does not know

_ANY_TEXT = ("strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "casefold",
             "swapcase", "replace", "removeprefix", "removesuffix", "zfill", "expandtabs",
             "startswith", "endswith", "isdigit", "isalpha", "isalnum", "isspace", "isupper",
             "islower", "isnumeric", "isdecimal", "istitle", "isascii", "isidentifier",
             "isprintable", "find", "rfind", "count", "splitlines")
# Operations that cannot raise when their operands have the right types.
_NEVER_RAISE = frozenset(
    [*("text." + m for m in _ANY_TEXT), "concat", "repeat", "bool", "not", "str", "slice",
     "eq", "ne", "len", "contains", "lt", "le", "gt", "ge", "is_none"])


class Computing(OutsideReads):
    """The part of a session that computes with symbols."""

    def compute(self, fn: str, *args: Any) -> Any:
        """A pure operation on values of which at least one is symbolic."""
        recipes = [self._recipe(a) for a in args]
        recipe: Recipe | None = None
        example = MISSING
        if all(r is not None for r in recipes):
            recipe = ("fn", fn, *recipes)
            examples = [self._example(a) for a in args]
            if not any(e is MISSING for e in examples):
                try:
                    example = compute.function(fn)(*examples)
                except Exception as e:
                    raise self.broken("SGLC111", f"the program raises {e!r} here",
                                      raises=True) from None
            if fn not in _NEVER_RAISE or example is MISSING:
                self.guards.setdefault(Guard(recipe))
        elif not self._cannot_raise(fn, args):
            return self.host(fn, compute.function(fn), *args)
        type_ = compute.result_type(fn)
        if example is not MISSING:
            type_ = type_of(example)
        elif fn in ("slice", "str") and self._kind(args[0]) == "text":
            type_ = types.TEXT
        elif fn in ("add", "sub") and all(self._kind(a) == "int" for a in args):
            type_ = types.INT
        op = self.emit("prompt.compute", [self.operand(a) for a in args], {"fn": fn}, (type_,))
        self._note_test(fn, args, op.results[0])
        return Sym(self, op.results[0], type_, recipe, example)

    def _note_test(self, fn: str, args: Sequence[Any], result: Value) -> None:
        """Remember a comparison of a choice with a text: its outcomes are finite."""
        if fn == "not" and isinstance(args[0], Sym) and args[0].operand in self.tests:
            choice, text, equal = self.tests[args[0].operand]
            self.tests[result] = (choice, text, not equal)
        elif fn in ("eq", "ne"):
            for a, b in (args, args[::-1]):
                if isinstance(a, Sym) and a.type.name == "choice" and isinstance(b, str):
                    self.tests[result] = (a, b, fn == "eq")

    def settled(self, condition: Sym) -> bool | None:
        """The outcome of a test of a choice, where the path knows it already."""
        test = self.tests.get(condition.operand)
        if test is None:
            return None
        choice, text, equal = test
        left = set(choice.type.args) - self.excluded.get(choice.operand, frozenset())
        if text not in left:
            return not equal
        return equal if len(left) == 1 else None

    def learn(self, condition: Sym, outcome: bool) -> None:
        """Take note of a decision: what the choice it tested can still be."""
        test = self.tests.get(condition.operand)
        if test is None:
            return
        choice, text, equal = test
        every = frozenset(t for t in choice.type.args if isinstance(t, str))
        gone = every - {text} if outcome == equal else frozenset((text,))
        self.excluded[choice.operand] = self.excluded.get(choice.operand, frozenset()) | gone

    def _cannot_raise(self, fn: str, args: Sequence[Any]) -> bool:
        if fn not in _NEVER_RAISE and fn not in ("add", "sub"):
            return fn in ("text.split", "text.rsplit") and len(args) <= 2 and all(
                a is None or (type(a) is str and a) for a in args[1:])
        kinds = [self._kind(a) for a in args]
        if fn in ("add", "sub"):
            return all(k == "int" for k in kinds)
        if fn == "contains" and type(args[0]) is tuple:
            return kinds[1] == "text" and all(type(x) is str for x in args[0])
        if fn == "is_none":
            return True
        if fn in ("eq", "ne", "bool", "not"):
            return "other" not in kinds and "any" not in kinds
        if fn in ("concat", "contains", "lt", "le", "gt", "ge"):
            return all(k == "text" for k in kinds) or (
                fn[0] in "lg" and all(k in ("int", "float") for k in kinds))
        if fn in ("len", "str"):
            return kinds[0] in ("text", "json") or (fn == "str" and kinds[0] == "int")
        if fn == "repeat":
            return sorted(kinds) == ["int", "text"]
        if fn == "slice":
            return kinds[0] == "text" and all(a is None or type(a) is int for a in args[1:]) \
                and args[3] != 0
        if fn in ("text.strip", "text.lstrip", "text.rstrip"):
            return len(args) <= 2 and all(k in ("text", "none") for k in kinds[1:])
        if fn == "text.replace":
            return len(args) in (3, 4) and kinds[1:3] == ["text", "text"] and all(
                k == "int" for k in kinds[3:])
        if fn in ("text.startswith", "text.endswith", "text.find", "text.rfind", "text.count",
                  "text.removeprefix", "text.removesuffix"):
            if len(args) == 2 and type(args[1]) is tuple and fn.endswith("with"):
                return all(type(x) is str for x in args[1])
            return len(args) == 2 and kinds[1] == "text"
        if fn == "text.zfill":
            return len(args) == 2 and type(args[1]) is int
        return len(args) == 1

    def by_identity(self, item: Any, others: Iterable[Any]) -> bool:
        """Whether Python's look for an item among others may find it by identity alone: it is
        nan, and not known to be the same object or another one."""
        if isinstance(item, Sym):
            example = item.example
            if item.recipe is None or type(example) is not float:
                return False
            if example == example:
                self.guards.setdefault(Guard(("fn", "eq", item.recipe, item.recipe), True))
            return bool(example != example)
        return type(item) is float and item != item and any(isinstance(v, Sym) for v in others)

    @staticmethod
    def _kind(value: Any) -> str:
        if isinstance(value, Sym):
            return "text" if value.is_text else value.type.name
        if value is None:
            return "none"
        return {str: "text", int: "int", float: "float", bool: "int"}.get(type(value), "other")

    def _recipe(self, value: Any) -> Recipe | None:
        if isinstance(value, Sym):
            return value.recipe
        if isinstance(value, Frozen):
            recipes = [self._recipe(v) for v in value.elements]
            if value.names is None and all(r is not None and r[0] == "lit" for r in recipes):
                return ("lit", value.kind(r[1] for r in recipes))  # type: ignore[index]
            return None
        if contains_symbol(value):
            return None
        try:
            snapshot(value)
        except TypeError:
            return None
        return ("lit", tuple(value) if type(value) is list else value) if type(
            value) is not dict else None

    @staticmethod
    def _example(value: Any) -> Any:
        return value.example if isinstance(value, Sym) else value

    def add(self, left: Any, right: Any) -> Any:
        """`left + right` where one is a symbolic text."""
        from sglc.lang.expressions import Expr, concat

        if isinstance(left, Expr) or isinstance(right, Expr):
            return concat(left, right)
        if any(isinstance(v, Sym) and not v.is_text and v.recipe is None
               for v in (left, right)) or not all(isinstance(v, (str, Sym))
                                                  for v in (left, right)):
            return self.host("add", operator.add, left, right)
        for value in (left, right):
            if not (isinstance(value, str) or (isinstance(value, Sym) and (
                    value.is_text or value.type == types.ANY))):
                kind = value.type if isinstance(value, Sym) else type(value).__name__
                raise self.broken("SGLC111", f"text is added to a value of type {kind}")
        # As a format: passes see through nested ones, and split them where they are appended.
        return self.format([v if isinstance(v, str) else (v, "", "") for v in (left, right)])

    def item(self, value: Sym, key: Any) -> Any:
        """`value[key]`."""
        if isinstance(key, slice):
            return self.compute("slice", value, key.start, key.stop, key.step)
        return self.compute("getitem", value, key)

    def format(self, parts: Sequence[Any]) -> Any:
        """An f-string: parts are texts and (value, conversion, spec)."""
        template: list[Any] = []
        values: list[Any] = []
        for part in parts:
            if isinstance(part, str):
                template.append(part)
                continue
            value, conversion, spec = part
            if isinstance(value, Seq):
                value = value.value()
            if isinstance(spec, Sym):
                spec = self.concrete(spec, "a format")
            if isinstance(value, Sym) and value.recipe is None and not (
                    value.is_text or (value.type == types.INT and not spec)):
                value = self.host("format", compute.run_format, ((0, conversion, spec),), (value,))
                conversion = spec = ""
            elif isinstance(value, Frozen) or (type(value) in (list, tuple, dict)
                                               and contains_symbol(value)):
                value = self.host("format", compute.run_format, ((0, conversion, spec),), (value,))
                conversion = spec = ""
            if isinstance(value, Sym):
                self._check_format(value, conversion, spec)
                template.append((len(values), conversion, spec))
                values.append(value)
            elif contains_symbol(value) or getattr(value, "__sglc_traced__", False):
                raise self.need(value, "the text")
            else:
                template.append(compute.run_format(((0, conversion, spec),), [value]))
        if not values:
            return "".join(template)
        recipes = [v.recipe for v in values]
        recipe = None
        example = MISSING
        if all(r is not None for r in recipes):
            recipe = ("format", tuple(template), *recipes)
            if any(p[2] for p in template if not isinstance(p, str)):  # a spec may raise
                self.guards.setdefault(Guard(recipe))
            if all(v.example is not MISSING for v in values):
                example = compute.run_format(tuple(template), [v.example for v in values])
        op = self.emit("prompt.format", [v.operand for v in values], {"parts": tuple(template)},
                       (types.TEXT,))
        return Sym(self, op.results[0], types.TEXT, recipe, example)

    def _check_format(self, value: Sym, conversion: str, spec: str) -> None:
        if value.type == types.INT and not spec:
            return
        sample = "x" if value.is_text or conversion else value.example
        if sample is MISSING:
            if spec:
                raise self.need(value, f"the format {spec!r}")
            return
        try:
            format(sample, spec)
        except (ValueError, TypeError) as e:
            raise self.broken("SGLC111", f"the format {spec!r} raises {e}") from None

    # -- concrete values -------------------------------------------------------------------
    def truth(self, value: Any) -> bool:
        """`bool(value)`: under a guard, or by exploring both outcomes."""
        if not isinstance(value, Sym):
            return bool(value)
        if value.recipe is not None and value.example is not MISSING:
            outcome = bool(value.example)
            self.guards.setdefault(Guard(("fn", "bool", value.recipe), outcome))
            return outcome
        if value.type != types.BOOL:
            value = self.compute("bool", value)
        settled = self.settled(value)
        if settled is not None:
            return settled
        if self.depth:
            raise NotMergeable
        self.check_alone()
        place = self.place()
        if self.recorder.must_break(place) and not self.dynamic:
            outcome = self.fact("the outcome of a test", bool, value)
        else:
            outcome = self.recorder.decide(value.operand, place)
            self.given_event()
        self.learn(value, outcome)
        return outcome

    def concrete(self, value: Any, what: str) -> Any:
        """The value itself: under a guard, or as a fact for which the path breaks."""
        if not isinstance(value, Sym):
            return value
        if value.recipe is None:
            return self.fact(what, plain_copy, value)  # it may be changed before it is used again
        if value.example is MISSING:
            raise self.need(value, what)
        example = value.example
        self.guards.setdefault(Guard(value.recipe, example))
        return example

    def concrete_int(self, value: Any, what: str) -> int:
        """An integer; assumed to be 2 for an argument that is not given."""
        if isinstance(value, Sym) and value.recipe is not None and value.example is MISSING:
            return self._assume(value.recipe)
        return int(self.concrete(value, what))

    def elements(self, value: Sym) -> Any:
        """The items of a symbolic value, for iteration."""
        if value.recipe is None:
            return self._run_time_elements(value)
        if value.example is MISSING:
            n = self._assume(("fn", "len", value.recipe))
            value.type = types.JSON
            if isinstance(value.operand, Value) and value.operand.op is None:
                value.operand.type = types.JSON  # the argument turned out to be a list
        else:
            if not hasattr(value.example, "__len__"):
                raise self.broken("SGLC111", f"a {type(value.example).__name__} is iterated over",
                                  raises=True)
            n = len(value.example)
            self.guards.setdefault(Guard(("fn", "len", value.recipe), n))
        out = []
        for i in range(n):
            example = MISSING if value.example is MISSING else value.example[i]
            op = self.emit("prompt.compute", (value.operand, Lit(i)), {"fn": "getitem"},
                           (types.TEXT if example is MISSING else type_of(example),))
            out.append(self._outside_value(op.results[0], ("item", value.recipe, i), example,
                                           "an item") if example is not MISSING
                       else Sym(self, op.results[0], types.TEXT, ("item", value.recipe, i)))
        return out

    def _run_time_elements(self, value: Sym) -> Iterator[Any]:
        kind, n = self.fact("the number of items", describe_iterable, value)
        if kind != "lazy":
            yield from self._counted_elements(value, kind, n)
            return
        iterator = self.host("iter", iter, value)
        while True:
            item = self.host("next", next_or_end, iterator)
            if self.fact("whether there is another item", is_end, item):
                return
            yield item

    def _counted_elements(self, value: Sym, kind: str, n: int) -> Iterator[Any]:
        """The `n` items there are; what the loop changes is gone through as Python does."""
        items = value if kind == "list" else self.host("list", list, value)
        i, seen = 0, self.changes
        while i < n:
            yield self.host("character" if value.is_text else "getitem", operator.getitem, items, i)
            i += 1
            if kind == "seq" or self.changes == seen:
                continue
            before, n = n, self.fact("the number of items", len, value, guess=n, ends=True)
            seen = self.changes
            if kind == "sized" and n != before:
                self.host("raise", changed_size, value)
                raise PathEnd

    def _assume(self, recipe: Recipe) -> int:
        what = describe(recipe)
        name = what[4:-1] if what.startswith("len(") else what
        count = self.assumed[what] = self.lengths.get(name, ASSUMED_COUNT)
        return count


_RESULTS = {"as_text": types.TEXT, "format": types.TEXT, "str": types.TEXT, "repr": types.TEXT,
            "int": types.INT, "float": types.FLOAT, "isinstance": types.BOOL, "bool": types.BOOL}


def same(value: Any) -> Any:
    return value


def describe(recipe: Recipe) -> str:
    """A recipe as a reader would write it."""
    kind = recipe[0]
    if kind == "arg":
        return str(recipe[1])
    if kind == "lit":
        return repr(recipe[1])
    if kind == "item":
        return f"{describe(recipe[1])}[{recipe[2]!r}]"
    if kind == "format":
        return "f-string"
    return f"{recipe[1].removeprefix('text.')}({', '.join(map(describe, recipe[2:]))})"
