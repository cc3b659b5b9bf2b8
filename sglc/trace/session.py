"""One program being traced: arguments as symbols, guards taken, operations recorded."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, GeneratorType
from typing import Any

from sglc.ir.module import Operand
from sglc.lang.expressions import Expr
from sglc.trace.bound_methods import VIEWS, name_of, only_looks, owner_of
from sglc.trace.hosts import Built
from sglc.trace.loop_calls import EventLoop, await_on, call_on, close_loop
from sglc.trace.loops import Loops
from sglc.trace.primitives import may_call_programs
from sglc.trace.symbols import Sym

_ITERATORS = (enumerate, zip, map, filter, reversed, type(reversed([])), type(reversed({})),
              type(reversed({}.values())), type(reversed({}.items())))


class Session(Loops):
    """The trace of one variant.  A new run of the body starts with `restart()`.

    handed: containers of the body that host calls were given, by identity, and what stands for
    them since.  stored: variables from outside that the body assigned, with the number of host
    calls made then.  immediate: the host call being recorded calls functions at once, and keeps
    none.  loop: what runs the coroutines of an async body, once there is a host call.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()

    def _begin(self) -> None:
        self.handed: dict[int, tuple[Any, Sym]] = {}
        self.stored: dict[Any, tuple[Any, int]] = {}
        self.immediate = False
        self.asynchronous = False
        self.loop: Sym | None = None

    def restart(self) -> None:
        super().restart()
        self._begin()

    def operand(self, value: Any) -> Operand:
        """As `Recording.operand`; a container that was handed over is what stands for it."""
        found = self.handed.get(id(value))
        return super().operand(value if found is None else found[1])

    # -- what host calls are given --------------------------------------------------------
    def _for_host(self, value: Any) -> Any:
        if self.handed and id(value) in self.handed:
            return self.handed[id(value)][1]
        if isinstance(value, FunctionType) and "__sglc__" in value.__globals__:
            return value.__globals__["__sglc__"].live(value)
        if (isinstance(value, _ITERATORS) or any(value is i for i in self.iterators)
                or (isinstance(value, GeneratorType) and "__sglc__" in value.gi_frame.f_globals)):
            raise self.broken("SGLC111", f"a {type(value).__name__} of the program is handed to "
                                         "Python that is not traced", fixes=("hand it a list",))
        if (owner := owner_of(value)) is not None:
            return self._method(value, owner)
        if isinstance(value, Expr):
            raise self.broken("SGLC112", "a prompt expression is handed to Python that is not "
                                         "traced", fixes=("append its parts one by one",))
        if may_call_programs(value):
            raise self.broken("SGLC112", f"{value.__name__}, which builds prompts, is handed to "
                                         "Python that is not traced")
        return super()._for_host(value)

    def _method(self, method: Any, owner: Any) -> Built:
        """A bound method of the body for a host call: that of the value at run time."""
        name = name_of(method)
        if getattr(type(owner), "__sglc_traced__", False):
            raise self.broken("SGLC112", f"the method .{name}() of a prompt state is handed to "
                                         "Python that is not traced")
        if type(owner) in (list, dict, set) and id(owner) not in self.handed and not (
                self.immediate and only_looks(method)):
            raise self.broken("SGLC113", f"the method .{name}() of a {type(owner).__name__} of "
                                         "the program is handed to Python that may change it")
        return Built(view_of(name) if type(method) in VIEWS else method_of(name), (owner,))

    # -- async bodies ---------------------------------------------------------------------
    def host(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Sym:
        """As `Recording.host`; in an async body the call is made while its event loop runs."""
        if not self.asynchronous:
            return super().host(name, fn, *args, **kwargs)
        return super().host(name, call_on, self._loop(), fn, *args, **kwargs)

    def awaited(self, value: Any) -> Sym:
        """`await value`, for what is no coroutine of the program's own."""
        return super().host("await", await_on, self._loop(), value)

    def _loop(self) -> Sym:
        if self.loop is None:
            self.loop = super().host("event_loop", EventLoop)
        return self.loop

    def run_async(self, body: Callable[[], Any]) -> Any:
        """Trace an async body, with an event loop of its own."""
        outer = self.asynchronous, self.loop
        self.asynchronous, self.loop = True, None
        result = body()
        if self.loop is not None:
            super().host("close", close_loop, self.loop)
        self.asynchronous, self.loop = outer
        return result


def method_of(name: str) -> Callable[[list[Any]], Any]:
    """What gives the method of that name of the one value it gets."""
    return lambda parts: getattr(parts[0], name)


def view_of(name: str) -> Callable[[list[Any]], Any]:
    """What gives the view of that name of the one dict it gets."""
    return lambda parts: getattr(parts[0], name)()
