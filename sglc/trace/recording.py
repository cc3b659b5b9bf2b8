"""Recording operations while a body is traced: emitting, host calls, facts, breaks.

It knows values only as operands; what they mean is in `outside.py` and `computing.py`.
"""

from __future__ import annotations

import linecache
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import CodeType
from typing import Any

from sglc.errors import Diagnostic, LanguageError, Place
from sglc.ir import compute, types
from sglc.ir.module import Attr, Lit, Op, Operand
from sglc.ir.ops import OPS
from sglc.runtime.copies import plain_copy
from sglc.trace.breaks import GraphBreak, NotMergeable, PathEnd
from sglc.trace.explore import MAX_LOOP, MAX_STEPS, Recorder, endless
from sglc.trace.frozen import Frozen
from sglc.trace.guards import MISSING, Guard, OutsideGuard, inventory, snapshot
from sglc.trace.hosts import (
    HARMLESS,
    Argument,
    Built,
    FromOutside,
    Given,
    HostCall,
    HostFacts,
    Made,
    ReadState,
    Real,
    Slot,
)
from sglc.trace.outline import Reads, run_outlined
from sglc.trace.reading import Reading
from sglc.trace.sequences import Seq
from sglc.trace.symbols import Partial, Sym, contains_symbol

_RESULTS = {"as_text": types.TEXT, "format": types.TEXT, "str": types.TEXT, "repr": types.TEXT,
            "int": types.INT, "float": types.FLOAT, "isinstance": types.BOOL, "bool": types.BOOL,
            "character": types.TEXT, "which": types.INT, "join": types.TEXT}


