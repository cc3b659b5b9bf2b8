"""A small byte-level BPE whose tokens run across spaces and newlines.

It splits text nowhere before merging ("the ", ".\\n", "and a"), so the ids of a text may change
far before its end when text is appended: there is no stable cut, and every run is encoded whole.
A real tokenizer, of 640 tokens; it knows no model.
"""

from __future__ import annotations

import json

from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import CHATML, CHATML_NAMES
from sglc.tokens.vocab import CHAR_OF

_SIZE = 640

_TEXT = """\
The river runs by the mill, and the mill stands by the road. In the morning the miller opens
the gate, and the water turns the wheel; in the evening he closes it, and the wheel stands still.

"What is the name of this river?" asked the girl. "It has no name," said the miller. "It is the
river. There is no other." She thought about it, and then she said: "That is not a good answer."

User: What is the answer to the question?
Assistant: The answer is 42. Is there anything else that I can help you with?
User: Yes, there is. Please write a list of three things.
Assistant: Here is a list of three things:
1. A book, which is on the table.
2. A pen, which is in the box.
3. A cup of tea, which is in the hand of the man who is at the door.

def add(a, b):
    return a + b

for i in range(10):
    if i % 2 == 0:
        print(i, end=" ")
    else:
        print("odd")

{"name": "Ada", "age": 36, "city": "London", "tags": ["one", "two", "three"], "ok": true}
{"name": "Max", "age": 41, "city": "Berlin", "tags": [], "ok": false}

She said that she would come, but he did not think that she would. They waited for an hour; then
they went home. On the way they met the man from the station, and he told them what had happened:
the train had stopped at the bridge, because of the snow, and would not go on before the morning.
"""


def small_bpe() -> BpeTokenizer:
    """The tokenizer: 3 ChatML control tokens, the 256 bytes, and merges learned from a text.

    The same vocabulary every time; takes some milliseconds.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.train_from_iterator([_TEXT], trainers.BpeTrainer(
        vocab_size=_SIZE, min_frequency=1, max_token_length=12, show_progress=False,
        special_tokens=list(CHATML_NAMES), initial_alphabet=list(CHAR_OF.values())))
    model = json.loads(library.to_str())["model"]
    special = {name: model["vocab"][name] for name in CHATML_NAMES}
    return BpeTokenizer.from_vocab(
        model["vocab"], [(left, right) for left, right in model["merges"]], special, None,
        eos_ids=(special["<|endoftext|>"], special["<|im_end|>"]), chat_template=CHATML,
        name="small-bpe")
