"""Chat templates: the same text as transformers' jinja2, and nothing of Python within reach."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from freehold.errors import CheckpointError, TemplateError
from freehold.model.chat_template import MAX_MESSAGE_CHARS, ChatTemplate
from freehold.model.tokenizer import Tokenizer
from freehold.types import ChatMessage

SPECIAL = {"bos_token": "<|bos|>", "eos_token": "<|eos|>"}

LLAMA_STYLE = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\nToday: " + date_string + "\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif message.role == "tool" %}
        {{- "<|head|>ipython<|/head|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

QWEN_STYLE = """{%- if tools %}
    {{- '<|start|>system\\nTools:' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|start|>system\\n' + messages[0].content + '<|end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and message.role == "user" and message.content is string and not
        (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|start|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n' }}
            {{- content.lstrip('\\n') }}
        {%- else %}
            {{- '<|start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

DEEPSEEK_STYLE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(is_first=false, is_tool=false, system='', first_sp=true) %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{%- if ns.first_sp %}{% set ns.system = ns.system + message['content'] %}"
    "{% set ns.first_sp = false %}{%- else %}"
    "{% set ns.system = ns.system + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}"
    "{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}"
    "{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)

FEATURES = """
{% macro show(m) -%}
  [{{ m.role|upper }}:{{ m.get('name', 'nobody') }}:{{ messages|length }}]
{%- endmacro %}
  {% for m in messages %}
    {% if m.role == 'tool' %}{% continue %}{% endif %}
    {% if loop.index > 6 %}{% break %}{% endif %}
{{ show(m) }}{{ loop.cycle('a', 'b') }}{{ loop.previtem is defined }}
    {% for key, value in m.items() %}{{ key }}={{ value|tojson }};{% endfor %}
  {% endfor %}
{{ messages | map(attribute='role') | join(',') }}
{{ {'a': [1, 2.5, none, true], 'é<': 'x'}|tojson }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ tools is none }}
{{- {'b': 1, 'a': 'z'}|tojson(indent=2) }}{{ undefined_thing }}{{ 7 // 2 }}{{ 'x' ~ 1 }}
{{ 'A b'.lower().title().replace('A', 'Q') }}{{ 'a,b'.split(',')[1] }}{{ "q" in "quick" }}
"""

STYLES = {
    "llama": LLAMA_STYLE, "qwen": QWEN_STYLE, "deepseek": DEEPSEEK_STYLE, "features": FEATURES
}  # fmt: skip

messages_strategy = st.lists(
    st.builds(
        ChatMessage,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.one_of(
            st.text(max_size=30).filter(lambda text: "\r" not in text),
            st.sampled_from(
                ["<think>\nwhy\n</think>\n\nso", "{{ 1 }}{% raw %}", "\n x \n", '"\\', "你好 🦊"]
            ),
        ),
        name=st.one_of(st.none(), st.just("ada")),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def fast_tokenizer():  # type: ignore[no-untyped-def]
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60, deadline=None)
@example(messages=[ChatMessage("system", "\x1f a \x85")], prompt=False)
@given(messages=messages_strategy, prompt=st.booleans())
def test_renders_the_same_as_transformers(  # type: ignore[no-untyped-def]
    fast_tokenizer, style: str, messages: list[ChatMessage], prompt: bool
) -> None:
    dicts = [
        {"role": m.role, "content": m.content} | ({"name": m.name} if m.name else {})
        for m in messages
    ]
    expected = fast_tokenizer.apply_chat_template(
        dicts, chat_template=STYLES[style], tokenize=False, add_generation_prompt=prompt
    )
    assert ChatTemplate(STYLES[style], SPECIAL).render(messages, prompt) == expected


USER = [ChatMessage("user", "hello")]


def render(source: str) -> str:
    return ChatTemplate(source, SPECIAL).render(USER)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000000000) %}x{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}"
        "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{{ 'x' * 100000000000 }}",
        "{% for i in range(3) recursive %}{{ loop(range(3)) }}{% endfor %}",
        "{{ [1] * 100000000000 }}",
    ],
)
def test_template_without_end_is_refused_within_a_second(source: str) -> None:
    template = ChatTemplate(source, SPECIAL)
    start = time.process_time()
    with pytest.raises(TemplateError):
        template.render(USER)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "expression",
    [
        "messages.__class__",
        "messages.append",
        "messages.extend",
        "messages[0].__class__.__mro__",
        "messages[0].keys",
        "messages[0].fromkeys",
        "messages[0].content.format",
        "''.__class__.__mro__[1].__subclasses__()",
        "self",
        "self.__init__.__globals__",
        "raise_exception.__globals__",
        "raise_exception._call",
        "raise_exception",
        "strftime_now.__init__",
        "strftime_now._call.__globals__",
        "namespace.__init__",
        "loop",
        "cycler.__init__.__globals__.os",
        "config",
        "debug()",
        "messages | attr('__class__')",
        "messages[0] | attr('keys')",
        "range.__class__",
        "'{0.__class__}'.format(messages)",
        "'{0.__init__.__globals__}'.format(raise_exception)",
    ],
)
def test_python_is_out_of_reach(expression: str) -> None:
    try:
        text = render(f"{{{{ {expression} }}}}")
    except TemplateError as error:
        text = error.message
        assert str(Path(__file__).parent.parent) not in text
    for trace in ("<class", "<built-in", "<function", "<bound", " object at 0x", "<module"):
        assert trace not in text
    # undefined, an error, or the engine's name for a function of its own
    assert text.startswith(("The chat template failed", "minijinja_py::")) or text.strip() == ""


def test_messages_cannot_break_out_of_their_place() -> None:
    hostile = "{{ 7*7 }}{% raw %}%}\n\"'\\u0022{# -%} \x00"
    rendered = ChatTemplate("{{ messages[0].content }}|", {}).render([ChatMessage("u", hostile)])
    assert rendered == hostile + "|"


def test_template_that_refuses_gives_its_reason() -> None:
    with pytest.raises(TemplateError, match=r"refused these messages: Roles must alternate!$"):
        render("{{ raise_exception('Roles must\n alternate!') }}")


def test_error_names_the_template_line() -> None:
    with pytest.raises(TemplateError, match=r"line 3"):
        render("a\nb\n{{ nothing.at.all }}")


def test_strftime_now_takes_no_widths() -> None:
    assert render("{{ strftime_now('%Y %%') }}") == datetime.now().strftime("%Y %%")
    with pytest.raises(TemplateError, match="strftime_now"):
        render("{{ strftime_now('%1000000000d') }}")


def test_tojson_with_impossible_arguments_is_a_template_error() -> None:
    with pytest.raises(TemplateError, match="failed in a filter: ValueError"):
        render("{{ messages|tojson(indent=1000000000) }}")


def test_too_much_text_is_refused_with_the_figures() -> None:
    template = ChatTemplate("{{ messages }}", {})
    with pytest.raises(TemplateError, match="8,388,609 characters"):
        template.render([ChatMessage("user", "x" * (MAX_MESSAGE_CHARS + 1))])


def test_long_chat_fits_into_the_fuel() -> None:
    messages = [ChatMessage("user" if i % 2 else "assistant", "word " * 200) for i in range(4000)]
    assert len(ChatTemplate(QWEN_STYLE, SPECIAL).render(messages)) > 4_000_000


def _tokenizer() -> Tokenizer:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    from freehold.model.token_bytes import TokenBytes

    return Tokenizer(backend, TokenBytes(backend, {}), special_tokens=SPECIAL)


def test_template_is_found_in_file_then_json_then_config(tmp_path: Path) -> None:
    def rendered() -> str:
        return ChatTemplate.load(tmp_path, _tokenizer()).render(USER)

    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "named"}]
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": named}))
    assert rendered() == "named"
    config.write_text(json.dumps({"chat_template": "config {{ bos_token }}"}))
    assert rendered() == "config <|bos|>"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert rendered() == "json"
    (tmp_path / "chat_template.jinja").write_text("file {{ messages[0].content }}\n")
    assert rendered() == "file hello"


def test_model_without_template_points_to_completions(tmp_path: Path) -> None:
    template = ChatTemplate.load(tmp_path, _tokenizer())
    assert not template.exists
    with pytest.raises(TemplateError, match="/v1/completions"):
        template.render(USER)


@pytest.mark.parametrize("value", [7, {"default": "x"}, "x" * (1 << 21)])
def test_template_that_is_no_text_is_a_checkpoint_error(tmp_path: Path, value: object) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(CheckpointError, match=r"chat_template in tokenizer_config\.json"):
        ChatTemplate.load(tmp_path, _tokenizer())


def test_bad_syntax_is_refused_at_loading() -> None:
    with pytest.raises(CheckpointError, match=r"cannot be parsed: .* \(line 2\)"):
        ChatTemplate("ok\n{% if %}", {})
