"""The six programs on SGLang: through its own front end and server, and written by hand with
asyncio on its engine.

By hand means as well as the engine's interface lets one: ids instead of text, so that nothing is
tokenized twice and every prefix is found; what several requests share is computed first (`ready`).
"""

from __future__ import annotations

import asyncio
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.workloads import (
    ANSWERS,
    BRANCHES,
    DEPTH,
    FIELDS,
    PATHS,
    VIEWS,
    Job,
    examples_of,
)

READY_SECONDS = 400.0  # until a server has to answer


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids so far, and what was written last, as text."""

    ids: tuple[int, ...] = ()
    text: str = ""


class ByHand:
    """The programs as coroutines on an engine with SGLang's `async_generate`.

    encode: text to ids.
    """

    def __init__(self, engine: Any, encode: Callable[[str], list[int]], job: Job) -> None:
        self.engine, self.encode, self.job = engine, encode, job
        self.examples = self.add(Prompt(), examples_of(job))

    async def run(self, name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
        """All instances at once; the text that each wrote last."""
        if name == "classify":
            await self.ready(self.examples)
        body = getattr(self, name)
        return list(await asyncio.gather(*[body(**row) for row in rows]))

    # -- what the programs are made of ----------------------------------------------------
    def add(self, prompt: Prompt, text: str) -> Prompt:
        return Prompt((*prompt.ids, *self.encode(text)), text)

    async def ready(self, prompt: Prompt) -> Prompt:
        """Have the KV of a prompt in the cache before requests that share it are sent."""
        await self.engine.async_generate(
            input_ids=list(prompt.ids),
            sampling_params={"temperature": 0.0, "max_new_tokens": 0})
        return prompt

    async def gen(self, prompt: Prompt, text: str, tokens: int) -> Prompt:
        """The prompt with a text and what the model writes."""
        prompt = self.add(prompt, text)
        out = await self.engine.async_generate(
            input_ids=list(prompt.ids), sampling_params={
                "temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True})
        return Prompt((*prompt.ids, *out["output_ids"]), out["text"])

    async def select(self, prompt: Prompt, choices: Sequence[str]) -> str:
        """The choice of the best mean log-probability."""
        rows = [list(self.add(prompt, c).ids) for c in choices]
        start = len(prompt.ids) - 1
        out = await self.engine.async_generate(
            input_ids=rows, sampling_params={"temperature": 0.0, "max_new_tokens": 0},
            return_logprob=True, logprob_start_len=[start] * len(rows))
        scores = []
        for o in out:
            found = [t[0] for t in o["meta_info"]["input_token_logprobs"] if t[0] is not None]
            scores.append(sum(found) / len(found))
        return choices[scores.index(max(scores))]

    # -- the programs ---------------------------------------------------------------------
    async def tree(self, q: str) -> str:
        root = await self.ready(self.add(Prompt(), q + "\n"))

        async def below(node: Prompt, depth: int) -> list[Prompt]:
            if depth == DEPTH:
                return [node]
            found = await asyncio.gather(*[thought(node, depth, i) for i in range(BRANCHES)])
            return [leaf for leaves in found for leaf in leaves]

        async def thought(node: Prompt, depth: int, i: int) -> list[Prompt]:
            made = await self.gen(node, f"\nDepth {depth}, idea {i}:", self.job.tokens)
            return await below(made, depth + 1)

        leaves = await below(root, 0)
        best = "\nBest:" + "".join([leaf.text[-20:] for leaf in leaves])
        return (await self.gen(root, best, self.job.last)).text

    async def judge(self, q: str) -> str:
        root = await self.ready(self.add(Prompt(), "Read the article." + q + "\n"))
        views = await asyncio.gather(*[
            self.gen(root, f"Judge its {view} in detail:", self.job.tokens) for view in VIEWS])
        joined = "Views:\n" + "".join([v.text + "\n" for v in views]) + "Grade:"
        return (await self.gen(root, joined, self.job.last)).text

    async def extract(self, q: str) -> str:
        prompt = self.add(Prompt(), "Document:" + q + "\nFields of the document:")
        for field in FIELDS:
            prompt = await self.gen(prompt, "\n" + field + ":", self.job.tokens)
        return prompt.text

    async def classify(self, q: str) -> str:
        prompt = self.add(self.examples, "\nQuestion:" + q + "\nThe answer is ")
        return await self.select(await self.ready(prompt), ANSWERS)

    async def chat(self, turns: Sequence[str]) -> str:
        prompt = Prompt()
        for turn in turns:
            prompt = await self.gen(prompt, "\nUser:" + turn + "\nAssistant:", self.job.tokens)
        return prompt.text

    async def vote(self, q: str) -> str:
        root = await self.ready(self.add(Prompt(), "Solve:" + q + "\n"))
        paths = await asyncio.gather(*[
            self.gen(root, f"Solution {i}:", self.job.tokens) for i in range(PATHS)])
        votes = "Votes:" + "".join([p.text[-20:] for p in paths])
        return (await self.gen(root, votes, self.job.last)).text


@contextmanager
def server(command: Sequence[str], port: int, log: str) -> Iterator[str]:
    """A server while the block runs; its address.  Its output goes to the file `log`.

    Raises RuntimeError with the end of its output if it does not come up.
    """
    address = f"http://127.0.0.1:{port}"
    with open(log, "wb") as file:
        process = subprocess.Popen(list(command), stdout=file, stderr=subprocess.STDOUT)
        try:
            ends = time.monotonic() + READY_SECONDS
            while not _answers(address + "/health_generate"):
                if process.poll() is not None or time.monotonic() > ends:
                    with open(log, encoding="utf-8", errors="replace") as said:
                        raise RuntimeError("the server did not start:\n" + said.read()[-2000:])
                time.sleep(1.0)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=20) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


class FrontEnd:
    """SGLang's language against a server: programs as decorated functions."""

    def __init__(self, address: str, threads: int | None) -> None:
        import sglang

        self.sglang, self.threads = sglang, threads
        self.backend = sglang.RuntimeEndpoint(address)

    def program(self, body: Callable[..., Any]) -> Any:
        return self.sglang.function(body)

    def run(self, program: Any, rows: Sequence[dict[str, Any]]) -> list[str]:
        """All instances, to the end of their texts.  The first error of one is raised."""
        threads = "auto" if self.threads is None else max(self.threads, len(rows))
        states = program.run_batch(list(rows), temperature=0, backend=self.backend,
                                   num_threads=threads)
        texts = [s.text() for s in states]
        for s in states:
            if s.error() is not None:
                raise RuntimeError(str(s.error()))
        return texts

    def flush(self) -> None:
        time.sleep(1)  # the server refuses while a request is there
        self.backend.flush_cache()
        time.sleep(1)


def encoder(model: str) -> Callable[[str], list[int]]:
    """The encoder of a model folder's tokenizer, without special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


def loop_of(engine: Any) -> asyncio.AbstractEventLoop:
    """The event loop that an SGLang engine's own calls run on: it serves one loop only."""
    found = getattr(engine, "loop", None)
    return found if found is not None else asyncio.get_event_loop()
