from __future__ import annotations

import pytest
from jinja2 import TemplateError

from sglc.errors import TokenError
from sglc.tokens.bpe import BpeTokenizer
from sglc.tokens.bytes import ByteTokenizer
from sglc.tokens.images import image_text
from sglc.tokens.jinja import JinjaTemplate
from sglc.tokens.prompt import Prompt
from sglc.tokens.sandbox import MAX_SOURCE, BoundedTemplate
from sglc.tokens.templates import (
    BUILT_IN,
    ChatTemplate,
    PlainTemplate,
    Template,
    TemplateRegistry,
    for_tokenizer,
    piece_text,
)
from sglc.tokens.text import SpecialPiece
from sglc.tokens.tokenizer import Tokenizer

SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
# As reasoning models do it: the last answer shows its (empty) thoughts, earlier ones do not.
THINKING = (
    "{%- for message in messages %}{%- if message.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n' }}{%- if loop.last %}{{- '<think>\n\n</think>\n\n' }}"
    "{%- endif %}{{- message.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}")

CHATS = [
    [("user", "Hi there")],
    [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "1 + 1 = ?")],
    [("system", "Be brief."), ("user", "Name a river"), ("assistant", "Elbe"),
     ("user", "Another\n\none")],
]


def text_of(template: Template, chat: list[tuple[str, str]], reply: bool) -> str:
    """A conversation's text, put together from pieces."""
    out, roles = "", ()
    for role, content in chat:
        out += piece_text(template.open(roles, role)) + content
        out += piece_text(template.close(roles, role))
        roles += (role,)
    return out + (piece_text(template.open(roles, "assistant")) if reply else "")


def prompt_of(tokenizer: Tokenizer, template: Template, chat: list[tuple[str, str]]) -> Prompt:
    prompt, roles = Prompt.empty(tokenizer), ()
    for role, content in [*chat, ("assistant", None)]:
        pieces = template.open(roles, role)
        if content is not None:
            pieces = (*pieces, content, *template.close(roles, role))
        for piece in pieces:
            prompt = (prompt.append(piece) if isinstance(piece, str)
                      else prompt.special(piece.id))
        roles += (role,)
    return prompt


def rendered(source: str, chat: list[tuple[str, str]], reply: bool, **more: str) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return env.from_string(source).render(
        messages=[{"role": r, "content": c} for r, c in chat], add_generation_prompt=reply, **more)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("source", [SMOL, LLAMA2, ByteTokenizer().chat_template])
def test_pieces_add_up_to_the_rendered_text(
        source: str, chat: list[tuple[str, str]], byte_tokenizer: ByteTokenizer) -> None:
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    template = JinjaTemplate(source, byte_tokenizer, variables=names)
    assert text_of(template, chat, False) == rendered(source, chat, False, **names)
    if source != LLAMA2:
        assert text_of(template, chat, True) == rendered(source, chat, True, **names)
    assert template.remarks == []


def test_control_tokens_are_pieces(byte_tokenizer: ByteTokenizer) -> None:
    template = for_tokenizer(byte_tokenizer)
    start = SpecialPiece(byte_tokenizer.special["<|im_start|>"], "<|im_start|>")
    end = SpecialPiece(byte_tokenizer.special["<|im_end|>"], "<|im_end|>")
    assert template.open((), "user") == (start, "user\n")
    assert template.close((), "user") == (end, "\n")
    assert template.open(("user",), "assistant") == (start, "assistant\n")


def test_contents_are_never_rewritten(byte_tokenizer: ByteTokenizer) -> None:
    template = for_tokenizer(byte_tokenizer)
    prompt = prompt_of(byte_tokenizer, template, [("user", "  a <|im_end|>\n ")])
    assert "  a <|im_end|>\n " in prompt.text()
    assert list(prompt.token_ids()).count(byte_tokenizer.special["<|im_end|>"]) == 1


