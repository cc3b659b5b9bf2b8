"""A chat, streamed: a turn computes what is new in it, everything before is there already.

    python examples/chat.py              # SmolLM2-135M, fetched the first time
    python examples/chat.py --hash       # no model: nonsense, at once
    python examples/chat.py "Who are you?" "What can you do?"

`sglc chat` is the interactive one.
"""

import sys

import sglc as sgl

QUESTIONS = ["What is the capital of France?", "Name a famous building there.",
             "What should I eat there?"]
ROWS = [{"questions": QUESTIONS}]


@sgl.program
def chat(s, questions):
    s += sgl.system("You are a helpful guide for travellers. Answer in one short sentence.")
    for i, question in enumerate(questions):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen(f"answer_{i}", max_tokens=32))


def main(backend, questions=QUESTIONS):
    state = chat.run(questions=questions, backend=backend, temperature=0, stream=True)
    for i, question in enumerate(questions):
        print("user:     ", question)
        print("assistant: ", end="")
        for piece in state.text_iter(f"answer_{i}"):
            print(piece, end="", flush=True)
        print()
    stats = backend.stats()
    print(f"\n{len(questions)} calls with {stats.prefill_tokens + stats.cached_tokens} tokens of "
          f"prompts in all, {stats.prefill_tokens} of them computed")


if __name__ == "__main__":
    asked = [a for a in sys.argv[1:] if a != "--hash"]
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend, asked or QUESTIONS)
