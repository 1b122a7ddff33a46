"""Which nouns does the whole house share?

All are immutable values; none knows a model, a disk or a screen, and none needs torch. Arrays are
NumPy, indexed by scored position (T of them) unless a shape says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Axis = Literal["target", "general", "safety", "fluency"]
AXES: tuple[Axis, ...] = ("target", "general", "safety", "fluency")


@dataclass(frozen=True, slots=True)
class Constraint:
    """Something a reply has to meet that a program can check.

    ``kind``: a name of IFEval's, such as "length_constraints:number_words". ``details``: its
    arguments by name; those that are null are left out.
    """

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Openings:
    """How replies begin: those that refuse, and those that comply; each continues a prompt.

    As many of either, none the beginning of another: else mass would count twice.
    """

    refuse: tuple[str, ...]
    comply: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Those that refuse, then those that comply."""
        return (*self.refuse, *self.comply)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing asked of both models.

    Exactly one of these is given: ``text`` (all its tokens but the first are scored), ``prompt``
    and perhaps ``reply``, the reference (its tokens are scored), or ``messages`` (the last message,
    an assistant's, is scored; the rest is rendered by the chat template). A prompt without a
    reference can be answered, not scored.
    """

    id: str
    text: str | None = None
    prompt: str | None = None
    reply: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    axis: Axis = "target"
    group: str | None = None  # what is resampled together; None: the item alone
    source: str = ""  # "file:line", for error messages
    choices: tuple[str, ...] | None = None  # of a multiple choice, each a continuation of prompt
    answer: int | None = None  # which of the choices is right
    label: str | None = None  # of a safety prompt: "refuse" or "comply"
    category: str | None = None  # such as a subject; lists by category are exploratory
    constraints: tuple[Constraint, ...] | None = None  # what a reply has to meet, checkable
    openings: Openings | None = None  # of a labelled prompt; None: those of items/openings.py
    begun: bool = False  # the reply is a beginning: nothing that would end it is scored

    @property
    def shown(self) -> str:
        """The text a person recognises the item by."""
        if self.text is not None:
            return self.text
        if self.messages is not None:
            return "\n".join(m["content"] for m in self.messages)
        return (self.prompt or "") + (self.reply or "")


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of items, with the hash of what was asked."""

    name: str
    items: tuple[Item, ...]
    content_hash: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """An item as token ids, with the positions that are scored.

    ``ids``: int64 (T,). ``scored``: strictly rising positions t with 0 <= t < T-1; position t is
    scored on the token that follows, ``ids[t + 1]``. ``probe``: the position whose next-token
    candidates are shown: the last one of a text, the last one of the prompt of a prompt-and-reply.
    A prompt that is to be answered has no scored position.
    ``bytes_scored``: UTF-8 bytes of the scored tokens' text. ``truncated``: tokens cut off.
    """

    item_id: str
    ids: np.ndarray
    scored: np.ndarray
    probe: int
    bytes_scored: int
    truncated: int = 0
    tuned: Encoded | None = None  # the tuned side's tokens, where the tokenizers differ


@dataclass(frozen=True, slots=True)
class Scores:
    """What the pair's forward passes yielded for one item.

    Every array has one entry per scored position (T,), float64, in the units of DEFINITIONS.md;
    ``top1_agreement`` is 0.0 or 1.0. ``probe_*`` belong to the probe position alone, which need
    not be scored. ``reason`` is set, and every array empty, where the item failed. Where the
    tokenizers differ, the two NLL arrays are all there is, each over its own side's tokens.
    """

    item_id: str
    positions: np.ndarray  # int64 (T,): index of each scored position in the item
    targets: np.ndarray  # int64 (T,): the token id that follows
    nll_base: np.ndarray
    nll_tuned: np.ndarray
    kl_base_tuned: np.ndarray
    kl_tuned_base: np.ndarray
    js: np.ndarray
    logit_mse: np.ndarray
    logit_mse_centred: np.ndarray
    logit_l2: np.ndarray
    top1_agreement: np.ndarray
    delta_p: np.ndarray
    bytes_scored: int
    probe_logit_mse: float
    probe_logit_l2: float
    probe_position: int = -1
    probe_top_base: tuple[tuple[int, float], ...] = ()  # (token id, probability), likeliest first
    probe_top_tuned: tuple[tuple[int, float], ...] = ()
    reason: str | None = None


TOKEN_METRICS: tuple[str, ...] = (
    "nll_base",
    "nll_tuned",
    "kl_base_tuned",
    "kl_tuned_base",
    "js",
    "logit_mse",
    "logit_mse_centred",
    "logit_l2",
    "top1_agreement",
    "delta_p",
)
"""The arrays of :class:`Scores`, in the order of the kernels' output columns."""


Of = Literal["reference", "base", "tuned"]
OF: tuple[Of, ...] = ("reference", "base", "tuned")
"""Whose text both models were scored on: the item's own, base's reply, or tuned's."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What both models expect at each scored position of one item, likeliest first.

    ``base_ids`` and ``tuned_ids``: int64 (T, k); ``base_p`` and ``tuned_p``: their probabilities,
    float64 (T, k). ``positions``: int64 (T,), as in :class:`Scores`.
    """

    item_id: str
    positions: np.ndarray
    base_ids: np.ndarray
    base_p: np.ndarray
    tuned_ids: np.ndarray
    tuned_p: np.ndarray


Stop = Literal["end", "length", "stop_string", "recorded"]
"""Why a reply ended: the end token, the limit, a stop string; or it was only read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one model answered to one prompt.

    ``ids``: the generated token ids up to the end token, which is left out; None where only the
    text is known. ``text``: without a stop string and what follows it.
    """

    text: str
    ids: tuple[int, ...] | None = None
    stop: Stop = "recorded"


@dataclass(frozen=True, slots=True)
class Generation:
    """How replies are made.

    ``temperature`` 0 is greedy. ``top_p``: the fewest likeliest tokens of that much probability.
    ``seed``: of the sampling noise, which is a function of (seed, prompt, sample, position).
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Choices:
    """How likely both models find each of an item's choices, or openings.

    ``base`` and ``tuned``: ln probability of each choice after the prompt, (C,), summed over its
    tokens. ``tokens`` and ``bytes_scored``: how many each choice has, (C,). ``reason`` is set, and
    every array empty, where the item failed.
    """

    item_id: str
    base: np.ndarray
    tuned: np.ndarray
    tokens: np.ndarray
    bytes_scored: np.ndarray
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What one measure found on one item: sums and a count, or a reason why there is none.

    For a quantity that each model has alone, ``effect_sum = tuned_sum - base_sum``; for a
    divergence the sides are None. A null effect has a reason, and a reason is a sentence.
    """

    base_sum: float | None
    tuned_sum: float | None
    effect_sum: float | None
    count: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """A function from two models' answers to the same item to numbers.

    ``needs`` names what the function is given:

    - "scores" (or "nll", where the NLL alone suffices): ``function(scores)``, the item's Scores;
    - "replies": ``function(item, base, tuned)``, the item and a Reply of either side;
    - "samples": the same with all sampled replies of either side, sequences of Reply;
    - "choices": ``function(item, choices)``, the item and its Choices;
    - "openings": the same of a labelled item, whose Choices are its openings: those that refuse,
      then as many that comply.

    ``direction``: +1 where higher is better, -1 where lower is, 0 where there is none.
    ``pool``: how sums become the figure: "mean" (sum / count) or "rms" (root of sum / count).
    ``zero``: what an effect of zero means. ``margin``: absolute, in ``unit``, stated before.
    """

    name: str
    unit: str
    direction: Literal[-1, 0, 1]
    zero: str
    needs: tuple[str, ...]
    function: Callable[..., Observation]
    pool: Literal["mean", "rms"] = "mean"
    margin: float | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One observation in the record; the columns of ``rows/*.parquet`` in this order."""

    variant: str
    measure: str
    suite: str
    axis: str
    item: str
    group: str
    sample: int
    base_sum: float | None
    tuned_sum: float | None
    effect_sum: float | None
    count: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """An effect with its uncertainty.

    ``low`` and ``high`` are None where there is no interval, and then ``note`` says why.
    ``p`` is None for divergences (they are compared with their floor). ``more_groups``: the range
    of further groups that would settle it, or None where that does not apply.
    """

    effect: float
    low: float | None
    high: float | None
    p: float | None
    groups: int
    count: int
    standard_error: float | None = None
    note: str = ""
    more_groups: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, its code, a sentence of reason, and the estimates that led to it."""

    code: str
    reason: str
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: where it lies, and what it is."""

    path: str
    kind: str  # base, lora, full, toy …
    fingerprint: str  # sha256 over the weights and what decides their meaning
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the certificate. ``passed`` is None where the check does not apply."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """The proof that the tuned side really is base plus this adapter (or these weights)."""

    kind: str
    checks: tuple[Check, ...]
    weights_equal: bool  # every weight equal, or ΔW exactly zero: the verdict ``identical``
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "kind": self.kind,
            "weights_equal": self.weights_equal,
            "checks": [
                {"name": c.name, "passed": c.passed, "detail": c.detail} for c in self.checks
            ],
            "warnings": list(self.warnings),
        }
