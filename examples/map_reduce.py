"""Map and reduce: each document is summarized on its own, then all summaries are put together.

    python examples/map_reduce.py                 # SmolLM2-135M, fetched the first time
    python examples/map_reduce.py --hash          # no model: nonsense, at once
    python examples/map_reduce.py A.txt B.txt     # documents of your own

The summaries are generated in one batch.  A list of any length runs: one graph for each of the
first few lengths, then a graph with a loop for all of them.
"""

import sys
from pathlib import Path

import sglc as sgl

DOCUMENTS = [
    "Monday. The pump of the north field failed in the morning. Ines replaced the belt, and water "
    "ran again at noon. The tomatoes were without water for five hours.",
    "Tuesday. Rain all day, so nobody watered. The new seeds came, but two of the five boxes were "
    "wet. Jonas wrote to the dealer.",
    "Wednesday. The dealer will send two boxes again. The tomatoes have recovered. We sold eighty "
    "kilos of beans at the market, more than ever.",
]
ROWS = [{"documents": DOCUMENTS}]


@sgl.program
def map_reduce(s, documents):
    s += sgl.system("You write short summaries.")
    forks = s.fork(len(documents))
    for fork, document in zip(forks, documents):
        fork += sgl.user("Summarize this page of a diary in one sentence.\n\n" + document)
        fork += sgl.assistant(sgl.gen("summary", max_tokens=32, stop="\n"))
    s += sgl.user("Put these together in one sentence.\n\n"
                  + "\n".join("- " + f["summary"] for f in forks))
    s += sgl.assistant(sgl.gen("report", max_tokens=48, stop="\n"))
    return [f["summary"] for f in forks]


def main(backend, documents=DOCUMENTS):
    state = map_reduce.run(documents=documents, backend=backend, temperature=0)
    for summary in state.ret_value:
        print("-", summary)
    print("=", state["report"])
    stats = backend.stats()
    print(f"\n{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.decode_tokens} generated in "
          f"{stats.forward_passes} model steps")


if __name__ == "__main__":
    files = [a for a in sys.argv[1:] if a != "--hash"]
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend, [Path(f).read_text() for f in files] or DOCUMENTS)
