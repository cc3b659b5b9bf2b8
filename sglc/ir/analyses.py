"""Facts about programs as graphs: dependencies, critical paths, levels of model calls, the tree of
prompts.

Knows nothing of tokens, costs or machines: costs are given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import networkx as nx

from sglc.ir.module import Block, Op, Program, Value
from sglc.ir.signatures import BRANCHES, CALLS, CHAINS, PROMPTS, YIELDING


class CriticalPath(NamedTuple):
    """length: the sum of costs; ops: those on the path, in order, with those inside regions."""

    length: float
    ops: tuple[Op, ...]


def dependency_graph(block: Block) -> nx.DiGraph[Op]:
    """Which ops of a block must come before which.

    Edges have a `kind`: "data" (also where only a region of the later op reads the value),
    "host" (the user's Python keeps its order), "release" (a use comes before the release).
    The order of `block.ops` is a topological order.
    """
    graph: nx.DiGraph[Op] = nx.DiGraph()
    graph.add_nodes_from(block.ops)
    readers: dict[Value, list[Op]] = {}
    host: Op | None = None
    for op in block.ops:
        calls_host = False
        for inner in op.walk():
            calls_host = calls_host or inner.name == "prompt.host"
            for operand in inner.operands:
                if isinstance(operand, Value):
                    readers.setdefault(operand, []).append(op)
                    source = operand.op
                    if source is not None and source.block is block:
                        graph.add_edge(source, op, kind="data")
            if inner.name == "kv.release":
                value = inner.operands[0]
                for reader in readers[value] if isinstance(value, Value) else ():
                    if reader is not op and not graph.has_edge(reader, op):
                        graph.add_edge(reader, op, kind="release")
        if calls_host:
            if host is not None and not graph.has_edge(host, op):
                graph.add_edge(host, op, kind="host")
            host = op
    return graph


def critical_path(block: Block, cost: Callable[[Op], float]) -> CriticalPath:
    """The longest chain of dependent ops by cost.

    An op with regions costs its own cost plus that of its longest region.
    """
    graph = dependency_graph(block)
    ends: dict[Op, tuple[float, Op | None, tuple[Op, ...]]] = {}
    last: Op | None = None
    for op in block.ops:
        before = max(graph.predecessors(op), key=lambda p: ends[p][0], default=None)
        start = ends[before][0] if before is not None else 0.0
        inside = max((critical_path(r, cost) for r in op.regions), key=lambda c: c.length,
                     default=CriticalPath(0.0, ()))
        ends[op] = (start + cost(op) + inside.length, before, inside.ops)
        if last is None or ends[op][0] > ends[last][0]:
            last = op
    if last is None:
        return CriticalPath(0.0, ())
    length = ends[last][0]
    path: list[Op] = []
    step: Op | None = last
    while step is not None:
        _, before, inside_ops = ends[step]
        path[:0] = (step, *inside_ops)
        step = before
    return CriticalPath(length, tuple(path))


def independent_sets(block: Block) -> list[tuple[Op, ...]]:
    """The model calls of a block and its regions in levels.

    The calls of a level need nothing from each other; level i needs i calls before it.  Calls of
    regions that exclude each other may share a level.
    """
    levels: list[list[Op]] = []
    _place_calls(block, 0, levels)
    return [tuple(level) for level in levels]


def depth(block: Block) -> int:
    """The most model calls that come one after another."""
    return len(independent_sets(block))


def _place_calls(block: Block, start: int, levels: list[list[Op]]) -> int:
    graph = dependency_graph(block)
    ends: dict[Op, int] = {}
    for op in block.ops:
        begin = max((ends[p] for p in graph.predecessors(op)), default=start)
        end = begin
        if op.name in CALLS:
            while len(levels) <= begin:
                levels.append([])
            levels[begin].append(op)
            end = begin + 1
        for region in op.regions:
            end = max(end, _place_calls(region, begin, levels))
        ends[op] = end
    return max(ends.values(), default=start)


def reachable(roots: Iterable[Op | Value], *, forward: bool = False) -> set[Op]:
    """The ops that `roots` need, themselves included, or (forward) that need them.

    A region's ops need the op that holds it; an op with regions needs all that is in them.
    """
    seen: set[Op] = set()
    stack: list[Op] = []
    for root in roots:
        if isinstance(root, Op):
            stack.append(root)
        elif forward:
            stack.extend(root.uses)
        elif root.op is not None:
            stack.append(root.op)
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen.add(op)
        holder = op.block.parent if op.block is not None else None
        if isinstance(holder, Op):
            stack.append(holder)
        if forward:
            stack.extend(user for result in op.results for user in result.uses)
        else:
            stack.extend(o.op for o in op.operands if isinstance(o, Value) and o.op is not None)
            stack.extend(inner for region in op.regions for inner in region.ops)
    return seen


def prompt_tree(program: Program) -> nx.DiGraph[Value]:
    """The tree of a program's prompts: an edge from each prompt to those that continue it.

    Edges carry the `op`.  The roots are root ops' results and arguments.  A prompt that comes out
    of a branch continues the last prompt that all its cases continue (none if they share none).
    """
    tree: nx.DiGraph[Value] = nx.DiGraph()
    parents: dict[Value, Value | None] = {}

    def add(value: Value, parent: Value | None, op: Op | None) -> None:
        parents[value] = parent
        tree.add_node(value)
        if parent is not None:
            tree.add_edge(parent, value, op=op)

    def visit(block: Block, given: tuple[Value | None, ...], holder: Op | None) -> None:
        for index, arg in enumerate(block.args):
            if arg.type.name in PROMPTS:
                add(arg, given[index] if index < len(given) else None, holder)
        for op in block.ops:
            inputs = tuple(o if isinstance(o, Value) else None for o in op.operands)
            for region in op.regions:
                visit(region, inputs[1:] if op.name in BRANCHES else (), op)
            for result in op.results:
                if result.type.name not in PROMPTS:
                    continue
                if op.name in YIELDING:
                    add(result, _common([r.ops[-1].operands[result.index] for r in op.regions],
                                        parents), op)
                else:
                    add(result, inputs[0] if op.name in CHAINS else None, op)

    visit(program.body, (), None)
    return tree


def _common(values: list[object], parents: dict[Value, Value | None]) -> Value | None:
    """The last prompt on the way to all of `values`."""
    shared: list[Value] | None = None
    for value in values:
        way: list[Value] = []
        step = value if isinstance(value, Value) else None
        while step is not None:
            way.append(step)
            step = parents[step]
        if shared is None:
            shared = way
        else:
            on_way = set(way)
            shared = [v for v in shared if v in on_way]
    return shared[0] if shared else None
