"""ReAct: thoughts, actions and observations in turn, until the model has seen enough.

    python examples/react.py             # SmolLM2-135M, fetched the first time
    python examples/react.py --hash      # no model: nonsense, at once

The loop ends where the model chooses to finish.  Every way through it is in one graph, so it
never goes back to Python, but for `search`.  Source: Yao et al., ReAct, 2022.
"""

import sys

import sglc as sgl

PAGES = {
    "France": "France is a country in Europe. Its capital is Paris.",
    "Paris": "Paris is a city on the river Seine. Its mayor is elected for six years.",
    "Seine": "The Seine is a river of 777 km. It flows into the English Channel.",
}
EXAMPLE = """\
Answer questions with an encyclopedia. Look up topics, and finish when you know the answer.

Question: Which sea is Venice at?
Thought: I have to look up Venice.
Action: look up Venice
Observation: Venice is a city in Italy, in a lagoon of the Adriatic.
Thought: Is the Adriatic a sea? I have to look up the Adriatic.
Action: look up Adriatic
Observation: The Adriatic is the sea between Italy and the Balkans.
Thought: I know the answer now.
Action: finish
Answer: the Adriatic Sea

"""
STEPS = 3
ROWS = [{"question": "How long is the Seine?"}, {"question": "What is the capital of France?"}]


def search(topic):
    found = [text for name, text in PAGES.items() if name.lower() in topic.lower()]
    return found[0] if found else "There is no such page."


@sgl.program
def react(s, question):
    s += EXAMPLE + "Question: " + question + "\n"
    for step in range(STEPS):
        s += "Thought:" + sgl.gen(f"thought_{step}", max_tokens=24, stop="\n") + "\n"
        s += "Action: " + sgl.select("action", ["look up", "finish"])
        if s["action"] == "finish":
            break
        s += sgl.gen(f"topic_{step}", max_tokens=8, stop="\n") + "\n"
        s += "Observation: " + search(s[f"topic_{step}"]) + "\n"
    s += "\nAnswer:" + sgl.gen("answer", max_tokens=16, stop="\n")


def main(backend):
    for state in react.run_batch(ROWS, backend=backend, temperature=0):
        print(state.text()[len(EXAMPLE):], end="\n\n")
    compiled = react.compile(**ROWS[0], backend=backend)
    stats = backend.stats()
    print(f"{compiled.paths} paths, {compiled.graph_breaks} graph breaks")
    print(f"{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.forward_passes} model steps")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
