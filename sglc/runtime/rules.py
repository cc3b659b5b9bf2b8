"""What sequences under constraints look up: each state's mask and what it leaves open, and for a
device whole constraints as tables (`grammar/tables.py`), made beside the engine's thread.

A row whose constraint lies on the device can draw its next token before the host knows this one:
the device finds the state itself.  Devices and steps are not known here.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sglc.grammar.canonical import Canonical
from sglc.grammar.fsm import FsmConstraint
from sglc.grammar.tables import TokenTables, token_tables

_log = logging.getLogger("sglc.runtime")

_STATES = 1 << 12  # states of a constraint that are remembered
_RULES = 256  # constraints that are


@dataclass(frozen=True, slots=True)
class Outlook:
    """What may follow in a state.  words: the mask.  open: whether it has a token but EOS.  sole:
    the only token, -1 if there are more."""

    words: np.ndarray
    open: bool
    sole: int


@dataclass(slots=True)
class Clock:
    """What constraints have cost the host so far: seconds.  jumps: tokens that came without
    being asked for."""

    seconds: float = 0.0
    jumps: int = 0


class Rule:
    """A constraint as sequences use it.

    tables: the same for a device, once they are made.  numbers: a state's number there.
    there: whether a device has them (the device's to set).  clock: the time of all rules.
    """

    def __init__(self, constraint: Any, open_ids: np.ndarray, canonical: Canonical,
                 clock: Clock) -> None:
        self.constraint = constraint
        self.clock = clock
        self.canonical = canonical
        self.tables: TokenTables | None = None
        self.numbers: dict[int, int] = {}
        self.there = False
        self.uses = 0
        self._open_ids = open_ids
        self._moves: dict[tuple[Any, int], Any] = {}
        # States of other kinds may be large, and their masks their own.
        self._known: dict[int, Outlook] | None = (
            {} if isinstance(constraint, FsmConstraint) else None)

    def outlook(self, state: Any) -> Outlook:
        """What may follow in `state`; remembered."""
        known = self._known
        found = None if known is None else known.get(state)
        if found is None:
            words = self._mask(state)
            found = Outlook(words, bool((words & self._open_ids).any()),
                            self.canonical.sole(words))
            if known is not None:
                if len(known) >= _STATES:
                    known.clear()
                known[state] = found
        return found

    def _mask(self, state: Any) -> np.ndarray:
        number = None if self.tables is None else self.numbers.get(state)
        if self.tables is None or number is None:
            words: np.ndarray = self.constraint.mask(state)
        else:  # a mask that nobody has asked for yet may take long to make
            words = self.tables.rows[self.tables.row_id[number]]
        return words

    def dictated(self, state: Any, token: int) -> Any:
        """The state after a token of the canonical rule; remembered, as there are few."""
        found = self._moves.get((state, token))
        if found is None:
            if len(self._moves) >= _STATES:
                self._moves.clear()
            found = self._moves[state, token] = self.constraint.advance(state, token)
        return found

    def make(self) -> None:
        """Make the tables, if they do not get too large."""
        tables = token_tables(self.constraint)
        if tables is not None:
            self.numbers = {state: i for i, state in enumerate(tables.states.tolist())}
            self.tables = tables


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
