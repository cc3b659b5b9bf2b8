"""One program being traced: arguments as symbols, guards taken, operations recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from sglc.errors import Place
from sglc.ir import compute, types
from sglc.ir.module import Attr, Lit, Op, Operand, Value
from sglc.trace.breaks import GraphBreak
from sglc.trace.explore import Recorder
from sglc.trace.guards import MISSING, Guard, OutsideGuard, Recipe, snapshot
from sglc.trace.symbols import Frozen, Opaque, Sym, contains_symbol, is_symbolic

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


class Session:
    """The trace of one variant.  A new run of the body starts with `restart()`."""

    def __init__(self, recorder: Recorder, file: str) -> None:
        self.recorder = recorder
        self.file = file
        self.guards: dict[Guard, None] = {}
        self.outside: dict[str, OutsideGuard] = {}
        self.assumed: dict[str, int] = {}
        self.names: dict[str | None, None] = {}  # observable variables, in order
        self.frozen_globals: dict[int, Any] = {}

    def restart(self) -> None:
        self.recorder.restart()
        self.frozen_globals = {}

    # -- places and breaks -----------------------------------------------------------------
    def place(self) -> Place | None:
        """Where in the user's source the body stands now."""
        frame = sys._getframe(1)
        while frame is not None:
            if "__sglc__" in frame.f_globals and frame.f_globals["__sglc__"].session is self:
                code = frame.f_code
                spot = next((p for i, p in enumerate(code.co_positions())
                             if i == frame.f_lasti // 2), None) if hasattr(
                                 code, "co_positions") else None
                column = (spot[2] or 0) + 1 if spot is not None else 1
                return Place(code.co_filename, frame.f_lineno, column)
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def broken(self, code: str, what: str, *, why: str = "", fixes: tuple[str, ...] = (),
               raises: bool = False) -> GraphBreak:
        return GraphBreak(code, what, place=self.place(), why=why, fixes=fixes, raises=raises)

    def need(self, value: Any, what: str) -> GraphBreak:
        """The break for a symbol whose concrete value Python wants."""
        return self.broken(
            "SGLC110", f"Python needs {what} of a value that is only known at run time",
            fixes=("use choices= or select where the value is one of a few",))

    # -- recording -------------------------------------------------------------------------
    def emit(self, name: str, operands: Sequence[Operand] = (),
             attrs: dict[str, Attr] | None = None, result_types: Sequence[types.Type] = (),
             names: Sequence[str] = ()) -> Op:
        return self.recorder.emit(name, operands, attrs or {}, result_types, names, self.place())

    def operand(self, value: Any) -> Operand:
        """The IR operand of a plain or symbolic value; breaks for anything else."""
        if isinstance(value, Sym):
            return value.operand
        if value is None or type(value) in (str, int, float, bool):
            return Lit(value)
        if isinstance(value, Frozen) and value.names is None and value.kind is list:
            value = list(value.elements)
        if type(value) is list:
            items = [self.operand(v) for v in value]
            return self.emit("prompt.list", items, {}, (types.JSON,)).results[0]
        if type(value) is tuple and not contains_symbol(value):
            snapshot(value)
            return Lit(value)
        raise self.broken("SGLC111", f"a value of type {type(value).__name__} in the program "
                                     "cannot be traced")

    def text_operand(self, value: Any) -> Operand:
        """The operand of something that is appended to a prompt."""
        if isinstance(value, Sym) and value.type == types.ANY and value.example is MISSING:
            return value.operand  # an argument of unknown type, taken to be text
        if isinstance(value, Sym) and not value.is_text:
            raise self.broken("SGLC111", f"a value of type {value.type} is appended to a prompt")
        return self.operand(value)

    # -- arguments and outside values ------------------------------------------------------
    def argument(self, name: str, operand: Value, example: Any) -> Any:
        """What the body sees of an argument."""
        return self._outside_value(operand, ("arg", name), example, f"the argument {name!r}")

    def _outside_value(self, operand: Operand, recipe: Recipe, example: Any, what: str) -> Any:
        kind = type(example)
        if example is None or kind is bool:
            return example  # part of the variant's shape
        if kind in (str, int, float) or example is MISSING:
            type_ = types.ANY if example is MISSING else types.of_literal(example)
            return Sym(self, operand, type_, recipe, example)
        if kind in (list, tuple, dict):
            keys = list(example) if kind is dict else list(range(len(example)))
            items = []
            for key in keys:
                op = self.emit("prompt.compute", (operand, Lit(key)), {"fn": "getitem"},
                               (type_of(example[key]),))
                items.append(self._outside_value(op.results[0], ("item", recipe, key),
                                                 example[key], f"{what}[{key!r}]"))
            return Frozen(self, kind, items, keys if kind is dict else None, what)
        return Opaque(self, what)

    def read_outside(self, name: str, read: Callable[[], Any]) -> Any:
        """A global, closure cell or attribute: guarded, and never to be changed."""
        value = read()
        if is_symbolic(value) or getattr(value, "__sglc_traced__", False):
            return value
        try:
            snap: Any = snapshot(value)
            by_value = True
        except TypeError:
            snap, by_value = value, False
        self.outside.setdefault(name, OutsideGuard(name, read, snap, by_value))
        if type(value) in (list, tuple, dict):
            return self._frozen(value, name)
        return value

    def _frozen(self, value: Any, what: str) -> Any:
        if type(value) not in (list, tuple, dict):
            return value
        if type(value) is tuple and not any(type(v) in (list, dict, tuple) for v in value):
            return value
        keys = list(value) if type(value) is dict else None
        items = value.values() if keys is not None else value
        return Frozen(self, type(value), [self._frozen(v, what) for v in items], keys, what)

    # -- computing -------------------------------------------------------------------------
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
            raise self.need(args[0], f"the result of {fn.removeprefix('text.')}(), "
                                     "which may raise an error,")
        type_ = compute.result_type(fn)
        if example is not MISSING:
            type_ = type_of(example)
        elif fn in ("slice", "str") and self._kind(args[0]) == "text":
            type_ = types.TEXT
        op = self.emit("prompt.compute", [self.operand(a) for a in args], {"fn": fn}, (type_,))
        return Sym(self, op.results[0], type_, recipe, example)

    def _cannot_raise(self, fn: str, args: Sequence[Any]) -> bool:
        if fn not in _NEVER_RAISE:
            return fn in ("text.split", "text.rsplit") and len(args) <= 2 and all(
                a is None or (type(a) is str and a) for a in args[1:])
        kinds = [self._kind(a) for a in args]
        if fn in ("eq", "ne", "bool", "not", "is_none"):
            return True
        if fn in ("concat", "contains", "lt", "le", "gt", "ge"):
            return all(k == "text" for k in kinds) or (
                fn[0] in "lg" and all(k in ("int", "float") for k in kinds))
        if fn in ("len", "str"):
            return kinds[0] in ("text", "json")
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
        for value in (left, right):
            if not (isinstance(value, str) or (isinstance(value, Sym) and (
                    value.is_text or value.type == types.ANY))):
                raise self.broken("SGLC111", f"text is added to a {type(value).__name__}")
        # As a format: passes see through nested ones, and split them where they are appended.
        return self.format([v if isinstance(v, str) else (v, "", "") for v in (left, right)])

    def item(self, value: Sym, key: Any) -> Any:
        """`value[key]`."""
        if isinstance(key, slice):
            return self.compute("slice", value, key.start, key.stop, key.step)
        if isinstance(key, Sym):
            key = self.concrete(key, "an index")
        if value.recipe is None:
            raise self.need(value, f"the item {key!r}")
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
            if isinstance(spec, Sym):
                spec = self.concrete(spec, "a format")
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
            if isinstance(value, Opaque):
                value._no()
            return bool(value)
        if value.recipe is not None and value.example is not MISSING:
            outcome = bool(value.example)
            self.guards.setdefault(Guard(("fn", "bool", value.recipe), outcome))
            return outcome
        if value.type != types.BOOL:
            value = self.compute("bool", value)
        return self.recorder.decide(value.operand, self.place())

    def concrete(self, value: Any, what: str) -> Any:
        """The value itself, under a guard; a break if it depends on the model."""
        if not isinstance(value, Sym):
            return value
        if value.recipe is None or value.example is MISSING:
            raise self.need(value, what)
        example = value.example
        self.guards.setdefault(Guard(value.recipe, example))
        return example

    def concrete_int(self, value: Any, what: str) -> int:
        """An integer; assumed to be 2 for an argument that is not given."""
        if isinstance(value, Sym) and value.recipe is not None and value.example is MISSING:
            return self._assume(value.recipe)
        return int(self.concrete(value, what))

    def elements(self, value: Sym) -> list[Any]:
        """The items of a symbolic value, for iteration."""
        if value.recipe is None:
            raise self.need(value, "the items")
        if value.example is MISSING:
            n = self._assume(("fn", "len", value.recipe))
            value.type = types.JSON
            if isinstance(value.operand, Value) and value.operand.op is None:
                value.operand.type = types.JSON  # the argument turned out to be a list
        else:
            if not hasattr(value.example, "__len__"):
                raise self.broken("SGLC111", f"a {type(value.example).__name__} is iterated over")
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

    def _assume(self, recipe: Recipe) -> int:
        self.assumed[describe(recipe)] = ASSUMED_COUNT
        return ASSUMED_COUNT


def type_of(value: Any) -> types.Type:
    return types.JSON if isinstance(value, (list, tuple, dict)) else types.of_literal(value)


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


