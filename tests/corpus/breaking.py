"""Programs that no trace can hold whole: Python needs a value that only the run knows.

Each says where the graph breaks and with which code; the results are those of the eager
interpreter all the same.
"""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text

CALLS: list[tuple[Any, ...]] = []


# -- a count that the model gives -------------------------------------------------------------
@sgl.program
def counted_by_the_model(s: Any, topic: str) -> int:
    s += f"How many facts about {topic}? " + sgl.gen("n", regex="[1-3]") + "\n"
    n = int(s["n"])
    for i in range(n):  # expect: SGLC110
        s += f"{i + 1}." + sgl.gen(f"fact{i}", max_tokens=5, stop="\n") + "\n"
    return n


def topic_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3)}


# -- the lines of a generated list ------------------------------------------------------------
@sgl.program
def expand_lines(s: Any, topic: str) -> list[str]:
    s += f"Parts of {topic}:\n" + sgl.gen("parts", max_tokens=16, ignore_eos=True) + "\n"
    out = []
    for part in s["parts"].split():  # expect: SGLC110
        s += part + " means" + sgl.gen("meaning", max_tokens=3) + "\n"
        out.append(s["meaning"])
    return out


# -- documents that a search returns ----------------------------------------------------------
def find(ticket: str, query: str) -> list[str]:
    CALLS.append((ticket, "find", query))
    return [f"{query[:3]} {i}" for i in range(len(query) % 4)]


@sgl.program
def retrieve_and_read(s: Any, ticket: str, question: str) -> None:
    s += "Question: " + question + "\nQuery:" + sgl.gen("query", max_tokens=5, stop="\n") + "\n"
    for document in find(ticket, s["query"]):  # expect: SGLC110
        s += "Document: " + document + "\nUseful? " + sgl.select("useful", ["yes", "no"]) + "\n"
    s += "Answer:" + sgl.gen("answer", max_tokens=6)


def ticket_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "question": question(rng)}


# -- as long as it takes ----------------------------------------------------------------------
@sgl.program
def until_it_says_so(s: Any, topic: str) -> int:
    s += topic
    n = 0
    while "e" not in s.text()[len(topic):] and n < 40:  # expect: SGLC120
        s += sgl.gen("a", max_tokens=2, ignore_eos=True) + "."
        n += 1
    return n


# -- try around gens and reads ----------------------------------------------------------------
@sgl.program
def try_around_gens(s: Any, topic: str) -> str:
    s += topic + " has the number " + sgl.gen("n", regex="[0-2]")
    end = "."
    try:
        s += f", its inverse is {1 // int(s['n'])}"  # expect: SGLC111
    except ZeroDivisionError:
        end = ", which has no inverse."
    s += end + sgl.gen("more", max_tokens=4)
    return s.text()[:5]


# -- a table whose keys the model writes ------------------------------------------------------
@sgl.program
def last_seen(s: Any, topic: str) -> dict[str, int]:
    s += topic + sgl.gen("word", max_tokens=6, ignore_eos=True)
    places = {c: i for i, c in enumerate(s["word"])}  # expect: SGLC110
    s += "\nLast seen: " + str(places) + "\n" + sgl.gen("remark", max_tokens=4)
    return places


SPECS = [
    Spec(counted_by_the_model, topic_arguments), Spec(expand_lines, topic_arguments),
    Spec(retrieve_and_read, ticket_arguments), Spec(until_it_says_so, topic_arguments),
    Spec(try_around_gens, topic_arguments), Spec(last_seen, topic_arguments),
]
