"""Questions about images, for a LLaVA or Yi-VL model.

    python examples/image_qa.py MODEL IMAGE [QUESTION]

MODEL is a folder or hub id in llava-hf's layout, such as llava-hf/llava-1.5-7b-hf.  For other
layouts see `sgl.Engine(tokenizer_path=..., chat_template=...)`.
"""

import sys

import sglc as sgl


@sgl.function
def image_qa(s, image_file, question):
    s += sgl.user(sgl.image(image_file) + question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=256))


def main(model, image_file, question="What is shown in this image?"):
    with sgl.Engine(model) as engine:
        state = image_qa.run(image_file=image_file, question=question, backend=engine,
                             temperature=0)
        print(state["answer"])


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(__doc__)
    else:
        main(*sys.argv[1:])
