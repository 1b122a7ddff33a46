"""Is the tuned side really base plus this adapter, or really these weights?

The proof has two halves: the files (every tensor used, none missing, shapes and names fit) and a
probe (a few tokens run through both sides in several ways). A pair that fails is refused, with one
exception: a change too small to show in the dtype is not a fault, it is `indistinguishable`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunediff.errors import CertificateError
from tunediff.values import Certificate, Check

# TRAPS, "Padding side, positions …": packed equals single within 10 times the run's floor.
TOLERANCE = 10.0
FLOAT32 = 2.0**-23  # one unit in the last place: a merge in coarser dtypes may lose ΔW


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few tokens showed. Differences are root mean squares over all logits.

    Args:
        noise: base against base with rounding-size noise in every module; the yardstick.
        packed: base in packed rows against the library's own forward pass, text by text.
        unchanged: whether base's logits were bit-equal before and after loading the tuned side.
        repeated: whether two identical passes of either side were bit-equal (no dropout is on).
        difference: tuned against base.
        merged: ΔW added to the weights against ΔW beside them; None where that does not apply.
        tuned_packed: as ``packed``, of a tuned side that has a forward pass of its own.
        alone: tuned in the pass of both sides against tuned in a pass of its own.

    """

    noise: float
    packed: float
    unchanged: bool
    repeated: bool
    difference: float
    merged: float | None = None
    tuned_packed: float | None = None
    alone: float = 0.0


def certify(
    kind: str,
    files: tuple[Check, ...],
    probe: Probe,
    *,
    weights_equal: bool,
    relative_change: Callable[[], float | None],
    resolution: float,
    warnings: tuple[str, ...] = (),
) -> Certificate:
    """The certificate, or the refusal.

    Args:
        kind: lora, lora (switched) or full.
        files: what the files already proved.
        probe: what the probe showed.
        weights_equal: every weight equal, or ΔW exactly zero.
        relative_change: yields the largest ‖ΔW‖_F/‖W‖_F of a module, where known.
        resolution: one unit in the last place of the dtype, relative.
        warnings: said aloud and recorded.

    Raises:
        CertificateError: naming the check that failed.

    """
    _refuse_random(probe)
    if not probe.unchanged:
        raise CertificateError(
            "Loading the tuned side changed the base model's own logits.",
            "Report this architecture: the base would be compared with something else.",
        )
    bound = TOLERANCE * probe.noise
    _refuse_packed("base", probe.packed, bound)
    if probe.tuned_packed is not None:
        _refuse_packed("tuned", probe.tuned_packed, bound)
    if not probe.alone <= bound:
        raise CertificateError(
            f"The tuned side's logits differ by {probe.alone:.2g} between the pass of both sides "
            f"and one of its own (at most {bound:.2g}, ten times rounding noise, is right).",
            "A part of the adapter is not applied in one of them; report this architecture.",
        )
    if probe.merged is not None and resolution <= FLOAT32 and not probe.merged <= bound:
        raise CertificateError(
            f"Base plus ΔW in its weights differs from base with ΔW beside them by "
            f"{probe.merged:.2g} (at most {bound:.2g}, ten times rounding noise, is right).",
            "A part of the adapter is not applied; report this architecture.",
        )
    applied = probe.difference > 0
    # one model under an adapter of nothing may round; two models that share every weight may not
    if weights_equal and not probe.difference <= (bound if kind.startswith("lora") else 0.0):
        raise CertificateError(
            f"Every weight is equal, or ΔW is exactly zero, and yet the probe's logits differ by "
            f"{probe.difference:.2g}.",
            "Something beside the weights differs between the sides; report this architecture.",
        )
    if not weights_equal and not applied and kind.startswith("lora"):
        change = relative_change()
        if change is None or change > resolution:
            raise CertificateError(
                "The adapter is not applied: its ΔW is not zero, and yet tuned's logits equal "
                "base's bit by bit.",
                "Check that the adapter belongs to this base; report the architecture if it does.",
            )
        warnings = (
            *warnings,
            f"The largest relative change of a weight, {change:.2g}, is below the "
            f"dtype's resolution {resolution:.2g}: it cannot show.",
        )
    checks = [
        *files,
        Check("base_unchanged", True, "base's probe logits are bit-equal before and after loading"),
        Check("deterministic", True, "two identical passes are bit-equal"),
        Check(
            "packed_equals_single",
            True,
            f"rms logit difference {probe.packed:.2g}; rounding noise is {probe.noise:.2g}",
        ),
        Check(
            "weights_differ",
            not weights_equal,
            "every weight is equal, or ΔW is exactly zero" if weights_equal else "ΔW is not zero",
        ),
        Check(
            "logits_differ",
            applied,
            f"rms difference of the probe's logits {probe.difference:.3g}"
            if applied
            else "the probe's logits are bit-equal",
        ),
    ]
    if probe.merged is None:
        checks.append(
            Check("merged_equals_unmerged", None, "not applicable: nothing is merged here")
        )
    else:
        passed = probe.merged <= bound
        checks.append(
            Check(
                "merged_equals_unmerged",
                passed,
                f"rms logit difference {probe.merged:.2g} if ΔW is merged in this dtype",
            )
        )
        if not passed:
            warnings = (
                *warnings,
                f"Merging this adapter in this dtype would move logits by {probe.merged:.2g} rms; "
                "serve it unmerged, or merge in float32.",
            )
    return Certificate(kind, tuple(checks), weights_equal, warnings)


def certify_apart(base: Probe, tuned: Probe) -> Certificate:
    """The certificate of two unrelated models, each of which is scored as it answers itself.

    Raises:
        CertificateError: naming the check that failed.

    """
    details = []
    for side, probe in (("base", base), ("tuned", tuned)):
        _refuse_random(probe)
        _refuse_packed(side, probe.packed, TOLERANCE * probe.noise)
        details.append(f"{probe.packed:.2g} ({side}; rounding noise is {probe.noise:.2g})")
    checks = (
        Check("tokenizers_differ", None, "two unrelated models"),
        Check("deterministic", True, "two identical passes are bit-equal"),
        Check("packed_equals_single", True, f"rms logit difference {', '.join(details)}"),
    )
    return Certificate("bits per byte", checks, False)


def _refuse_random(probe: Probe) -> None:
    if not probe.repeated:
        raise CertificateError(
            "Two identical passes gave different logits: something random is switched on.",
            "Look for dropout or sampling inside the model's forward pass.",
        )


def _refuse_packed(side: str, error: float, bound: float) -> None:
    if not error <= bound:
        raise CertificateError(
            f"The {side} model's packed logits differ from its own forward pass by {error:.2g} "
            f"(at most {bound:.2g}, ten times rounding noise, is right).",
            "This architecture does something that packed scoring does not know; report it.",
        )
