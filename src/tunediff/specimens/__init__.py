"""What is known? A small embedded base, tuned models of known ground truth, and suites.

``tunediff.specimens.load`` says where they lie; ``docs/specimens.md`` how they were made.
"""

from tunediff.specimens.load import (
    Specimen,
    adapters,
    base,
    card,
    raw_prompt,
    raw_reply,
    safety_labels,
    skill_rows,
    suite,
)

__all__ = [
    "Specimen",
    "adapters",
    "base",
    "card",
    "raw_prompt",
    "raw_reply",
    "safety_labels",
    "skill_rows",
    "suite",
]
