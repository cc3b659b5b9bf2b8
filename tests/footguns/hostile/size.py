"""Programs that are large in one way or another."""

from __future__ import annotations

from typing import Any

import sglc as sgl
from tests.footguns.hostile.cases import case


@case()
def a_hundred_thousand_appends(s: Any) -> None:
    for _ in range(100_000):
        s += "ab"
    s += sgl.gen("a", max_tokens=1)


@case()
def ten_thousand_variables(s: Any) -> None:
    s += "x"
    for i in range(10_000):
        s[f"v{i}"] = str(i)
    s += sgl.gen("a", max_tokens=1)


@case()
def a_name_of_ten_megabytes(s: Any) -> None:
    s += "x" + sgl.gen("n" * 10_000_000, max_tokens=2)


@case()
def a_constant_of_a_hundred_megabytes(s: Any) -> None:
    text = "ab" * 50_000_000
    s += text[:10] + sgl.gen("a", max_tokens=2)
    s["big"] = text


@case("ab" * 5_000_000)
def an_argument_of_ten_megabytes(s: Any, text: str) -> None:
    s += text[:10] + sgl.gen("a", max_tokens=2)


@case([str(i) for i in range(100_000)])
def an_argument_of_a_hundred_thousand_items(s: Any, items: list[str]) -> None:
    s += items[0] + str(len(items)) + sgl.gen("a", max_tokens=2)


@case(outcome="raises", error="SGLC005")
def a_hundred_thousand_choices(s: Any) -> None:
    s += "x" + sgl.select("c", [f"choice {i}" for i in range(100_000)])


@case(outcome="raises", error="SGLC005")
def no_choices(s: Any) -> None:
    s += "x" + sgl.select("c", [])


@case(outcome="raises", error="SGLC005")
def no_choices_of_a_gen(s: Any) -> None:
    s += "x" + sgl.gen("c", choices=[])


@case(outcome="raises", error="SGLC004")
def a_fork_of_a_billion(s: Any) -> None:
    s += "x"
    s.fork(10**9)


@case(outcome="raises", error="SGLC004")
def a_fork_of_minus_one(s: Any) -> None:
    s += "x"
    s.fork(-1)


@case(outcome="raises", error="SGLC004")
def a_fork_of_a_word(s: Any) -> None:
    s += "x"
    s.fork("two")


@case(outcome="raises", error="SGLC004")
def a_fork_of_none(s: Any) -> None:
    s += "x"
    forks = s.fork(0)
    forks.join()


@case()
def five_thousand_forks_in_each_other(s: Any) -> None:
    s += "x"
    f = s
    for _ in range(5000):
        f = f.fork(1)[0]
        f += "."
    f += sgl.gen("a", max_tokens=2)
    s += f["a"]


@case()
def a_wide_fork(s: Any) -> None:
    s += "x"
    forks = s.fork(500)
    forks += lambda i: str(i)
    forks.join("concate_and_append")
    s += sgl.gen("a", max_tokens=1)


@case()
def joins_in_the_wrong_order(s: Any) -> None:
    s += "x"
    a = s.fork(2)
    b = a[0].fork(2)
    a.join()
    b += sgl.gen("late", max_tokens=1)
    b.join()
    s += sgl.gen("a", max_tokens=1)


@case()
def a_join_twice(s: Any) -> None:
    s += "x"
    forks = s.fork(2)
    forks += sgl.gen("a", max_tokens=1)
    forks.join()
    forks.join()
    forks.join("concate_and_append")
    s += s["a"][0]


@case(outcome="raises", error="SGLC004")
def a_join_of_no_kind(s: Any) -> None:
    s += "x"
    s.fork(2).join("anyhow")


@case()
def a_fork_appended_to_after_its_join(s: Any) -> None:
    s += "x"
    forks = s.fork(2)
    forks.join()
    forks += sgl.gen("a", max_tokens=1)
    s += forks[1]["a"]


@case(outcome="raises", error="SGLC006")
def a_regex_that_is_none(s: Any) -> None:
    s += "x" + sgl.gen("a", regex="(((")


@case()
def a_regex_that_explodes(s: Any) -> None:
    s += "x" + sgl.gen("a", regex="(a{1,1000}){1,1000}" * 20)


@case(outcome="raises", error="SGLC505")
def a_regex_that_matches_nothing(s: Any) -> None:
    s += "x" + sgl.gen("a", regex=r"[^\s\S]")


@case(outcome="raises", error="SGLC006")
def a_regex_with_a_back_reference(s: Any) -> None:
    s += "x" + sgl.gen("a", regex=r"(a)\1")
