"""A batch from a file: each line holds the arguments of one run, each result becomes a line.

    sglc run-batch -i examples/data/reviews.jsonl -o out.jsonl --program examples/batch_file.py:classify

    python examples/batch_file.py            # the same from Python, into a temporary folder
    python examples/batch_file.py --hash     # without a model

What has ended is in a ledger beside the results: after a crash the same command goes on where it
was, and every line of the input has one line in the results.
"""

import json
import sys
import tempfile
from pathlib import Path

import sglc as sgl
from sglc import cli

REVIEWS = Path(__file__).parent / "data" / "reviews.jsonl"
ROWS = [json.loads(line) for line in REVIEWS.read_text().splitlines()]


@sgl.program
def classify(s, review):
    s += "Review: " + review + "\nThe review is"
    s += sgl.select("mood", [" positive", " negative"])
    s += ", and it is about the" + sgl.gen("subject", max_tokens=4, stop=[".", ",", "\n"])


def main(*options):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        cli.main(["run-batch", "-i", str(REVIEWS), "-o", str(out), "--program",
                  f"{__file__}:classify", "--temperature", "0", "--no-progress", *options])
        for row, line in zip(ROWS, out.read_text().splitlines()):
            found = json.loads(line)["variables"]
            print(row["review"], "->", found["mood"].strip(), "|", found["subject"].strip())


if __name__ == "__main__":
    main(*(["--model", "hash"] if "--hash" in sys.argv else []))
