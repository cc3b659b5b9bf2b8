"""The prompt state of the eager interpreter: what `s` is while a program's body runs as written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sglc.errors import LanguageError
from sglc.ir.bags import ordered
from sglc.lang.cells import Cell, Sink
from sglc.lang.expressions import (
    Bag,
    Gen,
    Image,
    RoleBegin,
    RoleEnd,
    Select,
    SpecialToken,
    check_part,
)
from sglc.lang.forking import broadcast, check_fork, check_index, check_join, gather_names
from sglc.lang.prompt_surface import PromptSurface, RoleTracker
from sglc.lang.state import ProgramState, unknown_variable
from sglc.lang.strand import Run, Strand
from sglc.runtime.typed import opened, spelled
from sglc.tokens.prompt import Prompt

AFTERWARDS = (-1,)  # the path of what is appended to a state after its run


class EagerState(PromptSurface, ProgramState):
    """A prompt and its variables.  Appending never waits for the model; reading does."""

    __slots__ = ("_body_error", "_calls", "_cells", "_forks", "_path", "_returned", "_roles",
                 "_run", "_strand")

    def __init__(self, run: Run, path: tuple[int, ...] = (), strand: Strand | None = None,
                 cells: dict[str | None, Cell] | None = None,
                 roles: RoleTracker | None = None) -> None:
        self._run = run
        self._path = path
        self._strand = strand or Strand(run, run.empty_prompt(), run.stream)
        self._cells: dict[str | None, Cell] = dict(cells or {})
        self._roles = roles or RoleTracker()
        self._calls = 0  # gens and selects so far
        self._forks = 0
        self._body_error: BaseException | None = None
        self._returned: Any = None

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self._run.seed

    @property
    def ret_value(self) -> Any:  # type: ignore[override]
        """What the body returned; raises what it raised."""
        self.raise_body_error()
        return self._returned

    def go_on(self) -> None:
        """The body is through: what is appended from now on has sampling paths of its own,
        which a compiled run's state can know too."""
        self._path, self._calls, self._forks = AFTERWARDS, 0, 0

    # -- building -------------------------------------------------------------------------
    def _add(self, part: Any) -> None:
        if isinstance(part, str):
            self._strand.append(part)
        elif isinstance(part, Gen):
            cell = self._cell()
            self._strand.gen(part, self._next_path(), cell)
            self._define(part.name, cell)  # only if it was accepted: readers wait for it
        elif isinstance(part, Select):
            cell = self._cell()
            self._next_path()
            self._strand.select(part.choices, part.method, cell)
            self._define(part.name, cell)
        elif isinstance(part, RoleBegin):
            pieces = self._run.target.template.open(self._roles.begin(part.role), part.role)
            self._strand.append_pieces(pieces)
            self._strand.begin_message(part.role)
        elif isinstance(part, RoleEnd):
            before = self._roles.end(part.role)
            self._strand.end_message()
            self._strand.append_pieces(self._run.target.template.close(before, part.role))
        elif isinstance(part, Bag):
            batch = self._run.batch
            parts = list(part.parts) if batch is None else ordered(part.parts, batch)
            self._strand.append(part.separator.join(parts))
        elif isinstance(part, SpecialToken):
            self._strand.append_pieces((control_token(self._run.target.tokenizer, part.name),))
        elif isinstance(part, Image):
            self._strand.image(part.source)
        else:
            check_part(part)
            raise LanguageError("SGLC002", f"{part!r} cannot be appended to a prompt"[:200])

    def _next_path(self) -> tuple[int, ...]:
        path = (*self._path, self._calls)
        self._calls += 1
        return path

    def _cell(self) -> Cell:
        sink = Sink(self._run.condition) if self._run.streaming else None
        return Cell(self._run.condition, sink)

    def _define(self, name: str | None, cell: Cell) -> None:
        with self._run.condition:
            self._cells[name] = cell
            self._run.condition.notify_all()

    def set_var(self, name: str | None, value: Any) -> None:
        """Set a variable to a value (any object)."""
        cell = Cell(self._run.condition)
        cell.set(value)
        self._define(name, cell)

    __setitem__ = set_var

    @contextmanager
    def var_scope(self, name: str) -> Iterator[EagerState]:
        """The text added inside the block becomes variable `name`."""
        begin: list[Prompt] = []
        self._strand.put(lambda me: begin.append(me.prompt))  # type: ignore[func-returns-value]
        yield self
        cell = self._cell()
        self._strand.snapshot(lambda me: me.prompt.text_since(begin[0]), cell)
        self._define(name, cell)

    # -- forks ----------------------------------------------------------------------------
    def fork(self, size: int = 1, position_ids_offset: Any = None, *,
             number: int | None = None) -> StateGroup:
        """`size` states that continue from here, each on its own; they run concurrently."""
        size = check_fork(size if number is None else number, position_ids_offset)
        ordinal = self._forks
        self._forks += 1
        children = [
            EagerState(self._run, (*self._path, ordinal, i), Strand(self._run, None), self._cells,
                       self._roles.copy())
            for i in range(size)]
        self._strand.fork([c._strand for c in children])
        return StateGroup(children, self)

    @contextmanager
    def copy(self) -> Iterator[EagerState]:
        """A fork of one, joined at the end of the block."""
        group = self.fork(1)
        yield group[0]
        group.join()

    # -- reading --------------------------------------------------------------------------
    def get_var(self, name: str | None, timeout: float | None = None) -> Any:
        return opened(self._settled(name, timeout))

    def _settled(self, name: str | None, timeout: float | None = None) -> Any:
        """The value; one of a schema as the text it is made of."""
        cell = self._cells.get(name)
        if cell is None:
            self.raise_body_error()
            raise unknown_variable(name, list(self._cells))
        return cell.settle(timeout)

    def get_meta_info(self, name: str | None, timeout: float | None = None) -> Any:
        cell = self._cells.get(name)
        if cell is None:
            self.raise_body_error()
            return None
        cell.settle(timeout)
        return cell.meta

    def _take(self, take: Callable[[Strand], Any]) -> Any:
        cell = Cell(self._run.condition)
        self._strand.snapshot(take, cell)
        return cell.wait()

    def text(self) -> str:
        return self._take(lambda me: me.prompt.text())  # type: ignore[no-any-return]

    def token_ids(self) -> list[int]:
        return self._take(lambda me: me.prompt).token_ids().tolist()  # type: ignore[no-any-return]

    def messages(self) -> list[dict[str, str]]:
        return self._take(lambda me: [dict(m) for m in me.messages])  # type: ignore[no-any-return]

    def sync(self) -> None:
        self._take(lambda me: None)
        self.raise_body_error()

    def error(self) -> BaseException | None:
        if self._body_error is not None:
            return self._body_error
        try:
            self.sync()
        except Exception as e:
            return e
        return None

    def variable_names(self) -> list[Any]:
        return list(self._cells)

    def raise_body_error(self) -> None:
        if self._body_error is not None:
            raise self._body_error

    # -- streams --------------------------------------------------------------------------
    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        run = self._run
        if run.stream is None:
            yield self.text() if var_name is None else spelled(self._settled(var_name))
            return
        if var_name is None:
            yield from run.stream
            return
        with run.condition:  # the body may not have come to this variable yet
            run.condition.wait_for(
                lambda: var_name in self._cells or run.stream.closed)  # type: ignore[union-attr]
        cell = self._cells.get(var_name)
        if cell is None:
            self.raise_body_error()
            raise unknown_variable(var_name, list(self._cells))
        if cell.sink is None:
            yield spelled(cell.settle())
        else:
            yield from cell.sink
        cell.settle()


