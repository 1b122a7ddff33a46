"""Does a chat template write what transformers writes, and can a hostile one do no harm?"""

import json
import subprocess
import sys
import time
from datetime import datetime

import pytest

from tunediff.errors import InputError, ModelError
from tunediff.pair import template
from tunediff.pair.template import (
    find_template,
    render,
    render_item,
    render_items,
    template_hash,
)
from tunediff.values import Item

HEADERS = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{%- if system %}{{ '<|head|>system<|tail|>\\n\\n' + system + '<|over|>' }}{% endif %}
{%- for message in messages %}
    {{- '<|head|>' + message['role'] + '<|tail|>\\n\\n' + message['content'] | trim + '<|over|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|tail|>\\n\\n' }}{% endif %}
"""
TURNS = """\
{% for message in messages %}
  {% if loop.first and message.role != 'system' %}
{{ '<|start|>system\\nBe brief.<|end|>' }}
  {% endif %}
{{ '<|start|>' + message.role + '\\n' + message.content + '<|end|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start|>assistant\\n' }}{% endif %}
"""
BRACKETS = """\
{%- set ns = namespace(turn=0, system='') -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set ns.system = messages[0]['content'] + '\\n' -%}
{%- endif -%}
{{ bos_token }}
{%- for m in messages -%}
  {%- if m['role'] == 'system' -%}{%- continue -%}{%- endif -%}
  {%- if (m['role'] == 'user') != (ns.turn % 2 == 0) -%}
    {{- raise_exception('Roles must take turns.') -}}
  {%- endif -%}
  {%- if m['role'] == 'user' -%}
    {{- '[Q] ' + ns.system + m['content'] + ' [/Q]' -}}{%- set ns.system = '' -%}
  {%- else -%}
    {{- ' ' + m['content'] + eos_token -}}
  {%- endif -%}
  {%- set ns.turn = ns.turn + 1 -%}
{%- endfor -%}
"""
GENERATION = """\
{%- set shout = 'outer' %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
Say:{% generation %}{% set shout=m.content|upper %}{{ ' ' ~ shout }}{% endgeneration %}{{ shout }}

{% else %}
{{ m | tojson }} {{ [m.content, 1.5, none, '<é&>'] | tojson(indent=1) }}
{% endif %}
{%- endfor %}
{{- shout }}{{ unknown_token }}{{ tools is none }}{{ documents is defined }}
{%- if add_generation_prompt %}Answer:{% endif %}
"""
TEMPLATES = {
    "headers": HEADERS,
    "turns": TURNS,
    "brackets": BRACKETS,
    "generation": GENERATION,
}
ASKED = [{"role": "user", "content": " What is <2 & 3>? \n"}]
TALK = [*ASKED, {"role": "assistant", "content": "An “é” {{ 7 * 7 }} {% raw %}"}]
LONG = [{"role": "system", "content": "Be kind."}, *TALK, {"role": "user", "content": "So?"}]


@pytest.fixture
def quick(monkeypatch):
    """One second instead of five, so that tests of the time limit are quick."""
    monkeypatch.setattr(template, "CPU_SECONDS", 1.0)


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")),
        bos_token="<bos>",
        eos_token="<eos>",
    )


@pytest.mark.parametrize("messages", [ASKED, TALK, LONG], ids=["asked", "talk", "long"])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_same_text_as_transformers(tokenizer, name, prompt, messages):
    theirs = tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompt
    )
    ours = render(
        TEMPLATES[name],
        messages,
        add_generation_prompt=prompt,
        bos_token="<bos>",
        eos_token="<eos>",
    )
    assert ours == theirs
    assert len(ours) > 20


@pytest.mark.parametrize("name", ["headers", "turns", "brackets"])
def test_context_is_the_beginning_of_the_whole(name):
    context, full = render_item(TEMPLATES[name], TALK, bos_token="<bos>", eos_token="<eos>")
    assert full.startswith(context)
    assert full[len(context) :].strip().startswith("An “é” {{ 7 * 7 }} {% raw %}")
    assert context == render(
        TEMPLATES[name], ASKED, add_generation_prompt=True, bos_token="<bos>", eos_token="<eos>"
    )
    if name != "turns":
        assert full.count("<bos>") == 1


def test_a_context_that_the_whole_does_not_begin_with_is_refused():
    with pytest.raises(InputError) as caught:
        render_items(
            TURNS.replace("assistant\\n", "assistant\\n<think>"),
            [Item("7", messages=tuple(TALK), source="a.jsonl:3")],
        )
    assert caught.value.message.startswith(
        "a.jsonl:3: the whole conversation does not begin with its context. From character "
    )
    assert "'An “é” {{ 7 * 7 }} {% raw %}<|" in caught.value.message
    assert "'<think>" in caught.value.message
    with pytest.raises(InputError, match="writes nothing for the assistant's reply"):
        render_item("{{ messages[0].content }}", TALK)


def test_no_template_and_no_messages_are_refused():
    items = [Item("7", messages=tuple(TALK), source="a.jsonl:3")]
    with pytest.raises(InputError) as caught:
        render_items(None, items)
    assert caught.value.message == (
        "a.jsonl:3 is a conversation, and the model folder has no chat template."
    )
    assert "chat_template.jinja" in caught.value.hint
    with pytest.raises(InputError, match="item '8' has no messages"):
        render_items("", [Item("8", text="t")])
    assert render_items(None, []) == []


def test_special_tokens_and_the_clock():
    tokens = {"pad_token": "<pad>"}
    form = "{{ bos_token }}{{ pad_token }}{{ strftime_now('%d %b %Y') }}"
    day = datetime(2024, 2, 29)
    assert render(form, ASKED, special_tokens=tokens, now=day) == "<pad>29 Feb 2024"
    assert render("{{ strftime_now('%Y') }}", ASKED) >= "2024"
    assert render("{{ messages[0].content.format(1) }}", [{"role": "u", "content": "{0}"}]) == "1"


def test_a_template_that_refuses_the_messages_names_the_item():
    twice = Item("9", messages=(*ASKED, *ASKED, TALK[1]), source="a.jsonl:2")
    good = Item("8", messages=tuple(TALK), source="a.jsonl:1")
    with pytest.raises(InputError) as caught:
        render_items(BRACKETS, [good, twice], eos_token="<eos>")
    assert caught.value.message == (
        "a.jsonl:2: the chat template does not take these messages: Roles must take turns."
    )
    with pytest.raises(InputError, match="'x' is undefined"):
        render("{{ x.y }}", ASKED)


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''|attr('__class__') }}",
        "{{ ''['__class__'] }}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '%s{0.__class__}'.format_map({'0': 1}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__code__ }}",
        "{{ self.__init__ }}",
        "{{ [[1], [2]] | map(attribute='__class__') | list }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{{ namespace(__call__=1) }}",
        "{{ namespace({'__class__': 1}) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ range(10**9) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if %}",
        "{{ 'unclosed }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_what_leaves_the_sandbox_is_refused(hostile):
    with pytest.raises((ModelError, InputError)) as caught:
        render(hostile, ASKED)
    assert "chat template" in caught.value.message
    assert len(caught.value.message) < 600
    assert "root:" not in caught.value.message


def test_nothing_of_python_is_within_reach():
    assert render("{{ lipsum is defined }}{{ os is defined }}", ASKED) == "FalseFalse"
    for call in ("open('/etc/passwd')", "__import__('os')", "eval('1')"):
        with pytest.raises(InputError, match="is undefined"):
            render("{{ " + call + " }}", ASKED)


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        ("{{ 'a' * 2000000 }}", "it writes more than 1048576 bytes"),
        ("{{ 'é' * 600000 }}", "it writes more than 1048576 bytes"),
        ("{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "it writes more than 1048576"),
        ("{{ 'a' * 10**9 }}", "MemoryError"),
        ("{{ 'a' | center(10**10) }}", "MemoryError"),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
            "{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "MemoryError",
        ),
    ],
)
def test_giant_outputs_and_memory_bombs_are_refused(hostile, words):
    with pytest.raises(ModelError) as caught:
        render(hostile, ASKED)
    assert words in caught.value.message


@pytest.mark.parametrize(
    "endless",
    [
        "{{ 10**(10**9) }}",
        "{% set n = 10**9 %}{{ 10**n }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
@pytest.mark.usefixtures("quick")
def test_endless_templates_end_in_an_error(endless):
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        render(endless, ASKED)
    assert caught.value.message == (
        "The chat template took more than 1 s of CPU time at the conversation."
    )
    assert "Ask texts" in caught.value.hint
    assert time.monotonic() - began < template.WALL_SECONDS


@pytest.mark.usefixtures("quick")
def test_the_item_at_which_a_template_hangs_is_named():
    slow = (
        "{% if messages[0].content == 'hang' %}{{ 10**(messages | length * 10**9) }}{% endif %}"
        + TURNS
    )
    hang = ({"role": "user", "content": "hang"}, TALK[1])
    items = [Item(str(i), messages=tuple(TALK), source=f"a:{i}") for i in range(3)]
    with pytest.raises(ModelError, match=r"CPU time at a:9\."):
        render_items(slow, [*items, Item("9", messages=hang, source="a:9"), *items])


def test_a_process_that_only_sleeps_is_killed_by_the_clock(monkeypatch):
    monkeypatch.setattr(template, "WALL_SECONDS", 0.001)
    with pytest.raises(ModelError, match=r"took more than 0\.001 s at the conversation"):
        render(TURNS, ASKED)


def test_a_process_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(template, "MEMORY_BYTES", "none")
    with pytest.raises(ModelError, match=r"ended its process with code 1 \(.TypeError"):
        render(TURNS, ASKED)


def test_a_thousand_items_need_one_process(monkeypatch):
    runs = []
    monkeypatch.setattr(template, "_run", lambda r, run=template._run: runs.append(1) or run(r))
    items = [
        Item(str(i), messages=({"role": "user", "content": str(i)}, TALK[1])) for i in range(1000)
    ]
    began = time.monotonic()
    texts = render_items(TURNS, items)
    assert time.monotonic() - began < 10
    assert runs == [1]
    assert [f"user\n{i}<" in context for i, (context, _) in enumerate(texts)] == [True] * 1000


def test_work_handed_over_to_further_processes_is_complete(monkeypatch):
    runs = []
    monkeypatch.setattr(template, "_run", lambda r, run=template._run: runs.append(1) or run(r))
    monkeypatch.setattr(template, "_BATCH", 3)
    items = [
        Item(str(i), messages=({"role": "user", "content": str(i)}, TALK[1])) for i in range(8)
    ]
    texts = render_items(TURNS, items)
    assert len(runs) == 3
    monkeypatch.setattr(template, "_BATCH", 1000)
    monkeypatch.setattr(template, "_BATCH_CHARACTERS", 100)
    assert render_items(TURNS, items) == texts
    monkeypatch.undo()
    assert render_items(TURNS, items) == texts


def test_a_process_hands_over_when_it_has_written_much(monkeypatch):
    runs = []
    monkeypatch.setattr(template, "_run", lambda r, run=template._run: runs.append(1) or run(r))
    filler = "{{ 'x' * 900000 }}"
    jobs = [[template._part(ASKED, False)]] * 24
    texts = template._render(filler, jobs, ["a"] * 24, {}, None)
    assert [len(text) for (text,) in texts] == [900000] * 24
    assert len(runs) == 2, "24 times 0.9 MB are more than 16 MiB"


def test_the_worker_sees_no_environment_and_no_torch(monkeypatch):
    seen = {}
    real = subprocess.run

    def spy(command, **options):
        seen.update(command=command, environment=options["env"])
        return real(command, **options)

    monkeypatch.setenv("SECRET", "hidden")
    monkeypatch.setattr(template.subprocess, "run", spy)
    render(TURNS, ASKED)
    assert "SECRET" not in seen["environment"]
    assert seen["command"][1:3] == ["-I", "-S"]
    code = (
        "import runpy, sys\n"
        f"sys.path.extend({template._jinja_path()!r})\n"
        f"worker = runpy.run_path({seen['command'][3]!r})\n"
        "worker['environment'](worker['datetime'].now())\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'tunediff') if m in sys.modules])"
    )
    out = real([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_find_template_takes_the_file_before_the_configuration(tmp_path):
    assert find_template(tmp_path) is None
    config = tmp_path / "tokenizer_config.json"
    config.write_text("{}")
    assert find_template(tmp_path) is None
    config.write_text(json.dumps({"chat_template": "é"}))
    assert find_template(tmp_path) == "é"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    config.write_text(json.dumps({"chat_template": named}))
    assert find_template(tmp_path) == "d"
    (tmp_path / "chat_template.jinja").write_text("\n{{ x }}\n")
    assert find_template(tmp_path) == "\n{{ x }}\n"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("tokenizer_config.json", b"{", "is not JSON"),
        ("tokenizer_config.json", b'{"chat_template": 3}', "chat_template is int 3, not text"),
        (
            "tokenizer_config.json",
            b'{"chat_template": [{"name": "rag", "template": "t"}]}',
            "names the chat templates ['rag'] and none is 'default'",
        ),
        ("chat_template.jinja", b"a\xff", "is not UTF-8 at byte offset 1"),
        ("chat_template.jinja", b"a" * (2**20 + 1), "has more than 1048576 bytes"),
    ],
)
def test_a_folder_with_a_broken_template_is_refused(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError) as caught:
        find_template(tmp_path)
    assert words in caught.value.message
    assert caught.value.hint


def test_template_hash_is_of_the_text():
    assert template_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert template_hash(TURNS) != template_hash(TURNS + "\n")
    with pytest.raises(ModelError, match="more than 1048576 bytes"):
        render("a" * (2**20 + 1), ASKED)
