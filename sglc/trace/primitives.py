"""The language's primitives: which functions they are, who uses them, and what they are given."""

from __future__ import annotations

import inspect
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from sglc.lang import expressions
from sglc.trace.frozen import Frozen
from sglc.trace.symbols import Sym

if TYPE_CHECKING:
    from sglc.trace.session import Session

PRIMITIVES = frozenset({
    expressions.gen, expressions.gen_int, expressions.gen_string, expressions.select,
    expressions.system, expressions.user, expressions.assistant, expressions.system_begin,
    expressions.system_end, expressions.user_begin, expressions.user_end,
    expressions.assistant_begin, expressions.assistant_end, expressions.special, expressions.bag,
    expressions.image, expressions.video, expressions.separate_reasoning})
TAKES_PARAMETERS = frozenset({expressions.gen, expressions.gen_int, expressions.gen_string,
                              expressions.select, expressions.special})
_PLAIN = frozenset({str, int, float, bool, type, type(None)})
_SIGNATURES = {fn: inspect.signature(fn) for fn in TAKES_PARAMETERS}


def builds_prompts(fn: FunctionType) -> bool:
    """Whether a function mentions sglc's primitives: then it is traced, not called."""
    names = {*fn.__code__.co_names, *fn.__code__.co_freevars}
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
    for name in names:
        value = fn.__globals__.get(name)
        if name in cells:
            try:
                value = cells[name].cell_contents
            except ValueError:
                continue
        if isinstance(value, ModuleType) and value.__name__ == "sglc":
            return True
        if (is_hashable(value) and value in PRIMITIVES) or hasattr(type(value), "__sglc_program__"):
            return True
    return False


def is_hashable(value: Any) -> bool:
    """Whether a callable may be looked up in a set: others may have a hash of their own."""
    return isinstance(value, (FunctionType, BuiltinFunctionType, type))


def pinned_parameters(session: Session, fn: Any, args: tuple,
                      kwargs: dict) -> tuple[tuple, dict]:
    """Generation parameters are concrete: symbols are pinned by guards, choices stay."""
    if all(type(v) in _PLAIN for v in (*args, *kwargs.values())):
        return args, kwargs

    def pin(name: str, value: Any) -> Any:
        if name == "choices":
            if isinstance(value, Sym):
                return session.concrete(value, "the choices") if isinstance(
                    value.example, (str, int, float)) else session.elements(value)
            return list(value) if isinstance(value, Frozen) else value
        if isinstance(value, Sym):
            if value.recipe is not None and value.example is None:
                return None
            return session.concrete(value, f"the parameter {name}=")
        if isinstance(value, Frozen):
            return [pin(name, v) for v in value]
        if type(value) in (list, tuple):
            return type(value)(pin(name, v) for v in value)
        return value

    bound = _SIGNATURES[fn].bind(*args, **kwargs)
    return (), {k: pin(k, v) for name, value in bound.arguments.items()
                for k, v in (value.items() if name in ("kwargs", "unsupported")
                             else ((name, value),))}
