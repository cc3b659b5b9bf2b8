"""Random programs in which model calls, reads and host calls fail: a gen on an empty prompt does.

What is compared between modes is all that a caller can see of a failed run.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

HEADER = '''\
import sglc as sgl

CALLS = []


def host(x):
    CALLS.append(repr(x))
    return f"<{len(str(x))}>"


def strict(x):
    CALLS.append("strict")
    if len(x) % 2:
        raise ValueError(x)
    return x


def grow(x):
    x.append("grown")


@sgl.program
def child(s, q):
    s += q + sgl.gen("c", max_tokens=2)
    s += "."


'''


class Writer:
    """Writes one program.  variables: of the run's state; forks: states with a variable `v`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.count = 0
        self.variables: list[str] = []
        self.locals: list[str] = ["q"]
        self.states: list[tuple[str, str]] = []  # with a variable each
        self.lists: list[str] = []
        self.host_calls = self.random.random() < 0.7

    def fresh(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def value(self) -> str:
        """A text expression; may read."""
        kind = self.random.random()
        if kind < 0.3 and self.variables:
            return f's["{self.random.choice(self.variables)}"]'
        if kind < 0.6 and self.states:
            state, name = self.random.choice(self.states)
            return f'{state}["{name}"]'
        return self.random.choice(self.locals)

    def statement(self, depth: int, arm: bool) -> None:
        pad = "    " * depth
        roll = self.random.random()
        write = lambda line: self.lines.append(pad + line)  # noqa: E731
        if roll < 0.14:
            name = self.fresh("g")
            write(f's += sgl.gen("{name}", max_tokens=2)')
            if not arm:
                self.variables.append(name)
        elif roll < 0.22:
            write(f's += "t{self.count}" + {self.value()}')
        elif roll < 0.36 and not arm:
            fork, name = self.fresh("f"), self.fresh("v")
            write(f"{fork} = s.fork(2)")
            for i in range(2):
                text = f'"{i}" + ' if self.random.random() < 0.4 else ""
                write(f'{fork}[{i}] += {text}sgl.gen("{name}", max_tokens=2)')
            self.states += [(f"{fork}[{i}]", name) for i in range(2)]
            end = self.random.random()
            if end < 0.3:
                write(f"{fork}.join()")
            elif end < 0.45:
                write(f'{fork}.join("concate_and_append")')
        elif roll < 0.44 and not arm:
            name = self.fresh("c")
            text = self.random.choice(('""', "q", '"k"'))
            write(f"{name} = child({text})")
            self.states.append((name, "c"))
        elif roll < 0.54:
            if self.states and self.random.random() < 0.5:
                state, _ = self.random.choice(self.states)
                write(f"{state}.{self.random.choice(('sync()', 'text()'))}")
            else:
                write(self.value())
        elif roll < 0.62:
            name = self.fresh("x")
            write(f"{name} = {self.value()}")
            if not arm:
                self.locals.append(name)
        elif roll < 0.7:
            write(f's["{self.fresh("k")}"] = {self.value()}')
        elif roll < 0.76 and not arm:
            name = self.fresh("l")
            write(f"{name} = [{self.value()}]")
            write(f's["{self.fresh("m")}"] = {name}')
            self.lists.append(name)
        elif roll < 0.82 and self.lists and not arm:
            write(f"{self.random.choice(self.lists)}.append({self.value()})")
        elif roll < 0.88 and self.host_calls:
            write(f"{self.random.choice(('host', 'host', 'strict'))}({self.value()})")
        elif roll < 0.9 and self.lists and self.host_calls and not arm:
            write(f"grow({self.random.choice(self.lists)})")
        elif roll < 0.94 and depth == 1:
            write(f'if {self.value()} < "{self.random.choice("%Aax")}":')
            self.block(depth + 1)
            if self.random.random() < 0.5:
                write("else:")
                self.block(depth + 1)
        elif roll < 0.97 and depth == 1:
            name = self.fresh("y")
            write("try:")
            write(f"    {name} = {self.value()}")
            write(f"except {self.random.choice(('Exception', 'sgl.SglcError', 'ValueError'))}:")
            write(f'    {name} = "caught"')
            self.locals.append(name)
        else:
            write(f's += "{self.random.choice(("u", "", "w "))}"')

    def block(self, depth: int) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.statement(depth, arm=True)

    def source(self) -> str:
        self.lines = ["def prog(s, q):"]
        if self.random.random() < 0.7:
            self.lines.append('    s += "p"')
        for _ in range(self.random.randint(3, 12)):
            self.statement(1, arm=False)
        if self.random.random() < 0.5:
            self.lines.append(f"    return {self.value()}")
        return "\n".join(self.lines) + "\n"


def load(seed: int, directory: Path) -> Any:
    """The module of the program of this number: `prog`, undecorated, and `CALLS`."""
    path = directory / f"failing_{seed}.py"
    path.write_text(HEADER + Writer(seed).source(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(state: Any) -> dict[str, Any]:
    """What a caller can see of a run, with what reading it raises."""
    def tried(read: Any) -> Any:
        try:
            return read()
        except Exception as e:
            return type(e).__name__, getattr(e, "code", str(e))

    out = {"error": tried(lambda: _named(state.error())), "text": tried(state.text),
           "ids": tried(state.token_ids), "messages": tried(state.messages),
           "value": tried(lambda: state.ret_value), "sync": tried(state.sync)}
    for name in state.variable_names():
        out[f"variable {name}"] = tried(lambda name=name: state[name])
    return out


def _named(error: Any) -> Any:
    return None if error is None else (type(error).__name__, getattr(error, "code", str(error)))
