"""How many of the constraints that it was given does the reply meet?"""

from __future__ import annotations

from collections.abc import Sequence

from tunediff.measures.constraints import met, unchecked
from tunediff.measures.pairs import none
from tunediff.measures.prompted import found_in
from tunediff.measures.text import asked
from tunediff.values import Constraint, Item, Measure, Observation, Reply


def instruction_adherence(item: Item, base: Reply, tuned: Reply) -> Observation:
    """Constraints met / constraints that can be checked.

    Unit share; higher is better; 0 means that both meet as many. The item's own constraints, or
    where it has none those found in its prompt (:func:`~tunediff.measures.prompted.found_in`).
    Those that cannot be checked count on neither side; none that can: null, with the reason. The
    count is that of constraints, so that the pooled figure of an IFEval file is its strict
    instruction-level accuracy over the ids covered.
    """
    constraints = checkable(item)
    if not constraints:
        if item.constraints:
            return none(" ".join(dict.fromkeys(unchecked(c) or "" for c in item.constraints)))
        return none("No checkable constraint was found in the prompt.")
    b, t = (_met(constraints, reply.text) for reply in (base, tuned))
    return Observation(b, t, t - b, len(constraints))


def checkable(item: Item) -> tuple[Constraint, ...]:
    """The constraints that count: given ones, or found ones, without those out of reach."""
    given = item.constraints if item.constraints is not None else found_in(asked(item))
    return tuple(c for c in given if unchecked(c) is None)


def _met(constraints: Sequence[Constraint], reply: str) -> float:
    return float(sum(met(c, reply) is True for c in constraints))


ADHERENCE: tuple[Measure, ...] = (
    Measure(
        "instruction_adherence",
        "share",
        1,
        "both meet as many constraints",
        ("replies",),
        instruction_adherence,
        margin=0.02,
    ),
)
