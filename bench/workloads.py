"""What the peers' tables run: six batches of ids, and six programs in SGLang's language.

Lengths are fixed and texts come from a seed, so every engine does the same work.  Nothing here
knows an engine: programs are made for the front end that they are given (its `gen` and `select`).
The figures beside them were measured on one H200 with a model of the Llama-3.1-8B shape, bf16.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sglc.workloads.base import Rows, text

CHARACTER = (
    r'\{\n "name": "[\w\d\s]{1,16}",\n "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n '
    r'"blood status": "(Pure-blood|Half-blood|Muggle-born)",\n "occupation": "(student|teacher|'
    r'auror|ministry of magic|death eater|order of the phoenix)",\n "wand": \{\n "wood": '
    r'"[\w\d\s]{1,16}",\n "core": "[\w\d\s]{1,16}",\n "length": [0-9]{1,2}\.[0-9]{0,2}\n \},\n '
    r'"alive": "(Alive|Deceased)",\n "patronus": "[\w\d\s]{1,16}",\n "bogart": '
    r'"[\w\d\s]{1,16}"\n\}')


# -- batches of ids -----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts, new tokens each, a constraint; seconds of vLLM, SGLang, roofline and goal."""

    prompts: Callable[[random.Random], list[list[int]]]
    new: int
    known: tuple[float, float, float, float]
    regex: str | None = None


def ids(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(100, 49000) for _ in range(n)]


def rows(count: int, length: int) -> Callable[[random.Random], list[list[int]]]:
    return lambda rng: [ids(rng, length) for _ in range(count)]


def groups(rng: random.Random) -> list[list[int]]:
    out = []
    for _ in range(32):
        shared = ids(rng, 2048)
        out += [shared + ids(rng, 128) for _ in range(16)]
    rng.shuffle(out)
    return out


def one_prefix(rng: random.Random) -> list[list[int]]:
    shared = ids(rng, 4096)
    return [shared + ids(rng, 32) for _ in range(512)]


BATCHES = {
    "bs1": Batch(rows(1, 128), 256, (1.258, 1.235, 0.95, 1.10)),
    "offline": Batch(rows(256, 1024), 128, (8.55, 8.46, 6.9, 7.7)),
    "decode256": Batch(rows(256, 128), 512, (7.16, 7.10, 4.1, 6.0)),
    "sharedprefix": Batch(groups, 64, (6.57, 7.43, 3.6, 4.6)),
    "onebigprefix": Batch(one_prefix, 32, (3.26, 2.79, 0.8, 1.2)),
    "regexjson": Batch(rows(64, 64), 200, (2.85, 3.09, 0.4, 0.6), CHARACTER),
}


def prompts_of(name: str, scale: float = 1.0) -> list[list[int]]:
    """The prompts of a batch, the same each time; `scale`: of how many and of lengths."""
    prompts = BATCHES[name].prompts(random.Random(name))
    if scale == 1:
        return prompts
    return [p[-scaled(len(p), scale):] for p in prompts[:scaled(len(prompts), scale)]]


def chosen(given: str, known: Sequence[str]) -> list[str]:
    """A comma-separated choice of names.  Raises ValueError for one that is not known."""
    names = [n for n in given.split(",") if n]
    if unknown := [n for n in names if n not in known]:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return names


def scaled(count: int, scale: float) -> int:
    return max(2, round(count * scale)) if count > 1 else count


# -- programs -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Job:
    """A program's size and figures.

    instances; words of each text that an instance brings; tokens of its long gens and of its
    last one; words that all instances share.  known: seconds of SGLang 0.5.16 (front end and
    server), least (an estimate), goal.
    """

    instances: int
    words: int
    tokens: int
    last: int
    known: tuple[float, float, float]
    shared: int = 0

    def scaled(self, scale: float) -> Job:
        """The same, smaller."""
        return Job(scaled(self.instances, scale), scaled(self.words, scale),
                   scaled(self.tokens, scale), scaled(self.last, scale), self.known,
                   scaled(self.shared, scale) if self.shared else 0)


JOBS = {
    "tree": Job(32, 512, 64, 32, (11.35, 2.7, 4.0)),
    "judge": Job(64, 1500, 64, 16, (12.28, 3.5, 4.8)),
    "extract": Job(128, 1000, 8, 0, (6.60, 3.0, 4.0)),
    "classify": Job(512, 40, 0, 0, (17.61, 0.6, 1.2), 2000),
    "chat": Job(64, 256, 64, 0, (3.72, 2.5, 3.2)),
    "vote": Job(64, 1024, 128, 8, (13.70, 3.2, 4.8)),
}
BRANCHES, DEPTH = 3, 3
VIEWS = ("clarity", "depth", "style", "grammar", "evidence", "novelty")
FIELDS = ("name", "place", "date", "amount", "person", "reason")
ANSWERS = ("a large house", "the old city", "some other people", "nothing at all")
TURNS, PATHS = 4, 8


def rows_of(name: str, job: Job) -> Rows:
    """The arguments of each instance of a program."""
    if name == "chat":
        return [{"turns": [text(job.words, name, i, k) for k in range(TURNS)]}
                for i in range(job.instances)]
    return [{"q": text(job.words, name, i)} for i in range(job.instances)]


def examples_of(job: Job) -> str:
    """The text that all instances of `classify` begin with."""
    return text(job.shared, "examples")


def make_program(name: str, job: Job, front: Any) -> Callable[..., Any]:
    """The body `f(s, ...)` of a program, in the language of the module `front`."""
    select, n, last = front.select, job.tokens, job.last

    def fixed(variable: str, tokens: int) -> Any:
        return front.gen(variable, max_tokens=tokens, ignore_eos=True)

    examples = examples_of(job)

    def tree(s, q):
        s += q + "\n"
        level = [s]
        for depth in range(DEPTH):
            below = []
            for node in level:
                forks = node.fork(BRANCHES)
                for i, f in enumerate(forks):
                    f += f"\nDepth {depth}, idea {i}:"
                    f += fixed("thought", n)
                    below.append(f)
            level = below
        s += "\nBest:" + "".join([f["thought"][-20:] for f in level]) + fixed("best", last)

    def judge(s, q):
        s += "Read the article." + q + "\n"
        forks = s.fork(len(VIEWS))
        for f, view in zip(forks, VIEWS, strict=True):
            f += f"Judge its {view} in detail:"
            f += fixed("view", n)
        s += "Views:\n"
        for f in forks:
            s += f["view"] + "\n"
        s += "Grade:" + fixed("grade", last)

    def extract(s, q):
        s += "Document:" + q + "\nFields of the document:\n"
        for field in FIELDS:
            s += field + ":" + fixed(field, n) + "\n"

    def classify(s, q):
        s += examples + "\nQuestion:" + q + "\nThe answer is "
        s += select("answer", choices=list(ANSWERS))

    def chat(s, turns):
        for i, turn in enumerate(turns):
            s += "\nUser:" + turn + "\nAssistant:" + fixed(f"answer_{i}", n)

    def vote(s, q):
        s += "Solve:" + q + "\n"
        forks = s.fork(PATHS)
        for i, f in enumerate(forks):
            f += f"Solution {i}:"
            f += fixed("path", n)
        s += "Votes:" + "".join([f["path"][-20:] for f in forks]) + fixed("final", last)

    made = {f.__name__: f for f in (tree, judge, extract, classify, chat, vote)}
    return made[name]
