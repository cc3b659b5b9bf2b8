"""Random valid modules over all operations, for tests of the IR.

A generator draws from a `random.Random`; hypothesis gives one that shrinks, a seeded one repeats.
"""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from sglc.errors import Place
from sglc.ir import types
from sglc.ir.module import Attr, Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS
from sglc.ir.types import Type

TEXTS = ("", "a", "To answer, ", "é", "日本語", "👍🏽", "\n", "\r\n\t", '"', "\\", '\\"',
         "\x00\x7f", "\u0085\u2028\u2029", "\ufeff\u202e", "\ud800", "\ud83d\ude00", "// a.py:1:2",
         "[= 5 tok]", "%p0", "case",
         "default", "{x}", "true", " lead", "trail ", "\\u{d800}", "x" * 50)
NAMES = ("", "", "", "p0", "p0_1", "p1", "answer", "answer_1", "k0", "odd name", "é",
         "a-b", "0", "%")
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e16, 1e-300, 1.7976931348623157e308, 5e-324, 0.1,
          float("inf"), float("-inf"), float("nan"))
INTS = (0, 1, -1, 2**63, -(2**70), 10**5000)
FILES = ("tool.py", "/a b/c.py", "C:\\x\\y.py", "<stdin>", "a:1", "a:1:2", " lead", "", '"q"',
         "new\nline", "é.py", "\u2028", "//x")
SCALAR_TYPES = (types.BOOL, types.INT, types.FLOAT, types.JSON, types.ANY, types.IMAGE)

TERMINATORS = frozenset(n for n, d in OPS.items() if d.effect == "end")
BODY_OPS = tuple(n for n in OPS if n not in TERMINATORS)


