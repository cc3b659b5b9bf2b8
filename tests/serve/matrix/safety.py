"""Rows 20 to 25 and 28 to 30: who may do what, and what never gets out or runs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.serve.matrix.row import Row
from tests.serve.servers import process, running, send


def listeners() -> Row:
    """Row 21: what a server listens on, alone and with the model in two processes."""
    from tests.serve.random_llama import save_llama
    from tests.serve.test_keeper import children
    from tests.serve.test_life import listening

    with process() as (child, url):
        found = listening(child.pid)
    alone = found == [f"0100007F:{int(url.rpartition(':')[2]):04X}"]
    with tempfile.TemporaryDirectory() as folder, process(
            "--model-path", str(save_llama(Path(folder))), "--tp", "2") as (child, url):
        status = send(url + "/generate", {"text": "x"})[0]
        workers = children(child.pid)
        spread = [s for pid in (child.pid, *workers) for s in listening(pid)]
    local = len(workers) == 1 and status == 200 and all(
        s.startswith("0100007F:") for s in spread)
    return Row(21, "listeners", "sockets of the process, and of both with --tp 2",
               f"{len(found)}: {', '.join(found)}; --tp 2: {len(spread)}, "
               f"{'all' if local else 'NOT all'} loopback",
               "1, loopback; loopback only", alone and local)


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


PACKAGE = Path(__file__).parents[3] / "sglc"
_NEVER = {"eval", "exec", "pickle.load", "pickle.loads", "torch.load", "marshal.loads",
          "marshal.load", "yaml.load", "dill.load", "dill.loads", "cloudpickle.loads",
          "os.system", "shelve.open"}


def _calls(path: Path) -> list[str]:
    """What a file calls of what no file may call; `torch.compile` and methods named so apart."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in _NEVER:
                found.append(f"{path.name}:{node.lineno} {name}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *[a.name for a in node.names]]
            found += [f"{path.name}:{node.lineno} {n}" for n in names
                      if n.split(".")[0] in ("pickle", "dill", "cloudpickle", "shelve")]
    return found


def deserialisation(mutated: bool = True) -> Row:
    """Row 20: nothing is unpickled or evaluated; damaged and hostile weights are coded errors."""
    import pickle

    from sglc.errors import SglcError

    hits = [hit for path in PACKAGE.rglob("*.py") for hit in _calls(path)]
    refused = ran = 0
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"

        class Bomb:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {canary}",)

        data = pickle.dumps(Bomb())
        length = (1 << 60).to_bytes(8, "little")
        for name, content in (("a.pkl", data), ("pytorch_model.bin", data), ("a.pt", data),
                              ("a.gguf", data), ("a.gguf", b"GGUF\x03\0\0\0" + length * 2),
                              ("model.safetensors", length + b"{}"), ("model.safetensors", data)):
            place = Path(folder) / f"model{refused}"
            place.mkdir()
            (place / name).write_bytes(content)
            for target in (place, place / name):
                try:
                    import sglc

                    sglc.Engine(target).close()
                except SglcError:
                    refused += 1
        ran = int(canary.exists())
    passed = "not run"
    ok = True
    if mutated:
        got = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "",
             "tests/runtime/test_bad_weights.py", "-k", "mutated or truncated"],
            capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
        passed, ok = got.stdout.strip().splitlines()[-1], got.returncode == 0
    return Row(20, "deserialisation", "calls in the package, 7 hostile files, mutated weights",
               f"{len(hits)} calls {hits[:3]}, {refused}/14 refused with a code, {ran} ran; "
               f"mutated: {passed}", "0, all, 0, all pass",
               not hits and refused == 14 and not ran and ok)


