"""Loops that do not end, and recursion."""

from __future__ import annotations

from typing import Any

import sglc as sgl
from tests.footguns.hostile.cases import case


# -- loops that do not end ----------------------------------------------------------------
@case(outcome="endless")
def while_true_pass(s: Any) -> None:
    while True:
        pass


@case(outcome="endless")
def while_true_appends(s: Any) -> None:
    while True:
        s += "x"


@case(outcome="endless")
def while_true_gens(s: Any) -> None:
    s += "x"
    while True:
        s += sgl.gen("a", max_tokens=1)


@case("x", outcome="endless")
def while_an_argument_is_true(s: Any, q: str) -> None:
    s += q
    while q:
        s += "."


@case("x", outcome="endless")
def while_a_comparison_holds(s: Any, q: str) -> None:
    n = 0
    while n >= 0:
        n = n + 1


@case(outcome="endless")
def for_over_an_endless_iterator(s: Any) -> None:
    for _ in iter(int, 1):
        pass


@case(outcome="endless")
def for_over_a_huge_range(s: Any) -> None:
    for i in range(10**12):
        i + 1


@case(outcome="endless")
def comprehension_over_a_huge_range(s: Any) -> None:
    s += str(len([0 for _ in range(10**12) if False]))


@case(outcome="endless")
def a_list_that_grows_while_it_is_read(s: Any) -> None:
    items = [1]
    for item in items:
        items.append(item)


@case(outcome="endless")
def forks_without_end(s: Any) -> None:
    s += "x"
    while True:
        forks = s.fork(2)
        forks.join()


@case()
def while_a_generated_text_is_short(s: Any) -> None:
    s += "x"
    n = 0
    while len(s["a"]) < 3 if "a" in s else True:
        s += sgl.gen("a", max_tokens=4, temperature=0)
        n += 1
        if n > 20:
            break


@case()
def while_a_choice_is_not_made(s: Any) -> None:
    s += "x" + sgl.select("c", ["yes", "no"])
    n = 0
    while s["c"] != "yes":
        n += 1
        s += sgl.select("c", ["yes", "no"]) if n < 40 else sgl.select("c", ["yes"])

# -- recursion ----------------------------------------------------------------------------
def says_itself(s: Any, n: int) -> None:
    s += str(n)
    says_itself(s, n + 1)


@case(outcome="raises", error=RecursionError)
def recursion_of_a_helper(s: Any) -> None:
    says_itself(s, 0)


def ping(s: Any, n: int) -> None:
    s += "i"
    pong(s, n)


def pong(s: Any, n: int) -> None:
    s += "o"
    ping(s, n)


@case(outcome="raises", error=RecursionError)
def mutual_recursion(s: Any) -> None:
    ping(s, 3)


def counts_down(s: Any, n: int) -> None:
    s += str(n) + "."
    if n > 0:
        counts_down(s, n - 1)


@case(20)
def recursion_that_ends(s: Any, n: int) -> None:
    counts_down(s, n)
    s += sgl.gen("a", max_tokens=2)


@case(150)
def deep_recursion_that_ends(s: Any, n: int) -> None:
    counts_down(s, n)
    s += sgl.gen("a", max_tokens=2)


@sgl.program
def calls_itself(s: Any, n: int) -> None:
    s += "x" + sgl.gen("a", max_tokens=1)
    calls_itself(n + 1)


@case(outcome="raises", error=RecursionError)
def recursion_through_a_program(s: Any) -> None:
    s += "x"
    calls_itself(0)


@sgl.program
def first_of_two(s: Any, n: int) -> None:
    s += "1"
    if n:
        second_of_two(n - 1)
    s += sgl.gen("a", max_tokens=1)


@sgl.program
def second_of_two(s: Any, n: int) -> None:
    s += "2"
    first_of_two(n)


@case(4)
def mutual_recursion_of_programs(s: Any, n: int) -> None:
    s += "x" + first_of_two(n)["a"]


@case(outcome="raises", error=RecursionError)
def recursion_of_an_inner_function(s: Any) -> None:
    def inner(n: int) -> int:
        return inner(n + 1)

    s += str(inner(0))


@case(outcome="raises", error=RecursionError)
def recursion_outside(s: Any) -> None:
    s += str(never_ends(0))


def never_ends(n: int) -> int:
    return never_ends(n + 1)
