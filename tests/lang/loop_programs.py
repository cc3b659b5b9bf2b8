"""Random programs that loop over their arguments, as source text, with rows of many lengths.

A program is `def prog(s, docs, items, grid, n, a)`: texts, dicts, lists of texts, a count and a
text.  Nothing here knows how programs run.  A program may read what is not there: then every way
to run it must raise the same.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

HEADER = """\
import sglc as sgl

CALLS = []


def host(value):
    CALLS.append(repr(value))
    return f"<{len(CALLS[-1])}>"


def spoil(values):
    CALLS.append(repr(values))
    values.append("new")
    return "!"


def tell(s, name, text):
    s += text + ": " + sgl.gen(name, max_tokens=2)
    return s[name]


def all_of(s, values):
    for number, value in enumerate(values, 1):
        s += f"{number}. {value}"
        s += sgl.gen("all", max_tokens=1)
    return len(values)

"""
TEXTS = ("", "one", "b", "the third", "na\u00efve ", "yes", " x ", "\n", "\u65e5")
TEXT, NUMBER = st.sampled_from(TEXTS), st.integers(0, 3)
ITEM = st.fixed_dictionaries({"name": TEXT, "n": NUMBER,
                              "tags": st.lists(TEXT, min_size=1, max_size=3)})
ROW = st.fixed_dictionaries({
    "docs": st.lists(TEXT, max_size=4), "items": st.lists(ITEM, max_size=3),
    "grid": st.lists(st.lists(TEXT, min_size=1, max_size=3), max_size=3),
    "n": st.integers(0, 4), "a": TEXT})


@dataclass(frozen=True)
class LoopProgram:
    """Source of `prog` (without the header that `load` adds) and its rows."""

    source: str
    rows: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        calls = "\n".join(f"# row {i}: {row!r}" for i, row in enumerate(self.rows))
        return f"\n{self.source}{calls}\n"


def load(program: LoopProgram, directory: Path) -> ModuleType:
    """The program as a module, from a real file: its body is `prog`, `CALLS` its host calls."""
    text = HEADER + "\n" + program.source
    name = "loop_" + hashlib.sha256(text.encode()).hexdigest()[:16]
    path = Path(directory) / f"{name}.py"
    path.write_text(text, encoding="utf-8", newline="\n")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@st.composite
def loop_programs(draw: Callable[..., Any], max_rows: int = 4) -> LoopProgram:
    """Programs with one to `max_rows` rows."""
    writer = Writer(draw)
    here = Scope("s")
    lines = ["s += 'Q'", *writer.block(here, 2, draw(st.integers(1, 5)), inner=False),
             *writer.returned(here)]
    source = "\n".join(["def prog(s, docs, items, grid, n, a):", *indented(lines)]) + "\n"
    return LoopProgram(source, tuple(draw(st.lists(ROW, min_size=1, max_size=max_rows))))


def indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines or ["pass"]]


@dataclass
class Scope:
    """Python expressions that can be read at one point, by what they are."""

    state: str
    texts: list[str] = field(default_factory=lambda: ["a", "'lit'"])
    counts: list[str] = field(default_factory=lambda: ["n", "len(docs)"])
    lists: list[str] = field(default_factory=lambda: ["docs"])  # of texts
    groups: list[tuple[str, str]] = field(default_factory=list)  # of forks, and their sizes
    building: list[str] = field(default_factory=list)  # lists to append to
    carried: list[str] = field(default_factory=list)  # locals with texts
    sums: list[str] = field(default_factory=list)  # locals with counts
    role: bool = False
    loop: bool = False

    def inner(self, **changes: Any) -> Scope:
        new = Scope(self.state, list(self.texts), list(self.counts), list(self.lists),
                    list(self.groups), list(self.building), list(self.carried), list(self.sums),
                    self.role, self.loop)
        for key, value in changes.items():
            setattr(new, key, value)
        return new


class Writer:
    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw, self.count = draw, 0

    def one(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def chance(self, of: int) -> bool:
        return bool(self.draw(st.integers(1, of)) == of)

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def block(self, s: Scope, depth: int, size: int, inner: bool = True) -> list[str]:
        out: list[str] = []
        for _ in range(size):
            kinds = [self.append, self.append, self.gen, self.gen, self.local, self.local,
                     self.assign, self.branch, self.variable, self.helper]
            if s.building:
                kinds += [self.build] * 3
            if depth:
                kinds += [self.loop] * (4 if inner else 12) + [self.scope]
                if not s.loop or self.chance(4):
                    kinds += [self.fork] * 3 + [self.copy]
                if not s.role:
                    kinds += [self.message, self.turn]
            if not s.loop or self.chance(6):
                kinds += [self.fresh_list, self.fresh_list, self.mapped]
                kinds += [self.whole, self.host] if self.chance(2) else []
            if s.groups and not s.loop:
                kinds += [self.over_forks] * 4
            out += self.one(*kinds)(s, depth)
        return out

    # -- expressions ----------------------------------------------------------------------
    def text(self, s: Scope) -> str:
        kind = self.draw(st.integers(0, 9))
        if kind <= 4:
            return str(self.one(*s.texts))
        if kind == 5:
            inside = f"<{{{self.number(s)}}}:{{{self.one(*s.texts)}}}>"
            return 'f"""' + inside + '"""'
        if kind == 6:
            return f"({self.one(*s.texts)} + {self.one(*s.texts)}).upper()"
        if kind == 7:
            return f"str({self.number(s)})"
        if kind == 8 and self.chance(3):
            return f"{self.one(*s.lists)}[{self.one(0, 1, -1)}]"
        return repr(self.one("lit ", "\n", "- "))

    def number(self, s: Scope) -> str:
        return str(self.one(*s.counts, *s.sums, f"len({self.one(*s.texts)})", "2"))

    def test(self, s: Scope) -> str:
        return str(self.one(
            f"{self.one(*s.texts)} == 'yes'", f"len({self.one(*s.texts)}) > 2",
            f"'e' in {self.one(*s.texts)}", f"{self.number(s)} > 1", self.one(*s.texts),
            f"not {self.one(*s.texts)}", *[f"{one}" for one in s.lists[:1]]))

    def gen_call(self, name: str) -> str:
        extra = self.one("", "", "", ", temperature=1.0", ", temperature=1.0", ", stop='e'",
                         ", regex='[0-9]{1,3}'", ", choices=['yes', 'no']",
                         ", temperature=1.0, n=2")
        if "n=2" in extra and not self.chance(3):
            extra = ""
        return f"sgl.gen({name!r}, max_tokens={self.one(1, 2, 3)}{extra})"

    # -- statements -----------------------------------------------------------------------
    def append(self, s: Scope, depth: int) -> list[str]:
        return [f"{s.state} += {self.text(s)}"]

    def gen(self, s: Scope, depth: int) -> list[str]:
        name = self.one("x", "y", self.new("v"))
        if self.chance(4):
            line = f"{s.state} += sgl.select({name!r}, ['yes', 'no', 'maybe'])"
        else:
            line = f"{s.state} += {self.one('', self.text(s) + ' + ')}{self.gen_call(name)}"
        if "n=2" in line:
            return [line]
        s.texts.append(f"{s.state}[{name!r}]")
        return [line]

    def local(self, s: Scope, depth: int) -> list[str]:
        name = self.one(*s.carried, self.new("t"))
        value = self.text(s)
        if name in s.carried and self.chance(2):
            value = f"{name} + {value}"
        if name not in s.carried:
            s.carried.append(name)
            s.texts.append(name)
        return [f"{name} = {value}"]

    def assign(self, s: Scope, depth: int) -> list[str]:
        kind = self.draw(st.integers(0, 3))
        if kind == 0 and len(s.carried) > 1:
            a, b = self.one(*s.carried), self.one(*s.carried)
            return [f"{a}, {b} = {b}, {a}"]
        if kind == 1 and s.carried:
            return [f"{self.one(*s.carried)} = None"] if self.chance(4) else []
        name = self.one(*s.sums, self.new("k"))
        if name in s.sums:
            return [f"{name} += {self.number(s)}"]
        line = f"{name} = {self.number(s)}"
        s.sums.append(name)
        return [line]

    def variable(self, s: Scope, depth: int) -> list[str]:
        name = self.one("x", "w", self.new("w"))
        line = f"{s.state}[{name!r}] = {self.text(s)}"
        s.texts.append(f"{s.state}[{name!r}]")
        return [line]

    def helper(self, s: Scope, depth: int) -> list[str]:
        if self.chance(3):
            return [f"all_of({s.state}, {self.one(*s.lists)})"]
        name = self.new("t")
        line = f"{name} = tell({s.state}, {self.one('x', 'h')!r}, {self.text(s)})"
        s.texts.append(name)
        return [line]

    def branch(self, s: Scope, depth: int) -> list[str]:
        then = self.block(s.inner(), 0, self.one(1, 2))
        out = [f"if {self.test(s)}:", *indented(then)]
        if self.chance(2):
            out += ["else:", *indented(self.block(s.inner(), 0, 1))]
        return out

    def build(self, s: Scope, depth: int) -> list[str]:
        name = self.one(*s.building)
        if self.chance(8):
            return [f"{s.state} += {self.one(f'str(len({name}))', f'str({name})')}"]
        return [f"{name}.append({self.text(s)})"]

    def fresh_list(self, s: Scope, depth: int) -> list[str]:
        name = self.new("o")
        s.building.append(name)
        s.lists.append(name)
        return [f"{name} = []"]

    def mapped(self, s: Scope, depth: int) -> list[str]:
        over, element = self.one(*s.lists), self.new("e")
        body = self.text(s.inner(texts=[*s.texts, element]))
        test = self.one(f" if {element} != 'b'", f" if {element}") if self.chance(8) else ""
        if self.chance(2):
            items = f"{body} for {element} in {over}{test}"
            return [f"{s.state} += {self.one(', ', '')!r}.join({items})"]
        name = self.new("l")
        s.lists.append(name)
        return [f"{name} = [{body} for {element} in {over}{test}]"]

    def whole(self, s: Scope, depth: int) -> list[str]:
        one = self.one(*s.lists)
        return [f"{s.state} += " + self.one(
            f"str({one})", f"f'{{{one}}}'", f"', '.join({one})", f"str(len({one}))",
            f"str(sorted({one}))", f"max({one})", f"str(any({one}))", f"str({one}[1:])",
            f"str(tuple({one}))", f"str({one} + ['z'])", f"str('b' in {one})",
            f"str(list(reversed({one})))", f"str([*{one}, 'q'])", "str(items)", "str(grid)",
            "str(sum(len(g) for g in grid))", "str(sum(i['n'] for i in items))")]

    def host(self, s: Scope, depth: int) -> list[str]:
        if self.chance(4):
            what = self.one(*s.lists)
            return [f"{s.state} += spoil({self.one(what, f'list({what})')})"]
        name = self.new("t")
        line = f"{name} = host({self.one(self.text(s), *s.lists, 'items', 'grid[0]')})"
        s.texts.append(name)
        return [line]

    def scope(self, s: Scope, depth: int) -> list[str]:
        name = self.one("x", self.new("z"))
        body = self.block(s, depth - 1, self.one(1, 2))
        s.texts.append(f"{s.state}[{name!r}]")
        return [f"with {s.state}.var_scope({name!r}):", *indented(body)]

    def copy(self, s: Scope, depth: int) -> list[str]:
        name = self.new("c")
        body = self.block(s.inner(state=name, groups=[]), depth - 1, self.one(1, 2))
        return [f"with {s.state}.copy() as {name}:", *indented(body)]

    def message(self, s: Scope, depth: int) -> list[str]:
        role = self.one("user", "assistant", "system")
        if self.chance(3):
            return [f"{s.state} += sgl.{role}({self.text(s)})"]
        out = [f"{s.state} += sgl.{role}({self.gen_call('m')})".replace(", n=2", "")]
        if self.chance(5):
            out.append(f"{s.state} += str({s.state}.messages())")
        s.texts.append(f"{s.state}['m']")
        return out

    def turn(self, s: Scope, depth: int) -> list[str]:
        body = self.block(s.inner(role=True), depth - 1, self.one(1, 2))
        return [f"with {s.state}.{self.one('user', 'assistant')}():", *indented(body)]

    # -- loops ------------------------------------------------------------------------------
    def loop(self, s: Scope, depth: int) -> list[str]:
        d, i = self.new("d"), self.new("i")
        s2 = s.inner(loop=True)
        kind = self.draw(st.integers(0, 12))
        one = self.one(*s.lists)
        if kind <= 1:
            head, s2.texts = f"for {d} in {one}:", [*s.texts, d, d]
        elif kind == 2:
            head = f"for {i}, {d} in enumerate({one}{self.one('', ', 1')}):"
            s2.texts, s2.counts = [*s.texts, d, d], [*s.counts, i]
        elif kind == 3:
            head = f"for {i} in range(len({one})):"
            s2.texts, s2.counts = [*s.texts, f"{one}[{i}]"], [*s.counts, i]
        elif kind == 4:
            head = f"for {i} in range({self.one('n', 'n', 'n - 1', '1, n', '2, n + 1')}):"
            s2.counts = [*s.counts, i, i]
        elif kind == 5:
            tags = f"{d}['tags']"
            head = f"for {d} in items:"
            s2.texts = [*s.texts, f"{d}['name']", f"{d}['name']"]
            s2.counts, s2.lists = [*s.counts, f"{d}['n']", f"len({tags})"], [*s.lists, tags, tags]
        elif kind == 6:
            head, s2.lists = f"for {d} in grid:", [*s.lists, d, d, d]
        elif kind == 7:
            other = self.one(*s.lists)
            head = f"for {d}, {i} in zip({one}, {other}):"
            s2.texts = [*s.texts, d, i]
        elif kind == 8:
            head = f"for {d} in {self.one(f'{one}[1:]', f'reversed({one})', f'{one}[:2]')}:"
            s2.texts = [*s.texts, d, d]
        elif kind == 9:
            head = f"for {i}, {d} in enumerate(items):"
            s2.texts, s2.counts = [*s.texts, f"{d}['name']"], [*s.counts, i, f"{d}['n']"]
        elif kind == 10:
            head = f"for {i} in range({self.number(s)}):"
            s2.counts = [*s.counts, i]
        elif kind == 11:
            head, s2.texts = f"for {d} in list({one}):", [*s.texts, d, d]
        else:
            head, s2.counts = f"for {i} in range(2):", [*s.counts, i]
        body = self.block(s2, depth - 1, self.one(1, 2, 3))
        if self.chance(20):
            body += [f"if {self.test(s2)}:", "    " + self.one("break", "continue"), *self.append(
                s2, 0)]
        # What rounds leave may be read behind the loop.
        s.texts += [t for t in s2.texts if t not in s.texts and t.startswith(s.state + "[")]
        if self.chance(3):
            s.texts += [t for t in s2.texts if t not in s.texts and "[" not in t]
        s.carried += [t for t in s2.carried if t not in s.carried and self.chance(4)]
        s.sums += [t for t in s2.sums if t not in s.sums and self.chance(4)]
        out = [head, *indented(body)]
        if self.chance(10) and not s.loop:
            out.append(f"{s.state} += str({s.state}.get_meta_info('x'))[:1]")
        return out

    # -- forks ------------------------------------------------------------------------------
    def fork(self, s: Scope, depth: int) -> list[str]:
        size = self.one("len(docs)", "len(docs)", "n", "n + 1", "len(items)", "2")
        name = self.new("f")
        s.groups.append((name, size))
        out = [f"{name} = {s.state}.fork({size})"]
        if not self.chance(4):
            out.append(f"{name} += {self.gen_call('x')}")
        for _ in range(self.one(1, 1, 2)):
            out += self.over_forks(s, depth, name)
        if self.chance(2):
            out += self.join(s, name)
        return out

    def over_forks(self, s: Scope, depth: int, name: str | None = None) -> list[str]:
        if name is None:
            name = self.one(*[g for g, _ in s.groups])
        size = dict(s.groups)[name]
        f, i, d = self.new("f"), self.new("i"), self.new("d")
        kind = self.draw(st.integers(0, 7))
        if kind == 0:
            s.texts.append(f"{name}[0]['x']")
            part = self.one(self.gen_call("x"), f"lambda i: str(i) + {self.text(s)}")
            return [f"{name} += {part}"]
        if kind == 1:
            one = self.new("l")
            s.lists.append(one)
            return [f"{one} = [f['x'] for f in {name}]"]
        if kind == 2:
            return self.join(s, name)
        s2 = s.inner(state=f, loop=True, groups=[], texts=[*s.texts])
        if kind == 3:
            head, s2.counts = f"for {i}, {f} in enumerate({name}):", [*s.counts, i]
        elif kind == 4 and size in ("len(docs)", "len(items)"):
            over = size[4:-1]
            head = f"for {f}, {d} in zip({name}, {over}{self.one('', ', strict=True')}):"
            s2.texts += [d, d] if over == "docs" else [f"{d}['name']"]
        elif kind == 5:
            head, s2.counts, s2.state = f"for {i} in range({size}):", [*s.counts, i], f"{name}[{i}]"
            if size == "len(docs)":
                s2.texts.append(f"docs[{i}]")
        elif kind == 6:
            head = f"for {f} in {name}:"
            s2 = s.inner(loop=True, texts=[*s.texts, f"{f}['x']", f"{f}['x']"])
        else:
            head = f"for {f} in {name}:"
        body = self.block(s2, 1 if depth else 0, self.one(1, 2, 3))
        s.texts += [f"{name}[0][{v!r}]" for v in ("x",) if self.chance(3)]
        return [head, *indented(body)]

    def join(self, s: Scope, name: str) -> list[str]:
        if self.chance(2):
            return [f"{name}.join('concate_and_append')"]
        if self.chance(2):
            s.lists.append(f"{s.state}['x']")
        return [f"{name}.join()"]

    # -- the end ----------------------------------------------------------------------------
    def returned(self, s: Scope) -> list[str]:
        kind = self.draw(st.integers(0, 5))
        if kind == 0:
            return []
        if kind == 1:
            return [f"return {self.text(s)}"]
        if kind == 2:
            return [f"return {self.one(*s.lists)}"]
        if kind == 3:
            return [f"return {{'k': {self.text(s)}, 'n': {self.number(s)}}}"]
        if kind == 4:
            return [f"return {self.text(s)}, {self.number(s)}, {self.one(*s.lists)}"]
        return [f"return [{self.text(s)}, {self.number(s)}]"]
