"""The quick start on a server, sglc's or SGLang's.

    sglc serve --port 30000
    python examples/quick_start/server_chat.py [URL]
"""

import sys

from sglc import RuntimeEndpoint, assistant, function, gen, system, user


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


if __name__ == "__main__":
    endpoint = RuntimeEndpoint(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:30000")
    main(endpoint)
    print("\nserved by", endpoint.get_model_name())
    endpoint.close()
