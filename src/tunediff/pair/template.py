"""Which text does a model see for a conversation?

A chat template is a program that came with the model, so it is rendered in jinja2's immutable
sandbox, and that in a process which is bounded in CPU time, memory and output and can be killed: a
template such as ``{{ 10**(10**9) }}`` heeds no signal that Python could handle. One process
renders many conversations. Nothing is guessed: without a template there is no conversation.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tunediff.errors import InputError, ModelError, UsageError
from tunediff.items.bounds import shown
from tunediff.values import Item

CPU_SECONDS = 5.0  # of one process, whatever the number of conversations
WALL_SECONDS = 120.0  # of one process on a busy machine
MEMORY_BYTES = 512 << 20  # of one process, Python included (Linux)
OUTPUT_BYTES = 1 << 20  # of one rendering
TEMPLATE_BYTES = 1 << 20  # of the template itself
CONFIG_BYTES = 64 << 20  # of tokenizer_config.json
_BATCH = 1000  # conversations handed to one process
_BATCH_CHARACTERS = 8 << 20
_OTHER_WAYS = "Ask texts, or prompts with replies, which need no template."

Messages = Sequence[Mapping[str, str]]


def render(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> str:
    """The text of a conversation, as transformers' ``apply_chat_template(tokenize=False)``.

    Args:
        template: the Jinja source.
        messages: ``{role, content}`` each.
        add_generation_prompt: end with the opening of an assistant's reply.
        bos_token: what the template's ``bos_token`` stands for; None: undefined, as ``eos_token``.
        eos_token: see ``bos_token``.
        special_tokens: further ones by name, such as ``pad_token``.
        now: what ``strftime_now`` tells; the present, local time where None.

    Raises:
        ModelError: the template is not Jinja, leaves the sandbox, or breaks a bound.
        InputError: the template refuses these messages.

    """
    job = [_part(messages, add_generation_prompt)]
    variables = _variables(bos_token, eos_token, special_tokens)
    ((text,),) = _render(template, [job], ["the conversation"], variables, now)
    return text


def render_item(
    template: str,
    messages: Messages,
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> tuple[str, str]:
    """``(context, full)`` of one conversation; see :func:`render_items`."""
    item = Item(id="", messages=tuple(messages), source="the conversation")
    variables = _variables(bos_token, eos_token, special_tokens)
    return _render_items(template, [item], variables, now)[0]


def render_items(
    template: str | None,
    items: Sequence[Item],
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    special_tokens: Mapping[str, str] | None = None,
    now: datetime | None = None,
) -> list[tuple[str, str]]:
    """``(context, full)`` of each item with messages, in the order given.

    ``context`` is all but the last message with the generation prompt; ``full`` is everything. The
    scored text is what ``full`` has beyond ``context``, its end-of-turn token included.

    Raises:
        InputError: there is no template; it refuses an item's messages; ``full`` does not go on
            where ``context`` ends, so that the reply's tokens cannot be told from the prompt's.
        ModelError: see :func:`render`.

    """
    variables = _variables(bos_token, eos_token, special_tokens)
    return _render_items(template, items, variables, now)


def render_prompts(
    template: str | None,
    items: Sequence[Item],
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    now: datetime | None = None,
) -> list[str]:
    """What stands before the reply to each item with messages, in the order given.

    An assistant's message at the end is the reference, and is left out.

    Raises:
        InputError: there is no template; it refuses an item's messages.
        ModelError: see :func:`render`.

    """
    jobs, places = [], []
    for item in items:
        messages = item.messages or ()
        asked = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
        places.append(_place(item, template))
        jobs.append([_part(asked, True)])
    variables = _variables(bos_token, eos_token, None)
    return [text for (text,) in _render(template or "", jobs, places, variables, now)]


def read_template(path: str, instead: str) -> str:
    """The source in a file that was named as the template.

    Args:
        path: of the file.
        instead: which words it is none of, such as "neither raw nor chat".

    Raises:
        UsageError: it cannot be read.

    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--template {path} is {instead}, and no file that can be read: {error}.",
            "Choose one, or give a Jinja file.",
        ) from None


