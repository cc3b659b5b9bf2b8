"""Rows 12 to 19: requests, constraints, templates and pictures that make no sense, or mean harm."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.serve.matrix.row import Row, memory
from tests.serve.servers import connection, running


def fuzz(examples: int = 200, phases: str = "examples,coverage,fuzzing") -> Row:
    """Row 12: schemathesis over the OpenAPI document."""
    import subprocess
    import tempfile

    with running(context_length=2048) as server, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "out.txt"
        got = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), "run",
             server.url + "/openapi.json", "--max-examples", str(examples), "--checks",
             "not_a_server_error,status_code_conformance,content_type_conformance,"
             "response_schema_conformance", "--phases", phases,
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
               not bad and not fives and idle and cases >= min(2000, examples * 5))


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


def regexes(hostile: int = 0, generated: int = 200) -> Row:
    """Row 14: hostile constraints (0: all of them) in processes with limits; generated ones agree
    with Python's `re`."""
    import re
    import subprocess

    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    sys.path.insert(0, str(Path(__file__).parents[2] / "grammar"))  # as pytest has it
    from sglc.errors import SglcError
    from tests.grammar.hostile import CASES, MEGABYTES, SECONDS
    from tests.grammar.regexes import ATOMS, QUANTIFIERS, accepts, automaton

    names = list(CASES)[:hostile or None]
    script = Path(__file__).parents[2] / "grammar" / "hostile.py"
    got = subprocess.run([sys.executable, str(script), *names], capture_output=True, text=True,
                         check=False, timeout=900)
    found = [json.loads(line) for line in got.stdout.splitlines() if line[:1] == "{"]
    slowest = max((r["seconds"] for r in found), default=0.0)
    most = max((r["megabytes"] for r in found), default=0.0)
    compared, differ = 0, 0
    rng = random.Random(14)

    @settings(max_examples=generated, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(ATOMS, st.just("") | QUANTIFIERS), min_size=1, max_size=6))
    def check(parts: list[tuple[str, str]]) -> None:
        nonlocal compared, differ
        pattern = "".join(a + q for a, q in parts)
        try:
            wanted = re.compile(pattern)
            machine = automaton(pattern)
        except (re.error, SglcError):
            return
        for _ in range(60):
            text = "".join(rng.choices("abcAk0_ \nxé漢", k=rng.randrange(7)))
            compared += 1
            differ += accepts(machine, text) != (wanted.fullmatch(text) is not None)

    check()
    return Row(14, "regex", f"{len(names)} hostile constraints, {generated} generated patterns",
               f"{len(found)} answered, slowest {slowest:.2f} s of the processor, "
               f"at most {most:.0f} MB; {differ} of {compared} texts judged unlike Python's re",
               f"all, <= {SECONDS} s, <= {MEGABYTES} MB, 0",
               len(found) == len(names) and slowest <= SECONDS and most <= MEGABYTES
               and differ == 0 < compared)


def grammar_cache(constraints: int = 10_000) -> Row:
    """Row 15: as many different constraints as one likes, in a bounded cache."""
    import gc
    import os
    import tempfile

    from sglc import grammar
    from sglc.tokens.bytes import ByteTokenizer

    tokenizer = ByteTokenizer()
    before_env = os.environ.get("SGLC_GRAMMAR_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SGLC_GRAMMAR_CACHE"] = folder
        try:
            start = 0
            for i in range(constraints):
                if i == constraints // 10:
                    gc.collect()
                    start = memory()
                made = grammar.compile(regex=f"number {i} [a-f]{{1,8}}", tokenizer=tokenizer)
                made.mask(made.start())
            gc.collect()
            grown = (memory() - start) / (1 << 20)
            disk = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
            times = []
            for _ in range(200):
                began = time.perf_counter()
                grammar.compile(regex=f"number {constraints - 1} [a-f]{{1,8}}",
                                tokenizer=tokenizer)
                times.append(time.perf_counter() - began)
        finally:
            if before_env is None:
                del os.environ["SGLC_GRAMMAR_CACHE"]
            else:
                os.environ["SGLC_GRAMMAR_CACHE"] = before_env
    hit = sorted(times)[len(times) // 2]
    return Row(15, "grammar cache", f"{constraints} different regexes",
               f"{grown:+.0f} MB after the first tenth, {disk / (1 << 20):.1f} MB on disk, a hit "
               f"takes {hit * 1e6:.0f} us", "< 100 MB, < 1 ms", grown < 100 and hit < 1e-3)


def templates() -> Row:
    """Row 17: templates that want out, loop or write without end, and ones in requests."""
    from sglc.errors import SglcError
    from sglc.tokens.bytes import ByteTokenizer
    from sglc.tokens.jinja import JinjaTemplate
    from tests.tokens.test_templates import ESCAPES, HOSTILE

    tokenizer, slowest, out, refused = ByteTokenizer(), 0.0, 0, 0
    for source in [*HOSTILE.values(), *[
            "{% macro f() %}{% endmacro %}{% for x in [1] %}{{ " + e + " }}{% endfor %}"
            for e in ESCAPES]]:
        began = time.process_time()
        try:
            pieces = JinjaTemplate(source, tokenizer).open((), "user")
            out += any("class" in str(p) or "module" in str(p) or "root:" in str(p)
                       for p in pieces)
        except SglcError:
            refused += 1
        slowest = max(slowest, time.process_time() - began)
    count = len(HOSTILE) + len(ESCAPES)
    with running() as server:
        body = {"messages": [{"role": "user", "content": "x"}]}
        given = [server.post("/v1/chat/completions", {**body, **more})[0] for more in (
            {"chat_template": "{{ 1 }}"}, {"chat_template_kwargs": {"tokenize": True}},
            {"template": "x"}, {"continue_final_message": True})]
    return Row(17, "templates", f"{count} hostile templates, {len(given)} given in requests",
               f"{out} reached anything, {refused} refused, slowest {slowest:.2f} s; in requests: "
               f"{given}", "0, <= 3 s, all 400", not out and slowest <= 3
               and given == [400] * len(given))


_HOSTS = ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433",
          "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "user@127.0.0.1", "127.0.0.1#x",
          "a.example\\@127.0.0.1", "127%2e0.0.1", "[::]", "\u2460\u2461\u2466.0.0.1")
