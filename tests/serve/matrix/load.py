"""Rows 1 to 5: load, soak, overload, clients that go away."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from typing import Any

from tests.serve.matrix.row import Row, descriptors, memory
from tests.serve.servers import process, running, send


def _body(i: int, rng: random.Random) -> dict[str, Any]:
    """Request `i` of a mix: a fifth with shared prefixes, a half as streams."""
    prefix = f"shared prefix number {i % 50}, which is long enough to matter. " * 4
    text = (prefix if rng.random() < 0.2 else "") + f"request {i % 997}"
    return {"text": text, "stream": i % 2 == 0,
            "sampling_params": {"max_new_tokens": 8, "temperature": 0}}


async def _answer(session: Any, url: str, body: dict[str, Any]) -> str:
    async with session.post(url + "/generate", json=body) as response:
        assert response.status == 200, response.status
        text = await response.text()
    if body["stream"]:
        blocks = [b[6:] for b in text.split("\n\n") if b]
        assert blocks[-1] == "[DONE]"
        return str(json.loads(blocks[-2])["text"])
    return str(json.loads(text)["text"])


def load(requests: int = 10_000, clients: int = 64) -> Row:
    """Row 1: everything is answered, rightly, and memory is flat."""
    import aiohttp

    wrong, lost = 0, 0
    rng = random.Random(0)
    bodies = [_body(i, rng) for i in range(requests)]
    with running() as server:
        server.post("/generate", {"text": "x"})
        files = descriptors()
        texts = sorted({b["text"] for b in bodies})
        want = dict(zip(texts, [g.text for g in server.backend.generate(
            texts, sampling={"max_new_tokens": 8, "temperature": 0})], strict=True))
        marks: list[int] = []

        async def main() -> None:
            nonlocal wrong, lost
            work = iter(enumerate(bodies))

            async def client() -> None:
                nonlocal wrong, lost
                async with aiohttp.ClientSession() as session:
                    for i, body in work:
                        if i == requests // 10:
                            gc.collect()
                            marks.append(memory())
                        try:
                            wrong += await _answer(session, server.url, body) != (
                                want[body["text"]])
                        except (AssertionError, aiohttp.ClientError):
                            lost += 1

            await asyncio.gather(*[client() for _ in range(clients)])

        began = time.monotonic()
        asyncio.run(main())
        seconds = time.monotonic() - began
        gc.collect()
        grown = (memory() - marks[0]) / (1 << 20)
        idle = server.idle()
        waited = _most(server, 0.99)
        until = time.monotonic() + 5
        while (left := descriptors() - files) > 0 and time.monotonic() < until:
            time.sleep(0.05)
    return Row(1, "load", f"{requests} requests, {clients} keep-alive clients",
               f"{lost} lost, {wrong} wrong, {grown:+.0f} MB after the first tenth, KV in use "
               f"{'0' if idle else 'left'}, {left:+d} open files at the end, 99 % waited at "
               f"most {waited:g} s for the engine, {requests / seconds:.0f} requests/s",
               "0 lost, 0 wrong, < 50 MB, 0, +0, <= 2.5 s", not lost and not wrong
               and grown < 50 and idle and left <= 0 and waited <= 2.5)


def _most(server: Any, share: float) -> float:
    """The bound of time in the queue that this share of the requests kept to."""
    counts = {float(s.labels["le"]): s.value for m in server.service.metrics.registry.collect()
              for s in m.samples if s.name == "sglc:queue_time_seconds_bucket"}
    return min(bound for bound, n in counts.items() if n >= share * max(counts.values()))


def real_model(clients: int = 16, each: int = 20) -> Row:
    """Row 2: the real model under load says what it says alone."""
    import aiohttp

    import sglc
    from sglc.serve.opening import open_service
    from sglc.serve.options import ServeOptions
    from sglc.serve.run import BackgroundServer

    prompts = [f"Here is fact number {i} about the sea:" for i in range(clients * each)]
    sampling = {"max_new_tokens": 16, "temperature": 0}
    with sglc.Engine(kv_tokens=16384) as backend:
        alone = [backend.generate(p, sampling=sampling).text for p in prompts[::each]]
        server = BackgroundServer(open_service(ServeOptions(), backend))
        got: dict[str, str] = {}

        async def main() -> None:
            async with aiohttp.ClientSession() as session:
                async def client(c: int) -> None:
                    for p in prompts[c * each:(c + 1) * each]:
                        got[p] = await _answer(session, server.url, {
                            "text": p, "stream": False, "sampling_params": sampling})

                await asyncio.gather(*[client(c) for c in range(clients)])

        asyncio.run(main())
        same = sum(got[p] == a for p, a in zip(prompts[::each], alone, strict=True))
        stats = backend.stats()
        server.stop()
    return Row(2, "load", f"SmolLM2-135M, {clients} clients x {each}",
               f"{len(got)}/{len(prompts)} answered, {same}/{len(alone)} sampled ones equal to "
               f"alone, {stats.cached_tokens} tokens from the cache, KV in use "
               f"{stats.kv_in_use}",
               "all answered, equal up to ties, > 0, 0",
               len(got) == len(prompts) and same >= 0.9 * len(alone)
               and stats.cached_tokens > 0 and stats.kv_in_use == 0)


def overload(clients: int = 64, seconds: float = 20.0) -> Row:
    """Row 4: what does not fit is told so at once, what is taken finishes."""
    import aiohttp

    body = {"text": "x", "sampling_params": {"max_new_tokens": 64, "ignore_eos": True}}

    async def offered(url: str, n: int, lasting: float) -> tuple[dict[int, int], float]:
        counts: dict[int, int] = {}
        slowest = 0.0
        until = time.monotonic() + lasting
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            async def client() -> None:
                while time.monotonic() < until:
                    async with session.post(url + "/generate", json=body) as response:
                        await response.read()
                        if response.status == 429:
                            assert response.headers["Retry-After"]
                            await asyncio.sleep(0.25)
                        counts[response.status] = counts.get(response.status, 0) + 1

            async def health() -> None:
                nonlocal slowest
                while time.monotonic() < until:
                    began = time.monotonic()
                    async with session.get(url + "/health") as response:
                        assert response.status == 200
                    slowest = max(slowest, time.monotonic() - began)
                    await asyncio.sleep(0.1)

            await asyncio.gather(health(), *[client() for _ in range(n)])
        return counts, slowest

    room = max(2, clients // 8)
    with process("--max-queued-requests", str(room)) as (_, url):
        base, _ = asyncio.run(offered(url, room, seconds / 2))
        counts, slowest = asyncio.run(offered(url, clients, seconds / 2))
        idle = 'kv_cache_usage_perc{model_name="hash"} 0.0' in send(url + "/metrics")[1]
    goodput = counts.get(200, 0) / max(1, base[200])
    return Row(4, "overload", f"{clients} clients on {room} places for {seconds / 2:g} s",
               f"statuses {dict(sorted(counts.items()))}, goodput {goodput:.0%} of that without "
               f"overload, /health at most {slowest:.2f} s",
               "200 and 429 only, >= 80 %, < 1 s",
               set(counts) <= {200, 429} and goodput >= 0.8 and slowest < 1 and idle)


def cancel(n: int = 1000) -> Row:
    """Row 5: clients that go away leave nothing behind."""
    from tests.serve.test_life import _disconnects

    steady = {"text": "steady", "sampling_params": {"max_new_tokens": 30, "temperature": 0}}
    with running() as server:
        want = server.post("/generate", steady)[1]["text"]
        for start in range(0, n, 50):
            asyncio.run(_disconnects(server.url, min(50, n - start), start))
        waited = time.monotonic()
        idle = server.idle()
        waited = time.monotonic() - waited
        stats = server.backend.stats()
        leaked = stats.kv_total - stats.kv_free - stats.kv_cached
        same = server.post("/generate", steady)[1]["text"] == want
    return Row(5, "cancel", f"{n} disconnects at random bytes, half of them streams",
               f"{leaked} KV slots leaked, idle {waited:.2f} s after the last, other outputs "
               f"{'unchanged' if same else 'CHANGED'}", "0, < 1 s, unchanged",
               idle and not leaked and same and waited < 1)


def soak(seconds: float = 1200.0) -> Row:
    """Row 3: requests at random times at 80 % of what can be had, some given up, some with
    constraints."""
    import aiohttp

    rng = random.Random(3)
    lost = wrong = answered = given_up = 0
    marks: list[tuple[float, int]] = []
    with running() as server:
        texts = [f"soak {i}" for i in range(100)]
        want = dict(zip(texts, [g.text for g in server.backend.generate(
            texts, sampling={"max_new_tokens": 8, "temperature": 0})], strict=True))

        async def one(session: Any, kind: float) -> None:
            nonlocal lost, wrong, answered, given_up
            text = rng.choice(texts)
            body: dict[str, Any] = {"text": text, "stream": kind < 0.1 or rng.random() < 0.5,
                                    "sampling_params": {"max_new_tokens": 8, "temperature": 0}}
            if kind >= 0.9:
                last, length = rng.choice("bcdefg"), rng.randrange(1, 8)
                body["sampling_params"]["regex"] = f"[a-{last}]{{{length}}}"
            try:
                if kind < 0.1:
                    body["sampling_params"] = {"max_new_tokens": 4000, "ignore_eos": True}
                    async with session.post(server.url + "/generate", json=body) as response:
                        await response.content.read(rng.randrange(1, 500))
                        response.close()
                    given_up += 1
                    return
                got = await _answer(session, server.url, body)
            except (AssertionError, aiohttp.ClientError):
                lost += 1
                return
            answered += 1
            wrong += kind < 0.9 and got != want[text]

        async def main() -> None:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                began = time.monotonic()
                await asyncio.gather(*[one(session, 0.5) for _ in range(200)])
                rate = 0.8 * 200 / (time.monotonic() - began)
                began, tasks = time.monotonic(), set()
                next_mark = began
                while (now := time.monotonic()) < began + seconds:
                    if now >= next_mark:
                        gc.collect()
                        marks.append(((now - began) / 60, memory()))
                        next_mark += seconds / 20
                    tasks.add(asyncio.ensure_future(one(session, rng.random())))
                    tasks = {t for t in tasks if not t.done()}
                    await asyncio.sleep(rng.expovariate(rate))
                await asyncio.gather(*tasks)

        asyncio.run(main())
        idle = server.idle()
        stats = server.backend.stats()
    half = marks[len(marks) // 2:]
    slope = _slope([(t, m / (1 << 20)) for t, m in half])
    leaked = stats.kv_total - stats.kv_free - stats.kv_cached
    return Row(3, "soak", f"{seconds / 60:.3g} min at 80 % of capacity, a tenth given up, a tenth "
               "with a regex",
               f"{answered} answered, {given_up} given up, {lost} lost, {wrong} wrong, "
               f"{slope:+.2f} MB/min in the last half, {leaked} KV slots leaked",
               "0 lost, 0 wrong, < 1 MB/min, 0",
               not lost and not wrong and not leaked and idle and answered > 100
               and (slope < 1 or seconds < 300))


def _slope(points: list[tuple[float, float]]) -> float:
    """Of the line of least squares."""
    n = len(points)
    mx, my = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mx) ** 2 for x, _ in points)
    return sum((x - mx) * (y - my) for x, y in points) / spread if spread else 0.0
