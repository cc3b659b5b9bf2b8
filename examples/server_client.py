"""A server, and three kinds of clients: a program, OpenAI's package, and plain HTTP.

    pip install 'sglc[local,serve,openai]'
    python examples/server_client.py           # SmolLM2-135M, fetched the first time
    python examples/server_client.py --hash    # no model: nonsense, at once

`sgl.Runtime` opens the server in this process; `sglc serve` is one of its own.  The program goes
to the server whole, with all rows, and gives what it would give here.
"""

import json
import sys
from urllib.request import Request, urlopen

import openai

import sglc as sgl

ROWS = [{"country": country} for country in ("France", "Italy", "Japan")]


@sgl.program
def capital(s, country):
    s += sgl.user(f"What is the capital of {country}?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=16))


def main(server):
    print("a program, sent whole:")
    there = capital.run_batch(ROWS, backend=server.endpoint, temperature=0)
    for row, state in zip(ROWS, there):
        print(" ", row["country"], "->", state["answer"])
    here = capital.run_batch(ROWS, backend=server, temperature=0)
    print("  the same as here:", [s.text() for s in there] == [s.text() for s in here])

    client = openai.OpenAI(base_url=server.url + "/v1", api_key="EMPTY", max_retries=0)
    said = client.chat.completions.create(
        model="default", max_tokens=16, temperature=0,
        messages=[{"role": "user", "content": "What is the capital of Spain?"}])
    print("the openai package:", said.choices[0].message.content)

    body = {"text": "The capital of Peru is", "sampling_params": {
        "max_new_tokens": 8, "temperature": 0}}
    asked = Request(server.generate_url, json.dumps(body).encode(),
                    {"Content-Type": "application/json"})
    with urlopen(asked, timeout=60) as answer:
        print("plain HTTP:", json.load(answer)["text"])

    stats = server.stats()
    print(f"\n{stats.prefill_tokens + stats.cached_tokens} tokens of prompts, "
          f"{stats.prefill_tokens} of them computed")


if __name__ == "__main__":
    with sgl.Runtime("hash" if "--hash" in sys.argv else None) as server:
        main(server)
