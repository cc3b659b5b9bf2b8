"""Random valid programs as source text, with argument rows for a batch: what hypothesis feeds.

A program is `def prog(s, a, b, items)`, with `a` and `b` texts and `items` a list of texts, that
says `sgl.gen(...)` and so on; `load` writes it to a real file and imports that, so that its
source can be read back.  Valid means: no variable is read that may be missing, roles nest
properly, no model call stands on an empty prompt.  Nothing here knows how programs run.
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

from sglc.config import CHOICES_METHODS

TEXTS = ("a", " ", "\n", "\n\n", "  x", "x  ", "Hello, world", "1 + 1 =", "é", "日本語 ", "👍🏽",
         "e\u0301", "<|im_end|>", "<|im_start|>user\n", "</s>", "[INST]", "{x}", "'q\"", "\\n",
         "\t\r\n", "\u00a0", "don't", "12 345", "\ufffd")
STOPS = ("a", "e", " ", "\n", "ab", "\n\n", "é", "1", "</s>", "the ")
REGEXES = (r"[0-9]+", r"(yes|no|maybe)", r"[a-c]{2,4}", r"\w+ \w+", r'\{"k": "[a-z]*"\}', r"(ab)*",
           r"x", r"[-+]?[0-9]{1,3}(\.[0-9])?", r"[é-ü]+!", r"[^\n]{1,5}", r"\s?[A-Z][a-z]{0,3}")
CHOICES = (("yes", "no"), ("a", "ab", "abc"), (" x", " xy", "x"), ("é", "è", "e"),
           ("1", "10", "100", "11"), ("\n", "\n\n"), ("only",), ("<|im_end|>", "<|im"),
           ("red apple", "red apples", "green"))
HEADER = """\
import {module} as sgl

CALLS = []  # what the host function was called with, in order


def host(text):
    CALLS.append(text)
    return f"<{{len(text)}}>"


def tell(s, name, text):
    s += text + ": " + sgl.gen(name, max_tokens=3, temperature=0)
    return s[name]

