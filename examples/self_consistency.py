"""Self-consistency: a problem is solved several times, the answer that comes most often counts.

    python examples/self_consistency.py           # SmolLM2-135M, fetched the first time
    python examples/self_consistency.py --hash    # no model: nonsense, at once

The solutions are samples, and still the same in every run with this seed: what a call draws
depends on its place in the program, not on what runs beside it.  Source: Wang et al., 2022.
"""

import sys
from collections import Counter

import sglc as sgl

SAMPLES = 5
EXAMPLE = """\
Problem: A box has 3 red balls and 4 blue ones. How many balls are in 2 boxes?
Solution: A box has 3 + 4 = 7 balls. Two boxes have 2 * 7 = 14 balls.
Answer: 14

"""
ROWS = [{"problem": "A hen lays 2 eggs a day. How many eggs do 3 hens lay in 4 days?"},
        {"problem": "Tom has 20 coins and gives 5 to Ann and 7 to Bob. How many has he left?"}]


@sgl.pure
def most_common(answers):
    return Counter(answers).most_common(1)[0][0]


@sgl.program
def solve(s, problem):
    s += EXAMPLE + "Problem: " + problem + "\nSolution:"
    forks = s.fork(SAMPLES)
    for fork in forks:
        fork += sgl.gen("solution", max_tokens=48, stop="\n", temperature=0.7)
        fork += "\nAnswer: " + sgl.gen("number", regex="[1-9][0-9]{0,2}", temperature=0)
    answers = [f["number"] for f in forks]
    s += " (of several)\nAnswer: " + most_common(answers)
    return answers


def main(backend):
    for row, state in zip(ROWS, solve.run_batch(ROWS, backend=backend, seed=1)):
        answer = state.text().rpartition(" ")[2]
        print(row["problem"], "->", answer, "of", " ".join(state.ret_value))
    stats = backend.stats()
    print(f"\n{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.decode_tokens} generated in "
          f"{stats.forward_passes} model steps")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
