"""Random prompt-stage modules, as a tracer would write them but without hash-consing."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from sglc.errors import Place
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.types import BOOL, INT, META, PROMPT, SCORES, TEXT, Type, choice

TEXTS = ("", "a", " ", "b c", "\n", "Q: the", " answer", "\n\nA:", "é", "  ", "<|im_end|>",
         "The river runs by the mill, and the mill stands by the road. In the morning")
ARGS = {"x": TEXT, "y": TEXT, "n": INT}
ROLES = ("system", "user", "assistant")
METHODS = ("strip", "upper", "title", "isdigit", "splitlines", "find")


@dataclass
class State:
    """Where a traced prompt state is."""

    prompt: Value
    texts: list[Operand]
    flags: list[Operand]
    opened: Value | None = None  # the begin of an open message
    role: str = ""
    history: tuple[str, ...] = ()
    marks: list[Value] = field(default_factory=list)  # prompts this one extends

    def copy(self) -> State:
        return State(self.prompt, [*self.texts], [*self.flags], self.opened, self.role,
                     self.history, [*self.marks])


class Writer:
    """Writes one program."""

    def __init__(self, random: Random, size: int = 12) -> None:
        self.random = random
        self.size = size
        self.calls = 0
        self.line = 0
        self.program = Program("main", ARGS.items(), loc=Place("prog.py", 1))

    def module(self) -> Module:
        body = self.program.body
        root = self.op(body, "prompt.root", (), {}, (PROMPT,)).results[0]
        args = dict(zip(ARGS, body.args, strict=True))
        state = State(root, [args["x"], args["y"]], [], marks=[root])
        for _ in range(self.random.randint(1, self.size)):
            self.statement(body, state, 0)
        self.close(body, state)
        names = [op.attrs["name"] for op in self.program.walk() if op.name == "prompt.bind"]
        self.program.returns = tuple(dict.fromkeys(names))
        self.op(body, "prompt.return", (state.prompt, *state.texts[-1:]), {}, ())
        return Module([self.program])

    def op(self, block: Block, name: str, operands: Any, attrs: dict[str, Any],
           types: tuple[Type, ...]) -> Op:
        self.line += 1
        return block.append(Op(name, operands, attrs, types, (), Place("prog.py", self.line)))

    def path(self) -> tuple[int, ...]:
        self.calls += 1
        return (self.calls,)

    def name(self) -> str:
        return self.random.choice(("u", "v", "w"))

    def go_on(self, block: Block, state: State, name: str, operands: Any = (), **attrs: Any) -> Op:
        """An op that continues the prompt."""
        op = self.op(block, name, (state.prompt, *operands), attrs, (PROMPT,))
        state.prompt = op.results[0]
        return op

    def statement(self, block: Block, state: State, depth: int) -> None:
        kinds = ["append"] * 5 + ["gen", "gen", "select", "special", "host", "format", "compute",
                                  "span", "role", "role"]
        if depth < 2:
            kinds += ["fork", "branch", "branch", "twins"]
        getattr(self, self.random.choice(kinds))(block, state, depth)
        if self.random.random() < 0.3:
            state.marks.append(state.prompt)

    def append(self, block: Block, state: State, depth: int) -> None:
        text: Operand = (self.random.choice(state.texts) if self.random.random() < 0.3
                         else Lit(self.random.choice(TEXTS)))
        self.go_on(block, state, "prompt.append", (text,))

    def special(self, block: Block, state: State, depth: int) -> None:
        self.go_on(block, state, "prompt.special",
                   token=self.random.choice(("<|im_start|>", "<|endoftext|>")))

    def gen(self, block: Block, state: State, depth: int) -> None:
        attrs: dict[str, Any] = {"path": self.path()}
        if self.random.random() < 0.3:
            attrs["stop"] = ("\n",)
        if self.random.random() < 0.3:
            attrs["max_tokens"] = 8
        self.call(block, state, "prompt.gen", (), attrs, (PROMPT, TEXT, META))

    def select(self, block: Block, state: State, depth: int) -> None:
        texts = self.random.choice((("yes", "no"), ("a", "ab", "\n"), ("only",)))
        op = self.call(block, state, "prompt.select", tuple(Lit(t) for t in texts),
                       {"path": self.path()}, (PROMPT, choice(*texts), SCORES))
        flag = self.op(block, "prompt.compute", (op.results[1], Lit(texts[0])), {"fn": "eq"},
                       (BOOL,))
        state.flags.append(flag.results[0])

    def call(self, block: Block, state: State, name: str, operands: Any, attrs: dict[str, Any],
             types: tuple[Type, ...]) -> Op:
        op = self.op(block, name, (state.prompt, *operands), attrs, types)
        state.prompt, value, meta = op.results
        state.texts.append(value)
        if self.random.random() < 0.6:
            name = self.name()
            self.op(block, "prompt.bind", (value,), {"name": name}, ())
            if self.random.random() < 0.5:
                self.op(block, "prompt.meta", (meta,), {"name": name}, ())
        return op

    def host(self, block: Block, state: State, depth: int) -> None:
        op = self.op(block, "prompt.host", (self.random.choice(state.texts), Lit("k")),
                     {"fn": self.random.choice(("f", "g"))}, (TEXT,))
        state.texts.append(op.results[0])

    def format(self, block: Block, state: State, depth: int) -> None:
        parts: list[Any] = []
        operands: list[Operand] = []
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.5:
                parts.append(self.random.choice(TEXTS))
                continue
            source = self.random.choice((*state.texts, self.program.args[2], Lit("lit"), Lit(7)))
            spec = self.random.choice(("", "", "", ">5", "d"))  # "d" raises for texts
            parts.append((len(operands), self.random.choice(("", "", "s", "r")), spec))
            operands.append(source)
        op = self.op(block, "prompt.format", operands, {"parts": tuple(parts)}, (TEXT,))
        state.texts.append(op.results[0])
        if self.random.random() < 0.7:
            self.go_on(block, state, "prompt.append", (op.results[0],))

    def compute(self, block: Block, state: State, depth: int) -> None:
        source = self.random.choice((*state.texts, Lit(" lit")))
        kind = self.random.choice(("text.strip", "text.upper", "concat", "eq", "text.index"))
        if kind == "eq":
            op = self.op(block, "prompt.compute", (source, Lit(" lit")), {"fn": kind}, (BOOL,))
            state.flags.append(op.results[0])
            return
        more = {"concat": (Lit("!"),), "text.index": (Lit("e"),)}.get(kind, ())
        result = INT if kind == "text.index" else TEXT
        op = self.op(block, "prompt.compute", (source, *more), {"fn": kind}, (result,))
        if result is TEXT:
            state.texts.append(op.results[0])

    def span(self, block: Block, state: State, depth: int) -> None:
        if self.random.random() < 0.3:
            op = self.op(block, "prompt.text", (state.prompt,), {}, (TEXT,))
        else:
            begin = self.random.choice(state.marks)
            op = self.op(block, "prompt.span", (begin, state.prompt), {}, (TEXT,))
        state.texts.append(op.results[0])
        self.op(block, "prompt.bind", op.results, {"name": self.name()}, ())

    def role(self, block: Block, state: State, depth: int) -> None:
        if state.opened is not None:
            self.close(block, state)
            return
        state.role = self.random.choice(ROLES[:1] if not state.history else ROLES[1:])
        self.go_on(block, state, "prompt.role_begin", role=state.role, history=state.history)
        state.opened = state.prompt

    def close(self, block: Block, state: State) -> None:
        if state.opened is None:
            return
        self.op(block, "prompt.message", (state.opened, state.prompt), {"role": state.role}, ())
        self.go_on(block, state, "prompt.role_end", role=state.role, history=state.history)
        state.history = (*state.history, state.role)
        state.opened = None

    def fork(self, block: Block, state: State, depth: int) -> None:
        size = self.random.randint(1, 3)
        base = state.prompt
        op = self.op(block, "prompt.fork", (base,), {"size": size}, (PROMPT,) * size)
        children = []
        for result in op.results:
            child = state.copy()
            child.prompt = result
            opened = child.opened
            for _ in range(self.random.randint(0, 3)):
                self.statement(block, child, depth + 1)
            if child.opened is not opened and child.opened is not None:
                self.close(block, child)
            children.append(child)
        mode = self.random.choice(("gather_variable", "concate_and_append"))
        if any(c.opened is not state.opened for c in children):
            mode = "gather_variable"
        if self.random.random() < 0.3:
            self.append(block, state, depth)
        if self.random.random() < 0.8:
            join = self.op(block, "prompt.join",
                           (state.prompt, base, *[c.prompt for c in children]), {"mode": mode},
                           (PROMPT,))
            state.prompt = join.results[0]
        for child in children:
            state.texts.extend(child.texts[-1:])

    def twins(self, block: Block, state: State, depth: int) -> None:
        """Two equal chains from one prompt, each with a call."""
        texts = [self.random.choice(TEXTS) for _ in range(2)]
        for _ in range(2):
            child = state.copy()
            for text in texts:
                self.go_on(block, child, "prompt.append", (Lit(text),))
            self.gen(block, child, depth)
            state.texts.append(child.texts[-1])

    def branch(self, block: Block, state: State, depth: int) -> None:
        selected = [t for t in state.texts if isinstance(t, Value) and t.type.name == "choice"]
        if selected and self.random.random() < 0.6:
            predicate: Operand = self.random.choice(selected)
            labels = [str(t) for t in predicate.type.args]
            if self.random.random() < 0.5:
                labels[-1] = "default"
            name = "prompt.switch"
        else:
            predicate = self.random.choice((*state.flags, Lit(True), Lit(False)))
            labels, name = ["", ""], "prompt.if"
        regions = []
        start = self.calls
        most = start
        shared = [self.random.choice(TEXTS) for _ in range(self.random.randint(0, 2))]
        role = state.opened
        for label in labels:
            region = Block((), label)
            arm = state.copy()
            self.calls = start
            for text in shared:
                self.go_on(region, arm, "prompt.append", (Lit(text),))
            for _ in range(self.random.randint(0, 3)):
                self.statement(region, arm, depth + 1)
            if arm.opened is not role:
                arm.prompt, arm.texts = state.prompt, state.texts
            self.op(region, "prompt.yield", (arm.prompt, arm.texts[-1]), {}, ())
            regions.append(region)
            most = max(most, self.calls)
        self.calls = most
        self.line += 1
        op = block.append(Op(name, (predicate,), {}, (PROMPT, TEXT), regions,
                             Place("prog.py", self.line)))
        state.prompt = op.results[0]
        state.texts.append(op.results[1])
        state.marks.clear()
        state.marks.append(state.prompt)


def random_module(random: Random, size: int = 12) -> Module:
    """A program with the arguments of `ARGS`."""
    return Writer(random, size).module()
