"""Typed reading of a model's configuration: what is missing or of another type is an error that
names the file and the field.  What the fields mean is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from sglc.errors import ModelError
from sglc.runtime.models.shape import LlamaConfig, ShapeError


class Fields:
    """The fields of a configuration; `prefix` stands before every name asked for.

    A field that is null is as one that is not there.
    """

    def __init__(self, values: Mapping[str, Any], path: object, prefix: str = "") -> None:
        self.values = values
        self.path = str(path)
        self.prefix = prefix

    def refuse(self, why: str) -> NoReturn:
        raise ModelError("SGLC504", "the model cannot be used", why=f"{self.path}: {why}")

    def has(self, name: str) -> bool:
        """Whether the field is there, null or not."""
        return self.prefix + name in self.values

    def get(self, name: str) -> Any:
        """The field as it is, or None."""
        return self.values.get(self.prefix + name)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._given(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(f"{self.prefix}{name} is {_short(value)}, not an integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) \
                or abs(value) > 1e300 or math.isnan(value):
            self.refuse(f"{self.prefix}{name} is {_short(value)}, not a number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._given(name, default)
        if not isinstance(value, bool):
            self.refuse(f"{self.prefix}{name} is {_short(value)}, not true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._given(name, default)
        if not isinstance(value, str):
            self.refuse(f"{self.prefix}{name} is {_short(value)}, not a text")
        return value

    def items(self, name: str, kind: type, count: int | None = None) -> list[Any] | None:
        """A list of values of one type, or None; `count`: how many it has to have."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or any(type(v) is not kind for v in value):
            self.refuse(f"{self.prefix}{name} is {_short(value)}, not a list of {kind.__name__}")
        if count is not None and len(value) != count:
            self.refuse(f"{self.prefix}{name} has {len(value)} entries instead of {count}")
        return value

    def only(self, name: str, *neutral: Any) -> None:
        """Refuses a feature that is not computed: any value but null and these."""
        value = self.get(name)
        if value is not None and value not in neutral:
            self.refuse(f"{self.prefix}{name} is {_short(value)}, which is not supported")

    def _given(self, name: str, default: Any) -> Any:
        value = self.get(name)
        value = default if value is None else value
        if value is None:
            self.refuse(f"there is no {self.prefix}{name}")
        return value


def naming(path: object, read: Callable[[], LlamaConfig]) -> LlamaConfig:
    """What `read` gives; a shape that it refuses is an error that names `path`."""
    try:
        return read()
    except ShapeError as e:
        Fields({}, path).refuse(e.diagnostic.why)


def _short(value: object) -> str:
    return repr(value)[:80]
