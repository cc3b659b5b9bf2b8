"""Tree of thought: several next steps are proposed and graded, the best one is gone on with.

    python examples/tree_of_thought.py           # SmolLM2-135M, fetched the first time
    python examples/tree_of_thought.py --hash    # no model: nonsense, at once

The proposals of a level are generated side by side, each after the same prefix, which is computed
once.  Source: Yao et al., Tree of Thoughts, 2023.
"""

import sys

import sglc as sgl

BRANCHES, DEPTH = 3, 2
ROWS = [{"problem": "Plan a day in Paris for a family with two children and little money."},
        {"problem": "Find a way to carry water from a well to a garden without a bucket."}]


@sgl.pure
def best(steps, grades):
    """The step with the best grade; of equals the first."""
    return max(zip(grades, steps), key=lambda pair: pair[0])[1]


@sgl.program
def tree_of_thought(s, problem):
    s += "Problem: " + problem + "\nA solution in short steps:\n"
    for depth in range(1, DEPTH + 1):
        forks = s.fork(BRANCHES)
        for fork in forks:
            fork += f"{depth}." + sgl.gen("step", max_tokens=24, stop="\n", temperature=0.8)
            fork += "\nHow good is this step, from 1 to 5? "
            fork += sgl.select("grade", ["1", "2", "3", "4", "5"])
        s += f"{depth}." + best([f["step"] for f in forks], [f["grade"] for f in forks]) + "\n"
    s += "In short:" + sgl.gen("answer", max_tokens=32, stop="\n")


def main(backend):
    for state in tree_of_thought.run_batch(ROWS, backend=backend, temperature=0, seed=1):
        print(state.text(), end="\n\n")
    stats = backend.stats()
    print(f"{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.forward_passes} model steps for "
          f"{len(ROWS) * (2 * BRANCHES * DEPTH + 1)} calls")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
