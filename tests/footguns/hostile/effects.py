"""What programs change outside, and errors in all places."""

from __future__ import annotations

import random
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import sglc as sgl
from tests.footguns.hostile.cases import case


# -- side effects -------------------------------------------------------------------------
@dataclass
class Counter:
    n: int = 0
    log: list[Any] = field(default_factory=list)


COUNTER = Counter()
LEAKED: list[Any] = []


@case()
def captured_state_is_changed(s: Any) -> None:
    COUNTER.log = []
    COUNTER.log.append("x")
    COUNTER.n = len(COUNTER.log)
    s += str(COUNTER.n) + sgl.gen("a", max_tokens=1)
    COUNTER.log.append(s["a"])
    s += str(len(COUNTER.log))


@case()
def a_global_is_stored(s: Any) -> None:
    global STORED
    STORED = "x"
    s += STORED + sgl.gen("a", max_tokens=1)


STORED = ""


@case()
def a_state_leaks(s: Any) -> None:
    LEAKED.append(s)
    s += "x" + sgl.gen("a", max_tokens=1)
    LEAKED[-1].append("y")


@case()
def a_leaked_state_is_used(s: Any) -> None:
    s += "x"
    other = OTHER[0] if OTHER else None
    if other is not None:
        other += "!"
        s += other.text()
    s += sgl.gen("a", max_tokens=1)


OTHER: list[Any] = []  # the test puts a finished run's state here


@case()
def a_thread_in_the_body(s: Any) -> None:
    s += "x"

    def work() -> None:
        COUNTER.n = 5

    t = threading.Thread(target=work)
    t.start()
    t.join()
    s += str(COUNTER.n) + sgl.gen("a", max_tokens=1)


@case()
def a_thread_that_appends(s: Any) -> None:
    t = threading.Thread(target=append_from_a_thread, args=(s,))
    t.start()
    t.join()
    s += sgl.gen("a", max_tokens=1)


def append_from_a_thread(s: Any) -> None:
    s += "x"


def _trace(frame: Any, event: str, arg: Any) -> Any:
    return None


@case()
def a_trace_function_is_set(s: Any) -> None:
    sys.settrace(_trace)
    s += "x" + sgl.gen("a", max_tokens=1)
    sys.settrace(None)


@case()
def the_recursion_limit_is_changed(s: Any) -> None:
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    s += "x" + sgl.gen("a", max_tokens=1)
    sys.setrecursionlimit(old)


@case()
def the_random_state(s: Any) -> None:
    random.seed(5)
    s += str(random.random()) + sgl.gen("a", max_tokens=1) + str(random.random())


@case()
def frames_are_looked_at(s: Any) -> None:
    s += sys._getframe().f_code.co_name + sgl.gen("a", max_tokens=1)

# -- errors -------------------------------------------------------------------------------
def fails() -> str:
    raise ValueError("the helper fails")


@case(outcome="raises", error=ValueError)
def a_helper_fails(s: Any) -> None:
    s += "x" + fails()


def fails_with_state(s: Any) -> None:
    s += "x"
    raise ValueError("the helper fails")


@case(outcome="raises", error=ValueError)
def a_helper_that_appends_fails(s: Any) -> None:
    fails_with_state(s)


@case(outcome="raises", error=ZeroDivisionError)
def a_constant_expression_fails(s: Any) -> None:
    s += str(1 // 0)


@case(outcome="raises", error=KeyError)
def a_missing_key(s: Any) -> None:
    s += {"a": "b"}["c"]


@case([], outcome="raises", error=IndexError)
def a_missing_item_of_an_argument(s: Any, items: Any) -> None:
    s += "x"
    s += items[0]


@case(outcome="raises", error=NameError)
def a_missing_name(s: Any) -> None:
    s += no_such_name  # type: ignore[name-defined]  # noqa: F821


@case(outcome="raises", error=AttributeError)
def a_missing_method(s: Any) -> None:
    s.no_such_method()


@case(outcome="raises", error=AttributeError)
def a_missing_primitive(s: Any) -> None:
    s += sgl.no_such_primitive("a")


@case(outcome="raises", error="SGLC007")
def a_role_in_a_role(s: Any) -> None:
    with s.user(), s.assistant():
        s += "x"


@case(outcome="raises", error="SGLC007")
def a_role_that_is_not_open(s: Any) -> None:
    s += "x" + sgl.user_end()


@case()
def a_role_that_stays_open(s: Any) -> None:
    s += sgl.user_begin() + "x" + sgl.gen("a", max_tokens=1)


@case(outcome="raises", error=KeyboardInterrupt)
def an_interrupt(s: Any) -> None:
    s += "x"
    raise KeyboardInterrupt


@case(outcome="raises", error=SystemExit)
def an_exit(s: Any) -> None:
    s += "x"
    sys.exit(3)


class Leaves:
    """A context manager that fails when it is left."""

    def __enter__(self) -> str:
        return "in"

    def __exit__(self, *args: Any) -> None:
        raise ValueError("cannot leave")


@case(outcome="raises", error=ValueError)
def a_context_that_fails(s: Any) -> None:
    with Leaves() as inside:
        s += inside


@case()
def a_context_that_swallows(s: Any) -> None:
    import contextlib
    with contextlib.suppress(ValueError):
        s += "x" + fails()
    s += "y" + sgl.gen("a", max_tokens=1)


@case(outcome="raises", error=MemoryError)
def more_memory_than_there_is(s: Any) -> None:
    s += "x" * 10**18


@case("a" * 10)
def the_result_is_odd(s: Any, q: str) -> Any:
    s += q + sgl.gen("a", max_tokens=1)
    return {"a": [s["a"], (1, {2})], "n": None}


@case()
def the_result_is_the_state(s: Any) -> Any:
    s += "x" + sgl.gen("a", max_tokens=1)
    return s
