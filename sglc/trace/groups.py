"""The states of a traced fork: of a size that is known, or of one known at run time only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sglc.ir import types
from sglc.ir.module import Lit, Operand
from sglc.lang.forking import broadcast, check_index, check_join, gather_names
from sglc.trace.symbols import Partial, Sym

if TYPE_CHECKING:
    from sglc.trace.state import TraceState


class TraceGroup:
    """The states of a traced fork."""

    __sglc_traced__ = True

    def __init__(self, states: list[TraceState], parent: TraceState, base: Operand) -> None:
        self._states = states
        self._parent = parent
        self._base = base

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[TraceState]:
        return iter(self._states)

    def __getitem__(self, index: Any) -> Any:
        check_index(index)
        return self._states[index]

    def __setitem__(self, index: int, value: Any) -> None:
        if self._states[index] is not value:
            raise self._parent._session.broken("SGLC111", "a state of a fork is replaced")

    def __iadd__(self, other: Any) -> TraceGroup:
        for state, part in zip(self._states, broadcast(other, len(self._states)), strict=True):
            state += part
        return self

    def join(self, mode: str = "gather_variable") -> None:
        """As the eager group's."""
        check_join(mode)
        parent = self._parent
        parent._session.read([s._prompt for s in self._states])
        operands = [parent._prompt, self._base, *(s._prompt for s in self._states)]
        op = parent._session.emit("prompt.join", operands, {"mode": mode}, (types.PROMPT,))
        parent._prompt = op.results[0]
        if mode == "concate_and_append":
            return
        gathered = gather_names(list(parent._variables), [s._variables for s in self._states])
        for name, children in gathered.items():
            parent.set_var(name, [self._states[i].get_var(name) for i in children])


class LoopGroup:
    """The states of a traced fork whose size is known at run time only.

    Loops over all of them are traced once, for any of them: see `loops.py`.  prompts: where they
    stand, a list made by the last such loop (None: where the fork was).  variables: what loops
    have set, lists likewise.
    """

    __sglc_traced__ = True

    def __init__(self, parent: TraceState, size: Sym) -> None:
        session = parent._session
        self.session = session
        self.parent = parent
        self.size = size
        self.base = parent._prompt
        self.prompts: Operand | None = None
        self.variables: dict[Any, Operand] = {}
        self.inherited = dict(parent._variables)
        self.metas: dict[Any, Any] = {}
        self.calls = self.forks = 0
        self.ordinal = parent._forks
        self.roles, self.begin = parent._roles.copy(), parent._begin
        self.closed = list(parent._closed)
        parent._forks += 1
        session.at_least(size, 1)
        session.groups.append(self)

    def fields(self) -> dict[str, Any]:
        """What a loop may change."""
        return {"prompts": self.prompts, "variables": dict(self.variables), "calls": self.calls,
                "forks": self.forks, "metas": dict(self.metas)}

    def restore(self, fields: dict[str, Any]) -> None:
        self.prompts, self.variables = fields["prompts"], dict(fields["variables"])
        self.calls, self.forks = fields["calls"], fields["forks"]
        self.metas = dict(fields["metas"])

    def state(self, number: Operand) -> TraceState:
        """The state of a number, as it is now."""
        session, parent = self.session, self.parent
        prompt = self.base
        if self.prompts is not None:
            prompt = session.emit("prompt.item", (self.prompts, number), {},
                                  (types.PROMPT,)).results[0]
        variables = dict(self.inherited)
        for name, values in self.variables.items():
            type_ = values.type.args[0]
            item = session.emit("prompt.compute", (values, number), {"fn": "getitem"}, (type_,))
            variables[name] = Sym(session, item.results[0], type_)  # type: ignore[arg-type]
        path = (*parent._path, self.ordinal, 0)
        state = type(parent)(session, prompt, path, variables=variables, roles=self.roles.copy(),
                             begin=self.begin, closed=self.closed,
                             shifts=(*parent._shifts, (len(path) - 1, number)))
        state._calls, state._forks = self.calls, self.forks
        state._metas = dict.fromkeys(self.metas, Partial(session))
        return state

    def __len__(self) -> int:
        raise self.session.need(self, "the number of forks")

    def __iter__(self) -> Iterator[Any]:
        raise self.session.need(self, "the number of forks")

    def __getitem__(self, index: Any) -> Any:
        check_index(index)
        number = index.operand if isinstance(index, Sym) else Lit(index)
        child = self.session.child(self, number)
        if child is None:
            if not isinstance(number, Lit) or type(index) is not int or index < 0:
                raise self.session.need(index, "the number of a state")
            self.session.at_least(self.size, index + 1)
            child = self.state(number)
            child._read_only = True
        return child

    def __setitem__(self, index: Any, value: Any) -> None:
        if self[index] is not value:
            raise self.session.broken("SGLC111", "a state of a fork is replaced")

    def __iadd__(self, other: Any) -> LoopGroup:
        if isinstance(other, (list, tuple)):
            raise self.session.need(self, "the number of forks")
        self.session.each(self, other)
        return self

    def join(self, mode: str = "gather_variable") -> None:
        """As the eager group's."""
        check_join(mode)
        session, parent = self.session, self.parent
        session.read(self.base if self.prompts is None else self.prompts)
        if mode == "concate_and_append":
            if self.prompts is not None:
                session.concatenate(self)
            return
        for name, values in self.variables.items():
            if name not in parent._variables:
                parent.set_var(name, session.listed(self, values))
