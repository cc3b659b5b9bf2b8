"""What sequences under constraints look up: each state's mask and what it leaves open, and for a
device whole constraints as tables (`grammar/tables.py`), made beside the engine's thread.

A row whose constraint lies on the device can draw its next token before the host knows this one:
the device finds the state itself.  Devices and steps are not known here.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sglc.grammar.canonical import REACHES, Canonical
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.tables import TokenTables, token_tables

if TYPE_CHECKING:
    from sglc.runtime.sampler import Draw

_log = logging.getLogger("sglc.runtime")

_STATES = 1 << 12  # states of a constraint that are remembered
_RUNS = 1 << 14  # and runs
_LONGEST = 256  # tokens of a run
_RULES = 256  # constraints that are


@dataclass(slots=True)
class Outlook:
    """What may follow in a state.  words: the mask.  open: whether it has a token but EOS.  sole:
    the only token, -1 if there are more.  choice: a run of no tokens that ends here, if a token is
    to be drawn here for sure; None if that is not known.  then: the first byte that must follow,
    if any.  number: the state's, kinds: token -> class, and after: class -> number of the next
    state, where there are tables; else -1 and None."""

    state: Any
    words: np.ndarray
    open: bool
    sole: int
    then: bytes = b""
    choice: Run | None = None
    number: int = -1
    kinds: memoryview | None = None
    after: memoryview | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens without alternative, and where they lead: to a choice, or, if it is not open, to the
    end of the text."""

    tokens: tuple[int, ...]
    end: Outlook


@dataclass(slots=True)
class Clock:
    """What constraints have cost the host so far: seconds.  jumps: tokens that came without
    being asked for.  moves: how often the host itself has found a row's state."""

    seconds: float = 0.0
    jumps: int = 0
    moves: int = 0


