"""LLaVA: several questions about one image, asked at once; the image is read once.

    pip install 'sglc[vision]'
    python examples/llava.py MODEL IMAGE [QUESTION ...]

MODEL is a folder or hub id in llava-hf's layout, such as llava-hf/llava-1.5-7b-hf or
llava-hf/llava-v1.6-mistral-7b-hf.  Without arguments it shows what the compiler makes of the
program, which needs no model.
"""

import sys

import sglc as sgl

QUESTIONS = ["What is shown in this image?", "Which colours are there?",
             "Is it inside or outside? Answer with one word."]


@sgl.program
def ask(s, image_file, question):
    s += sgl.user(sgl.image(image_file) + question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=64))


def main(backend, image_file, questions=QUESTIONS):
    rows = [{"image_file": image_file, "question": q} for q in questions]
    for row, state in zip(rows, ask.run_batch(rows, backend=backend, temperature=0)):
        print(row["question"], "->", state["answer"])
    stats = backend.stats()
    print(f"\nimages read: {stats.images_encoded}; {stats.prefill_tokens + stats.cached_tokens} "
          f"positions of prompts, {stats.prefill_tokens} of them computed")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(__doc__)
        print(ask.compile())
    else:
        with sgl.Engine(sys.argv[1]) as engine:
            main(engine, sys.argv[2], sys.argv[3:] or QUESTIONS)
