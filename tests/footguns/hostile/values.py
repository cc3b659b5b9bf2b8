"""Values that cannot be appended, and objects that raise or lie."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import sglc as sgl
from tests.footguns.hostile.cases import case


@case(outcome="raises", error="SGLC002")
def an_int_is_appended(s: Any) -> None:
    s += 5


@case(outcome="raises", error="SGLC002")
def bytes_are_appended(s: Any) -> None:
    s += b"x"


@case(outcome="raises", error="SGLC002")
def none_is_appended(s: Any) -> None:
    s += None


@case(outcome="raises", error="SGLC002")
def a_list_is_appended(s: Any) -> None:
    s += ["x"]


@case(outcome="raises", error="SGLC002")
def a_sum_with_a_number(s: Any) -> None:
    s += "x" + sgl.gen("a", max_tokens=1) + 5


@case(outcome="raises", error="SGLC002")
def a_state_is_appended(s: Any) -> None:
    s += s


@case(7, outcome="raises", error="SGLC002")
def a_number_argument_is_appended(s: Any, n: Any) -> None:
    s += "x"
    s += n


@case(outcome="raises", error="SGLC002")
def a_number_of_a_helper_is_appended(s: Any) -> None:
    s += "x"
    s += random_number()


def random_number() -> int:
    return len(str(random.random())) * 0 + 4


class Hostile:
    """Raises whatever is done with it."""

    def __str__(self) -> str:
        raise ValueError("no str")

    __repr__ = __str__

    def __radd__(self, other: Any) -> Any:
        raise ValueError("no sum")

    __add__ = __radd__

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")

    def __hash__(self) -> int:
        raise ValueError("no hash")

    def __len__(self) -> int:
        raise ValueError("no length")

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("no iteration")

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"no {name}")

    def __format__(self, spec: str) -> str:
        raise ValueError("no format")

    def __deepcopy__(self, memo: Any) -> Any:
        raise ValueError("no copy")


HOSTILE = Hostile()


@case(outcome="raises", error=(ValueError, "SGLC002"))
def a_hostile_object_is_appended(s: Any) -> None:
    s += HOSTILE


@case(HOSTILE, outcome="raises", error=(ValueError, "SGLC002"))
def a_hostile_argument_is_appended(s: Any, x: Any) -> None:
    s += x


@case(HOSTILE, outcome="raises", error=ValueError)
def a_hostile_argument_is_compared(s: Any, x: Any) -> None:
    if x == 5:
        s += "five"


@case(HOSTILE, outcome="raises", error=ValueError)
def a_hostile_argument_is_tested(s: Any, x: Any) -> None:
    if x:
        s += "true"


@case(HOSTILE, outcome="raises", error=ValueError)
def a_hostile_argument_is_measured(s: Any, x: Any) -> None:
    s += str(len(x))


@case(HOSTILE, outcome="raises", error=ValueError)
def a_hostile_argument_is_formatted(s: Any, x: Any) -> None:
    s += f"{x}"


@case(HOSTILE, outcome="raises", error=ValueError)
def a_hostile_argument_is_gone_through(s: Any, x: Any) -> None:
    for item in x:
        s += item


@case(HOSTILE, outcome="raises", error=ValueError)
def an_attribute_of_a_hostile_argument(s: Any, x: Any) -> None:
    s += x.name


@case(HOSTILE)
def a_hostile_argument_is_ignored(s: Any, x: Any) -> None:
    s += "x" + sgl.gen("a", max_tokens=2)


@case()
def a_hostile_global_is_ignored(s: Any) -> None:
    ignored = HOSTILE  # noqa: F841
    s += "x" + sgl.gen("a", max_tokens=2)


class Endless:
    """Says it has two items and gives them for ever."""

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        return itertools.repeat("x")

    def __getitem__(self, i: int) -> str:
        return "y"


@case(Endless())
def a_length_that_lies(s: Any, x: Any) -> None:
    s += str(len(x)) + x[99]
    for i, item in zip(range(5), x, strict=False):
        s += f"{i}{item}"
    s += sgl.gen("a", max_tokens=2)


def _circular() -> list[Any]:
    out: list[Any] = ["a"]
    out.append(out)
    return out


@case(_circular())
def a_list_that_holds_itself(s: Any, items: Any) -> None:
    s += items[0] + items[1][1][0] + str(len(items)) + sgl.gen("a", max_tokens=2)


@case({"k": {"k": {}}, 5: [None, (1, 2.5, True)], (1, 2): "pair", None: "none"})
def a_dict_of_odd_keys(s: Any, d: Any) -> None:
    s += d[(1, 2)] + d[None] + str(d[5][1]) + str(d["k"]) + sgl.gen("a", max_tokens=2)


class Odd(str):
    """A str that lies."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __len__(self) -> int:
        return 1000


@case(Odd("abc"))
def a_str_that_lies(s: Any, q: Any) -> None:
    s += q
    if q == "other":
        s += "!"
    s += str(len(q)) + sgl.gen("a", max_tokens=2)


@case(float("nan"), float("inf"), -0.0, 10**30)
def odd_numbers(s: Any, *numbers: Any) -> None:
    for n in numbers:
        s += f"{n} {n == n} {n > 0} "
    s += sgl.gen("a", max_tokens=2)


@case("\ud800")
def a_lone_surrogate(s: Any, q: str) -> None:
    s += "x" + q + sgl.gen("a", max_tokens=2)
