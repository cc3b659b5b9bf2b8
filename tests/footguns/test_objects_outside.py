"""Objects from outside: what operators do with them is the user's code, on what may change."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import sglc as sgl

LOG: list[Any] = []
COUNTS: collections.Counter[str] = collections.Counter()
GROUPS: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
QUEUE: collections.deque[str] = collections.deque()
NAMED: collections.OrderedDict[str, int] = collections.OrderedDict()


def log(*values: Any) -> Any:
    LOG.append(values)
    return values[0]


@dataclasses.dataclass
class Config:
    """A value that compares by its fields."""

    n: int = 1


class Vector:
    """All operators, each of which leaves a trace."""

    def __init__(self, v: int) -> None:
        self.v = v

    def __add__(self, other: Any) -> Any:
        log("add")
        return Vector(self.v + other.v)

    def __radd__(self, other: Any) -> Any:
        return log(f"{other}+{self.v}")

    def __mul__(self, k: int) -> Any:
        log("mul", k)
        return Vector(self.v * k)

    __rmul__ = __mul__

    def __neg__(self) -> Any:
        log("neg")
        return Vector(-self.v)

    def __lt__(self, other: Any) -> bool:
        log("lt")
        return bool(self.v < other.v)

    def __eq__(self, other: object) -> bool:
        log("eq")
        return isinstance(other, Vector) and self.v == other.v

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        log("bool")
        return self.v > 1

    def __contains__(self, item: Any) -> bool:
        log("contains", item)
        return bool(item == self.v)

    def __getitem__(self, key: Any) -> str:
        log("item", key)
        return f"i{key}"

    def __iter__(self) -> Iterator[int]:
        log("iter")
        return iter([self.v])

    def __repr__(self) -> str:
        log("repr")
        return f"V{self.v}"

    def __index__(self) -> int:
        log("index")
        return self.v


class Lazy:
    """An object whose attributes are looked up when they are asked for."""

    def __call__(self, x: Any) -> Any:
        return log(x)

    def __getattr__(self, name: str) -> str:
        log("getattr", name)
        return f"<{name}>"


class Memory(list[str]):
    """A list with an attribute of its own."""

    limit = 2

    def last(self) -> Any:
        return self[-self.limit:]


class Agent:
    """An object that others hold."""

    def __init__(self, name: str) -> None:
        self.name = name


CONFIG, USUAL = Config(), Config()
A, B = Vector(1), Vector(2)
LAZY = Lazy()
MEMORY = Memory()
PLAIN = SimpleNamespace(a=1)
AGENTS = [Agent("p"), Agent("q")]
VECTORS = [Vector(2), Vector(1)]
CLIENT = Agent("c0")
NUMBERS = itertools.count()


def reset() -> None:
    global CLIENT, NUMBERS
    for kept in (LOG, COUNTS, GROUPS, QUEUE, NAMED, MEMORY):
        kept.clear()  # type: ignore[attr-defined]
    CONFIG.n = 1
    vars(PLAIN).clear()
    PLAIN.a = 1
    del AGENTS[2:]
    VECTORS[0].v = 2
    CLIENT, NUMBERS = Agent("c0"), itertools.count()


def swap(q: str) -> None:
    global CLIENT
    CLIENT = Agent(q)


def grow(q: str) -> None:
    AGENTS.append(Agent(q))
    VECTORS[0].v -= 2


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    reset()
    yield
    reset()


ROWS = ("a", "bc", "cde", "a")


def outcomes(program: Any, model: Any, **options: Any) -> list[Any]:
    reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out: list[Any] = []
        for q in ROWS:
            state = program.run(q, backend=model, seed=5, max_new_tokens=2, **options)
            out.append((state.text(), state.ret_value))
    return [*out, list(LOG)]


CASES: list[Callable[..., Any]] = []


def case(fn: Callable[..., Any]) -> Callable[..., Any]:
    CASES.append(fn)
    return fn


@case
def equality_by_fields(s: Any, q: str) -> None:
    s += q + ("same" if CONFIG == USUAL else "other") + f"{CONFIG}" + str([CONFIG] == [USUAL])
    s += sgl.gen("a")
    if len(q) == 2:
        CONFIG.n += 1


@case
def a_counter(s: Any, q: str) -> None:
    s += ("again" if q in COUNTS else "new") + str(COUNTS[q]) + str(len(COUNTS))
    s += "some" if COUNTS else "none"
    s += str(list(COUNTS)) + ",".join(COUNTS) + str(sorted(COUNTS)) + f"{COUNTS}"
    COUNTS[q] += 1
    s += sgl.gen("a")
    s += str(s["a"] in COUNTS) + str(COUNTS == {"a": 1})
    for k in COUNTS:
        s += k


@case
def other_collections(s: Any, q: str) -> None:
    s += str(GROUPS[q]) + str("x" in GROUPS) + str(q in QUEUE) + (QUEUE[-1] if QUEUE else "-")
    GROUPS[q].append(1)
    s += str(NAMED.get(q)) + str(list(NAMED.items())) + str({**NAMED}) + str([*QUEUE])
    QUEUE.append(q)
    NAMED[q] = len(q)
    words = ["w"]
    words += QUEUE
    words.extend(QUEUE)
    s += str(words) + sgl.gen("a") + "".join(QUEUE)


@case
def operators(s: Any, q: str) -> None:
    s += q + str((A + B).v) + ("x" + A) + str((A * 2).v) + str((3 * B).v) + str((-B).v)
    s += str(A < B) + str(A == B) + str(2 in B) + str(A in [B, A]) + sgl.gen("a")


@case
def truth_and_text(s: Any, q: str) -> None:
    s += "T" if A else "F"
    s += "x" if A and B else "y"
    s += f"{A}{B!r:>4}" + str(A) + "%s" % A + "{}".format(A) + str([A]) + sgl.gen("a")


@case
def items_and_numbers(s: Any, q: str) -> None:
    s += A[0] + A[q] + A[1:2] + [*"xyz"][B] + "r" * len(range(B))
    (v,) = B
    s += sgl.gen("a")
    s += A[s["a"]] + str(v) + str(max(A, B).v) + str(sorted([B, A])[0].v)
    for x in B:
        s += str(x)


@case
def attributes_looked_up(s: Any, q: str) -> None:
    s += LAZY.x + sgl.gen("a") + LAZY.y + LAZY(q)
    LAZY(s["a"])


@case
def attributes_with_a_default(s: Any, q: str) -> None:
    s += str(getattr(PLAIN, "b", None)) + str(getattr(PLAIN, "a", None)) + sgl.gen("a")
    PLAIN.b = q
    s += str(getattr(PLAIN, "b", None)) + str(getattr(s["a"], "nothing", "none"))


@case
def a_kind_of_list(s: Any, q: str) -> None:
    s += str(MEMORY.last()) + str(len(MEMORY)) + str(MEMORY.limit) + str(q in MEMORY)
    MEMORY.append(q)
    MEMORY.extend([q, "x"])
    s += sgl.gen("a")
    s += str(MEMORY[-1]) + str(MEMORY == ["x"]) + str(MEMORY * 2)


@case
def lists_of_objects(s: Any, q: str) -> None:
    s += ",".join(a.name for a in AGENTS) + str(len(AGENTS)) + str(min(VECTORS).v)
    grow(q)
    s += ",".join(a.name for a in AGENTS) + AGENTS[-1].name + str(min(VECTORS).v) + sgl.gen("a")


@case
def another_object(s: Any, q: str) -> None:
    s += CLIENT.name + sgl.gen("a")
    log(q)
    s += CLIENT.name
    swap(q)
    s += CLIENT.name


@case
def an_iterator(s: Any, q: str) -> None:
    for i in NUMBERS:
        s += str(i)
        if i % 3 == 2:
            break
    s += sgl.gen("a")


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_object(fn: Callable[..., Any], model: Any) -> None:
    program = sgl.program(fn)
    wanted = outcomes(program, model, mode="eager")
    reset()
    program.compile("a")
    assert LOG == [], "compiling ran a part of the program"
    for options in ({}, {}, {"stream": True}):
        assert outcomes(program, model, **options) == wanted


def test_arguments_that_hold_objects(model: Any) -> None:
    def p(s: Any, items: list[Any]) -> None:
        s += str(len(items)) + sgl.gen("a", max_tokens=1)
        lengthen(items)
        s += str(len(items))

    program = sgl.program(p)
    for n in (1, 2):
        texts = [program.run([Agent("x")] * n, backend=model, seed=1, mode=mode).text()
                 for mode in ("eager", "compiled", "compiled")]
        assert len(set(texts)) == 1


def lengthen(items: list[Any]) -> None:
    items.append("more")


def test_what_is_gone_through_is_asked_for_its_items_once(model: Any) -> None:
    @sgl.program
    def p(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=1)
        for v in made():
            s += str(v)

    for mode in ("eager", "compiled"):
        LOG.clear()
        assert p.run(backend=model, seed=1, mode=mode).text().endswith("7")
        assert LOG == [("iter",)]


def made() -> Vector:
    return Vector(7)
