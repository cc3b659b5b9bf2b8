"""The language's primitives: which functions they are, who uses them, and what they are given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from sglc import errors
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


def builds_prompts(fn: FunctionType, owner: Any = None) -> bool:
    """Whether a function, or one of its module that it calls, mentions sglc's primitives or a
    program: then it is traced, not called.  owner: what it is a method of."""
    met, left = {fn}, [fn]
    while left:
        at = left.pop()
        for value in _mentioned(at, owner):
            if is_module(value) and not _only_errors(value, at):
                return True
            if (is_hashable(value) and value in PRIMITIVES) or is_program(value):
                return True
            if isinstance(value, FunctionType) and value not in met and (
                    value.__globals__ is fn.__globals__):
                met.add(value)
                left.append(value)
    return False


def _only_errors(module: ModuleType, fn: FunctionType) -> bool:
    """Whether all that a function takes of sglc are classes of errors, to catch or to raise."""
    taken = _names(fn.__code__).intersection(dir(module))
    return bool(taken) and all(
        isinstance(kind := getattr(errors, name, None), type) and issubclass(kind, Exception)
        for name in taken)


def is_program(value: Any) -> bool:
    return hasattr(type(value), "__sglc_program__")


def may_call_programs(value: Any) -> bool:
    """Whether a value from outside is a program, or a function or method that builds prompts."""
    if isinstance(value, MethodType) and isinstance(value.__func__, FunctionType):
        return not is_program(value.__self__) and builds_prompts(value.__func__, value.__self__)
    return is_program(value) or (isinstance(value, FunctionType) and builds_prompts(value))


def makes_prompts(value: Any) -> bool:
    """Whether a value is one of sglc's own that makes prompts, or a function that uses them."""
    return is_module(value) or (is_hashable(value) and value in PRIMITIVES) or is_program(
        value) or (isinstance(value, FunctionType) and builds_prompts(value))


def is_module(value: Any) -> bool:
    """Whether a value is the package itself."""
    return isinstance(value, ModuleType) and value.__name__ == "sglc"


def _mentioned(fn: FunctionType, owner: Any) -> Iterator[Any]:
    """The values of the globals, closure cells and attributes that a function names, inner ones
    included, and what there is in such attributes."""
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
    for name in _names(fn.__code__):
        value = fn.__globals__.get(name)
        if name in cells:
            try:
                value = cells[name].cell_contents
            except ValueError:
                continue
        yield value
        if owner is not None:
            attribute = inspect.getattr_static(owner, name, None)
            yield attribute
            if type(attribute) in (list, tuple):
                yield from attribute
            elif type(attribute) is dict:
                yield from attribute.values()


def _names(code: CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, CodeType))
    return {*code.co_names, *code.co_freevars}.union(*inner)


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