def test_system_message_inside_the_first_user_message(byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(LLAMA2, byte_tokenizer)
    assert template.open((), "system") == ("[INST] <<SYS>>\n",)
    assert template.close((), "system") == ()
    assert template.open(("system",), "user") == ("\n<</SYS>>\n\n",)
    assert template.close(("system",), "user") == (" [/INST]",)


def test_refused_roles(byte_tokenizer: ByteTokenizer) -> None:
    with pytest.raises(TokenError, match=r"(?s)SGLC311.*Roles must alternate"):
        JinjaTemplate(LLAMA2, byte_tokenizer).open(("user",), "user")
    with pytest.raises(TokenError, match=r"(?s)SGLC311.*System role not supported"):
        JinjaTemplate(GEMMA, byte_tokenizer).open((), "system")


def test_bos_comes_once(split_bpe: BpeTokenizer, byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(GEMMA, split_bpe)
    assert split_bpe.bos_token and template.open((), "user") == ("<start_of_turn>user\n",)
    prompt = prompt_of(split_bpe, template, [("user", "a")])
    assert list(prompt.token_ids()).count(split_bpe.bos_id) == 1
    kept = JinjaTemplate(GEMMA, byte_tokenizer, variables={"bos_token": "<|endoftext|>"})
    assert kept.open((), "user")[0] == SpecialPiece(256, "<|endoftext|>")


def test_thinking_template_is_opened_as_for_generation(byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(THINKING, byte_tokenizer)
    chat = CHATS[2]
    assert text_of(template, chat, True) == rendered(THINKING, chat, True)
    assert [r.code for r in template.remarks] == ["SGLC310"]
    off = JinjaTemplate(THINKING, byte_tokenizer, variables={"enable_thinking": False})
    assert piece_text(off.open(("user",), "assistant")).endswith("<think>\n\n</think>\n\n")
    assert piece_text(off.open(("user", "assistant"), "user")) == "<|im_start|>user\n"


UNSTABLE = {
    "drops old messages": "{% for m in messages[-2:] %}{{ m.role }}:{{ m.content }};{% endfor %}",
    "reverses": "{% for m in messages | reverse %}{{ m.role }}:{{ m.content }};{% endfor %}",
    "repeats": "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    "numbers from the end":
        "{% for m in messages %}{{ loop.revindex }} {{ m.content }};{% endfor %}",
    "closes the last one only":
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ '#' if loop.last }}{% endfor %}",
    "rewrites contents": "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "shows no contents": "{{ messages | length }}",
    "opens replies in two ways":
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{{ '[bot]' if add_generation_prompt }}",
}


@pytest.mark.parametrize("source", UNSTABLE.values(), ids=UNSTABLE.keys())
def test_unstable_templates_are_refused(source: str, byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(source, byte_tokenizer)
    with pytest.raises(TokenError, match="SGLC310") as info:
        text_of(template, CHATS[1], True)
    assert info.value.diagnostic.why


HOSTILE = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "huge range": "{{ range(10**9) | list }}",
    "many loops over a string":
        "{% set s = 'x' * 9999 %}{% for a in s %}{% for b in s %}{{ b }}{% endfor %}{% endfor %}",
    "long string": "{{ 'x' * 10**10 }}",
    "long list": "{{ [1] * 10**10 }}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
                "{% endfor %}{{ n.x }}",
    "doubling by +": "{% set n = namespace(x='ab') %}{% for i in range(99) %}"
                     "{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by list": "{% set n = namespace(x=1) %}{% for i in range(99) %}"
                        "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "doubling by replace": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                           "{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
    "doubling by filter": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                          "{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
    "doubling by join": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                        "{% set n.x = n.x | join(n.x) %}{% endfor %}",
    "doubling by str.join": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                            "{% set n.x = n.x.join(n.x) %}{% endfor %}",
    "doubling by format": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                          "{% set n.x = '{0}{0}'.format(n.x) %}{% endfor %}",
    "doubling by block": "{% set n = namespace(x='aa') %}{% for i in range(99) %}"
                         "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "powers": "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}"
              "{% endfor %}",
    "wide": "{{ '%1000000000s' % 1 }}",
    "wide by argument": "{{ '%*s' % (1000000000, 1) }}",
    "wide format": "{{ '{:>1000000000}'.format(1) }}",
    "nested format": "{{ '{:>{}}'.format(1, 1000000000) }}",
    "wide indent": "{{ [1] | tojson(indent=1000000000) }}",
    "center": "{{ 'x' | center(1000000000) }}",
    "center method": "{{ 'x'.center(1000000000) }}",
    "macros": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "busy macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
                   "{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "comparing": "{% set a = 'x' * 500000 %}{% set b = 'x' * 500000 %}"
                 "{% for i in range(9999) %}{% if a == b %}{% endif %}{% endfor %}",
    "slicing": "{% set a = 'x' * 500000 %}{% for i in range(9999) %}{% set b = a[1:] %}"
               "{% endfor %}",
    "much text": "{% set x %}{% for i in range(19999) %}" + "y" * 9999 + "{% endfor %}{% endset %}",
    "mutation": "{{ messages.append(1) }}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "syntax": "{% for %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "long": "x" * (MAX_SOURCE + 1),
}
ESCAPES = [
    "''.__class__.__mro__[1].__subclasses__()", "''['__class__']['__mro__']",
    "'' | attr('__class__')", "[1] | map(attribute='__class__') | list",
    "'{0.__class__}'.format(1)", "'{x.__class__}'.format(x=messages)",
    "raise_exception.__globals__", "namespace.mro()", "namespace().__class__", "dict.mro()",
    "dict.fromkeys", "lipsum.__globals__['os']", "cycler.__init__", "f.__init__.__globals__",
    "f._func", "budget.left", "self._TemplateReference__context", "loop.__class__",
    "namespace(__class__=1).__class__", "messages.append(1)", "range.__name__", "''.format_map",
    "messages[0].pop('role')", "messages.clear()", "(1).__class__", "(1).real", "''.encode",
]


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_are_refused_quickly(
        source: str, byte_tokenizer: ByteTokenizer) -> None:
    import time

    start = time.process_time()
    with pytest.raises(TokenError, match="SGLC311"):
        JinjaTemplate(source, byte_tokenizer).open((), "user")
    assert time.process_time() - start < 3


@pytest.mark.parametrize("expression", ESCAPES)
def test_templates_reach_no_internals(expression: str) -> None:
    messages = [{"role": "user", "content": "a"}]
    source = "{% macro f() %}{% endmacro %}{% for x in [1] %}{{ " + expression + " }}{% endfor %}"
    try:
        text = BoundedTemplate(source).render({"messages": messages})
    except TemplateError:
        text = ""
    assert text in ("", "[Undefined]")
    assert messages == [{"role": "user", "content": "a"}]


def test_what_ordinary_templates_use_works(byte_tokenizer: ByteTokenizer) -> None:
    source = (
        "{%- macro line(x, n=2) -%}{{ x | indent(n) }}{%- endmacro -%}"
        "{%- set ns = namespace(seen=false, n=0) -%}"
        "{%- for m in messages if m.role != 'tool' -%}"
        "{%- if loop.index > 500 %}{% break %}{% endif -%}"
        "{%- if m['role'] == 'system' or m.role in ['user', 'assistant'] -%}"
        "{%- set ns.n = ns.n + 1 -%}{%- set ns.seen = true -%}"
        "[{{ m.get('role') | upper }} {{ loop.index0 % 2 }} {{ line('a\nb') }}]"
        "{% generation %}{{ m.content | trim }}{% endgeneration %}"
        "{{- '%s-%d' % ('x', 3) }}{{ '{}'.format(4) }}{{ ['p', 'q'] | join('+') }}"
        "{{- {'k': [1, none, true]} | tojson(indent=1) }}{{ [1, 2, 3][::-1] }}"
        "{{- messages | selectattr('role', 'equalto', 'x') | list | length }}"
        "{{- ('a,b'.split(',') | map('upper') | list)[1] }}{{ 2 ** 3 }}{{ 'é' | tojson }}"
        "{%- if tools is not none and tools %}no{% endif %}{{ missing | default('d') }}"
        "{%- if m.content is string and not m.tool_calls %}!{% endif -%}"
        "{%- for k, v in {'a': 1} | dictsort %}{{ k }}{{ v }}{% endfor -%}"
        "{%- for k, v in {'b': 2}.items() %}{{ k }}{{ v }}{% endfor -%}"
        "{%- endif -%}{%- endfor -%}{%- if not ns.seen %}{{ raise_exception('x') }}{% endif -%}")
    template = JinjaTemplate(source, byte_tokenizer)
    assert piece_text(template.open((), "user")) == "[USER 0 a\n  b]"
    assert piece_text(template.close((), "user")) == (
        'x-34p+q{\n "k": [\n  1,\n  null,\n  true\n ]\n}[3, 2, 1]0B8"é"d!a1b2')


def test_loop_variables_see_the_whole_loop(byte_tokenizer: ByteTokenizer) -> None:
    source = ("{% for c in 'abc' if c != 'b' %}{{ c }}{{ loop.length }}{{ loop.last }}"
              "{{ loop.previtem }}{{ loop.nextitem }};{% else %}none{% endfor %}"
              "{% for c in none_such %}{% else %}none{% endfor %}{{ messages[0].content }}")
    template = JinjaTemplate(source, byte_tokenizer)
    assert piece_text(template.open((), "user")) == "a2Falsec;c2Truea;none"


def test_long_conversations(byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(SMOL, byte_tokenizer)
    roles = ("user", "assistant") * 100
    assert piece_text(template.open(roles, "user")) == "<|im_start|>user\n"


def test_a_conversation_is_rendered_three_times_a_round(
        byte_tokenizer: ByteTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn once, and once more what opens an assistant's message for generation."""
    renders = 0
    render = BoundedTemplate.render

    def counted(template: BoundedTemplate, variables: dict) -> str:
        nonlocal renders
        renders += 1
        return render(template, variables)

    monkeypatch.setattr(BoundedTemplate, "render", counted)
    template = JinjaTemplate(SMOL, byte_tokenizer)
    roles = ("user", "assistant") * 10
    for n, role in enumerate(roles):
        template.open(roles[:n], role)
        template.close(roles[:n], role)
    assert renders == 3 * 10 + 1  # the last answer is followed by a user's turn, to see


def test_plain_templates(byte_tokenizer: ByteTokenizer) -> None:
    registry = TemplateRegistry()

    def text(name: str, chat: list[tuple[str, str]], reply: bool = True) -> str:
        return text_of(registry.get(name).bind(byte_tokenizer), chat, reply)

    assert text("default", CHATS[0]) == "USER:Hi there\nASSISTANT:"
    assert text("claude", CHATS[0]) == "\n\nHuman: Hi there\n\nAssistant:"
    assert text("chatml", CHATS[0]) == (
        "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n")
    assert text("vicuna_v1.1", CHATS[0]).endswith(
        "answers to the user's questions. USER:Hi there ASSISTANT:")
    assert text("vicuna_v1.1", [("system", "S"), ("user", "U")]) == "S USER:U ASSISTANT:"
    assert text("llama-2-chat", CHATS[0]) == "[INST] Hi there [/INST]"
    assert text("llama-2-chat", CHATS[2]) == (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a river [/INST]Elbe </s><s>"
        "[INST] Another\n\none [/INST]")
    assert text("gemma-it", CHATS[0]) == (
        "<start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\n")
    assert "### Human:Hi there\n### Assistant:" in text("yi", CHATS[0])
    assert registry.get("chatml").bind(byte_tokenizer).stop == ("<|im_end|>",)


def test_default_system_prompt_inside_the_user_message(byte_tokenizer: ByteTokenizer) -> None:
    import dataclasses

    base = next(t for t in BUILT_IN if t.name == "llama-2-chat")
    template = dataclasses.replace(base, default_system_prompt="S").bind(byte_tokenizer)
    assert text_of(template, CHATS[0], True) == (
        "[INST] <<SYS>>\nS\n<</SYS>>\n\nHi there [/INST]")
    assert text_of(template, CHATS[1], False).count("[INST]") == 2


def test_registry(byte_tokenizer: ByteTokenizer) -> None:
    registry = TemplateRegistry()
    mine = ChatTemplate("mine", None, {"user": ("U:", "\n")})
    registry.register(mine)
    registry.register_matching_function(lambda path: "mine" if "my-model" in path else None)
    assert registry.get("mine") is mine is registry.by_model_path("x/my-model")
    assert registry.by_model_path("HuggingFaceTB/SmolLM2-135M-Instruct").name == "default"
    assert registry.by_model_path("meta-llama/Llama-2-7b-chat-hf").name == "llama-2-chat"
    assert registry.by_model_path("lmsys/vicuna-7b-v1.5").name == "vicuna_v1.1"
    assert registry.by_model_path("google/gemma-2b-it").name == "gemma-it"
    assert registry.by_model_path("someone/beautiful-yield-7b").name == "default"
    with pytest.raises(TokenError, match="SGLC311"):
        registry.get("no such")
    assert "mine" not in TemplateRegistry().templates
    assert isinstance(registry.resolve("mine", byte_tokenizer), PlainTemplate)
    assert isinstance(registry.resolve(mine, byte_tokenizer), PlainTemplate)
    assert isinstance(registry.resolve(SMOL, byte_tokenizer), JinjaTemplate)
    assert isinstance(registry.for_tokenizer(byte_tokenizer), JinjaTemplate)
    byte_tokenizer_without = ByteTokenizer()
    byte_tokenizer_without.chat_template = None
    assert for_tokenizer(byte_tokenizer_without).name == "default"


@pytest.mark.slow
@pytest.mark.parametrize("chat", CHATS)
def test_smollm2_chats_are_those_of_transformers(
        chat: list[tuple[str, str]], smollm2: BpeTokenizer) -> None:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": r, "content": c} for r, c in chat]
    (text,), _ = utils.render_jinja_template(
        [messages], chat_template=smollm2.chat_template, add_generation_prompt=True)
    template = for_tokenizer(smollm2)
    assert text_of(template, chat, True) == text
    assert list(prompt_of(smollm2, template, chat).token_ids()) == smollm2.encode_raw(text)


# llava-hf/llava-1.5-7b-hf's, which takes contents as lists of parts.
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")


def test_templates_that_take_contents_in_parts(byte_tokenizer: ByteTokenizer) -> None:
    template = JinjaTemplate(LLAVA, byte_tokenizer)
    assert template.open((), "user") == ("USER: ",)
    assert template.close((), "user") == (" ",)
    assert template.open(("user",), "assistant") == ("ASSISTANT:",)
    assert template.open(("user", "assistant"), "user") == ("USER: ",)
    assert JinjaTemplate(LLAVA, byte_tokenizer).close((), "system") == (" ",)


@pytest.mark.parametrize(("template", "parts"), [
    (ChatTemplate("x", None, {}), ("", "<image>", "")),
    (ChatTemplate("x", None, {}, image_token=" <image>\n"), (" ", "<image>", "\n")),
    (ChatTemplate("x", None, {}, image_token=" <image_placeholder>\n"),
     (" ", "<image_placeholder>", "\n")),
    (ChatTemplate("x", None, {}, image_token=""), ("", "", ""))])
def test_the_text_around_images(template: ChatTemplate, parts: tuple[str, str, str],
                                byte_tokenizer: ByteTokenizer) -> None:
    assert image_text(template) == image_text(template.bind(byte_tokenizer)) == parts
    assert image_text(JinjaTemplate(LLAVA, byte_tokenizer)) == ("", "<image>", "\n")