def tenancy() -> Row:
    """Row 23: holders of different keys share no cache and cannot end each other's requests."""
    prefix = "a prefix that two have in common, long enough to be worth keeping. " * 4
    body = {"text": prefix, "rid": "same", "sampling_params": {"max_new_tokens": 2}}
    program = ("program @p(%x: !text) {\n  %p0 = prompt.root\n  %p1 = prompt.append %p0, %x\n"
               '  %p2, %a: !text, %m = prompt.gen %p1 {name = "a", path = [0], max_tokens = 2}\n'
               "  prompt.return %p2\n}\n")

    def found(server: Any, key: str, path: str = "/generate") -> int:
        """The tokens that were in the cache for one more request."""
        given = body if path == "/generate" else {"ir": program, "rows": [{"x": prefix}]}
        before = server.backend.stats().cached_tokens
        status = server.post(path, given, {"Authorization": f"Bearer {key}"})[0]
        if status != 200:
            raise ValueError(f"status {status}")
        return int(server.backend.stats().cached_tokens - before)

    across = own = 0
    for first in ("/generate", "/v1/programs"):
        for second in ("/generate", "/v1/programs"):
            with running(api_keys=("one", "two")) as server:
                found(server, "one", first)
                across += found(server, "two", second)
                own += found(server, "one", second) >= len(prefix) - 1
                idle = server.idle()
    return Row(23, "tenancy", "two keys, one prefix, one request id",
               f"{across} tokens found across keys; all found within one {own} of 4 times",
               "0, 4", across == 0 and own == 4 and idle)


def paths() -> Row:
    """Row 24: names in requests reach no file."""
    names = ["../../etc/passwd", "/etc/passwd", "..\\..\\windows", "hash/../../x", "file:///x",
             "hash\0", "%2e%2e%2f", "~root", "/proc/self/environ", "\u2025/x", "hash/", "HASH",
             "a" * 1024]
    with running() as server:
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        statuses = [server.post("/v1/chat/completions", {**chat, "model": n})[0] for n in names]
        statuses += [server.post("/v1/completions", {"prompt": "x", "model": n})[0]
                     for n in names]
        statuses += [server.post("/v1/chat/completions", {**chat, field: n})[0] for n in names
                     for field in ("lora_path", "file_id", "chat_template", "tokenizer")]
        statuses += [server.get("/" + n.replace("\0", "%00").replace("\u2025", ".."))[0]
                     for n in names]
    wrong = sum(not 400 <= s < 500 for s in statuses)
    return Row(24, "paths", f"{len(names)} names in seven places", f"{wrong} of {len(statuses)} "
               "not refused", "0", not wrong)


