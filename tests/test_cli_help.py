"""The command line's manners: help for each verb, what was probably meant, `env`, `viz`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sglc.backends.hash_model import HashModel
from sglc.cli import main, parser
from sglc.commands.env import facts
from sglc.commands.parsing import meant

PROGRAM = '''\
import sglc as sgl

@sgl.program
def answer(s, question):
    s += "Question: " + question + sgl.gen("answer", max_tokens=8)
'''
VERBS = ("compile", "viz", "opt", "explain", "run", "bench", "demo", "chat", "run-batch", "serve",
         "pull", "env")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prog.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command line that is wrong prints; its exit code is 2."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [(), *[(v,) for v in VERBS], ("bench", "programs")])
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args([*words, "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and out.startswith("usage: sglc")
    said = [line for line in out.splitlines() if line and not line.startswith(("usage", " "))]
    assert said, "it says in a sentence what it does"
    if not words:
        assert all(f" {v} " in out or f" {v}\n" in out for v in VERBS) and "examples:" in out


@pytest.mark.parametrize(("words", "suggested"), [
    (("complie", "x.py"), "compile"), (("vis", "x.py"), "viz"), (("runbatch",), "run-batch"),
    (("compile", "prog.py", "--modle", "x"), "--model"),
    (("compile", "prog.py", "--explian"), "--explain"),
    (("run", "prog.py", "--temprature=1"), "--temperature"),
    (("bench", "programs", "--workloads", "x"), "--workload"),
    (("compile", "prog.py", "--emit", "promt"), "prompt"),
])
def test_typos_suggest(words: tuple[str, ...], suggested: str,
                       capsys: pytest.CaptureFixture[str]) -> None:
    assert f"did you mean {suggested}?" in fails(capsys, *words)


def test_what_is_like_nothing_suggests_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, "compile", "prog.py", "--xyzzy")
    assert "--xyzzy is not known here" in said and "did you mean" not in said
    assert said.startswith("sglc compile: error: ") and "sglc compile --help" in said
    assert meant("modle", ["--model", "model"]) == ", did you mean model?"
    fails(capsys)


def test_env_says_what_a_report_needs(capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("SGLC_CACHE", "/nowhere")
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    for words in ("sglc\n", "  version ", "  python ", "  torch ", "gpu\n", "SGLC_CACHE",
                  "/nowhere", "OPENAI_API_KEY"):
        assert words in out
    assert "sk-secret" not in out
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(facts()))


def test_help_and_env_load_no_torch() -> None:
    code = ("import sys\nfrom sglc.cli import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\nmain(['env'])\n"
            "assert not {'torch', 'rich', 'lark'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=120, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr


def test_viz(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["viz", "prog.py"]) == 0
    assert capsys.readouterr().out.startswith("answer.html: ")
    page = (here / "answer.html").read_text(encoding="utf-8")
    assert "gen answer" in page and "bytes (no model" in page and "A plan belongs to" in page
    assert main(["viz", "prog.py:answer", "-O0", "-o", "a.html", "--arg", "question=Why?"]) == 0
    page = (here / "a.html").read_text(encoding="utf-8")
    assert "1 row, from an empty cache" in page and "hoist-prefixes" not in page
    (here / "rows.jsonl").write_text('{"question": "a"}\n{"question": "b"}\n')
    assert main(["viz", "prog.py", "--batch", "rows.jsonl", "-o", "b.html"]) == 0
    assert "2 rows, from an empty cache" in (here / "b.html").read_text(encoding="utf-8")


def test_viz_runs_it_too(here: Path, capsys: pytest.CaptureFixture[str],
                         monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(HashModel):
        def __init__(self, model: str | None, **_: object) -> None:
            super().__init__()
            self.model_path = "a/model.gguf"

    monkeypatch.setattr("sglc.backends.engine.Engine", Model)
    (here / "rows.jsonl").write_text('{"question": "a"}\n{"question": "b"}\n')
    assert main(["viz", "prog.py", "--run", "--batch", "rows.jsonl"]) == 0
    assert capsys.readouterr().err == ""  # no terminal, no view of the run
    page = (here / "answer.html").read_text(encoding="utf-8")
    for words in ("KV held, as it was", "Predicted and actual", "tokens: model.gguf"):
        assert words in page
    assert "not as predicted" not in page
    assert main(["viz", "prog.py", "--run"]) == 1  # the question is missing
    assert "SGLC001" in capsys.readouterr().err


def test_run_watches(here: Path, capsys: pytest.CaptureFixture[str],
                     monkeypatch: pytest.MonkeyPatch) -> None:
    class Model(HashModel):
        def __init__(self, model: str | None, **_: object) -> None:
            super().__init__()

    monkeypatch.setattr("sglc.commands.run.Engine", Model)
    words = ["run", "prog.py", "--arg", "question=Why?", "--seed", "1"]
    assert main(words) == 0
    plain = capsys.readouterr().out
    assert main([*words, "--watch"]) == 0
    out, err = capsys.readouterr()
    assert out == plain and "answer: programs 1 of 1 ended" in err


def test_viz_of_several_programs_asks_which(here: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two.py").write_text(PROGRAM + PROGRAM.replace("answer", "other").partition("\n")[2])
    assert main(["viz", "two.py"]) == 1
    assert "sglc viz two.py:other" in capsys.readouterr().err
