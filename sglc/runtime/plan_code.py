"""The steps of a program that instances run: what `plan_compiler.py` makes of a plan, for
`executor.py`."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from sglc.config import GenParams
from sglc.errors import Place
from sglc.ir.module import Op
from sglc.runtime.choice_ids import ChoiceIds


@dataclass(frozen=True, slots=True)
class GenSpec:
    """A decode step: which gen, with what parameters."""

    params: GenParams
    path: tuple[int, ...]
    name: Any
    rank: int
    offset: tuple[int, ...] = ()  # where in the path the last inputs are added
    reader: int = -1  # the call that makes the text a value
    place: Place | None = None
    fused: bool = False  # in place behind the gen before it
    most: int | None = None  # new tokens, where its constraint bounds them
    followed: bool = True  # another gen may go on from its text (see followers.py)
    rides: tuple[array[int], ...] = ()  # outcomes with what follows them


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A step of the host chain: which call, with how many of the inputs, which event it is, and
    the slot of the prompt that is kept if it raises.  tries: it takes inputs that failed."""

    call: int
    args: int
    name: str
    event: int = -1
    root: int = -1
    tries: bool = False


@dataclass(frozen=True, slots=True)
class ReadSpec:
    """A step of the host chain that only waits.  root: the slot of the prompt that is kept if an
    input failed, if any.  place: where the body reads."""

    root: int = -1
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class SelectSpec:
    path: tuple[int, ...]
    method: str
    name: Any
    rank: int
    offset: tuple[int, ...] = ()
    ids: ChoiceIds | None = None  # of choices that are constant


@dataclass(slots=True, eq=False)
class Step:
    """One operation of the flattened program.

    kind: what the executor does; inputs/outputs: slots; data: whatever the kind needs; order:
    place in the program; source: for model and host calls, branches' arms and merges, what they
    set off; key: what a call is known by in the log of a run: a gen's path, a host call's number
    on its path.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    data: Any = None
    order: int = 0
    source: int = -1
    key: Any = None


@dataclass(slots=True)
class Group:
    """Steps that can run, in program order, once all of `sources` have happened."""

    sources: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PlanCode:
    """The steps of a program.

    A *source* is something that happens at run time: a model call's end, the choice of a
    branch's arm, the end of an arm.  Steps are grouped by the sources they wait for; group 0
    waits for none.

    initial: values of all slots before a run (UNSET where run-time).  arg_slots: slot of each
    argument.  waiting: source -> groups, smaller ones first.  counts: how many sources each group
    waits for.  binds: variable name -> how many steps bind it.  chain: how the result's text
    comes about, for streams (see `Origins.chain`).
    """

    arg_slots: dict[str, int] = field(default_factory=dict)
    initial: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    waiting: list[list[int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    binds: dict[Any, int] = field(default_factory=dict)
    gens: list[tuple[int, GenSpec]] = field(default_factory=list)
    chained: bool = False  # there are host calls, checks or breaks
    chain: list[Any] = field(default_factory=list)
    # Gen -> its variables, each with the source that has happened when it is one, if any.
    stream_names: dict[Any, list[tuple[Any, int | None]]] = field(default_factory=dict)
    batch_slots: list[int] = field(default_factory=list)  # of the texts of the batch
    ops: dict[int, Op] = field(default_factory=dict)  # what steps came from, by their order
    activations: list[int] = field(default_factory=list)  # of each step: slot of its arm, or -1


class _Unset:
    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()
