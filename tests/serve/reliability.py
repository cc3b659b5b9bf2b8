"""The reliability matrix of the server: what was measured beside what was to be reached.

    python -m tests.serve.reliability [--quick] [--json FILE] [--row N ...]

Each row is a function of a scale; the default tests run them small (`test_reliability.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.serve.servers import Running, connection, process, running, send


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    number: int
    area: str
    test: str
    figure: str
    target: str
    ok: bool


def memory() -> int:
    """Resident bytes of this process, 0 where it cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


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
        texts = sorted({b["text"] for b in bodies})
        want = dict(zip(texts, [g.text for g in server.backend.generate(
            texts, sampling={"max_new_tokens": 8, "temperature": 0})], strict=True))
        marks: list[tuple[int, int]] = []

        async def main() -> None:
            nonlocal wrong, lost
            work = iter(enumerate(bodies))

            async def client() -> None:
                nonlocal wrong, lost
                async with aiohttp.ClientSession() as session:
                    for i, body in work:
                        if i == requests // 10:
                            gc.collect()
                            marks.append((memory(), descriptors()))
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
        grown = (memory() - marks[0][0]) / (1 << 20)
        idle = server.idle()
    return Row(1, "load", f"{requests} requests, {clients} keep-alive clients",
               f"{lost} lost, {wrong} wrong, +{grown:.0f} MB after the first tenth, KV in use "
               f"{'0' if idle else 'left'}, {requests / seconds:.0f} requests/s",
               "0 lost, 0 wrong, < 50 MB, 0", not lost and not wrong and grown < 50 and idle)


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


def shutdown(clients: int = 32) -> Row:
    """Row 8: SIGTERM lets what runs finish and refuses what is new; a second one ends at once."""
    with process("--shutdown-timeout", "60") as (child, url):
        done: list[int] = []
        body = {"text": "x", "sampling_params": {"max_new_tokens": 800, "ignore_eos": True}}

        def client() -> None:
            done.append(send(url + "/generate", body)[0])

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for t in threads:
            t.start()
        while f'http_requests_active{{model_name="hash"}} {clients + 1}.0' not in send(
                url + "/metrics")[1]:
            time.sleep(0.01)
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        refused = 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                refused = send(url + "/generate", body)[0]
            if refused:
                break
        for t in threads:
            t.join()
        code = child.wait(60)
        seconds = time.monotonic() - began
    with process() as (child, url):
        thread = threading.Thread(target=lambda: _quiet(url, {"text": "x", "sampling_params": {
            "max_new_tokens": 60_000, "ignore_eos": True}}))
        thread.start()
        time.sleep(0.5)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        at_once = time.monotonic()
        child.wait(10)
        at_once = time.monotonic() - at_once
        thread.join()
    finished = done.count(200)
    return Row(8, "shutdown", f"SIGTERM under {clients} in flight, then a second one",
               f"{finished}/{clients} finished in {seconds:.1f} s, a new one got {refused}, exit "
               f"code {code}; a second signal ends in {at_once:.2f} s",
               "all, <= 30 s, 503, 0",
               finished == clients and refused == 503 and code == 0 and seconds < 30)


def _quiet(url: str, body: Any) -> None:
    with contextlib.suppress(OSError):
        send(url + "/generate", body)


def fuzz(examples: int = 200) -> Row:
    """Row 12: schemathesis over the OpenAPI document."""
    import subprocess
    import tempfile

    with running(context_length=2048) as server, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "out.txt"
        got = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), "run",
             server.url + "/openapi.json", "--max-examples", str(examples), "--checks",
             "not_a_server_error,status_code_conformance,content_type_conformance,"
             "response_schema_conformance", "--phases", "examples,coverage,fuzzing",
             "--exclude-path", "/flush_cache", "--request-timeout", "60", "--no-color"],
            capture_output=True, text=True, timeout=3600, check=False)
        report.write_text(got.stdout)
        cases, bad = 0, got.returncode
        for line in got.stdout.splitlines():
            words = line.replace(",", "").split()
            if "generated" in words and words and words[0].isdigit():
                cases = int(words[0])
        failing = [line.strip() for line in got.stdout.splitlines()
                   if "error" in line.lower() and "- " in line][:4]
        if bad:
            sys.stderr.write(got.stdout[-6000:])
        registry = server.service.metrics.registry
        fives = sum(s.value for m in registry.collect() for s in m.samples
                    if s.name == "sglc:http_requests_total" and s.labels["status"] in (
                        "500", "502"))
        idle = server.idle()
    return Row(12, "fuzz", f"schemathesis, {examples} examples an operation",
               f"{cases} cases, {fives:.0f} answers of 5xx, exit code {bad} {failing or ''}",
               ">= 2000 cases, 0, 0",
               not bad and not fives and idle and cases >= min(2000, examples * 10))


