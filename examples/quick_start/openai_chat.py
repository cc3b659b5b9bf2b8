"""The quick start on OpenAI's API, or a server that speaks it.

    pip install 'sglc[openai]'
    export OPENAI_API_KEY=...
    python examples/quick_start/openai_chat.py [MODEL] [BASE_URL]
"""

import sys

from sglc import OpenAI, assistant, function, gen, system, user


@function
def multi_turn_question(s, question_1, question_2):
    s += system("You are a helpful assistant.")
    s += user(question_1)
    s += assistant(gen("answer_1", max_tokens=128))
    s += user(question_2)
    s += assistant(gen("answer_2", max_tokens=128))


def main(backend):
    state = multi_turn_question.run(
        question_1="What is the capital of the United States?",
        question_2="List two local attractions.",
        backend=backend, temperature=0)
    for m in state.messages():
        print(m["role"], ":", m["content"])
    for name in ("answer_1", "answer_2"):
        meta = state.get_meta_info(name)
        print(name, ":", meta["prompt_tokens"], "tokens of prompt,", meta["completion_tokens"],
              "generated")


if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else "gpt-4o-mini"
    base_url = sys.argv[2] if len(sys.argv) > 2 else None
    main(OpenAI(model, base_url=base_url))
