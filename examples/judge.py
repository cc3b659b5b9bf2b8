"""A judge: an essay is graded in several respects at the same time, then as a whole.

    python examples/judge.py             # SmolLM2-135M, fetched the first time
    python examples/judge.py --hash      # no model: nonsense, at once

Each respect is a fork of the same chat: the essay is computed once, and the forks are generated in
one batch.  As the compiler knows that ahead, it can tell what a batch will cost.
"""

import sys

import sglc as sgl

RESPECTS = ["the clarity of its language", "the strength of its arguments",
            "the order of its thoughts"]
GRADES = ["A", "B", "C", "D"]
ROWS = [
    {"essay": "Cities should have more trees. Trees give shade, and a street with shade is cooler "
              "by several degrees in summer. They also hold water when it rains hard. Some say "
              "that trees are costly, but a flooded cellar costs more."},
    {"essay": "Trees is good. Everyone know that. I like trees and so should you, because trees. "
              "Cars are bad, by the way. In conclusion, it is so."},
]


@sgl.program
def judge(s, essay):
    s += sgl.system("You judge essays. You are brief and fair.")
    s += sgl.user("Here is an essay.\n\n" + essay)
    s += sgl.assistant("I have read it.")
    forks = s.fork(len(RESPECTS))
    for fork, respect in zip(forks, RESPECTS):
        fork += sgl.user(f"In one sentence: how is {respect}?")
        fork += sgl.assistant(sgl.gen("remark", max_tokens=32, stop=[".", "\n"])
                              + ". Grade: " + sgl.select("grade", GRADES))
    s += sgl.user("Three judges said:\n" + "\n".join(
        "- " + f["remark"] + ": " + f["grade"] for f in forks) + "\nWhat is your grade?")
    s += sgl.assistant("My grade is " + sgl.select("overall", GRADES) + ".")
    return [f["grade"] for f in forks]


def main(backend):
    for state in judge.run_batch(ROWS, backend=backend, temperature=0):
        print(state.messages()[-2]["content"])
        print("in each respect:", *state.ret_value, " overall:", state["overall"], end="\n\n")
    cost = judge.compile(**ROWS[0], backend=backend).cost(ROWS)
    stats = backend.stats()
    print(f"predicted: {cost.calls} model calls, about {cost.prefill.expected:.0f} tokens of "
          "prompts to compute")
    print(f"it was:    {stats.prefill_tokens} of {stats.prefill_tokens + stats.cached_tokens} "
          f"computed, in {stats.forward_passes} model steps")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
