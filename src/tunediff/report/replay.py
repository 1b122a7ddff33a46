"""Which command makes the same run again?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any


def command(record: Mapping[str, Any]) -> str:
    """The command line of a run from its record.

    Paths of what was asked are not in the record: FILE stands for them, and the hashes tell
    whether the right file was given.
    """
    identity, paths = record["identity"], record["found"]["paths"]
    settings = identity["settings"]
    recorded = settings["backend"] == "recorded"
    check = "suites" not in identity
    words = ["tunediff", "check" if check else "compare", paths["base"], paths["tuned"]]
    if check:
        words += ["--texts", "FILE"]
    else:
        for name in identity["suites"]:
            words += ["--suite", f"{name}=FILE"]
        generation = identity["generation"]
        if identity["form"] != "raw":
            words += ["--template", identity["form"]]
        if generation is None:
            words += ["--max-new-tokens", "0"]
        elif not recorded:
            words += ["--max-new-tokens", str(generation["max_new_tokens"])]
            if generation["temperature"] > 0:
                words += ["--temperature", f"{generation['temperature']:g}"]
                words += ["--top-p", f"{generation['top_p']:g}"]
            if identity["samples"] > 1:
                words += ["--samples", str(identity["samples"])]
            for text in generation["stop"]:
                words += ["--stop", text]
    for option, key in (("--dtype", "dtype"), ("--device", "device")):
        if settings.get(key):
            words += [option, str(settings[key])]
    if identity["max_length"] is not None:
        words += ["--max-length", str(identity["max_length"])]
    if identity["allow_truncation"]:
        words.append("--allow-truncation")
    words += ["--seed", str(identity["seed"]), "--out", "NEW"]
    return shlex.join(words)
