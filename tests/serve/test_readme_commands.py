"""The commands of SGLang's README of February 2024, as they stand there but for the model (a small
random one) and the port: servers, `curl`, the `openai` client, and its programs through
`RuntimeEndpoint`; what they say is what the engine says in this process.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import sglc
from sglc.backends.local import LocalBackend
from sglc.serve.engines import open_backend
from sglc.serve.opening import open_service
from sglc.serve.options import parsed
from sglc.serve.run import BackgroundServer
from tests.runtime.vision_models import as_own_layout, draw, save_llava, save_tokenizer
from tests.serve.random_llama import save_llama
from tests.serve.servers import send
from tests.test_examples import READMES, Example, example, load

openai = pytest.importorskip("openai")
pytest.importorskip("PIL")
pytest.importorskip("transformers")

LAUNCH = "python -m sglang.launch_server --model-path meta-llama/Llama-2-7b-chat-hf --port 30000"
COMMANDS = {
    "plain": LAUNCH,
    "llama-2": LAUNCH + " --chat-template llama-2",
    "my_model": LAUNCH + " --chat-template ./my_model_template.json",
    "tp": LAUNCH + " --tp 2",
    "mem": LAUNCH + " --mem-fraction-static 0.7",
    "llava": "python3 -m sglang.launch_server --model-path liuhaotian/llava-v1.5-7b "
             "--tokenizer-path llava-hf/llava-1.5-7b-hf --chat-template vicuna_v1.1 --port 30000",
}
MY_MODEL = """{
  "name": "my_model",
  "system": "<|im_start|>system",
  "user": "<|im_start|>user",
  "assistant": "<|im_start|>assistant",
  "sep_style": "CHATML",
  "sep": "<|im_end|>",
  "stop_str": ["<|im_end|>", "<|im_start|>"]
}"""
TEMPLATES = {"llama-2": "llama-2", "my_model": "./my_model_template.json",
             "llava": "vicuna_v1.1"}
CURL = r"""curl http://localhost:30000/generate \
  -H "Content-Type: application/json" \
  -d '{
    "text": "Once upon a time,",
    "sampling_params": {
      "max_new_tokens": 16,
      "temperature": 0
    }
  }'"""
CHAT: list[Any] = [{"role": "system", "content": "You are a helpful AI assistant"},
                   {"role": "user", "content": "List 3 countries and their capitals."}]

