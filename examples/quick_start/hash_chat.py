"""The quick start without a model: the whole engine, with a hash for the network.

What it writes is nonsense, but it is the same nonsense each time, whatever the mode, the batch or
the cache did: this is how a program, or the compiler, is tested.

    python examples/quick_start/hash_chat.py
"""

from sglc import HashModel, assistant, function, gen, system, user


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
    stats = backend.stats()
    print(f"\n{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.decode_tokens} generated")


if __name__ == "__main__":
    with HashModel() as model:
        main(model)
