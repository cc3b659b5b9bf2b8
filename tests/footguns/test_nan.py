"""nan is not equal to itself, but `in`, `index` and `count` find it by identity: compiled is eager
where the same object is meant, and where another one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import sglc as sgl

NAN = float("nan")
LIST = [1.0, NAN, 3.0]
TABLE = {"k": NAN}


def look(x: Any) -> Any:
    return x


def outside(s: Any, items: list[float], x: float) -> Any:
    return (NAN in LIST, LIST.index(NAN), LIST.count(NAN), NAN in (NAN, 1), TABLE["k"] in LIST,
            NAN in TABLE.values(), LIST == [1.0, NAN, 3.0], LIST[1] is NAN)


def behind_a_host_call(s: Any, items: list[float], x: float) -> Any:
    look(1)
    return NAN in LIST, LIST.index(NAN), look(NAN) in LIST, NAN in [look(NAN), 2]


def arguments(s: Any, items: list[float], x: float) -> Any:
    return x in items, items.count(x), items[0] in items, x == items[0], items == [x]


def both(s: Any, items: list[float], x: float) -> Any:
    return x in LIST, LIST.count(x), NAN in items, items.count(NAN), x not in (NAN, 2.0)


def own(s: Any, items: list[float], x: float) -> Any:
    mine = [x, 2.0]
    found = x in mine, mine.index(x), (1, x).count(x), x in {x}, {x: 1}.get(x)
    mine.remove(x)
    return [*found, mine]


def index(s: Any, items: list[float], x: float) -> Any:
    return items.index(x)


ROWS = [([NAN], NAN), ([float("nan")], NAN), ([float("nan")], float("nan")), ([1.0], 1.0),
        ([2.0], 1.0), ([NAN], 3.0), ([2.0], NAN)]


@pytest.mark.parametrize("fn", [outside, behind_a_host_call, arguments, both, own, index])
def test_identity(fn: Callable[..., Any], model: Any) -> None:
    def p(s: Any, items: list[float], x: float) -> Any:
        s += "a"
        return fn(s, items, x)

    found = []
    for mode in ("eager", "compiled", "compiled"):
        program = sgl.program(p)
        rows = []
        for row in (*ROWS, *reversed(ROWS)):
            try:
                rows.append(repr(program.run(*row, backend=model, mode=mode).ret_value))
            except ValueError as e:
                rows.append(str(e))
        found.append(rows)
    assert found[1] == found[0] and found[2] == found[0]


def test_another_nan_in_its_place(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @sgl.program
    def p(s: Any) -> Any:
        s += "a"
        return NAN in LIST

    assert p.run(backend=model).ret_value is True
    monkeypatch.setitem(globals(), "LIST", [float("nan")])
    assert p.run(backend=model).ret_value is False
    monkeypatch.setitem(globals(), "NAN", LIST[0])
    assert p.run(backend=model).ret_value is True
    LIST[0] = float("nan")
    assert p.run(backend=model).ret_value is False