IMAGE_QA = Example("image_qa", [{"image_file": "cat.png", "question": "What is shown here?"}])
Launch = Callable[[str], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are run: the models, and the template file."""
    path = tmp_path_factory.mktemp("readme")
    llama, llava = path / "meta-llama" / "Llama-2-7b-chat-hf", path / "liuhaotian/llava-v1.5-7b"
    llama.mkdir(parents=True)
    save_llama(llama)
    # LLaVA's own layout, which has no tokenizer: that of llava-hf is taken.
    save_llava(path / "random")
    llava.parent.mkdir()
    as_own_layout(path / "random", llava, max_position_embeddings=4096)
    (path / "llava-hf").mkdir()
    save_tokenizer(path / "llava-hf" / "llava-1.5-7b-hf")
    draw(33, 40).save(path / "cat.png")
    (path / "my_model_template.json").write_text(MY_MODEL)
    return path


def words(command: str) -> list[str]:
    """A command's flags, on any free port."""
    python, m, module, *flags = shlex.split(command)
    assert (python.rstrip("3"), m, module) == ("python", "-m", "sglang.launch_server")
    return ["0" if word == "30000" else word for word in flags]


@contextmanager
def here(command: str) -> Iterator[str]:
    """The command's server in this process; its URL."""
    options = parsed(words(command))
    backend = open_backend(options)
    server = BackgroundServer(open_service(options, backend), options.host, options.port)
    try:
        yield server.url.replace("127.0.0.1", "localhost")
    finally:
        server.stop()
        backend.close()


@contextmanager
def process(command: str) -> Iterator[str]:
    """The command itself, with this package's name; its URL."""
    child = subprocess.Popen([sys.executable, "-m", "sglc.launch_server", *words(command)],
                             stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert " on http" in line, line
        yield line.split(" on ")[1].strip().replace("127.0.0.1", "localhost")
    finally:
        child.terminate()
        child.communicate(timeout=60)


@contextmanager
def engine(name: str) -> Iterator[LocalBackend]:
    """The same model without a server."""
    from sglc.tokens.template_file import read_template

    more: dict[str, Any] = {}
    path = "meta-llama/Llama-2-7b-chat-hf"
    if name == "llava":
        path, more = "liuhaotian/llava-v1.5-7b", {"tokenizer_path": "llava-hf/llava-1.5-7b-hf"}
    with sglc.Engine(path, device="cpu", chat_template=read_template(TEMPLATES.get(name)),
                     **more) as made:
        yield made


def check_clients(url: str, local: LocalBackend) -> None:
    """`curl` and the `openai` client as the README has them."""
    port = url.rpartition(":")[2]
    want = local.generate("Once upon a time,", sampling={"max_new_tokens": 16, "temperature": 0})
    if shutil.which("curl") and shutil.which("sh"):
        said = json.loads(subprocess.run(["sh", "-c", CURL.replace("30000", port)], check=True,
                                         capture_output=True).stdout)
    else:  # the body that it would send
        said = send(url + "/generate", shlex.split(CURL)[-1].encode())[1]
    assert said["text"] == want.text and said["meta_info"]["completion_tokens"] == 16

    with openai.Client(base_url=f"http://127.0.0.1:{port}/v1", api_key="EMPTY") as client:
        response = client.completions.create(
            model="default", prompt="The capital of France is", temperature=0, max_tokens=32)
        want = local.generate("The capital of France is",
                              sampling={"temperature": 0, "max_new_tokens": 32})
        assert response.choices[0].text == want.text != ""
        response = client.chat.completions.create(
            model="default", messages=CHAT, temperature=0, max_tokens=64)

    @sglc.function
    def chat(s: Any) -> None:
        s += sglc.system(CHAT[0]["content"])
        s += sglc.user(CHAT[1]["content"])
        s += sglc.assistant(sglc.gen("answer", max_tokens=64, temperature=0))

    with sglc.RuntimeEndpoint(url) as endpoint:
        state = chat.run(backend=local)
        assert response.choices[0].message.content == state["answer"]
        assert chat.run(backend=endpoint)["answer"] == state["answer"]
        assert response.usage.prompt_tokens == state.get_meta_info("answer")["prompt_tokens"]


def check_programs(url: str, local: LocalBackend, names: Any) -> None:
    """The README's programs through an endpoint."""
    with sglc.RuntimeEndpoint(url) as endpoint:
        for name in names:
            case, program = (IMAGE_QA, load(name).image_qa) if name == "image_qa" else (
                example(name))
            options = {"temperature": 0, "max_new_tokens": 24}
            there = program.run_batch(case.rows, backend=endpoint, **options)
            for a, b in zip(program.run_batch(case.rows, backend=local, **options), there,
                            strict=True):
                assert a.error() is None and b.error() is None
                assert (a.text(), a.messages()) == (b.text(), b.messages()), name
                assert {n: a[n] for n in a.variable_names()} == {
                    n: b[n] for n in b.variable_names()}
        _, program = example("text_qa_stream")
        state = program.run("What is the capital of France?", backend=endpoint, temperature=0,
                            stream=True)
        assert "".join(state.text_iter()) == program.run(
            "What is the capital of France?", backend=local, temperature=0).text()


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "tp"])
def test_a_command(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with here(COMMANDS[name]) as url, engine(name) as local:
        check_clients(url, local)


def test_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with here(COMMANDS["plain"]) as url, engine("plain") as local:
        check_programs(url, local, READMES)


def test_the_program_with_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with here(COMMANDS["llava"]) as url, engine("llava") as local:
        check_programs(url, local, ["image_qa"])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_in_its_own_process(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
                                      ) -> None:
    root = str(Path(sglc.__file__).parent.parent)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with process(COMMANDS[name]) as url, engine(name) as local:
        check_clients(url, local)
        check_programs(url, local, [*READMES, *(["image_qa"] if name == "llava" else [])])
        info = send(url + "/get_server_info")[1]
        assert info["settings"]["tp"] == (2 if name == "tp" else 1)


def test_templates_differ(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the commands with one would show nothing."""
    monkeypatch.chdir(folder)
    texts = set()
    for name in ("plain", "llama-2", "my_model", "llava"):
        with engine(name) as local:
            roles: Any = ("system", "user")
            texts.add(repr(local.template.open(roles[:1], "user"))
                      + repr(local.template.open(roles, "assistant")))
    assert len(texts) == 4
