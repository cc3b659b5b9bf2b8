"""The prompt state while tracing: the same surface as the eager one, recording IR.

Its variables, its forks, and what is read of it.  How what is appended becomes IR is in
`appending.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from sglc.ir import types
from sglc.ir.module import Lit, Operand, Value
from sglc.lang.forking import check_fork
from sglc.lang.prompt_surface import RoleTracker
from sglc.runtime.copies import contents, plain_copy
from sglc.runtime.typed import opened
from sglc.trace.appending import Repeated, TracePrompt
from sglc.trace.groups import LoopGroup, TraceGroup
from sglc.trace.guards import MISSING
from sglc.trace.symbols import Partial, Sym, TypedGen

if TYPE_CHECKING:
    from sglc.trace.session import Session


class TraceState(TracePrompt):
    """A prompt being traced.  `observable`: its variables are those of the run's result.

    kept: what it has of the state that it is a fork of, as `TracePrompt` takes it.
    """

    __sglc_traced__ = True
    __slots__ = ("_bound", "_forks", "_metas", "_returned", "_variables")

    def __init__(self, session: Session, prompt: Operand, path: tuple[int, ...] = (), *,
                 variables: dict[Any, Any] | None = None, **kept: Any) -> None:
        super().__init__(session, prompt, path, **kept)
        self._variables: dict[Any, Any] = dict(variables or {})
        self._metas: dict[Any, Operand] = {}
        self._returned: Any = None
        self._forks = 0
        # What variables were bound as, by name: containers may be changed afterwards.
        self._bound: dict[Any, tuple[Any, Any]] = {}
        session.states.append(self)

    # -- merging --------------------------------------------------------------------------
    def fields(self) -> dict[str, Any]:
        """What an arm of an `if` may change."""
        return {"prompt": self._prompt, "calls": self._calls, "offset": self._offset,
                "forks": self._forks, "roles": (self._roles.closed, self._roles.open),
                "closed": tuple(self._closed), "begin": self._begin,
                "variables": dict(self._variables), "metas": dict(self._metas)}

    def restore(self, fields: dict[str, Any]) -> None:
        """Be as `fields` says."""
        self._prompt, self._begin = fields["prompt"], fields["begin"]
        self._calls, self._offset, self._forks = (
            fields["calls"], fields["offset"], fields["forks"])
        self._roles = RoleTracker(*fields["roles"])
        self._closed = list(fields["closed"])
        self._variables, self._metas = dict(fields["variables"]), dict(fields["metas"])

    def end(self) -> None:
        """The loop that made the state is over: what still holds it must not use it."""
        self._prompt, self._read_only = Partial(self._session), True  # type: ignore[assignment]
        self._variables = dict.fromkeys(self._variables, Partial(self._session))

    # -- variables ------------------------------------------------------------------------
    def _define(self, name: Any, value: Any, operand: Operand | None = None,
                meta: Operand | None = None) -> None:
        self._variables[name] = value
        if meta is not None:
            self._metas[name] = meta
        else:
            self._metas.pop(name, None)
        if not self._observable:
            return
        session = self._session
        session.names.setdefault(name)
        self._bound[name] = contents(value), plain_copy(value)  # the copy keeps the items alive
        if meta is None:  # a gen's own value fails with what is before it
            session.check_reads()
        session.emit("prompt.bind", (session.operand(value) if operand is None else operand,),
                     {"name": name})
        if meta is not None:
            session.emit("prompt.meta", (meta,), {"name": name})

    def set_var(self, name: Any, value: Any) -> None:
        self._define(self._session.concrete(name, "the name of a variable"), value)

    __setitem__ = set_var

    @property
    def observable(self) -> bool:
        """Whether its variables are those of the run's result."""
        return self._observable

    def bind_changed(self) -> None:
        """Bind the containers that the body has changed since it set variables to them."""
        session = self._session
        for name, value in self._variables.items():
            if type(value) in (list, dict, tuple) and contents(value) != self._bound[name][0]:
                if session.dynamic:
                    raise session.broken("SGLC113", f"the variable {name!r} changes in place")
                self._bound[name] = contents(value), plain_copy(value)
                session.check_reads()
                session.emit("prompt.bind", (session.operand(value),), {"name": name})

    def var_scope(self, name: str) -> Scope:
        """The text added inside the block becomes variable `name`."""
        name = self._session.concrete(name, "the name of a variable")

        def leave(begin: Any) -> None:
            span = self._session.emit("prompt.span", (begin, self._prompt), {}, (types.TEXT,))
            self._define(name, Sym(self._session, span.results[0], types.TEXT), span.results[0])

        return Scope(lambda: (self, self._prompt), leave)

    # -- forks ----------------------------------------------------------------------------
    def fork(self, size: int = 1, position_ids_offset: Any = None, *,
             number: int | None = None) -> TraceGroup:
        """As the eager state's."""
        size = size if number is None else number
        if isinstance(size, Sym):
            if self._session.dynamic and (type(size.example) is int
                                          or size.example is MISSING):
                return LoopGroup(self, size)  # type: ignore[return-value]
            size = self._session.concrete_int(size, "the number of forks")
        check_fork(size, position_ids_offset)
        ordinal = self._forks
        self._forks += 1
        base = self._prompt
        op = self._session.emit("prompt.fork", (base,), {"size": size}, (types.PROMPT,) * size)
        children = [
            TraceState(self._session, value, (*self._path, ordinal, i),
                       variables=self._variables, roles=self._roles.copy(), begin=self._begin,
                       closed=self._closed, shifts=self._shifts)
            for i, value in enumerate(op.results)]
        return TraceGroup(children, self, base)

    def copy(self) -> Scope:
        """A fork of one, joined at the end of the block."""
        def enter() -> tuple[Any, Any]:
            group = self.fork(1)
            return group[0], group

        return Scope(enter, lambda group: group.join())

    # -- reading --------------------------------------------------------------------------
    def _value(self, name: Any) -> Any:
        if name not in self._variables:
            raise self._session.broken("SGLC111", f"the variable {name!r} is read before anything "
                                                  "produces it", raises=True)
        value = self._variables[name]
        if isinstance(value, Partial):
            value.refuse()
        return value

    def get_var(self, name: Any, timeout: float | None = None) -> Any:
        value = self._value(name)
        if isinstance(value, TypedGen):
            session = self._session
            read = session.host(f"{value.type_name}.model_validate_json", opened,
                                Sym(session, value.operand, types.ANY))
            if value.count == 1:
                return read
            assert isinstance(read.operand, Value)
            return self._samples(read.operand, value.count, types.ANY)
        self._session.read(value)
        return value

    __getitem__ = get_var

    def unread(self, name: Any) -> Any:
        """The same for code that reads it at run time: a value of a schema is not made yet, and
        one that failed is no error yet."""
        value = self._value(name)
        return Sym(self._session, value.operand, types.ANY) if isinstance(
            value, TypedGen) else value

    def __contains__(self, name: Any) -> bool:
        value = self._variables.get(name)
        if isinstance(value, Partial):
            value.refuse()
        return name in self._variables

    def text(self) -> Any:
        self._session.read(self._prompt)
        op = self._session.emit("prompt.text", (self._prompt,), {}, (types.TEXT,))
        return Sym(self._session, op.results[0], types.TEXT)

    def sync(self) -> None:
        """Later host calls wait for what is before."""
        self._session.read(self._prompt)

    def _refuse(self, what: str) -> Any:
        raise self._session.broken("SGLC110", f"the program reads {what} while it runs")

    def messages(self) -> Any:
        """The closed messages, as a list made at run time."""
        session = self._session
        session.read(self._prompt)
        made = []
        if any(isinstance(role, Repeated) for role in self._roles.closed):
            raise session.need(self, "the messages")
        for role, begin, end in self._closed:
            span = session.emit("prompt.span", (begin, end), {}, (types.TEXT,)).results[0]
            text = session.compute("text.lstrip", Sym(session, span, types.TEXT))
            pairs = (Lit("role"), Lit(role), Lit("content"), text.operand)
            made.append(session.emit("prompt.compute", pairs, {"fn": "dict"},
                                     (types.JSON,)).results[0])
        listed = session.emit("prompt.list", made, {}, (types.JSON,)).results[0]
        return session.host("list", list, Sym(session, listed, types.ANY))

    def get_meta_info(self, name: Any, timeout: float | None = None) -> Any:
        meta: Any = self._metas.get(name)
        if meta is None:
            return None
        if isinstance(meta, Partial):
            meta.refuse()
        self._session.read(meta)
        return Sym(self._session, meta, types.ANY)

    def error(self) -> Any:
        return self._refuse("error()")

    def text_iter(self, var_name: Any = None) -> Any:
        return self._refuse("text_iter()")

    def text_async_iter(self, var_name: Any = None, return_meta_data: bool = False) -> Any:
        return self._refuse("text_async_iter()")

    def token_ids(self) -> Any:
        session = self._session
        session.read(self._prompt)
        return session.host("token_ids", token_ids, Sym(session, self._prompt, types.ANY))

    def __repr__(self) -> str:
        return self._refuse("its text")  # type: ignore[no-any-return]

    __str__ = __repr__

    @property
    def ret_value(self) -> Any:
        """What the body of a nested program returned."""
        if self._observable:
            return self._refuse("ret_value")
        return self._returned

    @property
    def seed(self) -> Any:
        return self._refuse("its seed")


class Scope(AbstractContextManager[Any]):
    """`with` blocks of a traced state."""

    __sglc_traced__ = True

    def __init__(self, enter: Callable[[], tuple[Any, Any]],
                 leave: Callable[[Any], None]) -> None:
        self._enter = enter
        self._leave = leave
        self._kept: Any = None

    def __enter__(self) -> Any:
        target, self._kept = self._enter()
        return target

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None:
            self._leave(self._kept)


def token_ids(prompt: Any) -> list[int]:
    """The ids of a prompt of the run."""
    return prompt.token_ids().tolist()  # type: ignore[no-any-return]
