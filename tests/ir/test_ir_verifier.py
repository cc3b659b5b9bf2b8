"""The verifier finds each kind of malformed IR, and nothing wrong with good IR."""

from __future__ import annotations

import time

import pytest

from sglc import ir
from sglc.errors import IRError, Place
from sglc.ir import types
from sglc.ir.module import Block, Lit, Module, Op, Program
from sglc.ir.verifier import problems


def module(body: str, head: str = "@f(%q: !text)") -> Module:
    lines = "\n".join(f"  {line}" for line in body.strip().split("\n"))
    return ir.parse(f"program {head} {{\n{lines}\n}}\n")


GOOD = [
    "%p = prompt.root\nprompt.return %p, %q",
    "%k = kv.root\nprompt.return %k",
    """%p = prompt.root
    %c, %x: !choice<"a", "b">, %s = prompt.select %p, "a", "b" {path = [0]}
    %r: !prompt = prompt.switch %x {
      case "a" {
        %a, %v: !text, %m = prompt.gen %c {path = [1]}
        prompt.yield %a
      }
      case "b" {
        %b, %w: !text, %n = prompt.gen %c {path = [1]}
        prompt.yield %b
      }
    }
    %d, %z: !text, %o = prompt.gen %r {path = [2]}
    prompt.return %d""",
    """%p = prompt.root
    %u = prompt.role_begin %p {role = "user"}
    %b = prompt.append %u, %q
    %a = prompt.append %u, "x"
    %j = prompt.concat %a, %b, %u
    %e = prompt.role_end %j {role = "user"}
    %v = prompt.role_begin %e {role = "assistant"}
    prompt.return %v""",
    """%k = kv.root
    %i = kv.encode %k, %q
    %l = kv.extend %k, %i
    %r: !kv, %t: !text = plan.group {rows = [0, 1]} {
      %d, %u: !text = plan.issue {rank = 1} {
        %m, %v: !text, %w = kv.decode %l {path = [0]}
        plan.yield %m, %v
      }
      plan.yield %d, %u
    }
    kv.release %l
    prompt.return %r, %t""".replace("%d, %u: !text =", "%d: !kv, %u: !text ="),
    """%k = kv.root
    %r: !int = prompt.if %q then {
      kv.release %k
      prompt.yield 1
    } else {
      %t = prompt.text %k
      kv.release %k
      prompt.yield 2
    }
    %p = prompt.root
    prompt.return %p""",
    """%p = prompt.root
    %r: !prompt = prompt.if %q, %p then (%x: !prompt) {
      prompt.yield %x
    } else (%y: !prompt) {
      %z = prompt.append %y, "no"
      prompt.yield %z
    }
    prompt.return %r""",
]


@pytest.mark.parametrize("body", GOOD)
def test_good_modules(body: str) -> None:
    ir.verify(module(body))


