"""What does a stranger's chat template write? The process that finds out, and may be killed.

``template.py`` runs it as a script, isolated and with an empty environment; it imports jinja2 and
nothing of the project. One JSON object comes in on standard input. For each job one JSON line goes
out: ``{"texts": [...]}``, or ``{"error": kind, "detail": ...}`` and then no more. It stops early
when it has written much or used much of its time; the parent starts another for the rest.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

_HANDOVER_BYTES = 16 << 20  # written by one process before it hands over
_HANDOVER_SHARE = 0.4  # of its CPU time used before it hands over


def main() -> None:
    """Answer the request on standard input."""
    request = json.loads(sys.stdin.buffer.read())
    sys.path.extend(request["path"])
    sandbox = environment(datetime.fromisoformat(request["now"]))
    began = time.process_time()
    limit(math.ceil(began + request["cpu_seconds"]), request["memory_bytes"])

    # from here on the template has its say
    try:
        template = sandbox.from_string(request["template"])
    except Exception as error:  # whatever it is, the parent raises it
        send({"error": "template", "detail": describe(error)})
        return
    written = 0
    for job in request["jobs"]:
        try:
            texts = [
                write(template, request["variables"] | part, request["output_bytes"])
                for part in job
            ]
            answer: dict[str, Any] = {"texts": texts}
        except Exception as error:  # whatever it is, the parent raises it
            answer = {"error": kind(error), "detail": describe(error)}
        written += send(answer)
        used = time.process_time() - began
        if (
            "error" in answer
            or written > _HANDOVER_BYTES
            or used > _HANDOVER_SHARE * request["cpu_seconds"]
        ):
            return


def limit(cpu_seconds: int, memory_bytes: int) -> None:
    """Bound this process: CPU time, address space, no file writes, no core file."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses a cap on address space
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def write(template: Any, variables: Mapping[str, Any], output_bytes: int) -> str:
    """One rendering, refused as soon as it is longer than ``output_bytes``."""
    pieces, size = [], 0
    for piece in template.generate(variables):
        size += len(piece.encode("utf-8"))
        if size > output_bytes:
            raise OverflowError(f"it writes more than {output_bytes} bytes")
        pieces.append(piece)
    return "".join(pieces)


def send(answer: Mapping[str, Any]) -> int:
    """Write one line; how many bytes it had."""
    line = json.dumps(answer).encode() + b"\n"
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    return len(line)


def kind(error: Exception) -> str:
    """Whose fault: the template's, or these messages' with this template."""
    from jinja2.exceptions import SecurityError, TemplateSyntaxError

    templates = (SecurityError, TemplateSyntaxError, MemoryError, OverflowError, RecursionError)
    return "template" if isinstance(error, templates) else "messages"


def describe(error: Exception) -> str:
    """The error's own words, or its name where it has none."""
    return (str(error) or type(error).__name__)[:400]


def environment(now: datetime) -> Environment:
    """The immutable sandbox with what chat templates use, as transformers offers it."""
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Sandbox(ImmutableSandboxedEnvironment):
        def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
            # jinja2 would write an empty text for an attribute that is forbidden
            raise SecurityError(f"access to {attribute!r} of {type(obj).__name__} is forbidden")

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's words for training; here it only writes."""

        tags = {"generation"}  # noqa: RUF012  # jinja2's own way to declare it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(
                parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
            )

    def check_name(name: Any) -> None:
        # "__call__" and the like, planted on a namespace, change what jinja2 takes it for
        if str(name).startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}")

    class SafeNamespace(Namespace):
        def __setitem__(self, name: str, value: Any) -> None:
            check_name(name)
            super().__setitem__(name, value)

    def namespace(*args: Any, **kwargs: Any) -> Namespace:
        attributes = dict(*args, **kwargs)
        for name in attributes:
            check_name(name)
        return SafeNamespace(attributes)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # jinja2's own filter escapes for HTML
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    def raise_exception(message: Any) -> None:
        raise TemplateError(str(message))

    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = to_json
    del sandbox.globals["lipsum"]
    sandbox.globals |= {
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": namespace,
        "raise_exception": raise_exception,
        "strftime_now": lambda form: now.strftime(form),
    }
    return sandbox


if __name__ == "__main__":
    main()
