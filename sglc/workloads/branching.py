"""Programs that fork: tree of thought, debate, several chains, self-consistency, judge,
map-reduce.  Forks share what stands before them; joins read what they wrote."""

from __future__ import annotations

import random
from typing import Any

import sglc as sgl
from sglc.workloads.base import Rows, Size, Workload, fixed, questions, text

_DIMENSIONS = ("clarity", "depth", "style", "grammar", "evidence", "novelty")
_AGENTS = 3
_QUESTIONS = 6  # of a debate's context
_CHUNKS = 4  # of a document that is mapped


def _tree(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def tree(s, q):
        s += q + "\n"
        level = [s]
        for depth in range(3):
            below = []
            for node in level:
                forks = node.fork(3)
                for i, f in enumerate(forks):
                    f += f"\nDepth {depth}, idea {i}:"
                    f += fixed("thought", n)
                    below.append(f)
            level = below
        s += "\nBest:" + "".join([f["thought"][-20:] for f in level]) + fixed("best", n // 2)

    return tree


def _debate(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def debate(s, context, question):
        s += "Context:" + context + "\nQuestion:" + question + "\n"
        agents = s.fork(_AGENTS)
        for i, f in enumerate(agents):
            f += f"Agent {i} says:"
            f += fixed("first", n)
        for i, f in enumerate(agents):
            f += "\nThe others said:"
            for j in range(_AGENTS):
                if j != i:
                    f += agents[j]["first"]
            f += f"\nAgent {i} answers:"
            f += fixed("second", n)
        s += "The debate:"
        for f in agents:
            s += f["second"]
        s += "\nVerdict:" + fixed("verdict", n // 4)

    return debate


def _debates(size: Size, seed: int) -> Rows:
    """Rows in groups of one context."""
    return [{"context": text(size.shared, "context", seed, i // _QUESTIONS),
             "question": text(size.words, "question", seed, i)} for i in range(size.rows)]


def _shuffled_debates(size: Size, seed: int) -> Rows:
    rows = _debates(size, seed)
    random.Random(seed).shuffle(rows)
    return rows


def _chains(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def chains(s, q):
        s += "Question:" + q + "\n"
        forks = s.fork(5)
        for i, f in enumerate(forks):
            f += f"Reasoning {i + 1}:"
            f += fixed("chain", n)
        forks.join()
        s += "These are answers to one question:\n"
        for chain in s["chain"]:
            s += "-" + chain + "\n"
        s += "The best answer is" + fixed("answer", n // 4)

    return chains


def _vote(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def vote(s, q):
        s += "Solve:" + q + "\nSolution:"
        forks = s.fork(8)
        for f in forks:
            f += fixed("path", n, temperature=0.8)
        s += "\nVotes:" + "".join([f["path"][-20:] for f in forks]) + fixed("final", 8)

    return vote


def _judge(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def judge(s, q):
        s += "Read the article." + q + "\n"
        forks = s.fork(len(_DIMENSIONS))
        for f, dimension in zip(forks, _DIMENSIONS, strict=True):
            f += f"Judge its {dimension} in detail:"
            f += fixed("view", n)
        s += "Views:\n"
        for f in forks:
            s += f["view"] + "\n"
        s += "Grade:" + fixed("grade", n // 4)

    return judge


def _map_reduce(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def map_reduce(s, instructions, chunks):
        s += "Instructions:" + instructions + "\n"
        forks = s.fork(len(chunks))
        for f, chunk in zip(forks, chunks, strict=True):
            f += "Part of a document:" + chunk + "\nIts summary:"
            f += fixed("part", n)
        forks.join()
        s += "Summaries of all parts:\n"
        for part in s["part"]:
            s += "*" + part + "\n"
        s += "The summary of the whole:" + fixed("summary", n)

    return map_reduce


def _documents(size: Size, seed: int) -> Rows:
    instructions = text(size.shared, "instructions", seed)
    return [{"instructions": instructions,
             "chunks": [text(size.words, "chunk", seed, i, k) for k in range(_CHUNKS)]}
            for i in range(size.rows)]


WORKLOADS = (
    Workload("tree", "tree of thought, 3 branches, 3 deep", _tree, questions,
             Size(3, 24, 4), Size(32, 512, 64)),
    Workload("debate", "3 agents, 2 rounds; 6 questions a context", _debate, _debates,
             Size(12, 8, 6, 32), Size(144, 64, 64, 1024)),
    Workload("debate-shuffled", "the same, rows in random order", _debate, _shuffled_debates,
             Size(12, 8, 6, 32), Size(144, 64, 64, 1024)),
    Workload("chains", "5 chains of reasoning, then an answer", _chains, questions,
             Size(4, 24, 8), Size(64, 512, 128)),
    Workload("vote", "self-consistency: 8 samples and a vote", _vote, questions,
             Size(4, 32, 6), Size(64, 1024, 128)),
    Workload("judge", "6 views of an article, then a grade", _judge, questions,
             Size(4, 48, 6), Size(64, 1500, 64)),
    Workload("map-reduce", "4 parts summarised, then the whole", _map_reduce, _documents,
             Size(4, 24, 6, 24), Size(64, 1000, 64, 256)),
)
