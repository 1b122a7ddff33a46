"""Which of a base's modules does an adapter's configuration name?

The rules are peft's: a list matches whole names or their ends after a dot, a string is a regular
expression over the whole name. An expression comes from whoever made the adapter and may run for
ever, so it runs in a process of its own that can be stopped.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tunediff.errors import AdapterError

PATTERN_SECONDS = 10.0
_PLAIN = re.compile(r"[\w.\-]*")
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")
_CHILD = """
import json, re, sys
patterns, names = json.load(sys.stdin)
found = []
for pattern in patterns:
    try:
        fits = re.compile(pattern).fullmatch
    except (re.error, OverflowError, RecursionError) as error:
        sys.exit(f"{pattern!r}: {error}")
    found.append([name for name in names if fits(name)])
json.dump(found, sys.stdout)
"""


def full_matches(
    patterns: Sequence[str], names: Sequence[str], *, seconds: float = PATTERN_SECONDS
) -> list[frozenset[str]]:
    """Return for each pattern the names that it matches from end to end.

    Raises AdapterError where a pattern is none, or takes longer than ``seconds``.
    """
    if all(_PLAIN.fullmatch(pattern) for pattern in patterns):  # nothing that could run away
        return [frozenset(n for n in names if re.fullmatch(p, n)) for p in patterns]
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=json.dumps([list(patterns), list(names)]),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AdapterError(
            f"Matching the patterns {list(patterns)!r} took longer than {seconds:g} seconds.",
            "Write the adapted modules into adapter_config.json as a plain list of names.",
        ) from None
    if child.returncode:
        raise AdapterError(
            f"A pattern of the adapter is no regular expression: {child.stderr.strip()}."
        )
    return [frozenset(found) for found in json.loads(child.stdout)]


def by_pattern(patterns: Mapping[str, Any], names: Sequence[str], default: Any) -> dict[str, Any]:
    """Return each name's value: of the first pattern that fits its end after a dot, else default.

    This is how peft reads ``rank_pattern`` and ``alpha_pattern``.
    """
    found = full_matches([rf"(.*\.)?({key})" for key in patterns], names)
    values = dict.fromkeys(names, default)
    for value, fitting in reversed(list(zip(patterns.values(), found, strict=True))):
        values |= dict.fromkeys(fitting, value)
    return values


def targeted(
    config: Mapping[str, Any], names: Sequence[str], linear: frozenset[str]
) -> frozenset[str]:
    """Return the names that the configuration adapts.

    ``linear``: the names that "all-linear" means, which leaves out embeddings and the head.
    """
    chosen = _listed(config["target_modules"], names, linear)
    if config["layers_to_transform"]:
        whole = frozenset(config["target_modules"])
        chosen = {n for n in chosen if n in whole or _in_layers(n, config)}
    if config["exclude_modules"]:
        chosen = chosen - _listed(config["exclude_modules"], names, frozenset())
    if config["modules_to_save"]:
        saved = full_matches(
            [rf"(^|.*\.)(?:{m})($|\..*)" for m in config["modules_to_save"]], names
        )
        chosen = chosen - frozenset().union(*saved)
    return frozenset(chosen)


def _listed(
    wanted: str | Sequence[str], names: Sequence[str], linear: frozenset[str]
) -> frozenset[str]:
    if isinstance(wanted, str):
        if wanted.lower() == "all-linear" and linear:
            return linear
        return full_matches([wanted], names)[0]
    ends = tuple(f".{name}" for name in wanted)
    return frozenset(name for name in names if name in wanted or name.endswith(ends))


def _in_layers(name: str, config: Mapping[str, Any]) -> bool:
    patterns = config["layers_pattern"]
    if not patterns:
        found = _LAYER.match(name)
        return found is not None and int(found[1]) in config["layers_to_transform"]
    for pattern in patterns:
        if not _PLAIN.fullmatch(pattern):
            raise AdapterError(
                f"layers_pattern is {pattern!r}; a plain name such as 'layers' was needed."
            )
        if found := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name):
            return int(found[1]) in config["layers_to_transform"]
    return False
