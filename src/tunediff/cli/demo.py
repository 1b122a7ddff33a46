"""``tunediff demo``: everything, on the embedded specimens."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path


def demo() -> int:
    """Train an adapter live, check every embedded specimen, and hold verdicts against the truth.

    At the end the adapter trained live is compared with its base: the scorecard.

    Needs no download. Exit codes: 0 every verdict is the truth, 1 one is not.
    """
    # The specimens are tiny: a second thread would only wait, on a busy machine for long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rich.console import Console

    from tunediff.findings.scorecard import scorecard
    from tunediff.report import truths
    from tunediff.report.scorecard import draw
    from tunediff.report.terminal import Printer
    from tunediff.specimens.load import adapters
    from tunediff.studies.truths import comparison_of, findings_of, train_skill
    from tunediff.training.lora import SKILL_RECIPE

    began = time.perf_counter()
    out = Console(highlight=False, emoji=False)
    out.print(
        "A tiny base model of a made-up world, and tuned models of which the truth is known.\n"
        f"First, one of them is trained live: {SKILL_RECIPE.steps} steps of LoRA."
    )
    wrong, seen = [], 0
    with tempfile.TemporaryDirectory() as folder:
        errors = Console(stderr=True, highlight=False, emoji=False)
        with truths.training_bar(errors, SKILL_RECIPE.steps) as on_step:
            live = train_skill(Path(folder) / "skill", on_step)
        truths.head(out)
        for specimen in (live, *adapters()):
            for finding in findings_of(specimen):
                truths.line(out, finding)
                seen += 1
                if not finding.right:
                    wrong.append(f"{finding.specimen} on {finding.suite}")
        (run,) = comparison_of(live, Path(folder) / "compared")
        drawn = draw(Printer().console, scorecard([run]), run.replies())
    out.print(f"\nAnd what changed in {live.name}, as tunediff compare draws it:\n")
    sys.stdout.write(drawn)
    if wrong:
        sys.stderr.write(
            f"{len(wrong)} of {seen} verdicts are not the truth: {', '.join(wrong)}.\n"
        )
        return 1
    out.print(f"{seen} of {seen} verdicts are the truth ({time.perf_counter() - began:.0f} s).")
    return 0
