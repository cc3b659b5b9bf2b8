"""A router: the model chooses a tool, Python runs it, the model answers from the result.

    python examples/router.py            # SmolLM2-135M, fetched the first time
    python examples/router.py --hash     # no model: nonsense, at once

The branch on the choice is in the graph: the program is compiled whole, tools and all, and the
worked examples that all questions begin with are computed once for the batch.
"""

import operator
import sys

import sglc as sgl

DICTIONARY = {"arboretum": "a garden of trees", "sextant": "an instrument that measures angles",
              "quay": "a place where ships are loaded"}
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}

EXAMPLES = """\
Question: What is 31 plus 4?
Tool: calculator
Expression: 31 + 4
Result: 35
Answer: 31 plus 4 is 35.

Question: What does the word cairn mean?
Tool: dictionary
Word: cairn
Result: a pile of stones
Answer: A cairn is a pile of stones.

Question: How are you?
Tool: memory
Answer: I am well, thank you.

Question: What is 6 times 7?
Tool: calculator
Expression: 6 * 7
Result: 42
Answer: 6 times 7 is 42.

Question: What does the word fen mean?
Tool: dictionary
Word: fen
Result: wet land
Answer: A fen is wet land.

"""
ROWS = [{"question": q} for q in (
    "What is 12 times 17?", "What does the word sextant mean?", "What is your name?",
    "What is 90 minus 48?")]


def calculate(expression):
    left, sign, right = expression.split()
    return str(OPERATORS[sign](int(left), int(right)))


def look_up(word):
    return DICTIONARY.get(word.strip().lower(), "not in the dictionary")


@sgl.program
def answer(s, question):
    s += EXAMPLES + "Question: " + question + "\nTool: "
    s += sgl.select("tool", ["calculator", "dictionary", "memory"])
    if s["tool"] == "calculator":
        s += "\nExpression: " + sgl.gen("input", regex=r"[0-9]{1,4} [-+*] [0-9]{1,4}")
        s += "\nResult: " + calculate(s["input"])
    elif s["tool"] == "dictionary":
        s += "\nWord:" + sgl.gen("input", max_tokens=8, stop="\n")
        s += "\nResult: " + look_up(s["input"])
    s += "\nAnswer:" + sgl.gen("answer", max_tokens=24, stop="\n")


def main(backend):
    for row, state in zip(ROWS, answer.run_batch(ROWS, backend=backend, temperature=0)):
        used = f"{state['tool']}({state['input'].strip()})" if "input" in state else state["tool"]
        print(row["question"], "->", used, "->", state["answer"].strip())
    stats = backend.stats()
    print(f"\n{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.forward_passes} model steps")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