_OTHERS = ("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "http://",
           "http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/x", "//127.0.0.1/x",
           "http:127.0.0.1", "data:text/html,x")


def urls() -> Row:
    """Row 18: no URL in a request makes the server connect to what is not public, whether it
    fetches images or not."""
    import tempfile
    from dataclasses import replace

    from tests.serve.vision_server import save, seeing

    arrived = 0
    canary = socket.create_server(("127.0.0.1", 0))
    port = canary.getsockname()[1]

    def listen() -> None:
        nonlocal arrived
        while True:
            try:
                canary.accept()[0].close()
            except OSError:
                return
            arrived += 1

    threading.Thread(target=listen, daemon=True).start()
    tried = [f"http://{h}:{port}/x.png" for h in _HOSTS] + list(_OTHERS)
    statuses: list[int] = []
    alive = True
    with tempfile.TemporaryDirectory() as folder:
        root = save(Path(folder))
        for fetch in (False, True):
            with seeing(root, fetch_images=fetch) as server:
                pictures = server.service.pictures
                pictures.limits = replace(pictures.limits, fetch_ports=frozenset((80, port)))
                for u in tried:
                    statuses += [server.post(path, body)[0] for path, body in _with_image(u)]
                time.sleep(0.2)
                alive = alive and server.get("/health")[0] == 200
    canary.close()
    blocked = sum(400 <= s < 500 for s in statuses)
    return Row(18, "URLs", f"{len(tried)} addresses, in chats and in /generate, fetching off and "
               "on", f"{blocked}/{len(statuses)} refused, {arrived} connections at the canary",
               "all of >= 25, 0", blocked == len(statuses) >= 25 and not arrived and alive)


def _with_image(url: str) -> list[tuple[str, Any]]:
    """Requests with an image: (path, body)."""
    return [("/v1/chat/completions", {"max_tokens": 1, "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": url}}]}]}),
            ("/generate", {"text": "<image>", "image_data": url,
                           "sampling_params": {"max_new_tokens": 1}})]


def pictures() -> Row:
    """Row 19: bad pictures in requests to a model with vision."""
    import tempfile

    from tests.runtime.vision_models import draw, encoded
    from tests.serve.vision_server import data_url, save, seeing

    good = encoded(draw(64, 64))
    png = good[:8]
    huge = png + b"\x00\x00\x00\rIHDR" + (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    given = {"empty": b"", "no more than a signature": png, "50,000 x 50,000": huge,
             "truncated": good[:-40], "no pixels": good[:40],
             "GIF": b"GIF89a\x01\x00\x01\x00" + b"\x21\xf9\x04\0\0\0\0\0" * 10_000,
             "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>",
             "polyglot": b"%PDF-1.4" + good, "EXIF": b"\xff\xd8\xff\xe1" + b"Exif" * 100_000,
             "5,000 x 5,000": encoded(draw(5000, 5000))}
    statuses, fine, slowest = [], [], 0.0
    with tempfile.TemporaryDirectory() as folder, seeing(save(Path(folder))) as server:
        fine += [server.post(p, b)[0] for p, b in _with_image(data_url(good))]
        start = memory()
        for data in given.values():
            for path, body in _with_image(data_url(data)):
                began = time.monotonic()
                statuses.append(server.post(path, body)[0])
                slowest = max(slowest, time.monotonic() - began)
        grown = (memory() - start) / (1 << 20)
        fine += [server.post(p, b)[0] for p, b in _with_image(data_url(encoded(draw(1, 1))))]
    bad = sum(not 400 <= s < 500 for s in statuses)
    return Row(19, "pictures", f"{len(given)} bad pictures, two routes",
               f"{bad} not refused, slowest {slowest:.2f} s, {grown:+.0f} MB; good ones "
               f"{fine}", "0, <= 1 s, <= 200 MB, 200", not bad and slowest <= 1 and grown <= 200
               and fine == [200] * 4)