def optimized(rows: tuple[int, ...] = (13, 16, 18, 22, 23, 24)) -> Row:
    """Row 25: the same rows with and without `python -O` (no check is an `assert`)."""
    command = ["-m", "tests.serve.reliability", "--quick", "--json"]
    flags = [word for n in rows for word in ("--row", str(n))]
    found: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for optimize in ([], ["-O"]):
            out = Path(folder) / f"out{len(found)}"
            subprocess.run([sys.executable, *optimize, *command, str(out), *flags],
                           capture_output=True, check=False, cwd=PACKAGE.parent,
                           env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
            found.append({r["number"]: r["ok"] for r in json.loads(out.read_text())})
    same = sum(found[0].get(n) is found[1].get(n) is True for n in rows)
    return Row(25, "python -O", f"rows {', '.join(map(str, rows))} with and without",
               f"{same} of {len(rows)} good both times", "all", same == len(rows))


def hostile_programs(most: int | None = None) -> Row:
    """Row 28: the compiler on programs that are not meant well."""
    import random

    import sglc as sgl
    from sglc.errors import SglcError
    from tests.footguns.hostile import effects, endless, functions, size, values
    from tests.footguns.hostile.cases import CASES

    assert all((effects, endless, functions, size, values))  # importing them fills CASES
    state = random.getstate()
    slowest, inside, answered, where = 0.0, 0, 0, 0
    cases = CASES[:most]
    with contextlib.redirect_stdout(io.StringIO()):
        for case in cases:
            began = time.thread_time()
            try:
                compiled = sgl.program(case.fn).compile(*case.arguments)
                answered += 1
                where += all(b.place is not None for b in compiled.breaks)
            except SglcError as error:
                answered += 1
                where += error.diagnostic.place is not None
            except Exception as error:
                inside += 1
                sys.stderr.write(f"{case.name}: {type(error).__name__}: {error}\n"[:300])
            slowest = max(slowest, time.thread_time() - began)
    effects.LEAKED.clear()
    random.setstate(state)
    return Row(28, "hostile programs", f"{len(cases)} programs compiled",
               f"{answered} answered, {where} of them with a place where one is told, "
               f"{inside} other errors, slowest {slowest:.1f} s", "all, all, 0, <= 5 s",
               answered == where == len(cases) >= 8 and not inside and slowest <= 5)


def secrets() -> Row:
    """Row 29: keys in the environment, on the command line and in headers, while things fail."""
    keys = {"SGLC_API_KEY": "secret-of-the-environment", "SGLC_ADMIN_API_KEY": "secret-of-admin"}
    argv, header = "secret-of-the-command-line", "secret-of-a-header"
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with process("--api-key", argv, "--trace-file", str(trace), "--log-level", "debug",
                     "--log-format", "json", env=keys) as (child, url):
            answers = [send(url + path, body, {"Authorization": f"Bearer {key}"}, method)[1]
                       for key in (*keys.values(), argv, header)
                       for method, path, body in (
                           ("GET", "/get_server_info", None), ("GET", "/get_server_args", None),
                           ("GET", "/metrics", None), ("GET", "/openapi.json", None),
                           ("POST", "/generate", {"text": "x"}), ("POST", "/generate", {}),
                           ("POST", "/generate", {"text": "x", "sampling_params": {"regex": "("}}),
                           ("POST", "/v1/programs", {"ir": "x", "rows": [{}]}),
                           ("GET", f"/nowhere?key={header}", None))]
            child.terminate()
            child.wait(30)
            child.log.seek(0)
            log = child.log.read()
        everything = log + trace.read_text() + json.dumps(answers, default=str)
    found = sum(everything.count(k) for k in (*keys.values(), argv, header))
    return Row(29, "secrets", "four keys, nine requests with each, log at debug, a trace",
               f"{found} occurrences in {len(everything)} characters of logs, traces and answers",
               "0", found == 0 and len(log) > 100)


def drawings() -> Row:
    """Row 30: hostile names and prompts in the picture of a program.  No browser runs here: what
    could run in one is looked for in the XML."""
    from sglc import cli

    hostile = ("<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>",
               "]]><script>x</script>", "javascript:alert(1)", "<!--", "&lt;script&gt;",
               "</svg><iframe src=//x>", "' onload='x()", "\x00\x1b[31m",
               "\u202e<a href=javascript:x>")
    source = "import sglc as sgl\n\n@sgl.program\ndef p(s, x):\n" + "".join(
        f"    s += {text!r} + x\n    s += sgl.gen({text!r}, stop={text!r}, max_tokens=3)\n"
        for text in hostile)
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder) / "p.py", Path(folder) / "p.svg"
        script.write_text(source)
        code = cli.main(["compile", str(script), "--emit", "svg", "-o", str(out)])
        root = ElementTree.fromstring(out.read_text(encoding="utf-8"))
    bad = []
    for element in root.iter():
        name = str(element.tag).rpartition("}")[2].lower()
        if name in ("script", "iframe", "img", "foreignobject", "object", "embed", "animate",
                    "set", "handler"):
            bad.append(name)
        for key, value in element.attrib.items():
            plain = key.rpartition("}")[2].lower()
            link = plain in ("href", "src", "action", "style")
            if plain.startswith("on") or (plain == "href" and not value.startswith("#")) or (
                    link and "javascript:" in value.lower()):
                bad.append(plain)
    return Row(30, "drawings", f"{len(hostile)} hostile texts as prompts, names and stops",
               f"{len(bad)} elements or attributes that could run {bad[:3]}", "0",
               not bad and code == 0)
