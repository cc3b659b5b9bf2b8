"""Names that clash, functions that are none, and code made at run time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import sglc as sgl
from tests.footguns.hostile.cases import add, case


# -- names --------------------------------------------------------------------------------
@sgl.program
def names_clash(s: Any, a: str) -> None:
    s += a + sgl.gen("a", max_tokens=2) + sgl.gen("a", max_tokens=3)
    s["text"] = "t"


@case("q")
def clashing_names(s: Any, a: str) -> None:
    s += a + sgl.gen("a", max_tokens=2)
    inner = names_clash(s["a"])
    s += inner["a"] + sgl.gen("a", max_tokens=4) + a
    s["text"] = inner["text"] + s["a"]


@case()
def odd_names(s: Any) -> None:
    s += "x"
    for name in ("__class__", "__sglc__", "", " ", "é", "日本", "a b", "None", "0", "\n", "s",
                 "self", "%p0", '"', "\\", "\x00", "return", None):
        s += sgl.gen(name, max_tokens=1) + "."
    s += s["__class__"] + s[""] + s["%p0"] + s["\x00"]


@case(outcome="raises", error="SGLC004")
def a_name_that_is_no_text(s: Any) -> None:
    s += "x" + sgl.gen(5, max_tokens=1)  # type: ignore[arg-type]


@case(outcome="raises", error=KeyError)
def a_variable_that_is_missing(s: Any) -> None:
    s += "x"
    s += s["nothing"]


@case()
def locals_named_like_hooks(s: Any) -> None:
    __sglc__ = "mine"
    __sglc_out_1 = "too"
    s += __sglc__ + __sglc_out_1 + sgl.gen("a", max_tokens=1)


@case()
def builtins_as_locals(s: Any) -> None:
    str = "text"
    len = 5
    slice = f"{len}"
    s += str + slice + sgl.gen("a", max_tokens=1)


@case()
def the_state_under_other_names(s: Any) -> None:
    t = u = s
    t += "x"
    u += sgl.gen("a", max_tokens=2)
    [t][0].append(s["a"])
    s += u["a"]


@case(outcome="raises", error=UnboundLocalError)
def the_state_is_rebound(s: Any) -> None:
    s += "x" + missing_later  # noqa: F821
    missing_later = "y"  # noqa: F841

# -- functions that are not functions -----------------------------------------------------
@case(outcome="refused", error="SGLC009")
def generator_body(s: Any) -> Iterator[int]:
    s += "x"
    yield 1
    s += sgl.gen("a", max_tokens=1)


async def _async_generator(s: Any) -> Any:
    s += "x"
    yield 1


add("async_generator_body", _async_generator, outcome="refused", error="SGLC009")


async def _coroutine(s: Any) -> str:
    s += "x" + sgl.gen("a", max_tokens=2)
    return s["a"]


add("coroutine_body", _coroutine)


def _executed() -> Any:
    scope: dict[str, Any] = {"sgl": sgl}
    exec("def made(s):\n    s += 'x' + sgl.gen('a', max_tokens=2)\n", scope)
    return scope["made"]


add("source_that_was_executed", _executed())
add("a_lambda", lambda s: s.append("x").append(sgl.gen("a", max_tokens=2)))
add("two_lambdas_of_one_line", [lambda s: s.append("x"), lambda s: s.append("y")][1])


def _with_greeting(s: Any, greeting: str, name: str) -> None:
    s += greeting + name + sgl.gen("a", max_tokens=2)


add("a_partial", functools.partial(_with_greeting, name="you"), "hi ")


class Callable_:
    """A program that is an object."""

    def __call__(self, s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=2)

    def method(self, s: Any) -> None:
        s += "y" + sgl.gen("a", max_tokens=2)

    @staticmethod
    def static(s: Any) -> None:
        s += "z" + sgl.gen("a", max_tokens=2)

    @classmethod
    def of_class(cls, s: Any) -> None:
        s += cls.__name__ + sgl.gen("a", max_tokens=2)


add("a_callable_object", Callable_())
add("a_bound_method", Callable_().method)
add("a_static_method", Callable_.static)
add("a_class_method", Callable_.of_class)


def _logged(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@_logged
@_logged
@_logged
def _decorated(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=2)


add("a_decorated_function", _decorated, "q")


def _adding(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(s: Any, *args: Any) -> Any:
        s += "before "
        fn(s, *args)
        s += " after"

    return wrapper


@_adding
def _wrapped(s: Any, q: str) -> None:
    s += q + sgl.gen("a", max_tokens=2)


add("a_decorator_that_appends", _wrapped, "q")


@case()
def code_that_is_executed(s: Any) -> None:
    exec("s += 'x'")
    s += str(eval("1 + 1")) + sgl.gen("a", max_tokens=1)


@case()
def code_that_is_compiled(s: Any) -> None:
    s += str(eval(compile("2 + 3", "<made>", "eval"))) + sgl.gen("a", max_tokens=1)


@case()
def a_class_inside(s: Any) -> None:
    class Inner:
        text = "x"

        def __str__(self) -> str:
            return self.text

    s += str(Inner()) + sgl.gen("a", max_tokens=1)


@case()
def an_import_inside(s: Any) -> None:
    import math
    s += str(math.floor(2.5)) + sgl.gen("a", max_tokens=1)
