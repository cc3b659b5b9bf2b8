"""Dependencies, critical paths, levels, reachability, the tree of prompts, Graphviz text."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings

from sglc import ir
from sglc.ir.analyses import (
    critical_path,
    dependency_graph,
    depth,
    independent_sets,
    prompt_tree,
    reachable,
)
from sglc.ir.dot import to_dot
from sglc.ir.module import Module, Op, Program, Value
from sglc.ir.printer import value_names
from tests.ir.ir_modules import modules

PROGRAM = """\
program @f(%q: !text) {
  %p0 = prompt.root
  %p1 = prompt.append %p0, "shared"
  %a = prompt.append %p1, "a"
  %a1, %x: !text, %m0 = prompt.gen %a {path = [0]}
  %b = prompt.append %p1, "b"
  %b1, %y: !text, %m1 = prompt.gen %b {path = [1]}
  %c = prompt.append %b1, %x
  %c1, %z: !choice<"s", "t">, %m2 = prompt.select %c, "s", "t" {path = [2]}
  %h: !any = prompt.host %x {fn = "first"}
  prompt.host {fn = "second"}
  %r: !prompt = prompt.switch %z {
    case "s" {
      %d = prompt.append %c1, "d"
      %d1, %u: !text, %m3 = prompt.gen %d {path = [3]}
      %e1, %v: !text, %m4 = prompt.gen %d1 {path = [4]}
      prompt.host {fn = "third"}
      prompt.yield %e1
    }
    case "t" {
      prompt.yield %b1
    }
  }
  %g, %w: !text, %m5 = prompt.gen %r {path = [5]}
  %dead = prompt.append %g, "dead"
  prompt.return %g
}
"""


@pytest.fixture
def program() -> Program:
    module = ir.parse(PROGRAM)
    ir.verify(module)
    return module.programs["f"]


def by_name(program: Program) -> dict[str, Value]:
    return {name[1:]: value for value, name in value_names(program).items()}


def paths(ops: object) -> list[int]:
    return [op.attrs["path"][0] for op in ops if "path" in op.attrs]  # type: ignore[attr-defined]


def test_dependency_graph(program: Program) -> None:
    graph = dependency_graph(program.body)
    ops = program.body.ops
    values = by_name(program)
    assert set(graph) == set(ops)
    switch = values["r"].op
    first, second = (op for op in ops if op.name == "prompt.host")
    assert graph.edges[first, second]["kind"] == "host"
    assert graph.edges[second, switch]["kind"] == "host"
    # The condition, and what only the regions read.
    assert {op.results[0].name for op in graph.predecessors(switch) if op.results} == {"c1", "b1"}
    assert nx.is_directed_acyclic_graph(graph)


def test_release_comes_after_uses() -> None:
    module = ir.parse("""\
program @f() {
  %k = kv.root
  %t = prompt.text %k
  kv.release %k
  %p = prompt.root
  prompt.return %p, %t
}
""")
    ops = module.programs["f"].body.ops
    graph = dependency_graph(ops[0].block)  # type: ignore[arg-type]
    assert graph.edges[ops[1], ops[2]]["kind"] == "release"
    assert graph.edges[ops[0], ops[2]]["kind"] == "data"


def test_levels_of_calls(program: Program) -> None:
    levels = independent_sets(program.body)
    assert [paths(level) for level in levels] == [[0, 1], [2], [3], [4], [5]]
    assert depth(program.body) == 5


def test_critical_path(program: Program) -> None:
    found = critical_path(program.body, lambda op: 1.0 if "path" in op.attrs else 0.0)
    assert found.length == 5
    assert paths(found.ops)[1:] == [2, 3, 4, 5]
    slow = critical_path(program.body, lambda op: 10.0 if op.name == "prompt.host" else 0.0)
    assert slow.length == 30
    assert [op.attrs["fn"] for op in slow.ops if op.name == "prompt.host"] == [
        "first", "second", "third"]
    assert critical_path(ir.Block(), lambda op: 1.0) == (0.0, ())


def test_reachable(program: Program) -> None:
    values = by_name(program)
    needed = reachable([program.body.ops[-1]])
    assert values["dead"].op not in needed
    assert set(program.walk()) - needed == {values["dead"].op, *(
        op for op in program.body.ops if op.name == "prompt.host")}
    assert paths(sorted(reachable([values["x"]]), key=list(program.walk()).index)) == [0]
    after = reachable([values["z"]], forward=True)
    assert values["r"].op in after
    assert values["g"].op in after
    assert values["x"].op not in after
    assert values["r"].op in reachable([values["u"]])  # an op needs what holds it


def test_prompt_tree(program: Program) -> None:
    values = by_name(program)
    tree = prompt_tree(program)
    edges = {(a.name, b.name) for a, b in tree.edges}
    assert edges == {("p0", "p1"), ("p1", "a"), ("a", "a1"), ("p1", "b"), ("b", "b1"), ("b1", "c"),
                     ("c", "c1"), ("c1", "d"), ("d", "d1"), ("d1", "e1"), ("b1", "r"), ("r", "g"),
                     ("g", "dead")}
    assert tree.edges[values["b1"], values["r"]]["op"] is values["r"].op
    assert nx.is_arborescence(tree)


@settings(max_examples=30, deadline=None)
@given(modules)
def test_on_random_modules(m: Module) -> None:
    for program in m.programs.values():
        graph = dependency_graph(program.body)
        order = {op: i for i, op in enumerate(program.body.ops)}
        assert all(order[a] < order[b] for a, b in graph.edges)
        tree = prompt_tree(program)
        assert nx.is_forest(tree) if tree else True
        assert all(n <= 1 for _, n in tree.in_degree())
        levels = independent_sets(program.body)
        calls = [op for op in program.walk() if "path" in op.attrs]
        assert sorted(map(id, calls)) == sorted(id(op) for level in levels for op in level)
        assert all(levels)
        length = critical_path(program.body, lambda op: float("path" in op.attrs)).length
        assert length == depth(program.body)
        text = to_dot(program)
        assert text.count("{") >= 1
        assert text.startswith("digraph ")


def test_dot(program: Program) -> None:
    text = to_dot(program, elide=12)
    lines = text.split("\n")
    assert lines[0] == 'digraph "f" {'
    assert lines[-2:] == ["}", ""]
    assert sum(" -> " in line for line in lines) == sum(
        isinstance(o, Value) for op in program.walk() for o in op.operands) + 2
    assert 'subgraph cluster1 {' in text
    assert 'label="prompt.switch s"; color=grey;' in text
    assert '  op1 [fillcolor="#eef2f7", label="prompt.append\\n\\"shared\\""];' in text
    assert text.count("{") == text.count("}")


def test_dot_escapes() -> None:
    m = ir.parse(r'''program @"a\"b"() {
  %p = prompt.root
  %q = prompt.append %p, "\\ \" \n"
  prompt.return %q
}''')
    text = to_dot(next(iter(m.programs.values())))
    assert 'digraph "a\\"b" {' in text
    assert r'label="prompt.append\n\"\\\\ \\\" \\n\""' in text


def test_reachable_takes_ops_and_values(program: Program) -> None:
    assert reachable([]) == set()
    assert reachable([program.args[0]]) == set()
    root: Op = program.body.ops[0]
    assert reachable([root]) == {root}