def find_template(folder: str | os.PathLike[str]) -> str | None:
    """The chat template of a model folder, or None where it has none.

    ``chat_template.jinja`` goes before ``chat_template`` in ``tokenizer_config.json``, as in
    transformers; of several named ones it is the one named ``default``.

    Raises:
        ModelError: a file that cannot be read, or a template that is not text.

    """
    file = Path(folder) / "chat_template.jinja"
    if file.exists():
        return _read(file, TEMPLATE_BYTES)
    file = Path(folder) / "tokenizer_config.json"
    if not file.exists():
        return None
    try:
        config = json.loads(_read(file, CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {error}.", "Fetch the folder again.") from None
    found = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        if "default" not in named:
            raise ModelError(
                f"{file} names the chat templates {shown(list(named))} and none is 'default'.",
                "Save the one to use as chat_template.jinja in the folder.",
            )
        found = named["default"]
    if found is not None and not isinstance(found, str):
        raise ModelError(
            f"{file}: chat_template is {type(found).__name__} {shown(found)}, not text.",
            "Save the template as chat_template.jinja in the folder.",
        )
    return found


def template_hash(template: str) -> str:
    """sha256 of the template's UTF-8 text."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()


def _read(file: Path, most: int) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) <= most:
            return data.decode("utf-8")
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.", "Check it.") from None
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{file} is not UTF-8 at byte offset {error.start}.", "Fetch the folder again."
        ) from None
    raise ModelError(f"{file} has more than {most} bytes.", "Fetch the folder again.")


def _variables(
    bos_token: str | None, eos_token: str | None, special_tokens: Mapping[str, str] | None
) -> dict[str, Any]:
    tokens = {**(special_tokens or {}), "bos_token": bos_token, "eos_token": eos_token}
    given = {name: token for name, token in tokens.items() if token is not None}
    return {"tools": None, "documents": None, **given}


def _part(messages: Messages, add_generation_prompt: bool) -> dict[str, Any]:
    return {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": add_generation_prompt,
    }


def _render_items(
    template: str | None,
    items: Sequence[Item],
    variables: Mapping[str, Any],
    now: datetime | None,
) -> list[tuple[str, str]]:
    jobs, places = [], []
    for item in items:
        places.append(_place(item, template))
        messages = item.messages or ()
        jobs.append([_part(messages[:-1], True), _part(messages, False)])
    texts = _render(template or "", jobs, places, variables, now)
    return [
        _split(context, full, place) for (context, full), place in zip(texts, places, strict=True)
    ]


def _place(item: Item, template: str | None) -> str:
    """Where an item stands, if it is a conversation and there is a template for it."""
    place = item.source or f"item {shown(item.id)}"
    if not item.messages:
        raise InputError(f"{place} has no messages to render.", "Render conversations only.")
    if template is None:
        raise InputError(
            f"{place} is a conversation, and the model folder has no chat template.",
            "Put the template that the model was tuned with into the folder as "
            f"chat_template.jinja. {_OTHER_WAYS}",
        )
    return place


def _split(context: str, full: str, place: str) -> tuple[str, str]:
    if not full.startswith(context):
        pairs = zip(context, full, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(context), len(full)))
        raise InputError(
            f"{place}: the whole conversation does not begin with its context. From character {at} "
            f"the chat template writes {shown(full[at : at + 30])} in the whole, and "
            f"{shown(context[at : at + 30])} in the context with its generation prompt; so the "
            "reply's tokens cannot be told from the prompt's.",
            f"Use a template that opens a reply as its generation prompt does. {_OTHER_WAYS}",
        )
    if full == context:
        raise InputError(
            f"{place}: the chat template writes nothing for the assistant's reply.",
            f"Use a template that writes replies. {_OTHER_WAYS}",
        )
    return context, full


def _render(
    template: str,
    jobs: Sequence[list[dict[str, Any]]],
    places: Sequence[str],
    variables: Mapping[str, Any],
    now: datetime | None,
) -> list[list[str]]:
    """The texts of every job; a process may leave jobs over, and another goes on with them."""
    if len(template.encode("utf-8", "surrogatepass")) > TEMPLATE_BYTES:
        raise ModelError(
            f"The chat template has more than {TEMPLATE_BYTES} bytes.", "Check the model folder."
        )
    request = {
        "template": template,
        "variables": dict(variables),
        "now": (now or datetime.now()).isoformat(),
        "path": _jinja_path(),
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
        "output_bytes": OUTPUT_BYTES,
    }
    done: list[list[str]] = []
    while len(done) < len(jobs):
        before = len(done)
        lines, fault = _run({**request, "jobs": list(_batch(jobs[before:]))})
        for line in lines:
            answer = json.loads(line)
            if "error" in answer:
                raise _refusal(answer, places[len(done)])
            done.append(answer["texts"])
        if fault or len(done) == before:
            raise ModelError(
                f"The chat template {fault or 'wrote nothing'} at {places[len(done)]}.",
                f"Check the template in the model folder. {_OTHER_WAYS}",
            )
    return done


def _batch(jobs: Sequence[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    characters = 0
    for job in jobs[:_BATCH]:
        yield job
        characters += sum(len(m["content"]) for part in job for m in part["messages"])
        if characters > _BATCH_CHARACTERS:
            return


def _run(request: Mapping[str, Any]) -> tuple[list[bytes], str]:
    """The complete lines that a process wrote, and what ended it too early, if anything did."""
    worker = Path(__file__).with_name("template_worker.py")
    # a Python of its own libraries may need this to start; nothing else is for a template to see
    environment = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(worker)],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=WALL_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").split(b"\n")[:-1], f"took more than {WALL_SECONDS:g} s"
    fault = ""
    if ended.returncode == -signal.SIGXCPU:
        fault = f"took more than {CPU_SECONDS:g} s of CPU time"
    elif ended.returncode:
        words = ended.stderr.decode("utf-8", "backslashreplace").strip().split("\n")[-1]
        fault = f"ended its process with code {ended.returncode} ({shown(words)})"
    return ended.stdout.split(b"\n")[:-1], fault


def _refusal(answer: Mapping[str, str], place: str) -> InputError | ModelError:
    detail = answer["detail"].rstrip(".")
    if answer["error"] == "template":
        return ModelError(
            f"The chat template was refused at {place}: {detail}.",
            f"Check the template in the model folder. {_OTHER_WAYS}",
        )
    return InputError(
        f"{place}: the chat template does not take these messages: {detail}.",
        f"Change the messages, or the template in the model folder. {_OTHER_WAYS}",
    )


def _jinja_path() -> list[str]:
    """Where jinja2 and what it needs lie; found without importing them."""
    folders = []
    for name in ("jinja2", "markupsafe"):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise ModelError(f"Chat templates need {name}.", "Install tunediff again.")
        folders.append(str(Path(found.origin).parents[1]))
    return list(dict.fromkeys(folders))