class Rule:
    """A constraint as sequences use it.

    tables: the same for a device, once they are made.  numbers: a state's number there.
    free: bool, by number, whether a token is to be drawn in that state for sure.  there: whether a
    device has the tables (the device's to set).  clock: the time of all rules.
    """

    def __init__(self, constraint: Any, open_ids: np.ndarray, canonical: Canonical,
                 clock: Clock) -> None:
        self.constraint = constraint
        self.clock = clock
        self.canonical = canonical
        self.tables: TokenTables | None = None
        self.numbers: dict[int, int] = {}
        self.free = np.zeros(0, bool)
        self.there = False
        self.uses = 0
        self._open_ids = open_ids
        self._moves: dict[tuple[Any, int], Any] = {}
        self._states: list[Any] = []  # by number
        self._rows: list[tuple[np.ndarray, bool, int]] = []  # of the tables
        # By state and text.  Taken once by whoever looks into it: `make`, on a thread of its own,
        # starts another, with whose states numbers come.
        self._runs: dict[tuple[Any, bytes, bool], Run | None] = {}
        self._near: dict[tuple[int, bytes], Run] = {}  # by number and last tokens
        # States of other kinds may be large, and their masks their own.
        self._known: dict[int, Outlook] | None = (
            {} if isinstance(constraint, FsmConstraint) else None)

    def outlook(self, state: Any) -> Outlook:
        """What may follow in `state`; remembered."""
        known = self._known
        found = None if known is None else known.get(state)
        if found is None:
            found = self._look(state)
            if known is not None:
                found.then = self.constraint.jump(state)[:1]
                if found.open and found.sole < 0 and not found.then:
                    found.choice = Run((), found)
                if len(known) >= _STATES:
                    known.clear()
                    self._runs.clear()  # they keep states too
                    self._near.clear()
                known[state] = found
        return found

    def _look(self, state: Any) -> Outlook:
        tables = self.tables
        number = None if tables is None else self.numbers.get(state)
        if tables is None or number is None:
            return Outlook(state, *self._read(self.constraint.mask(state)))
        # A mask that nobody has asked for yet may take long to make, or to read.
        return Outlook(state, *self._rows[tables.row_id[number]], number=number,
                       kinds=tables.class_of_token[tables.group[number]].data,
                       after=tables.next[tables.offset[number]:].data)

    def _read(self, words: np.ndarray) -> tuple[np.ndarray, bool, int]:
        """A mask, whether it has a token but EOS, and its only token."""
        return words, bool((words & self._open_ids).any()), self.canonical.sole(words)

    def state_of(self, number: int) -> Any:
        """The state of a number."""
        return self._states[number]

    def words_of(self, number: int) -> np.ndarray:
        """The mask in the state of a number."""
        assert self.tables is not None
        return self._rows[self.tables.row_id[number]][0]

    @property
    def swift(self) -> bool:
        """Whether `leap` and `first` can be asked."""
        return self._known is not None

    def first(self) -> Run | None:
        """The tokens that every text begins with; None where they are many, or lead nowhere."""
        runs, key = self._runs, (None, b"", True)
        if key not in runs:
            run = self._run(self.outlook(self.constraint.start()), array("q"), -1)[0]
            runs[key] = run
        return runs[key]

    def leap(self, draw: Draw, ids: array[int], start: int) -> Run | None:
        """The tokens without alternative after `ids[start:]`, the last of which was drawn; None
        where it is not allowed, or they are many, or lead nowhere."""
        number = draw.number
        if number >= 0:
            for reach in REACHES:
                run = self._near.get((number, ids[max(start, len(ids) - reach):].tobytes()))
                if run is not None:
                    return run
        run, reach = self._leap(draw.state, ids, start)
        if run is not None and reach in REACHES and number >= 0 and run.end.number >= 0:
            if len(self._near) >= _RUNS:
                self._near.clear()
            self._near[number, ids[max(start, len(ids) - reach):].tobytes()] = run
        return run

    def _leap(self, state: Any, ids: array[int], start: int) -> tuple[Run | None, int]:
        """`leap` from a state, and how many of the last tokens tell it, whatever came before them;
        0 if they do not."""
        token, runs = ids[-1], self._runs
        known = self._known or {}
        here = known.get(state) or self.outlook(state)
        if here.kinds is None or here.after is None:
            state = self.constraint.advance(state, token)
            if state is None:
                return None, 0
        else:
            number = here.after[here.kinds[token]]
            if number < 0:
                return None, 0
            state = self._states[number]
        there = known.get(state) or self.outlook(state)
        if there.choice is not None:
            return there.choice, 0  # quickly found again, and there are many
        forced = there.then
        before, reach = self.canonical.before(ids, start, forced) if forced else (b"", REACHES[0])
        key = state, before, bool(forced and reach)
        if key in runs:
            return runs[key], reach
        run, alone = self._run(there, ids[start:], len(before) if key[2] else -1)
        if not alone or not reach:
            return run, 0
        if len(runs) >= _RUNS:
            runs.clear()
        runs[key] = run
        return run, reach

    def _run(self, at: Outlook, text: array[int], known: int) -> tuple[Run | None, bool]:
        """The run from `at` on, where `text` has led; whether it is the same whatever came before
        the last `known` bytes, which begin at a sure border (-1: whatever the text is)."""
        canonical, table = self.canonical, self.canonical.table
        first = done = len(text)
        alone = True
        while at.open and len(text) < first + _LONGEST:
            state, dictated = at.state, ()
            forced = self.constraint.jump(state)
            if forced:
                before, sure = canonical.before(text, 0, forced[:1])
                known += sum([len(table[one]) for one in text[done:]])
                done = len(text)
                alone = alone and bool(sure) and len(before) <= known
                dictated = canonical.after(self.constraint, state, before, forced)
            for one in dictated:
                state = self.dictated(state, one)
                if state is None:
                    return None, alone
            text.extend(dictated)
            at = self.outlook(state)
            if not at.open:
                break
            if at.sole < 0:
                return Run(tuple(text[first:]), at), alone
            text.append(at.sole)
            state = self.dictated(state, at.sole)
            if state is None:
                break
            at = self.outlook(state)
        if at.open or not self.constraint.accepting(at.state):
            return None, alone
        return Run(tuple(text[first:]), at), alone

    def dictated(self, state: Any, token: int) -> Any:
        """The state after a token of the canonical rule; remembered, as there are few."""
        found = self._moves.get((state, token))
        if found is None:
            if len(self._moves) >= _STATES:
                self._moves.clear()
            found = self._moves[state, token] = self.constraint.advance(state, token)
        return found

    def _free(self, words: np.ndarray, open: bool, sole: int) -> bool:
        """Whether a token is drawn for sure where this is what `_read` gives: there are tokens
        that begin differently, so no byte must follow."""
        if not open or sole >= 0:
            return False
        ids = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        initials = self.canonical.initials[ids]
        initials = initials[initials >= 0]
        return bool(len(initials) and initials.min() < initials.max())

    def make(self) -> None:
        """Make the tables, if they do not get too large."""
        tables = token_tables(self.constraint)
        if tables is not None:
            self._states = tables.states.tolist()
            self._rows = [self._read(words) for words in tables.rows]
            self.numbers = {state: i for i, state in enumerate(self._states)}
            self.free = np.array([self._free(*row) for row in self._rows])[tables.row_id]
            self.tables = tables
            self._known = {}  # those made from now on know the tables
            self._runs = {}  # last, so that whoever has it finds no others


class Rules:
    """The rules of one tokenizer and model.

    open_ids: a packed mask of all ids but EOS.  aside: runs a function, sooner or later; None
    makes no tables.  uses: requests under a constraint before its tables are made.
    """

    uses = 8

    def __init__(self, open_ids: np.ndarray, canonical: Callable[[], Canonical],
                 aside: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._open_ids = open_ids
        self._make_canonical = canonical
        self._canonical: Canonical | None = None  # made for the first constraint
        self._aside = aside
        self.clock = Clock()
        self._rules: OrderedDict[int, Rule] = OrderedDict()

    def of(self, constraint: Any) -> Rule:
        """The rule of a constraint (by identity), for one more request."""
        rule = self._rules.get(id(constraint))  # the rule keeps the constraint, so its id too
        if rule is None:
            if self._canonical is None:
                self._canonical = self._make_canonical()
            rule = self._rules[id(constraint)] = Rule(constraint, self._open_ids,
                                                      self._canonical, self.clock)
            if len(self._rules) > _RULES:
                self._rules.popitem(last=False)
        self._rules.move_to_end(id(constraint))
        rule.uses += 1
        if rule.uses == self.uses and self._aside is not None \
                and isinstance(constraint, FsmConstraint):
            self._aside(rule.make)
        return rule


class Aside:
    """Runs functions one after the other on a thread that ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._todo: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._todo.append(work)
            if len(self._todo) == 1:
                threading.Thread(target=self._run, name="sglc-tables", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._todo[0]()
            except Exception as error:  # masks are then made as they are needed
                _log.warning("the tables of a constraint could not be made", exc_info=error)
            with self._lock:
                self._todo.pop(0)
                if not self._todo:
                    return
