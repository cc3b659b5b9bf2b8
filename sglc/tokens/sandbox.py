"""Rendering untrusted jinja templates within bounds.

Chat templates come with model files, so they are untrusted: they must reach no Python internals,
and must not hang or fill the memory.  The environment here is jinja's immutable sandbox with
attributes, filters and globals cut down to lists of harmless ones, and with a budget: every loop
step, call, filter, operator and printed value is charged its size before or right after it is
made, and a render that spends more than its budget is refused.  What multiplies sizes in one
step (`"x" * n`, `replace`, `join`, `indent`, widths in formats) is charged beforehand.

This module knows nothing of messages, tokenizers or roles.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from sglc.tokens.budget import STEP, Budget, Refused, TooMuchWork

MAX_SOURCE = 1 << 17  # characters of a template
MAX_WORK = 1_000_000  # units a render may spend (see `budget.py`)
_MAX_RANGE = 20_000
_BUDGET = " budget"  # no template can spell this name

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize count endswith find format index isalnum isalpha isascii isdigit islower "
        "isnumeric isspace istitle isupper join lower lstrip partition removeprefix removesuffix "
        "replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase "
        "title upper".split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
}
_FILTERS = frozenset(
    "abs capitalize count d default dictsort first float int items last length list "
    "lower map max min reject rejectattr reverse round select selectattr sort string title "
    "trim unique upper".split())
_REFUSED = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def _of(context: Context) -> Budget:
    return context.parent[_BUDGET]


class _Values(Namespace):
    """jinja's namespace, without private names and with a repr that shows no values."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _public(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


def _public(name: Any) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a namespace cannot have the attribute {name!r}")


def _namespace(*args: Any, **kwargs: Any) -> Namespace:
    return _Values(*args, **kwargs)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _range(*args: int) -> range:
    values = range(*args)
    if len(values) > _MAX_RANGE:
        raise TooMuchWork(f"a range of more than {_MAX_RANGE} numbers")
    return values


