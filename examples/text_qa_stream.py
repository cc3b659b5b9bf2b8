"""Streaming: text is printed as it is generated."""

import sglc as sgl


@sgl.function
def text_qa(s, question):
    s += "Q: " + question + "\n"
    s += "A:" + sgl.gen("answer", stop="\n")


if __name__ == "__main__":
    state = text_qa.run(
        question="What is the capital of France?",
        temperature=0.1,
        stream=True
    )

    for out in state.text_iter():
        print(out, end="", flush=True)
