"""One program being traced: arguments as symbols, guards taken, operations recorded."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sglc.errors import Diagnostic, LanguageError, Place
from sglc.ir import compute, types
from sglc.ir.module import Attr, Lit, Op, Operand, Value
from sglc.trace.breaks import GraphBreak, PathEnd
from sglc.trace.explore import Recorder
from sglc.trace.guards import (
    MISSING,
    Guard,
    OutsideGuard,
    Recipe,
    plain_copy,
    snapshot,
)
from sglc.trace.hosts import (
    Before,
    FromOutside,
    HostCall,
    Made,
    ReadState,
    Real,
    Slot,
    describe_iterable,
    is_end,
    next_or_end,
)
from sglc.trace.outline import Reads
from sglc.trace.symbols import Frozen, Method, Sym, contains_symbol, is_symbolic

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
    """The trace of one variant.  A new run of the body starts with `restart()`.

    calls: the host calls, by the `call` attribute of their ops.  hosts: how many host calls the
    current path has made.  reads: values that the body has read since the last one: Python would
    have waited for them, so the next host call does.
    """

    def __init__(self, recorder: Recorder, file: str,
                 known: Mapping[str, OutsideGuard] | None = None) -> None:
        self.recorder = recorder
        self.file = file
        self.known = dict(known or {})  # what was read from outside when the run began
        self.calls: list[HostCall] = []
        self.hosts = 0
        self.reads: dict[Value, None] = {}
        self.breaks: list[Diagnostic] = []
        self.root: Callable[[], Operand] | None = None  # the run's own prompt, as it is now
        self.iterators: list[Any] = []  # made by the body
        self.guards: dict[Guard, None] = {}
        self.outside: dict[str, OutsideGuard] = {}
        self.assumed: dict[str, int] = {}
        self.names: dict[str | None, None] = {}  # observable variables, in order
        self.frozen_globals: dict[int, Any] = {}

    def restart(self) -> None:
        self.recorder.restart()
        self.frozen_globals = {}
        self.hosts = 0
        self.reads = {}
        self.iterators = []

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

    # -- host calls ------------------------------------------------------------------------
    def host(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Sym:
        """Record a call to be made at run time, in order; its result as an opaque symbol."""
        result = types.ANY if name not in _RESULTS else _RESULTS[name]
        attrs = {"fn": name, "ordinal": self.hosts}
        op = self._call("prompt.host", attrs, fn, args, kwargs, (result,))
        self.hosts += 1
        return Sym(self, op.results[0], result)

    def fact(self, what: str, fn: Callable[..., Any], *args: Any, guess: Any = MISSING) -> Any:
        """Something about run-time values that the trace needs to know to go on.

        Known if the path has been here before it broke; a guess is checked at run time;
        otherwise the path ends here, and goes on when the fact is known.
        """
        event = self.recorder.next_event()
        given = self.recorder.given
        if event < len(given):
            if guess is not MISSING:
                return given[event]
            return given[event]
        attrs = {"fn": what, "event": event}
        if guess is not MISSING:
            self._call("prompt.check", attrs, fn, args, {}, (), expected=snapshot(guess))
            return guess
        self._call("prompt.break", attrs, fn, args, {}, ())
        diagnostic = self.broken("SGLC110", f"Python needs {what} of a value that is only known "
                                            "at run time").diagnostic
        if diagnostic not in self.breaks:
            self.breaks.append(replace(
                diagnostic, effect="the rest of the program is traced when the value is known"))
        raise PathEnd

    def _call(self, op: str, attrs: dict[str, Attr], fn: Callable[..., Any], args: Sequence[Any],
              kwargs: dict[str, Any], results: Sequence[types.Type],
              expected: Any = MISSING) -> Op:
        operands: list[Operand] = []
        templates = tuple(self._template(a, operands) for a in args)
        named = tuple((k, self._template(v, operands)) for k, v in kwargs.items())
        waits = [v for v in self.reads if v not in operands]
        self.reads = {}
        recorded = self.recorder.replayed
        number = len(self.calls) if recorded is None else recorded.attrs.get("call")
        root = [] if self.root is None else [self.root()]  # what is kept if the call raises
        made = self.emit(op, [*operands, *waits, *root],
                         {**attrs, "call": number, "args": len(operands), "root": len(root)},
                         results)
        if recorded is None:
            self.calls.append(HostCall(fn, templates, named, expected))
        return made

    def _template(self, value: Any, operands: list[Operand], depth: int = 8) -> Any:
        """How to make an argument at run time; symbols become operands."""
        if isinstance(value, Sym):
            operands.append(value.operand)
            return Slot(len(operands) - 1)
        if isinstance(value, Frozen):
            if value.operand is not None:
                operands.append(value.operand)
                return Slot(len(operands) - 1)
            return Made(Real, (value.read,)) if value.read is not None else Made(
                value.kind, tuple(self._template(v, operands, depth - 1)
                                  for v in (value if value.names is None else value._items())))
        if isinstance(value, FromOutside):
            return Made(Real, (value.read,))
        if isinstance(value, ReadState):
            return Made(Reads, tuple(
                Made(tuple, (k, self._template(v, operands, depth - 1)))
                for k, v in value.values.items()))
        if getattr(type(value), "__sglc_traced__", False) or isinstance(value, Method):
            raise self.broken("SGLC111", "a prompt state is handed to Python that is not traced")
        if type(value) in (list, tuple, set, frozenset, dict):
            if depth == 0:
                raise self.broken("SGLC111", "containers are nested too deeply")
            items = value.items() if type(value) is dict else value
            made = tuple(self._template(i, operands, depth - 1) for i in items)
            if type(value) is dict:
                made = tuple(Made(tuple, i.items) if isinstance(i, Made) else i for i in made)
            return Made(type(value), made)
        return value

    def read(self, value: Any) -> None:
        """Note that the body has waited for a value."""
        if isinstance(value, Sym):
            if value.recipe is None and isinstance(value.operand, Value):
                self.reads[value.operand] = None
        elif isinstance(value, Frozen):
            for v in value.elements:
                self.read(v)
        elif type(value) in (list, tuple):
            for v in value:
                self.read(v)
        elif isinstance(value, Value):
            self.reads[value] = None

    # -- operands --------------------------------------------------------------------------
    def operand(self, value: Any) -> Operand:
        """The IR operand of a plain or symbolic value; breaks for anything else."""
        if isinstance(value, Sym):
            return value.operand
        if value is None or type(value) in (str, int, float, bool):
            return Lit(value)
        if isinstance(value, Frozen) and value.names is None and value.kind is list:
            value = list(value)
        if type(value) is list:
            items = [self.operand(v) for v in value]
            return self.emit("prompt.list", items, {}, (types.JSON,)).results[0]
        if type(value) is tuple and not contains_symbol(value):
            snapshot(value)
            return Lit(value)
        if type(value) is tuple:
            return self.emit("prompt.compute", [self.operand(v) for v in value],
                             {"fn": "tuple"}, (types.JSON,)).results[0]
        raise self.broken("SGLC111", f"a value of type {type(value).__name__} in the program "
                                     "cannot be traced")

    def text_operand(self, value: Any) -> Operand:
        """The operand of something that is appended to a prompt."""
        if isinstance(value, Sym) and value.type == types.ANY:
            if value.recipe is not None and value.example is MISSING:
                return value.operand  # an argument of unknown type, taken to be text
            return self.host("as_text", as_text, value).operand
        if isinstance(value, Sym) and not value.is_text:
            raise self.broken("SGLC111", f"a value of type {value.type} is appended to a prompt",
                              raises=True)
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
            return Frozen(self, kind, items, keys if kind is dict else None, what,
                          operand=operand if isinstance(operand, Value) else None,
                          argument=recipe)
        return Sym(self, operand, types.ANY)  # an object: whatever is done with it is a host op

    def read_outside(self, name: str, read: Callable[[], Any]) -> Any:
        """A global, closure cell or attribute: guarded, and checked again after host calls."""
        value = read()
        if is_symbolic(value) or getattr(value, "__sglc_traced__", False):
            return value
        try:
            snap: Any = snapshot(value)
            by_value = True
        except TypeError:
            snap, by_value = value, False
        if self.hosts == 0 or not by_value:
            guard = self.known.get(name)
            if guard is None:
                guard = OutsideGuard(name, read, snap, by_value, plain_copy(value))
            self.outside.setdefault(name, guard)
            value = guard.was
        else:
            value = self.fact(f"the value of {name.rpartition(':')[2]}",
                              lambda: plain_copy(read()), guess=plain_copy(value))
        return self._frozen(value, name, read)

    def _frozen(self, value: Any, what: str, read: Callable[[], Any]) -> Any:
        """What the body sees of plain data from outside; `read` gives the real object."""
        if type(value) not in (list, tuple, dict):
            return value
        if type(value) is tuple and not any(type(v) in (list, dict, tuple) for v in value):
            return value
        keys = list(value)
        if type(value) is not dict:
            keys = list(range(len(value)))
        elements = [self._frozen(value[k], what, lambda k=k: read()[k])  # type: ignore[misc]
                    for k in keys]
        return Frozen(self, type(value), elements, keys if type(value) is dict else None, what,
                      read=read)

    def fresh(self, value: Frozen) -> None:
        """Make sure that a container from outside still is what the trace saw."""
        if value.seen == self.hosts or value.kind is tuple:
            return
        value.seen = self.hosts
        if value.argument is not None:
            if value.operand is None:
                return
            if not value.live:
                value.live = not self.fact(f"whether {value.what} is unchanged", unchanged, value,
                                           Before(value.argument), guess=True)
            if value.live:  # from here on it is read at run time
                if value.names is not None:
                    value.names = self.fact(f"the keys of {value.what}", list, value)
                    keys: Any = value.names
                else:
                    keys = range(self.fact(f"the length of {value.what}", len, value))
                value.elements = [self.host("getitem", operator.getitem, value, k) for k in keys]
                value.seen = self.hosts
        elif value.read is not None:
            read = value.read
            now = self.fact(f"the contents of {value.what}", lambda: plain_copy(read()),
                            guess=plain_copy(read()))
            again = self._frozen(now, value.what, read)
            if isinstance(again, Frozen) and again.kind is value.kind:
                value.elements, value.names = again.elements, again.names
            else:
                raise self.broken("SGLC113", f"{value.what} becomes something else")

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
            return self.host(fn, compute.function(fn), *args)
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
        if fn == "is_none":
            return True
        if fn in ("eq", "ne", "bool", "not"):
            return "other" not in kinds and "any" not in kinds
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
        if any(isinstance(v, Sym) and not v.is_text and v.recipe is None
               for v in (left, right)) or not all(isinstance(v, (str, Sym))
                                                  for v in (left, right)):
            return self.host("add", operator.add, left, right)
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
            if isinstance(value, Sym) and value.recipe is None and not value.is_text:
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
        return self.recorder.decide(value.operand, self.place())

    def concrete(self, value: Any, what: str) -> Any:
        """The value itself: under a guard, or as a fact for which the path breaks."""
        if not isinstance(value, Sym):
            return value
        if value.recipe is None:
            return self.fact(what, same, value)
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
        if kind == "seq":
            items = self.host("list", list, value)
            for i in range(n):
                item = self.host("getitem", operator.getitem, items, i)
                yield Sym(self, item.operand, types.TEXT) if value.is_text else item
            return
        iterator = self.host("iter", iter, value)
        while True:
            item = self.host("next", next_or_end, iterator)
            if self.fact("whether there is another item", is_end, item):
                return
            yield item

    def _assume(self, recipe: Recipe) -> int:
        self.assumed[describe(recipe)] = ASSUMED_COUNT
        return ASSUMED_COUNT


_RESULTS = {"as_text": types.TEXT, "format": types.TEXT, "str": types.TEXT, "repr": types.TEXT,
            "int": types.INT, "float": types.FLOAT, "isinstance": types.BOOL, "bool": types.BOOL}


def unchanged(value: Any, before: Any) -> bool:
    """Whether an argument is what it was when the run began."""
    try:
        return bool(snapshot(value) == before)
    except TypeError:
        return True


def same(value: Any) -> Any:
    return value


def as_text(value: Any) -> str:
    """What appending a run-time value to a prompt means; the eager interpreter's error else."""
    from sglc.lang.expressions import Expr, check_part

    if isinstance(value, str):
        return value
    if isinstance(value, Expr):
        raise LanguageError(
            "SGLC112", "a function that was called at run time returned a prompt expression",
            why="the compiler did not trace into it",
            fixes=("hand the prompt state to the function, and append there",
                   'run with mode="eager"'))
    check_part(value)
    raise AssertionError("check_part accepts texts and expressions only")


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