class Recording(Reading):
    """What a trace records: operations, host calls, facts, and where they stand.

    calls: the host calls, by the `call` attribute of their ops.  hosts: how many host calls the
    current path has made.
    """

    def __init__(self, recorder: Recorder, file: str,
                 known: Mapping[str, OutsideGuard] | None = None) -> None:
        super().__init__(recorder)
        self.file = file
        self.known = dict(known or {})  # what was read from outside when the run began
        self.calls: list[HostCall] = []
        self.hosts = 0
        self.changes = 0  # how many of them may have changed something
        self.breaks: list[Diagnostic] = []
        self.left: list[GraphBreak] = []  # why paths were left to the run
        self.committed = False  # the run has made calls that cannot be repeated
        self.iterators: list[Any] = []  # made by the body
        self.columns: dict[CodeType, list[int]] = {}  # of each instruction, by code
        # What a path knows of choices: the condition -> (choice, text, whether equal), and the
        # texts that a choice is known not to be.
        self.tests: dict[Operand, tuple[Sym, str, bool]] = {}
        self.excluded: dict[Operand, frozenset[str]] = {}
        self.nested = [0]  # programs called so far, by each that has not come back
        # Variables that a `try` may have left unbound: their values, and the names, by its result.
        self.unbound: set[Operand] = set()
        self.unsure: dict[Operand, frozenset[str]] = {}
        self.states: list[Any] = []  # all prompt states of the current run
        self.depth = 0  # of `if`s whose arms are being merged
        self.dynamic = False  # whether loops are traced for any length
        self.guards: dict[Guard, None] = {}
        self.outside: dict[str, OutsideGuard] = {}
        self.assumed: dict[str, int] = {}
        self.lengths: Mapping[str, int] = {}  # what to assume, by argument
        self.names: dict[str | None, None] = {}  # observable variables, in order
        self.frozen_globals: dict[int, Any] = {}

    def restart(self) -> None:
        self.recorder.restart()
        self.frozen_globals = {}
        self.hosts = self.changes = 0
        self.committed = False
        self.forget_reads()
        self.iterators = []
        self.states = []
        self.nested = [0]
        self.unbound = set()
        self.excluded = {}

    # -- places and breaks -----------------------------------------------------------------
    def place(self) -> Place | None:
        """Where in the user's source the body stands now."""
        frame = sys._getframe(1)
        while frame is not None:
            if "__sglc__" in frame.f_globals and frame.f_globals["__sglc__"].session is self:
                code = frame.f_code
                columns = self.columns.get(code)
                if columns is None:  # Python 3.10 has lines only
                    spots = code.co_positions() if hasattr(code, "co_positions") else ()
                    columns = self.columns[code] = [(p[2] or 0) + 1 for p in spots]
                at = frame.f_lasti // 2
                column = columns[at] if at < len(columns) else 1
                line = linecache.getline(code.co_filename, frame.f_lineno)
                if not line.isascii():  # Python counts bytes
                    column = len(line.encode()[: column - 1].decode("utf-8", "replace")) + 1
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

    def count_step(self) -> None:
        """A test or a round of a loop: Python loops that do nothing else must end, too."""
        self.recorder.steps += 1
        if self.recorder.steps > MAX_STEPS:
            raise endless("steps", self.place())

    # -- recording -------------------------------------------------------------------------
    def emit(self, name: str, operands: Sequence[Operand] = (),
             attrs: dict[str, Attr] | None = None, result_types: Sequence[types.Type] = (),
             names: Sequence[str] = ()) -> Op:
        if self.alone is not None and (OPS[name].effect in ("observe", "host")
                                       or any(o is self.alone for o in operands[:1])):
            self.check_reads()
        return self.recorder.emit(name, operands, attrs or {}, result_types, names, self.place())

    # -- host calls ------------------------------------------------------------------------
    def host(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Sym:
        """Record a call to be made at run time, in order; its result as an opaque symbol."""
        result = types.ANY if name not in _RESULTS else _RESULTS[name]
        attrs: dict[str, Attr] = {"fn": name}
        facts = getattr(fn, "__sglc_host__", None)
        if isinstance(facts, HostFacts):
            attrs.update({"pure": True} if facts.pure else {})
            attrs.update({} if facts.latency is None else {"latency": facts.latency})
        if fn in (as_text, operator.add, compute.run_format):
            attrs["reads"] = True
        if any(f is run_outlined for f in (fn, *args[:2])):  # in async bodies it is an argument
            attrs["tries"] = True
        op = self._call("prompt.host", attrs, fn, args, kwargs, (result,))
        self.hosts += 1
        self.changes += not ("reads" in attrs or "pure" in attrs or any(
            fn is harmless for harmless in HARMLESS))
        return Sym(self, op.results[0], result)

    def fact(self, what: str, fn: Callable[..., Any], *args: Any, guess: Any = MISSING,
             ends: bool = False) -> Any:
        """Something about run-time values that the trace needs to know to go on.

        Known if the path has been here before it broke; a guess is checked at run time;
        otherwise the path ends here, and goes on when the fact is known.  ends: a loop that
        guesses comes to its end if the guesses are right.
        """
        if self.depth:
            raise NotMergeable
        if self.dynamic:  # the numbers of events would depend on lengths
            raise self.broken("SGLC110", f"Python needs {what}")
        event = self.recorder.next_event()
        given = self.recorder.given
        if event < len(given):
            self.given_event()
            return plain_copy(given[event])  # the body may change what it gets
        if guess is not MISSING and not ends:  # one that changes what it looks at guesses for ever
            place = self.place()
            count = self.recorder.places[place] = self.recorder.places.get(place, 0) + 1
            if count > MAX_LOOP:
                guess = MISSING
        attrs = {"fn": what, "event": event}
        if guess is not MISSING:
            self._call("prompt.check", attrs, fn, args, {}, (), expected=inventory(guess))
            self.recorder.tell()
            return guess
        self._call("prompt.break", attrs, fn, args, {}, ())
        diagnostic = self.broken("SGLC110", f"Python needs {what} of a value that is only known "
                                            "at run time").diagnostic
        if diagnostic not in self.breaks:
            self.breaks.append(replace(
                diagnostic, effect="the rest of the program is traced when the value is known"))
        raise PathEnd

    def given_event(self) -> None:
        """What the run has told of the last event is used."""
        self.recorder.tell()
        if self.recorder.events == len(self.recorder.given):
            self.committed = self.changes > 0

    @property
    def may_leave(self) -> bool:
        """Whether a path that cannot be traced may be left to the run: it has made calls that
        cannot be repeated in the eager interpreter, and may take another way."""
        return self.committed and self.recorder.explores and (
            self.recorder.events == self.recorder.told)

    def leave_to_run(self, cause: GraphBreak) -> None:
        """End a path that cannot be traced, as if it needed a fact."""
        self.left.append(cause)
        attrs = {"fn": cause.diagnostic.what, "event": self.recorder.next_event()}
        self._call("prompt.break", attrs, nothing, (), {}, ())
        self.breaks.append(replace(cause.diagnostic, effect="a run that comes here ends"))

    def _call(self, op: str, attrs: dict[str, Attr], fn: Callable[..., Any], args: Sequence[Any],
              kwargs: dict[str, Any], results: Sequence[types.Type],
              expected: Any = MISSING) -> Op:
        if self.depth:
            raise NotMergeable
        self.check_alone()
        self.bind_changed()  # in case it raises
        operands: list[Operand] = []
        templates = tuple(self._template(a, operands) for a in args)
        named = tuple((k, self._template(v, operands)) for k, v in kwargs.items())
        if op == "prompt.host":  # only now: making the arguments may have made calls
            attrs["ordinal"] = self.hosts
        waits = [v for v in self.reads if "tries" in attrs or v not in operands]
        self.all_checked()
        self.reads = {}
        recorded = self.recorder.replayed
        number = len(self.calls) if recorded is None else recorded.attrs.get("call")
        if recorded is None and attrs.get("pure"):  # equal calls are one, for passes to see
            number = next((i for i, c in enumerate(self.calls)
                           if c.fn is fn and _same(c.args, templates) and _same(c.kwargs, named)),
                          number)
        root = [] if self.root is None else [self.root()]  # what is kept if the call raises
        made = self.emit(op, [*operands, *waits, *root],
                         {**attrs, "call": number, "args": len(operands), "root": len(root)},
                         results)
        if recorded is None and number == len(self.calls):
            self.calls.append(HostCall(fn, templates, named, expected, made.loc))
        return made

    def reader(self, reader: Any) -> int:
        """The number, among the calls, of what makes a gen's text a value."""
        if self.depth:
            raise NotMergeable  # the calls of an arm are not kept
        recorded = self.recorder.replayed
        if recorded is not None:
            return recorded.attrs.get("reader", -1)  # type: ignore[no-any-return]
        self.calls.append(HostCall(reader))
        return len(self.calls) - 1

    def _for_host(self, value: Any) -> Any:
        """What stands for a value of the body in a host call."""
        return value

    def _template(self, value: Any, operands: list[Operand], depth: int = 8) -> Any:
        """How to make an argument at run time; symbols become operands."""
        value = self._for_host(value)
        if isinstance(value, Sym):
            operands.append(value.operand)
            return Slot(len(operands) - 1)
        if isinstance(value, Frozen):
            if value.argument is not None:
                return Argument(value.argument)
            if value.operand is not None:
                operands.append(value.operand)
                return Slot(len(operands) - 1)
            return Made(Real, (value.read,)) if value.read is not None else Made(
                value.kind, tuple(self._template(v, operands, depth - 1)
                                  for v in (value if value.names is None else value._items())))
        if isinstance(value, Partial):
            value.refuse()
        if isinstance(value, Given):
            return Argument(value.recipe)
        if isinstance(value, Built):
            return Made(value.make, tuple(self._template(p, operands, depth - 1)
                                          for p in value.parts))
        if isinstance(value, FromOutside):
            return Made(Real, (value.read,))
        if isinstance(value, ReadState):
            return Made(Reads, tuple(
                Made(tuple, (k, self._template(v, operands, depth - 1)))
                for k, v in value.values.items()))
        if getattr(type(value), "__sglc_traced__", False):
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

    # -- operands --------------------------------------------------------------------------
    def operand(self, value: Any) -> Operand:
        """The IR operand of a plain or symbolic value; breaks for anything else."""
        if isinstance(value, Sym):
            return value.operand
        if value is None or type(value) in (str, int, float, bool):
            return Lit(value)
        if isinstance(value, Seq):
            return value.operand
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
        if type(value) is dict:
            return self.emit("prompt.compute", [self.operand(x) for p in value.items() for x in p],
                             {"fn": "dict"}, (types.JSON,)).results[0]
        raise self.broken("SGLC111", f"a value of type {type(value).__name__} in the program "
                                     "cannot be traced")

    def image_operand(self, value: Any) -> Operand:
        """The operand of what a program gives as an image."""
        if isinstance(value, Sym):
            return value.operand
        if isinstance(value, str):
            return Lit(value)
        return self.host("image", image_source, value).operand

    def text_operand(self, value: Any) -> Operand:
        """The operand of something that is appended to a prompt."""
        if isinstance(value, Sym) and value.type == types.ANY:
            if value.recipe is not None and value.example is MISSING:
                return value.operand  # an argument of unknown type, taken to be text
            return self.host("as_text", as_text, value).operand
        if isinstance(value, Sym) and not value.is_text:
            raise self.broken("SGLC111", f"a value of type {value.type} is appended to a prompt",
                              raises=True)
        if not isinstance(value, (Sym, str)):  # a list of the program's, in a bag
            raise self.broken("SGLC111", "a list or dict is appended to a prompt", raises=True)
        return self.operand(value)


def nothing() -> None:
    """What is asked where a path ends."""


def image_source(value: Any) -> Any:
    """What the program has as an image, where it is no text."""
    return value


def _same(a: Any, b: Any) -> bool:
    """Whether two templates make the same: as written, for 1 is not True."""
    return _plain(a) and _plain(b) and repr(a) == repr(b)


def _plain(template: Any) -> bool:
    """Whether a template compares by value."""
    if isinstance(template, tuple):
        return all(map(_plain, template))
    if isinstance(template, Made):
        return template.kind is not Real and all(map(_plain, template.items))
    return isinstance(template, (Slot, str, int, float, bool, type(None)))


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
