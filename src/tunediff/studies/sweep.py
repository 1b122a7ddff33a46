"""What do rank, learning rate, length, data and seed of a training change?

Each cell is trained as ``tunediff train`` trains it, and all are compared as ``tunediff compare``
compares them. What is there is not made again, so a sweep that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunediff.errors import NumericsError
from tunediff.pair.adapter import read_adapter
from tunediff.run.store import Run
from tunediff.studies.compare import measure_compare
from tunediff.studies.sweep_plan import CELLS, COMPARE, Plan, rows_file
from tunediff.values import Generation
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.geometry import lora_geometry

_LAST = 30  # steps whose mean loss stands for the end, as on the model card


def train_cells(
    plan: Plan,
    out: Path,
    *,
    dtype: str = "auto",
    on_step: Callable[[int, int, float, float], None] = lambda *_: None,
    notice: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Train every cell that is not trained yet.

    Args:
        plan: of :func:`plan_sweep`, begun in ``out``.
        out: the sweep's folder.
        dtype: as ``train`` takes it.
        on_step: called with the steps done of all cells, their number, a loss, and tokens a second.
        notice: called with a sentence on what a person should know; each is said once.
        options: the other ones of ``train``, such as ``checkpoint_every``.

    Returns:
        The ``training.json`` of each cell by name; and the reason, by name, of each whose loss
        or gradient was not finite.

    """
    from tunediff.training.checkpoints import RESULT
    from tunediff.training.train import train

    whole = sum(cell.recipe.steps for cell in plan.cells)
    before, said = 0, set()
    reports: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    def say_once(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            notice(sentence)

    for number, cell in enumerate(plan.cells, 1):
        folder = out / CELLS / cell.name
        ended = (folder / RESULT).exists()
        if not ended:
            notice(f"Cell {number} of {len(plan.cells)}: {cell.name}")
        done = before
        try:
            reports[cell.name] = dict(
                train(
                    plan.base,
                    rows_file(plan, out, cell),
                    folder,
                    recipe=cell.recipe,
                    dtype=dtype,
                    on_step=lambda s, done=done: on_step(
                        done + s.number, whole, s.loss, s.tokens / s.seconds
                    ),
                    notice=(lambda _: None) if ended else say_once,
                    **plan.opening,
                    **options,
                ).report
            )
        except NumericsError as error:  # a rate too high is a finding of a sweep, not its end
            failed[cell.name] = error.message
            notice(f"{cell.name} is left out: {error.message}")
        before += cell.recipe.steps
    if not reports:
        raise NumericsError(
            f"No cell could be trained; the first one, {plan.cells[0].name}: "
            f"{failed[plan.cells[0].name]}",
            "Lower the learning rate, and look at the rows.",
        )
    return reports, failed


def compare_cells(
    plan: Plan,
    out: Path,
    names: Sequence[str],
    *,
    generation: Generation | None,
    dtype: str = "float32",
    **options: Any,
) -> list[Run]:
    """Compare base with these cells, reading base once; see ``measure_compare``."""
    template = plan.cells[0].recipe.template
    return measure_compare(
        plan.base,
        [str(out / CELLS / name) for name in names],
        plan.suites,
        out / COMPARE,
        template=template,
        generation=generation,
        seed=plan.seed,
        opening={"backend": "hf", "dtype": dtype, **plan.opening},
        **options,
    )


def facts_of(
    plan: Plan,
    out: Path,
    reports: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> list[dict[str, Any]]:
    """What a cell is and cost, as flat records in the order of the cells.

    ``effective_rank`` and ``energy_rank``: means over the adapted modules, of which
    ``unused_rank`` is the rank less the mean energy rank, in directions.
    """
    from tunediff.training.cost import Shapes, training_flops

    linear = Shapes(plan.base_folder).linear
    found = []
    for cell in plan.cells:
        r = cell.recipe
        fact: dict[str, Any] = {
            "name": cell.name, "setting": cell.setting, "rank": r.rank, "alpha": r.alpha,
            "learning_rate": r.learning_rate, "steps": r.steps, "seed": r.seed,
            "rows": len(plan.rows(cell)), "failed": failed.get(cell.name),
        }  # fmt: skip
        if cell.name in reports:
            fact |= _trained(reports[cell.name], linear)
            fact |= _geometry(plan.base_folder, out / CELLS / cell.name, r.rank)
            weights = out / CELLS / cell.name / "adapter_model.safetensors"
            fact["adapter_bytes"] = weights.stat().st_size
            fact["training_flops"] = training_flops(
                linear, fact["adapter_parameters"], fact["training_tokens"]
            )
        found.append(fact)
    return found


def _trained(report: Mapping[str, Any], linear: int) -> dict[str, Any]:
    losses, held_out = report["losses"], report["held_out"]
    last = losses[-_LAST:]
    kept = [x["loss"] for x in held_out if x["step"] == report["adapter_step"]]
    return {
        "adapter_parameters": report["parameters"]["adapter"],
        "training_tokens": report["tokens"],
        "training_seconds": report["training_seconds"],
        "steps_done": report["steps"],
        "first_loss": losses[0],
        "last_loss": sum(last) / len(last),
        "held_out_loss": kept[0] if kept else None,
    }


def _geometry(base: Path, adapter: Path, rank: int) -> dict[str, float | None]:
    modules = read_adapter(adapter, Checkpoint.open(base)).modules
    parts = [part for part in lora_geometry(modules).modules if part.energy_rank]
    if not parts:  # ΔW is exactly zero
        return dict.fromkeys(("effective_rank", "energy_rank", "unused_rank"))
    energy = sum(part.energy_rank or 0 for part in parts) / len(parts)
    return {
        "effective_rank": sum(part.effective_rank or 0.0 for part in parts) / len(parts),
        "energy_rank": energy,
        "unused_rank": rank - energy,
    }