class StateGroup:
    """The states of a fork."""

    __slots__ = ("_parent", "_states")

    def __init__(self, states: list[EagerState], parent: EagerState) -> None:
        self._states = states
        self._parent = parent

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int) -> EagerState:
        check_index(index)
        return self._states[index]

    def __iter__(self) -> Iterator[EagerState]:
        return iter(self._states)

    def __setitem__(self, index: int, value: EagerState) -> None:
        if self._states[index] is not value:
            raise LanguageError("SGLC002", "a state of a fork cannot be replaced",
                                fixes=["append to it: forks[i] += ..."])

    def __iadd__(self, other: Any) -> StateGroup:
        for state, part in zip(self._states, broadcast(other, len(self._states)), strict=True):
            state += part
        return self

    def join(self, mode: str = "gather_variable") -> None:
        """Wait for the states and bring their results to the parent.

        gather_variable: each variable that the states produced and the parent lacks becomes a
        list on the parent, in order.  concate_and_append: the states' texts since the fork are
        appended to the parent, in order, generated ids kept.
        """
        check_join(mode)
        for state in self._states:
            state.sync()
        parent = self._parent
        if mode == "concate_and_append":
            parent._strand.join_text([s._strand for s in self._states])
            return
        for name, states in gather_names(parent.variable_names(),
                                         [s._cells for s in self._states]).items():
            parent.set_var(name, [self._states[i].get_var(name) for i in states])


def control_token(tokenizer: Any, name: str) -> Any:
    """The tokenizer's control token of that name; LanguageError SGLC002 if there is none."""
    from sglc.tokens.templates import SpecialPiece
    from sglc.tokens.text_prompt import no_control_tokens

    if tokenizer is None:
        raise no_control_tokens()
    if name not in tokenizer.special:
        known = ", ".join(list(tokenizer.special)[:8])
        raise LanguageError("SGLC002", f"the tokenizer has no control token {name!r}",
                            fixes=[f"use one of its own, such as: {known}"])
    return SpecialPiece(tokenizer.special[name], name)
