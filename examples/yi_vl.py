"""Yi-VL: a conversation about an image, in English or Chinese, streamed.

    pip install 'sglc[vision]'
    python examples/yi_vl.py MODEL IMAGE [TOKENIZER]

MODEL is a folder or hub id such as 01-ai/Yi-VL-6B: the layout of LLaVA's own code, with the vision
tower in a folder of the model.  TOKENIZER is one with a tokenizer.json, if MODEL has none (that of
01-ai/Yi-6B-Chat, for instance).  Yi-VL's conversations are not its tokenizer's: the template is
given by name.  Without arguments it shows what the compiler makes of the program.
"""

import sys

import sglc as sgl

QUESTIONS = ["What is shown in this image?", "请用一句话描述这张图片。"]


@sgl.program
def talk(s, image_file, questions):
    s += sgl.user(sgl.image(image_file) + questions[0])
    s += sgl.assistant(sgl.gen("answer_0", max_tokens=64, stop="###"))
    for i, question in enumerate(questions[1:], 1):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen(f"answer_{i}", max_tokens=64, stop="###"))


def main(backend, image_file, questions=QUESTIONS):
    state = talk.run(image_file=image_file, questions=questions, backend=backend, temperature=0,
                     stream=True)
    for i, question in enumerate(questions):
        print(question, "-> ", end="")
        for piece in state.text_iter(f"answer_{i}"):
            print(piece, end="", flush=True)
        print()
    stats = backend.stats()
    print(f"\nimages read: {stats.images_encoded}; {stats.prefill_tokens + stats.cached_tokens} "
          f"positions of prompts, {stats.prefill_tokens} of them computed")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(__doc__)
        print(talk.compile(image_file="image.png", questions=QUESTIONS))
    else:
        tokenizer = sys.argv[3] if len(sys.argv) > 3 else None
        with sgl.Engine(sys.argv[1], tokenizer_path=tokenizer, chat_template="yi") as engine:
            main(engine, sys.argv[2])