"""

odd_text = st.one_of(
    st.sampled_from(TEXTS),
    st.lists(st.sampled_from(TEXTS), min_size=2, max_size=4).map("".join),
    st.text(st.characters(codec="utf-8"), max_size=6),
)
rows = st.fixed_dictionaries({"a": st.sampled_from(("", *TEXTS)), "b": odd_text,
                              "items": st.lists(st.sampled_from(("", *TEXTS)), max_size=3)})


@dataclass(frozen=True)
class GeneratedProgram:
    """Source of `fn_name` (without the header that `load` adds) and its batch of arguments."""

    source: str
    fn_name: str
    rows: tuple[dict[str, Any], ...]

    def __repr__(self) -> str:
        calls = "\n".join(f"# row {i}: {row!r}" for i, row in enumerate(self.rows))
        return f"\n{self.source}{calls}\n"


def load(program: GeneratedProgram, directory: Path, module: str = "sglc") -> ModuleType:
    """The program as a module from a new file; `module` is what it imports as `sgl`.

    The body, undecorated, is the module's `program.fn_name`; `CALLS` lists its host calls.
    """
    text = HEADER.format(module=module) + "\n" + program.source
    name = "prog_" + hashlib.sha256(text.encode()).hexdigest()[:16]
    path = Path(directory) / f"{name}.py"
    path.write_text(text, encoding="utf-8", newline="\n")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@st.composite
def programs(draw: Callable[..., Any], max_statements: int = 12, max_rows: int = 3, *,
             regex: bool = True, sampling: bool = True,
             inherit: bool = False) -> GeneratedProgram:
    """Programs of at most about `max_statements` statements with 1 to `max_rows` rows.

    regex: constraints occur.  sampling: temperatures above 0 and n > 1 occur.  inherit: some
    gens leave `max_tokens` and `temperature` to the run (see `run_options`).
    """
    writer = Writer(draw, max_statements, regex, sampling, inherit)
    start = writer.text() if draw(st.booleans()) else f'"Q: " + {writer.text()}'
    lines = ["def prog(s, a, b, items):", f"    s += {start if start != repr('') else repr('-')}"]
    lines += writer.block(State("s"), 1, 2)
    returned = draw(st.sampled_from(("", "    return s.text()\n", "    return len(items), a\n")))
    given = draw(st.lists(rows, min_size=1, max_size=max_rows))
    return GeneratedProgram("\n".join(lines) + "\n" + returned, "prog", tuple(given))


run_options = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 6)},
    optional={"temperature": st.sampled_from((0.0, 0.7, 1.5)), "stop": st.sampled_from((("e",),)),
              "top_p": st.sampled_from((0.5, 0.9)), "frequency_penalty": st.just(0.5),
              "ignore_eos": st.just(True)})
"""Keyword arguments of `RunOptions`: what `run()` may say for every gen."""


@dataclass
class State:
    """What the writer knows of one prompt state at one point of the program."""

    name: str  # the Python expression for it
    texts: list[str] = field(default_factory=list)  # variables that surely hold a str
    lists: list[str] = field(default_factory=list)  # ... a non-empty list of str
    picks: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)  # selects by outcome
    local: list[str] = field(default_factory=list)  # Python names that hold a str
    role: str = ""  # of the open message
    roles: bool = True  # messages may be opened

    def inner(self, name: str | None = None, **changes: Any) -> State:
        """The same knowledge for a nested block or a forked child, to be changed apart."""
        new = State(name or self.name, list(self.texts), list(self.lists), list(self.picks),
                    list(self.local), self.role, self.roles)
        for key, value in changes.items():
            setattr(new, key, value)
        return new


class Writer:
    """Writes statements; `left` is how many may still be written."""

    def __init__(self, draw: Callable[..., Any], left: int, regex: bool, sampling: bool,
                 inherit: bool) -> None:
        self.draw, self.left, self.count = draw, left, 0
        self.regex, self.sampling, self.inherit = regex, sampling, inherit
        self.chat = self.draw(st.booleans())  # many messages

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def one(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def chance(self, of: int) -> bool:
        """True about once in `of` (shrinks to False)."""
        return bool(self.draw(st.integers(1, of)) == of)

    def block(self, s: State, indent: int, depth: int) -> list[str]:
        """Statements at this indentation; at least one line."""
        out: list[str] = []
        for _ in range(self.draw(st.integers(1, 8 if indent == 1 else 3))):
            if self.left <= 0:
                break
            self.left -= 1
            out += self.one(*self.kinds(s, depth))(s, depth)
        return [" " * 4 * indent + line for line in out or ["pass"]]

    def kinds(self, s: State, depth: int) -> list[Callable[[State, int], list[str]]]:
        """What may stand here; more often what comes more than once."""
        kinds = [self.append, self.gen, self.gen, self.select, self.read, self.set_var]
        if s.roles and not s.role:
            kinds += [self.message, self.role_block] + 3 * self.chat * [self.message]
        if depth > 0:
            kinds += [self.fork, self.loop, self.copy, self.scope, self.branch, self.fork]
        return kinds

    def nested(self, s: State, depth: int) -> list[str]:
        """A block one level in, its lines relative to the enclosing block."""
        return self.block(s, 1, depth - 1)

    # -- expressions ----------------------------------------------------------------------
    def text(self) -> str:
        return repr(self.draw(odd_text))

    def value(self, s: State) -> str:
        """A Python expression for some text, other than a literal."""
        options = ["a", "b", "str(len(items))", *s.local]
        options += [f"{s.name}[{v!r}]" for v in s.texts]
        options += [f"{s.name}[{v!r}][-1]" for v in s.lists]
        options += [f'"; ".join({s.name}[{v!r}])' for v in s.lists]
        return str(self.one(*options))

    def string(self, s: State) -> str:
        """A literal, a value, an f-string of values, or a method call."""
        kind = self.draw(st.integers(0, 5))
        if kind <= 1:
            return self.text()
        if kind == 2:
            return self.value(s)
        if kind == 3:
            before, after = (_in_fstring(self.draw(odd_text)) for _ in range(2))
            value = self.value(s).replace("'", '"')
            return f"f'{before}{{{value}}}{after}'"
        if kind == 4:
            return f"{self.value(s)}.{self.one('strip()', 'upper()', 'replace(chr(97), str(1))')}"
        return f"{self.text()} + {self.value(s)}"

    def gen_call(self, name: str | None) -> tuple[str, bool]:
        """(source of a gen, whether its value is a list)."""
        sampled = self.sampling and self.chance(2)
        args: dict[str, Any] = {"max_tokens": self.draw(st.integers(0, 12)),
                                "temperature": self.one(1.0, 0.5, 2.0) if sampled else 0}
        if self.inherit and self.chance(3):
            args.pop(self.one("max_tokens", "temperature"))
        extra = self.draw(st.integers(0, 9))
        if extra == 1:
            args["stop"] = self.one(*STOPS)
        elif extra == 2:
            args["stop"] = sorted({self.one(*STOPS) for _ in range(3)})
        elif extra == 3 and self.regex:
            args["regex"] = self.one(*REGEXES)
        elif extra == 4 and self.regex:
            args["dtype"] = self.one("int", "bool")
        elif extra == 5:
            args["min_tokens"] = self.draw(st.integers(1, 4))
        elif extra == 6:
            args["ignore_eos"] = True
        elif extra == 7:
            args["stop_token_ids"] = [self.one(32, 97, 101)]
        elif extra == 8:
            args["stop"], args["no_stop_trim"] = self.one(*STOPS), True
        if self.chance(4):
            kind = self.one("frequency_penalty", "presence_penalty", "repetition_penalty")
            args[kind] = self.one(1.5, 0.5)
        if sampled and self.chance(2):
            kind = self.one("top_k", "top_p", "min_p")
            args[kind] = self.one(2, 5) if kind == "top_k" else self.one(0.3, 0.9)
        if sampled and self.chance(4):
            args["n"] = self.one(2, 3)
        if sampled and self.chance(4):
            args["seed"] = self.one(7, -1)
        words = [repr(name)] if name else []
        words += [f"{k}={v!r}" for k, v in args.items()]
        return f"sgl.gen({', '.join(words)})", "n" in args

    def select_call(self, s: State, name: str) -> tuple[str, tuple[str, ...] | None]:
        """(source of a select, its choices if they are literal)."""
        method = self.one(None, *CHOICES_METHODS)
        tail = f", choices_method={method!r})" if method else ")"
        if self.chance(5):
            value = self.value(s)
            return f'sgl.select({name!r}, ["A" + {value}, "B" + {value}]{tail}', None
        choices = self.one(*CHOICES)
        return f"sgl.select({name!r}, {list(choices)!r}{tail}", choices

    def produced(self, s: State, name: str, many: bool) -> None:
        (s.lists if many else s.texts).append(name)

    # -- statements: lines relative to the block --------------------------------------------
    def append(self, s: State, depth: int) -> list[str]:
        if self.chance(8):
            return [f"{s.name} += host({self.string(s)})"]
        return [f"{s.name} += {self.string(s)}"]

    def gen(self, s: State, depth: int) -> list[str]:
        if self.chance(8):
            return [f"{s.name} += {self.gen_call(None)[0]}"]
        name = self.new("v")
        if self.chance(8):
            local = self.new("t")
            line = f"{local} = tell({s.name}, {name!r}, {self.value(s)})"
            self.produced(s, name, False)
            s.local.append(local)
            return [line]
        call, many = self.gen_call(name)
        form = self.one("{}", "{}", "{} + {t}", "{t} + {}", "{t} + {} + {t}")
        line = f"{s.name} += " + form.format(call, t=self.string(s))
        self.produced(s, name, many)
        return [line]

    def select(self, s: State, depth: int) -> list[str]:
        name = self.new("c")
        call, choices = self.select_call(s, name)
        self.produced(s, name, False)
        if choices:
            s.picks.append((name, choices))
        return [f"{s.name} += {call}"]

    def read(self, s: State, depth: int) -> list[str]:
        local = self.new("t")
        if self.chance(3):
            line = f"{local} = " + self.one("{0}.text()", "str({0}.messages())").format(s.name)
        elif self.chance(4):
            line = f"{local} = host({self.value(s)})"
        else:
            line = f"{local} = {self.value(s)}"
        s.local.append(local)
        return [line]

    def set_var(self, s: State, depth: int) -> list[str]:
        name = self.one(*s.texts, self.new("w"))
        form = self.one("{}[{!r}] = {}", "{}.set_var({!r}, {})")
        line = form.format(s.name, name, self.string(s))
        if name not in s.texts:
            s.texts.append(name)
        s.picks = [p for p in s.picks if p[0] != name]
        return [line]

    def message(self, s: State, depth: int) -> list[str]:
        role = self.one("user", "assistant", "system")
        if self.chance(2):
            return [f"{s.name} += sgl.{role}({self.string(s)})"]
        name = self.new("v")
        call, many = self.gen_call(name)
        form = self.one("{s} += sgl.{r}({g})", "{s}.{r}({g})", "{s} += sgl.{r}({t} + {g})",
                        "{s} += sgl.{r}_begin() + {t} + {g} + sgl.{r}_end()")
        line = form.format(s=s.name, r=role, g=call, t=self.string(s))
        self.produced(s, name, many)
        return [line]

    def role_block(self, s: State, depth: int) -> list[str]:
        role = self.one("user", "assistant", "system")
        s.role = role
        body = self.nested(s, depth)
        s.role = ""
        return [f"with {s.name}.{role}():", *body]

    def scope(self, s: State, depth: int) -> list[str]:
        name = self.new("z")
        body = self.nested(s, depth)
        s.texts.append(name)
        return [f"with {s.name}.var_scope({name!r}):", *body]

    def copy(self, s: State, depth: int) -> list[str]:
        child = s.inner(self.new("k"))
        body = self.nested(child, depth) + self.close(child)
        self.gathered(s, child)
        return [f"with {s.name}.copy() as {child.name}:", *body]

    def close(self, child: State) -> list[str]:
        """The end of a forked child's block: it may close the message it was forked in."""
        if not child.role or not child.roles or self.chance(2):
            return []
        return [f"    {child.name} += sgl.{child.role}_end()",
                f"    {child.name}['m'] = str({child.name}.messages())"]

    def gathered(self, s: State, child: State) -> None:
        """What the parent has after a gathering join: the child's new variables, as lists."""
        s.lists += [v for v in child.texts if v not in s.texts and v not in s.lists]

    def branch(self, s: State, depth: int) -> list[str]:
        tests = ["len(items) > 1", 'a == "a"', '"x" in b']
        tests += [f"{s.name}[{n!r}] == {c[0]!r}" for n, c in s.picks for _ in range(3)]
        tests += [f'"e" in {s.name}[{v!r}]' for v in s.texts]
        lines = [f"if {self.one(*tests)}:", *self.nested(s.inner(), depth)]
        if self.chance(2):
            lines += ["else:", *self.nested(s.inner(), depth)]
        return lines

    def loop(self, s: State, depth: int) -> list[str]:
        item = self.new("i")
        head = self.one("for {} in items:", "for {} in range(2):", "for {} in range(len(items)):",
                        "for j, {} in enumerate(items):")
        inner = s.inner()
        inner.local.append(f"str({item})" if "range" in head else item)
        return [head.format(item), *self.nested(inner, depth)]

    def fork(self, s: State, depth: int) -> list[str]:
        group, child, size = self.new("f"), self.new("k"), self.draw(st.integers(1, 3))
        join = self.one("join()", "join()", 'join("concate_and_append")', None)
        inner = s.inner(child, roles=s.roles and join != 'join("concate_and_append")')
        lines = [f"{group} = {s.name}.fork({size})"]
        if self.chance(2):
            name = self.new("v")
            call, many = self.gen_call(name)
            lines.append(f"{group} += " + self.one(call, f'lambda i: f"{{i}}. " + {call}',
                                                   f"[{', '.join([call] * size)}]"))
            self.produced(inner, name, many)
        if len(lines) == 1 or self.chance(2):
            head = self.one(f"for {child} in {group}:", f"for i, {child} in enumerate({group}):")
            lines += [head, *self.nested(inner, depth), *self.close(inner)]
        if self.chance(3):
            lines.append(f"{group}[0] += {self.text()}")
        fresh = [v for v in inner.texts if v not in s.texts]
        if fresh and self.chance(2):
            lines.append(f"{s.name} += {group}[{size - 1}][{self.one(*fresh)!r}]")
        if join:
            lines.append(f"{group}.{join}")
        if join == "join()":
            self.gathered(s, inner)
        return lines


def _in_fstring(text: str) -> str:
    """`text` as it stands between the single quotes of an f-string."""
    escaped = text.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return escaped.replace("{", "{{").replace("}", "}}")