def _raise(message: str = "") -> None:
    raise Refused(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 100 or re.search(r"%[^a-zA-Z%-]", form):
        raise SecurityError("the template uses an unusual date format")
    return datetime.now().strftime(form)


@pass_context
def _tojson(context: Context, value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    _of(context).size(value)
    _small(indent)
    for text in separators or ():
        _small(len(text))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


@pass_context
def _indent(context: Context, value: str, width: int = 4, first: bool = False,
            blank: bool = False) -> str:
    _of(context).size(value)
    pad = " " * _small(width)
    out = "\n".join([pad + line if line or blank else line for line in str(value).split("\n")])
    return out if first or not out.startswith(pad) else out[len(pad):]


@pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | None = None) -> str:
    budget = _of(context)
    items = [] if isinstance(value, Undefined) else list(value)
    if attribute is not None:
        items = [context.environment.getitem(item, attribute) for item in items]
    for item in items:
        budget.size(item)
    budget.spend(len(str(d)) * len(items))
    return str(d).join(map(str, items))


@pass_context
def _replace(context: Context, value: Any, old: str, new: str, count: int | None = None) -> str:
    text = str(value)
    _replacing(_of(context), text, str(old), str(new))
    return text.replace(str(old), str(new), -1 if count is None else count)


def _replacing(budget: Budget, text: str, old: str, new: str) -> None:
    budget.spend(len(text) + (text.count(old) if len(new) > len(old) else 0) * len(new))


def _small(number: Any) -> int:
    if isinstance(number, str):
        number = len(number)
    if number is not None and not 0 <= number <= 64:
        raise TooMuchWork("an indent is too wide")
    return number or 0


@pass_context
def _charge(context: Context, value: Any) -> Any:
    return _of(context).made(value)


@pass_context
def _steps(context: Context, value: Any) -> Any:
    """The iterable of a loop, paid for: at once if its length is known, else step by step."""
    budget = _of(context)
    if isinstance(value, Iterator):
        return budget.items(value)
    try:
        budget.spend(STEP * len(value))
    except TypeError:
        pass  # no length: an undefined value, or no iterable, which the loop will report
    return value


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks an assistant's text; it renders as is."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset("+ - * / // ** %".split())

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if attr.startswith("_"):
            return False
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return isinstance(obj, LoopContext | Namespace | Macro | Undefined)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _of(context)
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(times, int):
                    budget.spend(budget.size(many) * max(0, times))
        elif operator == "**" and not (
                isinstance(left, int | float) and isinstance(right, int | float)
                and abs(left) < 1 << 16 and abs(right) <= 64):
            raise TooMuchWork("a power is too large")
        elif operator == "%" and isinstance(left, str):
            if re.search(r"%[^a-zA-Z%]*(\d{4}|\*)", left):
                raise TooMuchWork("a format has too large a width")
            budget.spend(budget.size(right) * left.count("%"))
        return budget.made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None or value.__name__ != "format":
            return None  # `format_map` then is an attribute like others, and not allowed
        if re.search(r"\{[^{}]*(\d{4}|\{)", value.__self__.replace("{{", "")):
            raise TooMuchWork("a format has too large a width")
        return wrapped

    def call(__self, __context: Context, __obj: Any,
             *args: Any, **kwargs: Any) -> Any:
        budget = _of(__context)
        budget.spend(STEP)
        given = budget.size(args) + budget.size(kwargs)
        method = getattr(__obj, "__wrapped__", __obj)  # what `wrap_str_format` wraps
        if isinstance(method, types.BuiltinMethodType):
            owner, name = method.__self__, method.__name__
            budget.size(owner)
            if isinstance(owner, str) and name == "format":
                budget.spend(given * owner.count("{"))
            elif isinstance(owner, str) and name == "replace" and len(args) > 1:
                _replacing(budget, owner, *args[:2])
            elif isinstance(owner, str) and name == "join" and args:
                args = (list(budget.made(args[0])), *args[1:])
                budget.spend(len(owner) * len(args[0]))
        return budget.made(super().call(__context, __obj, *args, **kwargs))


def _environment() -> _Environment:
    env = _Environment(trim_blocks=True, lstrip_blocks=True,
                       extensions=[_GenerationTag, loopcontrols])
    env.filters = {name: f for name, f in env.filters.items() if name in _FILTERS}
    env.filters |= {"tojson": _tojson, "indent": _indent, "join": _join, "replace": _replace,
                    "safe": str, "_charge": _charge, "_steps": _steps}
    env.globals.clear()
    env.globals.update(range=_range, dict=_dict, namespace=_namespace, raise_exception=_raise,
                       strftime_now=_strftime_now)
    return env


class BoundedTemplate:
    """A compiled template.  Raises jinja's `TemplateError` where it cannot be compiled."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_SOURCE:
            raise TooMuchWork(f"the template has more than {MAX_SOURCE} characters")
        env = _environment()
        try:
            code = env.compile(_Meter().visit(env.parse(source)))
        except (SyntaxError, RecursionError, MemoryError, OverflowError, ValueError) as error:
            raise TooMuchWork(f"the template is too deeply nested ({error})") from error
        self._template = env.template_class.from_code(env, code, env.make_globals(None))

    def render(self, variables: Mapping[str, Any], work: int = MAX_WORK) -> str:
        """The text.  `Refused` if the template says so, `TooMuchWork` beyond the budget,
        another `TemplateError` if it fails in any other way."""
        try:
            return self._template.render({**variables, _BUDGET: Budget(work)})
        except TemplateError:
            raise
        except RecursionError as error:
            raise TooMuchWork("the template recurses too deeply") from error
        except Exception as error:  # whatever the template's own expressions raise
            raise TemplateError(f"{type(error).__name__}: {error}") from error


class _Meter(NodeTransformer):
    """Puts charges around whatever loops, makes values, prints or compares."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        node = super().visit(node, *args, **kwargs)  # the parts first
        where = f"line {getattr(node, 'lineno', 0)}: "
        if isinstance(node, _REFUSED):
            raise SecurityError(where + "a chat template cannot use other templates")
        if isinstance(node, nodes.For):
            if node.recursive:
                raise SecurityError(where + "recursive loops are not supported")
            node.iter = _charged(node.iter, "_steps")
        elif isinstance(node, nodes.Output):
            node.nodes = [
                _charged(nodes.Const(child.data, lineno=node.lineno)
                         if isinstance(child, nodes.TemplateData) else child)
                for child in node.nodes if isinstance(child, nodes.Expr)]
        elif isinstance(node, nodes.Compare):
            node.expr = _charged(node.expr)
            for operand in node.ops:
                operand.expr = _charged(operand.expr)
        elif isinstance(node, nodes.Test):
            node.node = _charged(node.node)
        elif isinstance(node, nodes.Filter):
            if node.node is not None:
                node.node = _charged(node.node)
            return _charged(node)
        elif isinstance(node, nodes.Concat | nodes.List | nodes.Dict) or (
                isinstance(node, nodes.Tuple) and node.ctx == "load") or (
                isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)):
            return _charged(node)
        return node


def _charged(node: nodes.Node, name: str = "_charge") -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
