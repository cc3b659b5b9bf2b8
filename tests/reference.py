"""What a program means, as plainly as it can be said: the judge of every faster way to run it.

No engine, no cache, no threads: a prompt is a list of spans that is encoded whole whenever the
model is asked, and everything happens where the program says it.  How ids come from spans and
what one gen or select chooses is in `reference_calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partialmethod
from typing import Any

from sglc.config import RunOptions, resolve
from sglc.errors import LanguageError, UnknownVariable
from sglc.lang import expressions as E
from sglc.runtime.keys import sampling_key, seeded_key
from tests.reference_calls import Run, Span, encode, generate, pick, text_of


@dataclass(frozen=True)
class RefResult:
    text: str
    ids: list[int]
    variables: dict[str | None, Any]
    messages: list[dict[str, str]]
    meta: dict[str | None, Any]
    ret_value: Any


class RefState:
    """The prompt state `s` of a program body."""

    def __init__(self, run: Run, path: tuple[int, ...] = (),
                 parent: RefState | None = None) -> None:
        self.run, self.path, self.calls, self.forks = run, path, 0, 0
        self.meta: dict[str | None, Any] = {}
        self.spans: list[Span] = list(parent.spans) if parent else []
        self.variables: dict[str | None, Any] = dict(parent.variables) if parent else {}
        self.closed: tuple[str, ...] = parent.closed if parent else ()
        self.open: tuple[str, int] | None = parent.open if parent else None  # role, first span
        self.done: list[dict[str, str]] = list(parent.done) if parent else []
        self.base = len(self.spans)

    def __iadd__(self, part: Any) -> RefState:
        if isinstance(part, E.Concat):
            for piece in part.parts:
                self += piece
        elif isinstance(part, (str, E.Bag)):
            self._extend([part if isinstance(part, str) else part.separator.join(part.parts)])
        elif isinstance(part, E.SpecialToken):
            self._extend([self.run.tokenizer.special[part.name]])
        elif isinstance(part, E.RoleBegin):
            if self.open:
                raise LanguageError("SGLC007", f"{part.role} opens inside {self.open[0]}")
            self._extend(self.run.template.open(self.closed, part.role))
            self.open = part.role, len(self.spans)
        elif isinstance(part, E.RoleEnd):
            if not self.open or self.open[0] != part.role:
                raise LanguageError("SGLC007", f"{part.role} is not open")
            content = self.text(self.open[1]).lstrip()
            self.done.append({"role": part.role, "content": content})
            self._extend(self.run.template.close(self.closed, part.role))
            self.closed, self.open = (*self.closed, part.role), None
        elif isinstance(part, E.Gen):
            self._gen(part)
        elif isinstance(part, E.Select):
            self._select(part)
        else:
            raise LanguageError("SGLC002", f"{part!r} cannot be appended")
        return self

    def _extend(self, pieces: Iterable[Any]) -> None:
        """Add texts and control tokens; nothing for empty text, nor for BOS where BOS stands."""
        for piece in pieces:
            span = getattr(piece, "id", piece)
            if span != "" and (self.spans or span != self.run.tokenizer.bos_id):
                self.spans.append(span)

    def _gen(self, part: E.Gen) -> None:
        run, path = self.run, (*self.path, self.calls)
        self.calls += 1
        p = resolve(part.params, run.options)
        p = replace(p, stop=p.stop + tuple(x for x in run.template.stop if x not in p.stop))
        prompt, values, metas = encode(run.tokenizer, self.spans), [], []
        for j in range(p.n):
            key = (sampling_key(run.seed, run.row, path, j) if p.seed is None
                   else seeded_key(p.seed, j))
            made = generate(run, prompt, p, key)
            if j == 0:
                self.spans.append(made.ids)
                self._extend([made.leftover])
            values.append(run.tokenizer.decode(made.ids) + made.leftover)
            metas.append({"prompt_tokens": len(prompt), "finish_reason": made.finish})
        self.variables[part.name] = values if p.n > 1 else values[0]
        self.meta[part.name] = metas if p.n > 1 else metas[0]

    def _select(self, part: E.Select) -> None:
        self.calls += 1
        choices = [encode(self.run.tokenizer, [*self.spans, c]) for c in part.choices]
        best, meta = pick(self.run, encode(self.run.tokenizer, self.spans), choices, part.method)
        self.spans.append(part.choices[best])
        self.variables[part.name], self.meta[part.name] = part.choices[best], meta

    def get_var(self, name: str | None) -> Any:
        if name not in self.variables:
            raise UnknownVariable("SGLC003", f"variable {name!r} was never produced")
        return self.variables[name]

    def set_var(self, name: str | None, value: Any) -> None:
        self.variables[name] = value

    __getitem__, __setitem__ = get_var, set_var

    def __contains__(self, name: object) -> bool:
        return name in self.variables

    def get_meta_info(self, name: str | None) -> Any:
        return self.meta.get(name)

    def text(self, start: int = 0) -> str:
        return text_of(self.run.tokenizer, self.spans[start:])

    def messages(self) -> list[dict[str, str]]:
        return [dict(m) for m in self.done]

    def sync(self) -> None:
        """Nothing is ever pending."""

    def _role(self, role: str, expr: Any = None) -> Any:
        if expr is None:
            return self._role_scope(role)
        self += E.concat(E.RoleBegin(role), expr, E.RoleEnd(role))
        return self

    system = partialmethod(_role, "system")
    user = partialmethod(_role, "user")
    assistant = partialmethod(_role, "assistant")

    @contextmanager
    def _role_scope(self, role: str) -> Iterator[RefState]:
        self += E.RoleBegin(role)
        yield self
        self += E.RoleEnd(role)

    @contextmanager
    def var_scope(self, name: str) -> Iterator[RefState]:
        start = len(self.spans)
        yield self
        self.variables[name] = self.text(start)

    def fork(self, size: int = 1) -> RefGroup:
        self.forks += 1
        return RefGroup(self, [RefState(self.run, (*self.path, self.forks - 1, i), self)
                               for i in range(size)])

    @contextmanager
    def copy(self) -> Iterator[RefState]:
        group = self.fork(1)
        yield group[0]
        group.join()


class RefGroup(list[RefState]):
    """The states of a fork, in order."""

    def __init__(self, parent: RefState, states: list[RefState]) -> None:
        super().__init__(states)
        self.parent = parent

    def __iadd__(self, other: Any) -> RefGroup:  # type: ignore[override]
        if isinstance(other, str):
            raise LanguageError("SGLC002", "a plain string cannot be added to a group of forks")
        if not isinstance(other, (list, tuple)):
            other = [other(i) if callable(other) else other for i in range(len(self))]
        for state, part in zip(self, other, strict=True):
            state += part
        return self

    def join(self, mode: str = "gather_variable") -> None:
        known = set(self.parent.variables)
        for child in self:
            if mode == "concate_and_append":
                self.parent.spans += child.spans[child.base:]
                continue
            for name in child.variables.keys() - known:
                self.parent.variables.setdefault(name, []).append(child.variables[name])


def run_reference(fn: Callable[..., Any], args: tuple, kwargs: dict[str, Any], *, model: Any,
                  tokenizer: Any, template: Any, options: RunOptions, seed: int,
                  row: int) -> RefResult:
    """Run the body `fn(s, ...)` as instance `row` of a batch; raises what it raises."""
    s = RefState(Run(model, tokenizer, template, options, seed, row))
    value = fn(s, *args, **kwargs)
    return RefResult(s.text(), encode(tokenizer, s.spans), s.variables, s.messages(), s.meta,
                     value)
