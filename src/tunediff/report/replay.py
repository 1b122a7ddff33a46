"""Which command makes the same run again?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tunediff.run.comparing import EVERY


def command(record: Mapping[str, Any]) -> str:
    """The command line of a run from its record.

    Paths of what was asked are not in the record: FILE stands for them, and the hashes tell
    """
    identity, paths = record["identity"], record["found"]["paths"]
    settings = identity["settings"]
    recorded = settings["backend"] == "recorded"
    check = "suites" not in identity
    command = "check" if check else _study(identity) if "dial" in settings else "compare"
    words = ["tunediff", command, paths["base"], paths["tuned"]]
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
        for suite, item in identity["look"] or ():
            words += ["--look", f"{suite}:{item}"]
        known = {m.name for m in EVERY}
        if known != set(identity["measures"]):
            for name in identity["measures"]:
                words += ["--measure", name if name in known else f"FILE.py:{name}"]
    if command == "dial":
        words += ["--strengths", f"{settings['dial']['strength']:g}"]
    elif command == "trace" and identity["variant"].startswith("only-"):
        words.append("--alone")
    for option, key in (("--dtype", "dtype"), ("--device", "device")):
        if settings.get(key):
            words += [option, str(settings[key])]
    if identity["max_length"] is not None:
        words += ["--max-length", str(identity["max_length"])]
    if identity["allow_truncation"]:
        words.append("--allow-truncation")
    words += ["--seed", str(identity["seed"]), "--out", "NEW"]
    return shlex.join(words)


def _study(identity: Mapping[str, Any]) -> str:
    """The study that an adapter at another strength, or with modules off, belongs to."""
    return "dial" if identity["variant"].startswith("strength-") else "trace"