class ModuleMaker:
    """Makes modules that verify; `rng` decides everything."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.path = 0
        self.roles: dict[Value, str] = {}

    def some(self, chance: float) -> bool:
        return self.rng.random() < chance

    def text(self) -> str:
        return self.rng.choice(TEXTS)

    def literal(self, depth: int = 0) -> Attr:
        kind = self.rng.randrange(7 if depth < 3 else 6)
        if kind == 6:
            return tuple(self.literal(depth + 1) for _ in range(self.rng.randrange(4)))
        return (None, self.some(0.5), self.rng.choice(INTS), self.rng.choice(FLOATS), self.text(),
                self.rng.randrange(-9, 9))[kind]

    def attrs(self) -> dict[str, Attr]:
        return {self.text() or "x": self.literal() for _ in range(self.rng.randrange(3))}

    def place(self) -> Place | None:
        if self.some(0.4):
            return None
        return Place(self.rng.choice(FILES), self.rng.randrange(1, 999), self.rng.randrange(1, 99))

    def type(self) -> Type:
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.choice_type()
        if kind == 1:
            return types.list_of(self.type())
        return types.TEXT if kind == 2 else self.rng.choice(SCALAR_TYPES)

    def choice_type(self) -> Type:
        return types.choice(*dict.fromkeys(self.rng.choice(TEXTS) for _ in range(3)))

    def choices(self) -> list[str]:
        return list(dict.fromkeys(self.rng.choice(TEXTS[1:]) for _ in range(4)))

    # --- programs -------------------------------------------------------------------------
    def module(self, ops: int = 12, must: str | None = None) -> Module:
        """One to three programs; `must`: an op that is in the first one."""
        out = Module()
        for index in range(1 + self.rng.randrange(3)):
            name = ("tool", "a.b", "odd name", "é")[self.rng.randrange(4)] + str(index)
            out.add(self.program(name, ops, must if index == 0 else None))
        return out

    def program(self, name: str, ops: int, must: str | None) -> Program:
        args = [(n, self.type() if self.some(0.8) else types.PROMPT)
                for n in ("question", "odd name", "é", "", "p0")[:self.rng.randrange(6)]]
        returns = tuple(dict.fromkeys(self.text() for _ in range(self.rng.randrange(3))))
        program = Program(name, args, returns, self.place(), self.attrs())
        self.roles.update((a, "?") for a in program.args if a.type == types.PROMPT)
        scope = list(program.args)
        for _ in range(self.rng.randrange(ops)):
            self.add(program.body, scope, self.rng.choice(BODY_OPS), 0)
        if must is not None and must not in TERMINATORS:
            self.add(program.body, scope, must, 0)
        end = self.pick(program.body, scope, "prompt")
        for value in scope:
            if value.type == types.KV and value is not end and self.some(0.3):
                self.emit(program.body, "kv.release", [value])
        used = [v for v in scope if not any(u.name == "kv.release" for u in v.uses)]
        rest = [self.operand(program.body, used, "value") for _ in range(self.rng.randrange(3))]
        self.emit(program.body, "prompt.return", [end, *rest])
        return program

    def emit(self, block: Block, name: str, operands: list[Operand],
             result_types: tuple[Type, ...] | list[Type] = (), attrs: dict[str, Attr] | None = None,
             regions: list[Block] | None = None) -> Op:
        names = [self.rng.choice(NAMES) for _ in result_types]
        return block.append(Op(name, operands, attrs, result_types, regions or (), self.place(),
                               names))

    def pick(self, block: Block, scope: list[Value], kind: str) -> Value:
        """A visible value of a class, made if there is none."""
        names = {"prompt": ("prompt", "kv")}.get(kind, (kind,))
        found = [v for v in scope if v.type.name in names]
        if found:
            return self.rng.choice(found)
        made = {"prompt": "prompt.root", "!prompt": "prompt.root", "kv": "kv.root",
                "ids": "kv.ids"}[kind]
        self.add(block, scope, made, 9)
        return scope[-1]

    def operand(self, block: Block, scope: list[Value], kind: str) -> Operand:
        if kind == "text":
            found = [v for v in scope if types.is_text(v.type)]
            return self.rng.choice(found) if found and self.some(0.6) else Lit(self.text())
        if kind == "value":
            return (self.rng.choice(scope) if scope and self.some(0.6) else Lit(self.literal()))
        return self.pick(block, scope, kind)

    def add(self, block: Block, scope: list[Value], name: str, depth: int) -> None:
        """Append an op (and what it needs) to a block whose visible values are `scope`."""
        definition = OPS[name]
        if name == "kv.release" or (definition.regions and depth > 2):
            return
        if name in ("prompt.if", "prompt.switch", "plan.group", "plan.issue"):
            self.regions(block, scope, name, depth)
            return
        if name in ("prompt.for", "prompt.map"):
            self.loop(block, scope, name, depth)
            return
        operands: list[Operand] = []
        for kind in definition.operands:
            if kind == "prompt" and definition.results[:1] in (("prompt",), ("prompt*",)):
                kind = "prompt*" if kind.endswith("*") else "!prompt"
            count = self.rng.randrange(3) if kind.endswith("*") else 1
            for _ in range(count):
                operands.append(self.prompt(block, scope) if kind.strip("!*") == "prompt" and
                                definition.results else
                                self.operand(block, scope, kind.rstrip("*")))
        if name in ("prompt.select", "kv.score"):
            operands[1:] = [Lit(text) for text in self.choices()]
        if name == "prompt.join":
            operands[2:] = operands[2:] or [operands[1]]
        attrs: dict[str, Attr] = {a: self.literal() for a in definition.attrs}
        for optional in definition.optional:
            if self.some(0.1):
                attrs[optional] = self.literal()
        if "then" in attrs:
            attrs["then"] = tuple((self.text(), *(self.rng.choice((self.text(), 7))
                                                  for _ in range(self.rng.randrange(3))))
                                  for _ in range(self.rng.randrange(3)))
        if "path" in attrs:
            self.path += 1
            attrs["path"] = (0, self.path)
            attrs.pop("offset", None)
            if self.some(0.2):
                attrs["offset"] = (self.rng.randrange(2),)
                operands.append(Lit(self.rng.randrange(5)))
        results = self.results(name, attrs)
        if name == "prompt.format":
            attrs["parts"] = tuple(
                (i, self.rng.choice(("", "r", "s")), self.text()) if self.some(0.6)
                else self.text() for i in range(len(operands)))
        elif name == "prompt.compute":
            attrs["fn"] = self.rng.choice(("text.strip", "eq", "len", "add"))
        elif name.endswith(".role_begin"):
            operands[1:] = self.history(attrs)
            if self.roles.get(operands[0], "?") != "?":  # type: ignore[call-overload]
                return
            attrs["role"] = self.rng.choice(("user", "assistant"))
        elif name.endswith(".role_end"):
            operands[1:] = self.history(attrs)
            role = self.roles.get(operands[0])  # type: ignore[call-overload]
            if role is None:
                return
            attrs["role"] = "user" if role == "?" else role
        op = self.emit(block, name, operands, results, attrs)
        scope.extend(op.results)
        self.follow_role(op)

    def history(self, attrs: dict[str, Attr]) -> list[Operand]:
        """A history of roles, some repeated; the operands that say how often."""
        repeated = [self.some(0.3) for _ in range(self.rng.randrange(3))]
        attrs["history"] = tuple(("user", "assistant") if r else "system" for r in repeated)
        return [Lit(self.rng.randrange(5)) for r in repeated if r]

    def prompt(self, block: Block, scope: list[Value]) -> Value:
        found = [v for v in scope if v.type == types.PROMPT]
        if found:
            return self.rng.choice(found)
        self.add(block, scope, "prompt.root", 9)
        return scope[-1]

    def results(self, name: str, attrs: dict[str, Attr]) -> list[Type]:
        if name == "prompt.fork":
            attrs["size"] = self.rng.randrange(1, 4)
            return [types.PROMPT] * attrs["size"]
        if name == "prompt.host":
            return [self.type() for _ in range(self.rng.randrange(3))]
        out = []
        for kind in OPS[name].results:
            if kind == "value":
                out.append(self.type())
            elif kind == "text":
                out.append(self.choice_type() if self.some(0.3) else types.TEXT)
            else:
                out.append(Type(kind))
        return out

    def follow_role(self, op: Op) -> None:
        prompts = [self.roles.get(o) for o in op.operands if isinstance(o, Value)]
        role: str | None = None
        if op.name.endswith(".role_begin"):
            role = op.attrs["role"]
        elif op.name.endswith(".role_end") or not prompts:
            role = None
        elif op.name in ("prompt.concat", "kv.concat"):
            role = prompts[1] if prompts[0] == prompts[2] else "?"
        elif op.name == "prompt.join":
            role = prompts[0] if len(set(prompts)) == 1 else "?"
        else:
            role = prompts[0]
        if role is not None:
            self.roles.update((r, role) for r in op.results if r.type.name in ("prompt", "kv"))

    # --- regions --------------------------------------------------------------------------
    def regions(self, block: Block, scope: list[Value], name: str, depth: int) -> None:
        attrs = {a: self.literal() for a in OPS[name].attrs}
        results = [self.rng.choice((types.PROMPT, types.KV, types.TEXT, types.ANY, types.INT))
                   for _ in range(self.rng.randrange(4))]
        operands: list[Operand] = []
        labels = [""]
        if name in ("prompt.if", "prompt.switch"):
            operands = [self.operand(block, scope, "value") for _ in range(
                1 + self.rng.randrange(3))]
            labels = ["", ""]
        if name == "prompt.switch":
            labels = [*(t for t in self.choices() if t != "default"), "default"]
        given = operands[1:] if self.some(0.5) else []
        bodies = []
        for label in labels:
            body = Block([(self.rng.choice(NAMES), o.type) for o in given], label)
            for arg, value in zip(body.args, given, strict=True):
                if isinstance(value, Value) and value in self.roles:
                    self.roles[arg] = self.roles[value]
            inner = [*scope, *body.args]
            for _ in range(self.rng.randrange(4)):
                self.add(body, inner, self.rng.choice(BODY_OPS), depth + 1)
            ends = [self.yielded(body, inner, kind) for kind in results]
            self.emit(body, "plan.yield" if name.startswith("plan.") else "prompt.yield", ends)
            bodies.append(body)
        op = self.emit(block, name, operands, results, attrs, bodies)
        for result in op.results:
            roles = {self.roles.get(b.ops[-1].operands[result.index])  # type: ignore[call-overload]
                     for b in bodies}
            role = roles.pop() if len(roles) == 1 else "?"
            if result.type.name in ("prompt", "kv") and role is not None:
                self.roles[result] = role
        scope.extend(op.results)

    def loop(self, block: Block, scope: list[Value], name: str, depth: int) -> None:
        carried = [self.operand(block, scope, "value") for _ in range(
            self.rng.randrange(3) if name == "prompt.for" else 0)]
        collected = [self.rng.choice((types.PROMPT, types.KV, types.TEXT, types.INT))
                     for _ in range(self.rng.randrange(3))]
        body = Block([("", types.INT), *((self.rng.choice(NAMES), o.type) for o in carried)])
        for arg, value in zip(body.args[1:], carried, strict=True):
            if isinstance(value, Value) and value in self.roles:
                self.roles[arg] = self.roles[value]
        inner = [*scope, *body.args]
        for _ in range(self.rng.randrange(4)):
            self.add(body, inner, self.rng.choice(BODY_OPS), depth + 1)
        ends = [*body.args[1:], *(self.yielded(body, inner, kind) for kind in collected)]
        self.emit(body, "prompt.yield", ends)
        attrs: dict[str, Attr] = {"collected": len(collected)} if collected else {}
        op = self.emit(block, name, [Lit(self.rng.randrange(4)), *carried],
                       [*(a.type for a in body.args[1:]),
                        *(types.list_of(e.type) for e in ends[len(carried):])], attrs, [body])
        for result, arg in zip(op.results, body.args[1:], strict=False):
            if arg in self.roles:
                self.roles[result] = self.roles[arg]
        scope.extend(op.results)

    def yielded(self, block: Block, scope: list[Value], kind: Type) -> Operand:
        if kind == types.PROMPT:
            return self.prompt(block, scope)
        if kind == types.KV:
            return self.pick(block, scope, "kv")
        if kind == types.TEXT:
            return self.operand(block, scope, "text")
        return Lit(self.rng.randrange(9))


modules = st.randoms(use_true_random=False).map(lambda rng: ModuleMaker(rng).module())
"""Valid modules."""
