"""`--chat-template`: names, JSON files as SGLang takes them, jinja files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglc.cli import main
from sglc.errors import SglcError
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.template_file import read_template, template_of
from sglc.tokens.templates import ChatTemplate, TemplateRegistry, piece_text

README = {"name": "my_model", "system": "<|im_start|>system", "user": "<|im_start|>user",
          "assistant": "<|im_start|>assistant", "sep_style": "CHATML", "sep": "<|im_end|>",
          "stop_str": ["<|im_end|>", "<|im_start|>"]}
PROGRAM = """
import sglc
@sglc.function
def talk(s):
    s += sglc.user("Hi") + sglc.assistant(sglc.gen("x", max_tokens=3))
"""


def test_the_readmes_file(tmp_path: Path) -> None:
    path = tmp_path / "my_model.json"
    path.write_text(json.dumps(README))
    template = read_template(str(path))
    assert isinstance(template, ChatTemplate) and template.name == "my_model"
    assert template.stop_str == ("<|im_end|>", "<|im_start|>")
    bound = TemplateRegistry().resolve(template, ByteTokenizer())
    text = [piece_text(bound.open((), "user")), piece_text(bound.close((), "user")),
            piece_text(bound.open(("user",), "assistant"))]
    assert text == ["<|im_start|>system\n<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n",
                    "<|im_start|>assistant\n"]


def test_names_and_jinja(tmp_path: Path) -> None:
    assert read_template(None) is None
    assert read_template("chatml") == "chatml" and read_template("llama-2") == "llama-2-chat"
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert read_template(str(path)) == path.read_text()


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("no.json", None, "No such file"), ("no.jinja", None, "No such file"),
    ("a.json", b"{", "cannot be read"), ("a.json", b"\xff\xfe", "cannot be read"),
    ("a.json", b"[" * 100_000, "cannot be read"), ("a.json", b"[1]", "not a JSON object"),
    ("a.json", b"null", "not a JSON object"), ("a.json", b" " * (1 << 20) + b" {}", "more than"),
    ("a.jinja", b"x" * ((1 << 20) + 1), "more than"), ("a.jinja", b"chatml", "no jinja"),
    *[("a.json", json.dumps({**README, key: value}).encode(), key) for key, value in (
        ("sep_style", "LLAMA2"), ("sep_style", ["CHATML"]), ("name", 1), ("sep", None),
        ("user", {}), ("stop_str", 3), ("stop_str", [""]), ("system_message", 0))],
    *[("a.json", json.dumps({k: v for k, v in README.items() if k != key}).encode(), f"no {key}")
      for key in ("name", "sep_style", "stop_str")],
])
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SglcError, match=reason) as e:
        read_template(str(path))
    assert e.value.code == "SGLC311" and name in str(e.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from([*README, "system_message"]), inner)))
def test_any_json(data: Any) -> None:
    for value in (data, {**README, **data} if isinstance(data, dict) else data):
        try:
            template = template_of(value)
        except SglcError as e:
            assert e.code == "SGLC311"
        else:
            TemplateRegistry().resolve(template, ByteTokenizer()).open((), "user")


def test_a_commands_template(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, file = tmp_path / "prog.py", tmp_path / "t.json"
    script.write_text(PROGRAM)
    file.write_text(json.dumps({**README, "user": "<<ASKED>>"}))

    def emitted(*more: str) -> str:
        assert main(["compile", str(script), "--emit", "prompt", *more]) == 0
        return capsys.readouterr().out

    assert "<<ASKED>>" in emitted("--chat-template", str(file))
    assert "USER:" in emitted("--chat-template", "default")
    assert "<<ASKED>>" not in emitted() and "USER:" not in emitted()
    assert main(["compile", str(script), "--chat-template", "nope"]) == 1
    assert "no chat template named 'nope'" in capsys.readouterr().err
    for command in (["run", str(script)], ["chat"]):
        assert main([*command, "--chat-template", str(tmp_path / "gone.json")]) == 1
        assert "gone.json" in capsys.readouterr().err
