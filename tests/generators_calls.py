"""Random programs that call: helpers that take `s`, nested programs, inner functions, Python.

They are those of `generators.py` with more kinds of statements.  All that is called from outside
notes itself in `CALLS`, so that the calls of two runs can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.generators import GeneratedProgram, State, Writer, odd_text, rows

HOSTS = '''\
def more(text, n):
    CALLS.append(("more", text, n))
    return n < len(text) % 4


def check(text):
    CALLS.append(("check", text))
    return len(text) % 2 == 0


def pieces(text):
    CALLS.append(("pieces", text))
    return [text[i:i + 3] for i in range(0, min(len(text), 9), 3)]


def parse(text):
    CALLS.append(("parse", text))
    if len(text) % 3 == 0:
        raise ValueError(text)
    return {"text": text[:4], "n": len(text)}


class Box:  # changed by the program and by its own method
    def __init__(self):
        self.n = 0
        self.log = []

    def note(self, text):
        CALLS.append(("note", text))
        self.n += 1
        self.log.append(text)
        return self.n


'''


@st.composite
def calling_programs(draw: Callable[..., Any], max_statements: int = 14,
                     max_rows: int = 3) -> GeneratedProgram:
    """Programs of about `max_statements` statements that call and are called."""
    writer = CallWriter(draw, max_statements, regex=False, sampling=True, inherit=False)
    functions: list[str] = []
    for _ in range(draw(st.integers(0, 2))):
        functions += writer.helper()
    for _ in range(draw(st.integers(0, 2))):
        functions += writer.program()
    writer.left = max_statements
    lines = ["def prog(s, a, b, items):", f'    s += "Q: " + {writer.text()}', "    acc = []"]
    if draw(st.booleans()):
        lines += ["    def inner(x):", f"        return {writer.one('x', 'a', 'b')} + "
                  f"{writer.one('x.upper()', 'b.strip()', repr('!'))}"]
        writer.inner = True
    lines += writer.block(State("s"), 1, 2)
    lines += [f"    s += {writer.text()} + ', '.join(acc)"]
    lines.append(draw(st.sampled_from(("", "    return acc", "    return s.text(), len(acc)"))))
    given = draw(st.lists(rows, min_size=1, max_size=max_rows))
    source = HOSTS + "\n".join(functions + lines) + "\n"
    return GeneratedProgram(source, "prog", tuple(given))


class CallWriter(Writer):
    """Writes calls, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.helpers: list[str] = []
        self.programs: list[tuple[str, list[str]]] = []  # name, variables that it surely has
        self.inner = False  # the body has an inner function
        self.collects = True  # the body has a list `acc`

    def helper(self) -> list[str]:
        """A function that is handed a state and returns a text."""
        name = self.new("help")
        s = State("s", roles=False)
        self.left, self.collects = 4, False
        lines = [f"def {name}(s, a, b, items):", f"    s += {self.text()} + a",
                 *self.block(s, 1, 1)]
        lines += [f"    return {self.value(s)}", "", ""]
        self.collects = True
        self.helpers.append(name)
        return lines

    def program(self) -> list[str]:
        """A program that other ones call."""
        name = self.new("sub")
        s = State("s")
        self.left, self.collects = 4, False
        lines = ["@sgl.program", f"def {name}(s, a, b, items):",
                 f"    s += {self.text()} + a + '.'",
                 *self.block(s, 1, 1)]
        last = self.new("v")
        s.texts.append(last)
        lines += [f"    s += {self.gen_call(last)[0].split(', n=')[0].rstrip(')')})",
                  f"    return {self.value(s)}", "", ""]
        self.collects = True
        self.programs.append((name, [v for v in s.texts if v != last]))
        return lines

    def kinds(self, s: State, depth: int) -> list[Callable[[State, int], list[str]]]:
        kinds = super().kinds(s, depth)
        kinds += [self.host_value, self.guarded, self.box]
        if self.collects:
            kinds.append(self.collect)
        if self.helpers and not s.role:
            kinds += 2 * [self.call_helper]
        if self.programs:
            kinds += 2 * [self.call_program]
        if self.inner and self.collects:
            kinds.append(self.call_inner)
        if depth > 0:
            kinds += [self.while_host, self.if_host, self.for_pieces]
        return kinds

    # -- statements -----------------------------------------------------------------------
    def call_helper(self, s: State, depth: int) -> list[str]:
        local = self.new("t")
        name = self.one(*self.helpers)
        line = f"{local} = {name}({s.name}, {self.value(s)}, {self.value(s)}, items)"
        s.local.append(local)
        return [line]

    def call_program(self, s: State, depth: int) -> list[str]:
        child = self.new("p")
        name, variables = self.one(*self.programs)
        lines = [f"{child} = {name}({self.value(s)}, b, {self.one('items', '[]', '[a, b]')})"]
        local = self.new("t")
        options = ["{0}.text()", "{0}.ret_value", *[f"{{0}}[{v!r}]" for v in variables]]
        lines.append(f"{local} = {self.one(*options).format(child)}")
        s.local.append(local)
        return lines

    def call_inner(self, s: State, depth: int) -> list[str]:
        return [f"{s.name} += inner({self.value(s)})"]

    def collect(self, s: State, depth: int) -> list[str]:
        return [f"acc.append({self.value(s)})"]

    def host_value(self, s: State, depth: int) -> list[str]:
        local = self.new("t")
        line = f"{local} = " + self.one("host({})", "pieces({} + 'abc')[0]", "str(check({}))",
                                        "str(more({}, 1))").format(self.value(s))
        s.local.append(local)
        return [line]

    def guarded(self, s: State, depth: int) -> list[str]:
        local, given = self.new("t"), self.new("g")
        lines = [f"{given} = {self.value(s)}", "try:", f"    {local} = parse({given})['text']",
                 "except ValueError:", f"    {local} = {self.draw(odd_text)!r}"]
        s.local.append(local)
        return lines

    def box(self, s: State, depth: int) -> list[str]:
        name = self.new("box")
        lines = [f"{name} = Box()", f"{name}.note({self.value(s)})", f"{name}.n += 1"]
        return [*lines, f"{s.name} += f'{{{name}.n}}{{len({name}.log)}}'"]

    def while_host(self, s: State, depth: int) -> list[str]:
        count = self.new("n")
        inner = s.inner()
        return [f"{count} = 0", f"while more({self.value(s)}, {count}):", f"    {count} += 1",
                *self.nested(inner, depth)]

    def if_host(self, s: State, depth: int) -> list[str]:
        lines = [f"if check({self.value(s)}):", *self.nested(s.inner(), depth)]
        if self.chance(2):
            lines += ["else:", *self.nested(s.inner(), depth)]
        return lines

    def for_pieces(self, s: State, depth: int) -> list[str]:
        item = self.new("i")
        inner = s.inner()
        inner.local.append(item)
        return [f"for {item} in pieces({self.value(s)}):", *self.nested(inner, depth)]