BAD = {
    # shapes
    "text operand": ("%p = prompt.root\n%a = prompt.append %p, 3\nprompt.return %a",
                     "operand 1 is !int, not !choice or !text"),
    "prompt operand": ("%p = prompt.root\n%a = prompt.append %q, \"x\"\nprompt.return %p",
                       "operand 0 is !text, not !kv or !prompt"),
    "kv operand": ("%p = prompt.root\nkv.release %p\nprompt.return %p",
                   "operand 0 is !prompt, not !kv"),
    "result type": ("%p = prompt.root\n%t: !int = prompt.text %p\nprompt.return %p",
                    "result 0 is !int"),
    "prompt result": ("%p: !text = prompt.root\n%r = prompt.root\nprompt.return %r",
                      "result 0 is !text, not !kv or !prompt"),
    "missing attribute": ("%p = prompt.root\n%a, %t: !text, %m = prompt.gen %p\nprompt.return %a",
                          "lacks the attribute path"),
    "unknown attribute": ("%p = prompt.root {colour = 3}\nprompt.return %p",
                          "has no attribute colour"),
    "regions": ("%p = prompt.root\nplan.group {rows = []}\nprompt.return %p",
                "has 1 regions, 0 given"),
    # terminators
    "no terminator": ("%p = prompt.root", "the program does not end in prompt.return"),
    "empty program": ("// nothing", "the program does not end in prompt.return"),
    "early terminator": ("%p = prompt.root\nprompt.return %p\nprompt.return %p",
                         "a terminator in the wrong place"),
    "wrong terminator": ("%p = prompt.root\nprompt.yield %p",
                         "the program does not end in prompt.return"),
    "region's terminator": ("""%p = prompt.root
        plan.group {rows = []} {
          prompt.return %p
        }
        prompt.return %p""", "the region does not end in plan.yield"),
    # yields
    "yield count": ("""%p = prompt.root
        %a: !int = prompt.if %q then {
          prompt.yield 1
        } else {
          prompt.yield
        }
        prompt.return %p""", "yields 0 values for 1 results"),
    "yield type": ("""%p = prompt.root
        %a: !int = prompt.if %q then {
          prompt.yield 1
        } else {
          prompt.yield "x"
        }
        prompt.return %p""", "(!text) for a !int"),
    "region arguments": ("""%p = prompt.root
        %a: !int = prompt.if %q, %q then (%x: !text) {
          prompt.yield 1
        } else (%y: !int) {
          prompt.yield 2
        }
        prompt.return %p""", "the arguments of a region are not the operands after the first"),
    # roles
    "end without begin": ("%p = prompt.root\n%a = prompt.role_end %p {role = \"user\"}\n"
                          "prompt.return %a", "closes 'user' where no message is open"),
    "nested begin": ("%p = prompt.root\n%a = prompt.role_begin %p {role = \"user\"}\n"
                     "%c = prompt.append %a, %q\n"
                     "%b = prompt.role_begin %c {role = \"assistant\"}\nprompt.return %b",
                     "opens 'assistant' while 'user' is open"),
    "wrong end": ("%p = prompt.root\n%a = prompt.role_begin %p {role = \"user\"}\n"
                  "%b = prompt.role_end %a {role = \"system\"}\nprompt.return %b",
                  "closes 'system' while 'user' is open"),
    "end twice": ("%p = prompt.root\n%a = prompt.role_begin %p {role = \"user\"}\n"
                  "%b = prompt.role_end %a {role = \"user\"}\n"
                  "%c = prompt.role_end %b {role = \"user\"}\nprompt.return %c",
                  "closes 'user' where no message is open"),
    # roots
    "host prompt": ("%p: !prompt = prompt.host {fn = \"f\"}\nprompt.return %p",
                    "result 0 is a prompt that comes from no root"),
    "computed prompt": ("%p: !prompt = prompt.compute %q {fn = \"str\"}\nprompt.return %p",
                        "result 0 is a prompt that comes from no root"),
    "generated prompt": ("%p = prompt.root\n%a, %t: !prompt, %m = prompt.gen %p {path = [0]}\n"
                         "prompt.return %t", "result 1 is a prompt that comes from no root"),
    "kind of prompt": ("%p = prompt.root\n%a: !kv = prompt.append %p, %q\nprompt.return %a",
                       "continues a !prompt with a !kv"),
    # paths
    "equal paths": ("%p = prompt.root\n%a, %t: !text, %m = prompt.gen %p {path = [0]}\n"
                    "%b, %u: !text, %n = prompt.gen %p {path = [0]}\nprompt.return %a",
                    "the path [0] is also that of <prompt.gen"),
    "equal path in a branch": ("""%p = prompt.root
        %a, %t: !text, %m = prompt.gen %p {path = [0]}
        %i: !int = prompt.if %t then {
          %b, %c: !text, %s = prompt.select %p, "x" {path = [0]}
          prompt.yield 1
        } else {
          prompt.yield 2
        }
        prompt.return %a""".replace("%c: !text", "%c"), "the path [0] is also that of"),
    "equal path after a branch": ("""%p = prompt.root
        %i: !int = prompt.if %q then {
          prompt.yield 1
        } else {
          %b, %c, %s = prompt.select %p, "x" {path = [0]}
          prompt.yield 2
        }
        %a, %t: !text, %m = prompt.gen %p {path = [0]}
        prompt.return %a""", "the path [0] is also that of"),
    "path type": ("%p = prompt.root\n%a, %t: !text, %m = prompt.gen %p {path = 0}\n"
                  "prompt.return %a", "path is not a list"),
    # choices
    "no choices": ("%p = prompt.root\n%a, %t, %s = prompt.select %p {path = [0]}\n"
                   "prompt.return %a", "has no choices"),
    "empty choice": ("%p = prompt.root\n%a, %t, %s = prompt.select %p, \"a\", \"\" {path = [0]}\n"
                     "prompt.return %a", "has an empty choice"),
    "equal choices": ("%k = kv.root\n%a, %t, %s = kv.score %k, \"a\", %q, \"a\" {path = [0]}\n"
                      "prompt.return %a", "has the same choice twice: ['a']"),
    # switches
    "equal labels": ("""%p = prompt.root
        prompt.switch %q {
          case "a" {
            prompt.yield
          }
          case "a" {
            prompt.yield
          }
          default {
            prompt.yield
          }
        }
        prompt.return %p""", "cases share a label"),
    "default first": ("""%p = prompt.root
        prompt.switch %q {
          default {
            prompt.yield
          }
          case "a" {
            prompt.yield
          }
        }
        prompt.return %p""", "the default case is not the last"),
    "no default": ("""%p = prompt.root
        prompt.switch %q {
          case "a" {
            prompt.yield
          }
        }
        prompt.return %p""", "a switch on a !text needs a default case"),
    "no case": ("""%p = prompt.root
        %a, %t: !choice<"a", "b">, %s = prompt.select %p, "a", "b" {path = [0]}
        prompt.switch %t {
          case "a" {
            prompt.yield
          }
        }
        prompt.return %p""", "no case for ['b']"),
    # releases
    "use after release": ("%k = kv.root\nkv.release %k\nprompt.return %k",
                          "is used after its release"),
    "use after release in a branch": ("""%k = kv.root
        prompt.if %q then {
          kv.release %k
          prompt.yield
        } else {
          prompt.yield
        }
        %t = prompt.text %k
        %p = prompt.root
        prompt.return %p""", "is used after its release"),
    "release twice": ("%k = kv.root\nkv.release %k\nkv.release %k\n%p = prompt.root\n"
                      "prompt.return %p", "is used after its release"),
    # single ops
    "format index": ("%p = prompt.root\n%t = prompt.format %q {parts = [[1, \"\", \"\"]]}\n"
                     "prompt.return %p", "parts must be texts and"),
    "format parts": ("%p = prompt.root\n%t = prompt.format %q {parts = \"x\"}\nprompt.return %p",
                     "parts must be texts and"),
    "unknown function": ("%p = prompt.root\n%t: !text = prompt.compute %q {fn = \"exec\"}\n"
                         "prompt.return %p", "unknown function 'exec'"),
    "fork size": ("%p = prompt.root\n%a, %b = prompt.fork %p {size = 3}\nprompt.return %a",
                  "size is 3 for 2 results"),
    "role type": ("%p = prompt.root\n%a = prompt.role_begin %p {role = 1}\nprompt.return %a",
                  "role is not a text"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_malformed_text(name: str) -> None:
    body, expected = BAD[name]
    with pytest.raises(IRError) as caught:
        ir.verify(module(body))
    assert caught.value.code == "SGLC201"
    assert expected in str(caught.value)
    assert len(problems(module(body))) == 1


def small() -> tuple[Module, Program]:
    m = module("%p = prompt.root\n%a = prompt.append %p, %q\n%b = prompt.append %a, %q\n"
               "prompt.return %b")
    return m, m.programs["f"]


def message(m: Module) -> str:
    with pytest.raises(IRError) as caught:
        ir.verify(m)
    assert caught.value.code == "SGLC201"
    return str(caught.value)


def test_unknown_op() -> None:
    m, p = small()
    p.body.insert_before(p.body.ops[0], Op("prompt.frob", (), None, (types.TEXT,)))
    assert "prompt.frob: unknown operation" in message(m)


def test_operand_and_result_counts() -> None:
    m, p = small()
    p.body.insert_before(p.body.ops[0], Op("prompt.root", [Lit(1)], None, ()))
    text = message(m)
    assert "has 0 operands, 1 given" in text
    assert "has 1 results, 0 given" in text


def test_use_before_definition() -> None:
    m, p = small()
    ops = p.body.ops
    ops[1], ops[2] = ops[2], ops[1]
    assert "is used where it is not defined" in message(m)


def test_use_of_a_value_from_a_region_that_ended() -> None:
    m, p = small()
    inner = Op("prompt.root", (), None, (types.PROMPT,))
    block = Block()
    block.append(inner)
    block.append(Op("plan.yield"))
    p.body.insert_before(p.body.ops[0], Op("plan.group", (), {"rows": ()}, (), [block]))
    p.body.ops[-1].set_operands(inner.results)
    assert "is used where it is not defined" in message(m)


def test_use_of_a_value_of_another_program() -> None:
    m, p = small()
    other = m.add(Program("g", [("x", types.PROMPT)]))
    other.body.append(Op("prompt.return", [p.body.ops[0].results[0]]))
    text = message(m)
    assert "@g: prompt.return: " in text
    assert "names ops that do not read it" in text


def test_use_lists() -> None:
    m, p = small()
    p.args[0].uses.pop()
    assert "lacks ops that read it" in message(m)
    m, p = small()
    p.args[0].uses.append(p.body.ops[0])
    assert "names ops that do not read it" in message(m)
    m, p = small()
    p.args[0].uses.reverse()  # the order means nothing
    ir.verify(m)


def test_links() -> None:
    m, p = small()
    p.body.ops[1].block = None
    assert "does not know its block" in message(m)
    m, p = small()
    p.body.ops.insert(1, p.body.ops[0])
    assert "is defined twice" in message(m)
    m, p = small()
    p.body.ops[0].results[0].index = 3
    assert "does not know its definition" in message(m)
    m, p = small()
    p.body.parent = None
    assert "the body's parent is not the program" in message(m)
    m = module("%p = prompt.root\nplan.group {rows = []} {\n  plan.yield\n}\nprompt.return %p")
    m.programs["f"].body.ops[1].regions[0].parent = None
    assert "a region does not know its op" in message(m)


@pytest.mark.parametrize("value", [[1], {"a": 1}, object(), (1, [2]), b"x", {1}])
def test_data_that_is_not_plain(value: object) -> None:
    m, p = small()
    p.body.ops[0].attrs["template"] = value
    assert "attribute template is not plain data" in message(m)
    m, p = small()
    p.attrs["fact"] = value
    assert "attribute fact is not plain data" in message(m)
    m, p = small()
    p.body.ops[-1].set_operands([p.body.ops[-1].operands[0], Lit(value)])
    assert "a literal is not plain data" in message(m)


def test_headers() -> None:
    m, p = small()
    m.programs["other"] = m.programs.pop("f")
    assert "the module calls this program @other" in message(m)
    m, p = small()
    p.returns = ("a", "a")
    assert "returns repeats a name" in message(m)
    m = Module([Program("f", [("a", types.TEXT), ("a", types.TEXT)])])
    assert "arguments share a name" in message(m)


@pytest.mark.parametrize("kind", [types.Type("frob"), types.Type("choice"), types.Type("list"),
                                  types.Type("text", ("x",)), types.choice("a", "a"),
                                  types.list_of(types.Type("frob"))])
def test_types(kind: types.Type) -> None:
    program = Program("f", [("a", kind)])
    root = program.body.append(Op("prompt.root", (), None, (types.PROMPT,)))
    program.body.append(Op("prompt.return", root.results))
    message(Module([program]))


def test_deep_regions_are_an_error_not_a_crash() -> None:
    block = Block()
    block.append(Op("plan.yield"))
    for _ in range(3000):
        outer = Block()
        outer.append(Op("plan.group", (), {"rows": ()}, (), [block]))
        outer.append(Op("plan.yield"))
        block = outer
    program = Program("f")
    root = program.body.append(Op("prompt.root", (), None, (types.PROMPT,)))
    program.body.append(Op("plan.group", (), {"rows": ()}, (), [block]))
    program.body.append(Op("prompt.return", root.results))
    assert "nested more than" in message(Module([program]))


def test_all_problems_are_listed_with_places() -> None:
    m = module("%p = prompt.root {x = 1}  // a.py:3:5\n%k = kv.root\nkv.release %k\n"
               "kv.release %k  // a.py:9:1\nprompt.return %p")
    text = message(m)
    assert "2 problems" in text
    assert "@f: prompt.root (a.py:3:5): has no attribute x" in text
    assert "@f: kv.release (a.py:9:1): " in text
    with pytest.raises(IRError) as caught:
        ir.verify(m)
    assert caught.value.diagnostic.place == Place("a.py", 3, 5)


def thousand_ops() -> Module:
    lines = ["%p0 = prompt.root"]
    for i in range(500):
        lines.append(f'%a{i} = prompt.append %p{i}, "some text {i}"  // tool.py:14:5')
        lines.append(f"%p{i + 1}, %x{i}: !text, %m{i} = prompt.gen %a{i} "
                     f'{{max_tokens = 64, name = "x{i}", path = [{i}], stop = ["\\n"]}}')
    return module("\n".join([*lines, "prompt.return %p500"]))


def test_speed() -> None:
    """Generous bounds: they catch quadratic behaviour, not slow machines."""
    m = thousand_ops()

    def best(run: object) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run()  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    text = ir.print(m)
    assert best(lambda: ir.verify(m)) < 0.02
    assert best(lambda: ir.print(m)) < 0.08
    assert best(lambda: ir.parse(text)) < 1.0
