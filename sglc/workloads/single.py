"""Programs of one prompt each: forms, chats, choices, tools, documents; and the controls, which
have nothing to share."""

from __future__ import annotations

import random
import time
import zlib
from typing import Any

import sglc as sgl
from sglc.workloads.base import Rows, Size, Workload, fixed, questions, text

_FIELDS = ("name", "place", "date", "amount", "person", "reason")
_ANSWERS = ("a large house", "the old city", "some other people", "nothing at all")
_TURNS = 4
_STEPS = 3  # of the agent
_CORPUS, _FOUND = 12, 4  # documents there are, and those that a question finds


def _tips(size: Size) -> Any:
    n, examples = size.tokens, text(size.shared, "tips")

    @sgl.program
    def expand(s, topic, tip):
        s += "Expand a tip to a paragraph, as in these examples." + examples
        s += "\nTopic:" + topic + "\nTip:" + tip + "\nParagraph:" + fixed("paragraph", n)

    @sgl.program
    def tips(s, q):
        s += "Two tips about" + q + ".\n1." + fixed("tip_1", n // 4)
        s += "\n2." + fixed("tip_2", n // 4)
        first = expand(topic=q, tip=s["tip_1"])
        second = expand(topic=q, tip=s["tip_2"])
        s += "\nTip 1:" + first["paragraph"] + "\nTip 2:" + second["paragraph"]
        s += "\nIn short:" + fixed("summary", n // 2)

    return tips


def _react(size: Size) -> Any:
    n, examples, latency = size.tokens, text(size.shared, "react"), size.latency

    def search(query):
        time.sleep(latency)
        return text(12, zlib.crc32(query.encode()))

    @sgl.program
    def react(s, q):
        s += "Answer with the help of a search, as in these examples." + examples
        s += "\nQuestion:" + q
        for i in range(_STEPS):
            s += f"\nThought {i}:" + fixed(f"thought_{i}", n)
            s += f"\nSearch {i}:" + fixed(f"query_{i}", n // 2)
            s += f"\nFound {i}:" + search(s[f"query_{i}"])
        s += "\nAnswer:" + fixed("answer", n // 2)

    return react


def _rag(size: Size, level: int = 2) -> Any:
    n = size.tokens

    @sgl.program(opt_level=level)
    def rag(s, docs, q):
        s += "Documents:\n"
        s += sgl.bag(*docs, sep="\n\n")
        s += "\n\nQuestion:" + q + "\nAnswer:" + fixed("answer", n)

    return rag


def _rag_ordered(size: Size) -> Any:
    return _rag(size, level=3)


def _retrieved(size: Size, seed: int) -> Rows:
    """Each row finds a few documents of a corpus, popular ones more often, in random order."""
    draw = random.Random(f"rag/{seed}")
    corpus = [text(size.words, "document", seed, k) for k in range(_CORPUS)]
    rows = []
    for i in range(size.rows):
        left = list(range(_CORPUS))
        found = []
        while len(found) < _FOUND:
            k = draw.choices(left, [1 / (k + 1) for k in left])[0]
            left.remove(k)
            found.append(corpus[k])
        rows.append({"docs": found, "q": text(8, "question", seed, i)})
    return rows


def _classify(size: Size) -> Any:
    examples = text(size.shared, "classify")

    @sgl.program
    def classify(s, q):
        s += examples + "\nQuestion:" + q + "\nThe answer is "
        s += sgl.select("answer", choices=list(_ANSWERS))

    return classify


def _extract(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def extract(s, q):
        s += "Document:" + q + "\nFields of the document:\n"
        for field in _FIELDS:
            s += field + ":" + fixed(field, n) + "\n"

    return extract


def _chat(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def chat(s, turns):
        for i, turn in enumerate(turns):
            s += "\nUser:" + turn + "\nAssistant:" + fixed(f"answer_{i}", n)

    return chat


def _conversations(size: Size, seed: int) -> Rows:
    return [{"turns": [text(size.words, "turn", seed, i, k) for k in range(_TURNS)]}
            for i in range(size.rows)]


def _answer(size: Size) -> Any:
    n = size.tokens

    @sgl.program
    def answer(s, q):
        s += q + "\nAnswer:" + fixed("answer", n)

    return answer


WORKLOADS = (
    Workload("tips", "two tips, each expanded by another program", _tips, questions,
             Size(4, 4, 8, 40), Size(64, 16, 128, 512)),
    Workload("react", "an agent: 3 thoughts, each with a search", _react, questions,
             Size(4, 12, 6, 40, 0.02), Size(64, 64, 48, 1024, 0.2)),
    Workload("rag", "4 of 12 documents in a bag, then a question", _rag, _retrieved,
             Size(8, 20, 8), Size(256, 300, 64)),
    Workload("rag-ordered", "the same, the bag's order chosen (opt_level=3)", _rag_ordered,
             _retrieved, Size(8, 20, 8), Size(256, 300, 64)),
    Workload("classify", "shared examples, then one of 4 answers", _classify, questions,
             Size(12, 12, 1, 100), Size(512, 40, 1, 2000)),
    Workload("extract", "6 fields of a document", _extract, questions,
             Size(6, 60, 4), Size(128, 1000, 8)),
    Workload("chat", "4 turns", _chat, _conversations,
             Size(4, 20, 8), Size(64, 256, 64)),
    Workload("unique", "control: one gen on unique prompts", _answer, questions,
             Size(8, 40, 8), Size(256, 1024, 128), gains=False),
    Workload("long-chat", "control: one long conversation", _chat, _conversations,
             Size(1, 60, 12), Size(1, 1024, 256), gains=False),
)
