"""What can be said of a pair from its files alone, without loading a model?"""

from __future__ import annotations

from pathlib import Path

from tunediff.errors import PairError, UnsupportedError
from tunediff.pair.adapter import Adapter, read_adapter
from tunediff.values import Certificate, Check, Side
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.config import meaningful, require_equal_meaning
from tunediff.weights.difference import checkpoint_difference
from tunediff.weights.files import few, hub_revision
from tunediff.weights.geometry import lora_geometry
from tunediff.weights.spectrum import Geometry

_NOT_RUN = "not run: no text was given"


def weigh(base: Path, tuned: Path, kind: str) -> Geometry:
    """Where and how much the weights differ; every weight that is read must be finite.

    Args:
        base: a model folder.
        tuned: an adapter folder or a model folder.
        kind: "adapter" or "model", what ``tuned`` is.

    Raises:
        PairError: where tuned's configuration or tensors cannot have come from base's.

    """
    base_files = _unpacked(base)
    return _geometry(base_files, _tuned_files(tuned, kind, base_files))


def certify_files(
    base: Path, tuned: Path, kind: str
) -> tuple[tuple[Side, Side, Certificate], Geometry]:
    """The sides, the half of the certificate that needs no model, and what ``weigh`` finds.

    Every weight of both sides is read, and must be finite.
    """
    base_files = _unpacked(base)
    files = _tuned_files(tuned, kind, base_files)
    geometry = _geometry(base_files, files)
    equal, revision = geometry.delta_is_zero, hub_revision(tuned)
    warnings: tuple[str, ...] = ()
    fit = "names and shapes fit the base's"
    if isinstance(files, Adapter):
        base_files.finite_check()  # the geometry reads what the adapter changes alone
        side = Side(str(tuned), "lora", files.fingerprint, revision)
        count = 2 * len(files.modules) + len(files.extra_tensors)
        used = f"all {count} tensors are expected, none is missing or extra"
        warnings = files.warnings
    else:
        side = Side(str(tuned), "full", files.fingerprint(), revision)
        used = f"{len(geometry.modules)} tensors compared, none is missing or extra"
        if geometry.reshaped:
            fit = f"the number of tokens differs ({', '.join(geometry.reshaped)}), all else fits"
    checks = (
        Check("tensors_used", True, used),
        Check("shapes_fit", True, fit),
        Check("base_unchanged", None, _NOT_RUN),
        Check("weights_differ", not equal, "ΔW is exactly zero" if equal else "ΔW is not zero"),
        Check("logits_differ", None, _NOT_RUN),
        Check("merged_equals_unmerged", None, _NOT_RUN),
    )
    base_side = Side(str(base), "base", base_files.fingerprint(), hub_revision(base))
    return (base_side, side, Certificate(side.kind, checks, equal, warnings)), geometry


def _tuned_files(tuned: Path, kind: str, base: Checkpoint) -> Adapter | Checkpoint:
    return read_adapter(tuned, base) if kind == "adapter" else _unpacked(tuned)


def _geometry(base: Checkpoint, tuned: Adapter | Checkpoint) -> Geometry:
    if isinstance(tuned, Adapter):
        # factors that change nothing are all there is to see, where the rest repeats the base
        beyond = "" if tuned.delta_is_zero else ", ".join(tuned.slow_reasons)
        return lora_geometry(tuned.modules, base, beyond=beyond)
    _require_equal_configurations(base, tuned)
    geometry = checkpoint_difference(base, tuned)
    # another number of tokens reshapes embedding and head, nothing else
    resizable = {
        f"{end.removesuffix('.weight')}.{leaf}"
        for end in (tuned.input_embedding, tuned.head, base.head)
        if end is not None
        for leaf in ("weight", "bias")
    }
    misshapen = [name for name in geometry.reshaped if name not in resizable]
    strange = [*misshapen, *geometry.missing, *geometry.added]
    if strange:
        raise PairError(
            f"{tuned.path} is not a derivative of {base.path}: {len(strange)} tensors are missing, "
            f"added or of another shape ({few(strange)}).",
            "Give the base that it was tuned from.",
        )
    return geometry


def _require_equal_configurations(base: Checkpoint, tuned: Checkpoint) -> None:
    """Raise PairError where equal weights would not compute the same."""
    if meaningful(base.config) == meaningful(tuned.config):
        return
    # a default that one file spells out and the other leaves out is no difference
    from tunediff.pair.hf_load import full_config

    require_equal_meaning(full_config(base), full_config(tuned))


def _unpacked(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint.open(folder)
    if checkpoint.quantization is not None:
        raise UnsupportedError(
            f"{folder} is quantised ({checkpoint.quantization}); tunediff does not read such "
            "weights.",
            "Give the unquantised checkpoint.",
        )
    return checkpoint
