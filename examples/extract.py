"""Extraction: e-mails become objects of a pydantic model, a batch of them at once.

    pip install 'sglc[local]' pydantic
    python examples/extract.py           # SmolLM2-135M, fetched the first time
    python examples/extract.py --hash    # no model: nonsense that fits the model, at once

The schema is an automaton over tokens.  Where it leaves no choice (braces, names of fields) the
text is appended without asking the model: the last line counts that.
"""

import sys
from typing import Literal

from pydantic import BaseModel, Field

import sglc as sgl


class Order(BaseModel):
    customer: str = Field(pattern=r"^[A-Z][a-z]{1,11}$", description="the first name")
    product: Literal["apples", "bread", "cheese", "tea"]
    quantity: int = Field(ge=1, le=99)
    express: bool


EMAILS = [
    "Hello, this is Anna. Could I have 12 apples by tomorrow morning? It is urgent.",
    "Dear shop, please send 3 loaves of bread. Take your time. Regards, Boris",
    "Hi! Clara here. I would like 40 bags of tea for our office, as fast as you can.",
    "Good evening, one cheese for me, please, whenever it suits you. Yours, David",
]
ROWS = [{"email": email} for email in EMAILS]


@sgl.program
def extract(s, email):
    s += sgl.user("Which order is in this e-mail? Answer in JSON with the fields customer, "
                  "product, quantity and express.\n\n" + email)
    s += sgl.assistant(sgl.gen("order", schema=Order, max_tokens=128))


def main(backend):
    orders = [state["order"] for state in extract.run_batch(ROWS, backend=backend, temperature=0)]
    for order in orders:
        print(f"{order.customer:<14}{order.quantity:>3} {order.product:<8}"
              + ("express" if order.express else ""))
    print("items in all:", sum(order.quantity for order in orders))
    stats = backend.stats()
    print(f"\n{stats.decode_tokens + stats.forced_tokens} tokens written, {stats.forced_tokens} "
          f"without the model; {stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed; {stats.forward_passes} model steps")


if __name__ == "__main__":
    with sgl.HashModel() if "--hash" in sys.argv else sgl.Engine() as backend:
        main(backend)
