"""How the arguments of a program are handed to its function: by position, or by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def spread(fn: Callable[..., Any], values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments, behind the prompt state, that give `fn` these values.

    values: parameter -> value, a `*args` parameter as "*name"; what `**kwargs` takes by its own
    names.
    """
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    own = {p.kind for p in inspect.signature(fn, follow_wrapped=False).parameters.values()}
    # Behind `*args`, and for a wrapper that takes nothing else, names will not do.
    star = inspect.Parameter.VAR_POSITIONAL in {p.kind for p in parameters} or (
        inspect.Parameter.VAR_POSITIONAL in own and inspect.Parameter.VAR_KEYWORD not in own)
    positional: list[Any] = []
    keywords = dict(values)
    for p in parameters:
        if p.kind is inspect.Parameter.VAR_POSITIONAL:
            positional.extend(keywords.pop("*" + p.name, ()))
        elif p.kind is inspect.Parameter.POSITIONAL_ONLY or (
                star and p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD):
            positional.append(keywords.pop(p.name))
    return positional, keywords
