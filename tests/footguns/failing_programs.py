"""Random programs in which model calls, reads and host calls fail: a gen on an empty prompt does.

What is compared between modes is all that a caller can see of a failed run.
"""

from __future__ import annotations

import importlib.util
import random
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import sglc as sgl

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

    parameters = "s, q"

    def __init__(self, seed: int) -> None:
        self.seed = seed
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

    def value(self, tried: bool = False) -> str:
        """A text expression; may read.  tried: it stands in a `try`, which has no forks."""
        kind = self.random.random()
        if kind < 0.3 and self.variables:
            return f's["{self.random.choice(self.variables)}"]'
        states = [s for s in self.states if not (tried and "[" in s[0])]
        if kind < 0.6 and states:
            state, name = self.random.choice(states)
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
            write(f"    {name} = {self.value(tried=True)}")
            write(f"except {self.random.choice(('Exception', 'sgl.SglcError', 'ValueError'))}:")
            write(f'    {name} = "caught"')
            self.locals.append(name)
        elif roll < 0.985 and depth == 1:
            write(f"for z in {self.value()}:")  # the graph breaks
            write(f"    {self.random.choice(('s += z', 'host(z)', 's += z + q'))}")
        else:
            write(f's += "{self.random.choice(("u", "", "w "))}"')

    def block(self, depth: int) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.statement(depth, arm=True)

    @cached_property
    def text(self) -> str:
        """The source of the program."""
        self.lines = [f"def prog({self.parameters}):"]
        if self.random.random() < 0.7:
            self.lines.append('    s += "p"')
        for _ in range(self.random.randint(3, 12)):
            self.statement(1, arm=False)
        if self.random.random() < 0.5:
            self.lines.append(f"    return {self.value()}")
        return "\n".join(self.lines) + "\n"


class ListWriter(Writer):
    """Writes a program with loops over a list `xs`, that may be compiled for any length of it.
    groups: forks of that length, with the variable that each of their states has."""

    parameters = "s, q, xs"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.groups: list[tuple[str, str]] = []
        self.host_calls = False  # they end such a trace

    def value(self, tried: bool = False) -> str:
        if self.groups and not tried and self.random.random() < 0.2:
            group, name = self.random.choice(self.groups)
            return f'{group}[{self.random.randrange(2)}]["{name}"]'
        return super().value(tried)

    def statement(self, depth: int, arm: bool) -> None:
        roll = self.random.random()
        if depth > 1 or roll < 0.45:
            super().statement(depth, arm)
        elif roll < 0.65:
            self.fork_of_the_list()
        elif roll < 0.75 and self.groups:
            group, name = self.random.choice(self.groups)
            self.lines.append("    " + self.random.choice((
                f's += {self.value()} + "z"', f"{group}.join()", f"{group}[0].sync()",
                f's += ",".join(g["{name}"] for g in {group})')))
        else:
            self.loop()

    def fork_of_the_list(self) -> None:
        group, name = self.fresh("f"), self.fresh("v")
        self.lines += [f"    {group} = s.fork(len(xs))", "    for i, x in enumerate(xs):",
                       f'        {group}[i] += x + sgl.gen("{name}", max_tokens=2)']
        if self.random.random() < 0.3:
            self.lines.append(f'        {group}[i]["{name}"]')
        self.groups.append((group, name))

    def loop(self) -> None:
        name, local, old = self.fresh("a"), self.fresh("x"), list(self.states)
        if self.random.random() < 0.5:
            self.lines.append(f'    {local} = "{local}"')
            self.locals.append(local)
        if self.groups and self.random.random() < 0.4:
            group, variable = self.random.choice(self.groups)
            self.lines.append(f"    for x, g in zip(xs, {group}):")
            self.states.append(("g", variable))
        else:
            self.lines.append("    for x in xs:")
        self.locals.append("x")
        for _ in range(self.random.randint(1, 4)):
            roll = self.random.random()
            if roll < 0.2:
                self.lines.append(f'        s += x + sgl.gen("{name}", max_tokens=2)')
            elif roll < 0.35 and old:
                state, variable = self.random.choice(old)
                self.lines.append(f'        {state} += sgl.gen("{variable}", max_tokens=2)')
            elif roll < 0.5:
                self.lines.append(f"        {local} = {self.value()}")
            elif roll < 0.65:
                self.lines.append(f'        if {self.value()} < "{self.random.choice("%Aax")}":')
                self.block(3)
            else:
                super().statement(2, arm=True)
        self.states = [s for s in self.states if s[0] != "g"]
        self.locals.remove("x")


def load(writer: Writer, directory: Path) -> Any:
    """The module of a program: `prog`, undecorated, and `CALLS`."""
    path = directory / f"failing_{writer.seed}.py"
    path.write_text(HEADER + writer.text, encoding="utf-8")
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


def check(writer: Writer, rows: list[Any], model: Any, directory: Path) -> sgl.Program:
    """Compiled, and again from what is kept, a program is eager for these rows; the program."""
    module = load(writer, directory)

    def run(program: Any, mode: str) -> tuple[list[dict[str, Any]], list[str]]:
        module.CALLS.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            states = program.run_batch(rows, backend=model, seed=3, mode=mode)
            return [outcome(state) for state in states], sorted(module.CALLS)

    eager, calls = run(sgl.program(module.prog), "eager")
    program = sgl.program(module.prog)
    for _ in range(2):
        compiled, others = run(program, "compiled")
        for want, got in zip(eager, compiled, strict=True):
            for name in got.keys() - want.keys():  # of gens behind a failed one: no values
                assert isinstance(got.pop(name), tuple), writer.text
            if isinstance(want["text"], tuple):  # whether the body has seen that is not known
                want["value"] = got["value"] = None
            assert list(got) == list(want), writer.text  # the variables in their order
        assert (compiled, others) == (eager, calls), writer.text
    return program


def _named(error: Any) -> Any:
    return None if error is None else (type(error).__name__, getattr(error, "code", str(error)))
