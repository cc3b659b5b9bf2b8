"""Programs that use more of Python: assignment expressions, errors, coroutines, tables.

All of them are captured whole.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word

CALLS: list[tuple[Any, ...]] = []


def topic_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3)}


def ticket_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "question": question(rng)}


# -- an assignment expression -------------------------------------------------------------------
@sgl.program
def walrus(s: Any, topic: str) -> None:
    s += topic + sgl.gen("a", max_tokens=6)
    if (size := len(s["a"])) > 3:
        s += f"{size} letters" + sgl.gen("b", max_tokens=3)


# -- errors of the program's own ----------------------------------------------------------------
@sgl.program
def refuses_bad_input(s: Any, topic: str, limit: int) -> None:
    if limit > 6:
        raise ValueError(f"{limit} is too much")
    s += topic + sgl.gen("a", max_tokens=limit)
    assert s["a"].isascii(), f"not ASCII: {s['a']!r}"
    s += "." + sgl.gen("b", max_tokens=3)


def limit_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3), "limit": rng.randint(1, 9)}


# -- a coroutine --------------------------------------------------------------------------------
async def look_up(ticket: str, name: str) -> str:
    CALLS.append((ticket, "look_up", name))
    await asyncio.sleep(0)
    return name[::-1]


@sgl.program
async def async_body(s: Any, ticket: str, question: str) -> str:
    s += question + sgl.gen("a", max_tokens=4)
    found = await look_up(ticket, s["a"])
    s += f", that is {found}," + sgl.gen("b", max_tokens=4)
    both = await asyncio.gather(look_up(ticket, s["b"]), look_up(ticket, "again"))
    s += "".join(both)
    return s["a"] + s["b"]


# -- unpacking what the host returns ------------------------------------------------------------
def split_name(ticket: str, name: str) -> tuple[str, str]:
    CALLS.append((ticket, "split_name", name))
    half = len(name) // 2
    return name[:half], name[half:]


@sgl.program
def unpacking(s: Any, ticket: str, question: str) -> str:
    s += question + "\nName:" + sgl.gen("name", max_tokens=8)
    first, last = split_name(ticket, s["name"])
    s += f"\nFirst: {first}, last: {last}" + sgl.gen("end", max_tokens=4)
    return last + first


# -- a handler chosen by the model from a table of functions ------------------------------------
def greet(s: Any) -> None:
    s += "Hello" + sgl.gen("said", max_tokens=4)


def scold(s: Any) -> None:
    s += "Shame on you" + sgl.gen("said", max_tokens=6) + "!"


HANDLERS = {"friend": greet, "thief": scold}


@sgl.program
def handlers(s: Any, stranger: str) -> str:
    s += stranger + " is a " + sgl.select("kind", list(HANDLERS)) + ".\n"
    handler = HANDLERS[s["kind"]]
    handler(s)
    return s["said"]


def stranger_arguments(rng: Random) -> dict[str, Any]:
    return {"stranger": text(rng)}


# -- the best of several drafts goes on ---------------------------------------------------------
def grade(ticket: str, draft: str) -> int:
    CALLS.append((ticket, "grade", draft))
    return sum(map(ord, draft)) % 10


@sgl.program
def best_draft(s: Any, ticket: str, question: str) -> None:
    s += question + "\n"
    drafts = s.fork(3)
    for i, draft in enumerate(drafts):
        draft += f"Draft {i}:" + sgl.gen("draft", max_tokens=5)
    best = max(drafts, key=lambda d: grade(ticket, d["draft"]))
    best += "\nRevised:" + sgl.gen("revised", max_tokens=4)
    s += best["draft"] + " -> " + best["revised"] + sgl.gen("end", max_tokens=3)


# -- counting what the model says ---------------------------------------------------------------
@sgl.program
def tally(s: Any, ticket: str, question: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    s += question
    for _ in range(3):
        s += "\nVote:" + sgl.gen("vote", max_tokens=1, ignore_eos=True)
        counts[s["vote"]] = counts.get(s["vote"], 0) + 1
    CALLS.append((ticket, "counts", dict(counts)))
    width = len(s["vote"]) + 1
    s += f"\nVotes: {counts}, of {sum(counts.values()):0{width}d}" + sgl.gen("end", max_tokens=3)
    return counts


# -- a program defined where it is used ---------------------------------------------------------
@sgl.program
def local_program(s: Any, subject: str) -> None:
    @sgl.program
    def define(t: Any, term: str) -> None:
        t += f"In {subject}, {term} means" + sgl.gen("meaning", max_tokens=4)

    s += subject + ":" + sgl.gen("term", max_tokens=3)
    s += " = " + define(s["term"])["meaning"] + sgl.gen("end", max_tokens=3)


def subject_arguments(rng: Random) -> dict[str, Any]:
    return {"subject": word(rng)}


SPECS = [
    Spec(walrus, topic_arguments), Spec(refuses_bad_input, limit_arguments, fails=True),
    Spec(async_body, ticket_arguments), Spec(unpacking, ticket_arguments),
    Spec(handlers, stranger_arguments), Spec(best_draft, ticket_arguments),
    Spec(tally, ticket_arguments), Spec(local_program, subject_arguments),
]