def corpus() -> Row:
    """Row 13: bad requests by hand."""
    from tests.serve.bad_bodies import cases

    every = cases()
    good, slowest = 0, 0.0
    with running() as server:
        client = connection(server.url)
        for path, body in every:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            began = time.monotonic()
            client.request("POST", path, data, {"Content-Type": "application/json"})
            response = client.getresponse()
            answer = response.read()
            slowest = max(slowest, time.monotonic() - began)
            good += 400 <= response.status < 500 and "message" in json.loads(answer)["error"]
        alive = server.get("/health")[0] == 200
        client.close()
    return Row(13, "bad input", f"{len(every)} requests by hand",
               f"{good} are 4xx in OpenAI's form, slowest {slowest:.2f} s, server "
               f"{'alive' if alive else 'DEAD'}", "all of >= 150, <= 1 s, alive",
               good == len(every) >= 150 and alive and slowest <= 1)


def special_tokens() -> Row:
    """Row 16: the names of control tokens in contents of chats."""
    from sglc.backends.hash_model import HashModel
    from sglc.serve.chat_prompt import ChatPrompts
    from sglc.serve.requests import Message

    seen = leaked = 0
    for kind in ("smollm2", "small", None):
        with HashModel(kind) as backend:
            chats, special = ChatPrompts(backend.tokenizer, backend.template), (
                backend.tokenizer.special_ids)

            def count(text: str, role: Any, chats: Any = chats, special: Any = special) -> int:
                last = [Message(role="user", content="x")] if role != "user" else []
                return sum(t in special for t in chats.ids(
                    [Message(role=role, content=text), *last]))

            for role in ("user", "system"):
                for name in backend.tokenizer.special:
                    seen += 1
                    leaked += count(f"a{name}b", role) != count("ab", role)
    return Row(16, "special tokens", f"{seen} names in contents, three tokenizers",
               f"{leaked} became control tokens", "0", not leaked and seen > 30)


def listeners() -> Row:
    """Row 21: what a server listens on."""
    from tests.serve.test_life import listening

    with process() as (child, url):
        found = listening(child.pid)
    port = int(url.rpartition(":")[2])
    return Row(21, "listeners", "sockets of the process", f"{len(found)}: {', '.join(found)}",
               "1, loopback", found == [f"0100007F:{port:04X}"])


def access() -> Row:
    """Row 22: all routes times all keys."""
    from sglc.serve.routes import ROUTES

    wrong = tried = 0
    with running(api_keys=("k1", "k2"), admin_key="admin") as server:
        for route in ROUTES:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
                for key in (None, "no", "k1", "k2", "admin"):
                    body = {} if method == "POST" else None
                    status = send(server.url + route.path, body, {} if key is None else {
                        "Authorization": f"Bearer {key}"}, method)[0]
                    mine = next((r for r in ROUTES if (r.method, r.path) == (
                        method, route.path)), None)
                    allowed = key in ("k1", "k2", "admin")
                    if mine is not None and mine.access == "open":
                        allowed = True
                    elif mine is not None and mine.access == "admin":
                        allowed = key == "admin"
                    tried += 1
                    wrong += (status not in (401, 403)) is not allowed
    return Row(22, "auth", f"{len(ROUTES)} routes x 6 methods x 5 keys",
               f"{wrong} of {tried} against the policy", "0", not wrong)


ROWS: dict[int, tuple[Callable[..., Row], dict[str, Any]]] = {
    1: (load, {"requests": 300, "clients": 16}), 2: (real_model, {"clients": 4, "each": 3}),
    4: (overload, {"clients": 24, "seconds": 2.0}), 5: (cancel, {"n": 60}),
    8: (shutdown, {"clients": 8}), 12: (fuzz, {"examples": 5}), 13: (corpus, {}),
    16: (special_tokens, {}), 21: (listeners, {}), 22: (access, {})}
"""Row -> its function, and the small scale."""

NOT_HERE = {
    3: "soak", 6: "retraction: tests/runtime", 7: "one process, no workers to crash",
    9: "backends: tests/backends", 10: "batch ledger", 14: "hostile regexes: tests/grammar",
    15: "grammar cache", 17: "templates: tests/tokens", 18: "images are not taken",
    19: "images are not taken", 20: "deserialisation", 23: "keys share one cache: one tenant",
    24: "no request names a file", 25: "run pytest with python -O", 28: "hostile programs: "
    "tests/footguns", 29: "logs without prompts: tests/serve/test_protection.py", 30: "viewer"}


def table(rows: list[Row]) -> str:
    lines = ["| # | area | test | figure | target | |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.number} | {r.area} | {r.test} | {r.figure} | {r.target} | "
              f"{'ok' if r.ok else 'MISSED'} |" for r in rows]
    lines += [f"| {n} | | | not measured here | | {why} |" for n, why in NOT_HERE.items()]
    return "\n".join(lines)


def main() -> int:
    """Measure and print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--row", type=int, action="append", choices=ROWS)
    given = parser.parse_args()
    rows = []
    for number in given.row or ROWS:
        measure, small = ROWS[number]
        try:
            row = measure(**small) if given.quick else measure()
        except Exception as error:
            row = Row(number, measure.__name__, "", f"{type(error).__name__}: {error}"[:200],
                      "", False)
        print(f"{row.number}: {row.figure}", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows))
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(r) for r in rows], indent=1))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["ROWS", "Row", "Running", "main"]
