"""Retrieval: answers from documents that are found for each question, in any order.

    python examples/rag.py               # SmolLM2-135M, fetched the first time
    python examples/rag.py --hash        # no model: nonsense, at once

A `bag` says that the order of its parts does not matter.  At `opt_level=3` the compiler orders the
bags of a batch so that as many prompts as possible begin alike: what the last lines compare.
"""

import sys

import sglc as sgl

DOCUMENTS = [
    "The heron is a bird with long legs. It stands in shallow water and waits for fish.",
    "The otter lives at rivers. It eats fish, and sleeps in a burrow at the water.",
    "The kingfisher is a small blue bird. It dives into the water and eats small fish.",
    "The beaver builds dams across rivers. It eats bark, leaves and water plants.",
    "The water vole is a small animal that eats grass and lives in a burrow at rivers.",
]
QUESTIONS = ["Which bird dives into the water to eat fish?", "Which animal lives in a burrow?",
             "Which animal builds dams across rivers?", "Which bird eats fish with long legs?",
             "Who lives at rivers and eats fish?"]


def retrieve(question, count=3):
    """The documents with most words in common with the question, the best first."""
    words = set(question.lower().strip("?").split())
    return sorted(DOCUMENTS, key=lambda d: -len(words & set(d.lower().split())))[:count]


def answer(s, documents, question):
    s += "Documents:\n" + sgl.bag(*documents, sep="\n") + "\n\n"
    s += "Question: " + question + "\nAnswer:" + sgl.gen("answer", max_tokens=16, stop="\n")


as_given = sgl.program(answer)
rag = sgl.program(answer, opt_level=3)
ROWS = [{"documents": retrieve(q), "question": q} for q in QUESTIONS]


def main(backend):
    for row, state in zip(ROWS, rag.run_batch(ROWS, backend=backend, temperature=0)):
        print(row["question"], "->", state["answer"].strip())
    print("\ntokens of prompts to compute, from an empty cache")
    for name, program in (("documents as they were found", as_given), ("ordered", rag)):
        cost = program.compile(**ROWS[0], backend=backend).cost(ROWS)
        print(f"  {name:<30}{cost.prefill}, of {cost.alone} if nothing were shared")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
