"""What does a run of `check` say, all in one object?

A pure function of the run folder: the same object that ``tunediff check --json`` prints, and from
which the terminal's lines are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunediff.errors import NumericsError
from tunediff.findings.check import FEWEST_TEXTS, PointFigures, check_verdict
from tunediff.findings.estimates import estimate_ratio, pool_groups
from tunediff.findings.intervals import bca_interval
from tunediff.findings.quantiles import DELTA_P_PERCENTILES, KL_PERCENTILES, percentiles
from tunediff.run.store import Run
from tunediff.values import Certificate, Estimate, Row, Side, Verdict

SCHEMA_VERSION = 1

_DIVERGENCES = (
    "kl_base_tuned",
    "kl_tuned_base",
    "js",
    "logit_mse",
    "logit_mse_centred",
    "logit_l2",
    "logit_l2_last",
    "top1_agreement",
)


def summarize(
    run: Run, *, mse_threshold: float | None = None, ppl_threshold: float | None = None
) -> dict[str, Any]:
    """The object of ``check --json``: verdict, figures, certificate and settings of a run.

    Args:
        run: a finished run.
        mse_threshold: of the point rule (fewer than 6 texts); None: the floor.
        ppl_threshold: likewise.

    Raises:
        NumericsError: where every item failed.

    """
    found, identity = run.record["found"], run.record["identity"]
    seed = identity["seed"]
    rows = _by_measure(run.rows())
    failed = _failed(rows)
    texts = found["items"] - len(failed)
    if texts == 0:
        raise NumericsError(
            f"None of the {found['items']} texts could be scored: {failed[0]['reason']}",
            "Check the weights of both models, and try --dtype float32.",
        )
    floors: Mapping[str, float] = found["noise_floor"]
    metrics, delta = _metrics(rows, floors, seed)
    _add_percentiles(metrics, run)
    point_figures = seed_figures(run, rows)
    mse = None if point_figures is None else point_figures["logit_mse"]
    verdict = _decide(found, metrics, delta, texts, mse, mse_threshold, ppl_threshold)
    if failed and verdict.code != "identical":
        verdict = _incomplete(verdict, failed, found["items"])
    tokens = sum(r.count for r in rows["nll"]) if "nll" in rows else found["scored"]
    decided = verdict.estimates.get("delta_nll")
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.code,
        "reason": verdict.reason,
        "more_texts": list(decided.more_groups) if decided and decided.more_groups else None,
        "texts": texts,
        "failed": failed,
        "truncated": found["truncated"],
        "tokens": tokens,
        "base": _side(found["paths"]["base"], identity["base"], metrics, "base"),
        "tuned": _side(found["paths"]["tuned"], identity["tuned"], metrics, "tuned"),
        "metrics": metrics,
        "seed": point_figures,
        "candidates": candidates(run),
        "weights": found["weights"],
        "certificate": found["certificate"],
        "settings": {
            **identity["settings"],
            **found["settings"],
            "tokens_per_second": _speed(run),
            "max_length": identity["max_length"],
            "allow_truncation": identity["allow_truncation"],
            "seed": seed,
            "mse_threshold": mse_threshold,
            "ppl_threshold": ppl_threshold,
        },
    }


def verdict(
    run: Run, *, mse_threshold: float | None = None, ppl_threshold: float | None = None
) -> Verdict:
    """The verdict of a run alone; printed, it is its code and a sentence."""
    found = summarize(run, mse_threshold=mse_threshold, ppl_threshold=ppl_threshold)
    return Verdict(found["verdict"], found["reason"])


def without_texts(
    base: Side,
    tuned: Side,
    certificate: Certificate,
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """The same object where no text was given: the weights alone speak."""
    verdict = check_verdict(
        weights_equal=certificate.weights_equal,
        scored=False,
        delta_nll=None,
        kl=None,
        mse_centred=None,
        kl_floor=None,
        mse_centred_floor=None,
        texts=0,
        point=None,
        mse_threshold=None,
        ppl_threshold=None,
    )
    sides = {
        name: _side(side.path, {"fingerprint": side.fingerprint}, {}, name)
        for name, side in (("base", base), ("tuned", tuned))
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict.code,
        "reason": verdict.reason,
        "more_texts": None,
        "texts": 0,
        "failed": [],
        "truncated": {"items": 0, "tokens": 0},
        "tokens": 0,
        **sides,
        "metrics": {},
        "seed": None,
        "candidates": None,
        "weights": weights,
        "certificate": certificate.as_dict(),
        "settings": {"backend": "files", "kernel": None, "fast_kernel": False},
    }


def _by_measure(rows: Sequence[Row]) -> dict[str, list[Row]]:
    table: dict[str, list[Row]] = {}
    for row in rows:
        table.setdefault(row.measure, []).append(row)
    return table


def _failed(rows: Mapping[str, Sequence[Row]]) -> list[dict[str, str | None]]:
    """Items without any figure, each with its reason."""
    reasons: dict[str, str | None] = {}
    scored: set[str] = set()
    for row in (r for table in rows.values() for r in table):
        if row.effect_sum is None:
            reasons.setdefault(row.item, row.reason)
        else:
            scored.add(row.item)
    return [{"item": i, "reason": r} for i, r in sorted(reasons.items()) if i not in scored]


def _incomplete(verdict: Verdict, failed: Sequence[Mapping[str, Any]], items: int) -> Verdict:
    """No verdict over the survivors: whatever made a text fail may be what tuning changed."""
    return Verdict(
        "unclear",
        f"{len(failed)} of {items} texts could not be scored (first: '{failed[0]['item']}', "
        f"{failed[0]['reason']}); of the others alone: {verdict.reason}",
        verdict.estimates,
    )


def _metrics(
    rows: Mapping[str, Sequence[Row]], floors: Mapping[str, float], seed: int
) -> tuple[dict[str, Any], Estimate | None]:
    """Every figure of the token table with its interval and floor, and ΔNLL's estimate."""
    metrics: dict[str, Any] = {}
    delta = None

    def put(name: str, estimate: Estimate, transform: Any = None) -> None:
        ends = (estimate.effect, estimate.low, estimate.high)
        if transform is not None:
            ends = tuple(None if e is None else transform(e) for e in ends)
        metrics[name] = {
            "value": ends[0],
            "low": ends[1],
            "high": ends[2],
            "noise_floor": floors.get(name),
            "pooling": "token-pooled" if name != "logit_l2_last" else "item mean",
        }

    for measure in ("nll", "bits_per_byte"):
        for side in ("base", "tuned"):
            estimate = _estimate(rows, measure, f"{side}_sum", seed)
            if estimate is not None:
                put(f"{measure}_{side}", estimate)
                if measure == "nll":
                    put(f"ppl_{side}", estimate, _exp)
    delta = _estimate(rows, "nll", "effect_sum", seed, signed=True)
    if delta is not None:
        put("delta_nll", delta)
        metrics["delta_nll"]["p"] = delta.p
        put("ppl_ratio", delta, _exp)
    for name in _DIVERGENCES:
        estimate = _estimate(rows, name, "effect_sum", seed)
        if estimate is not None:
            put(name, estimate)
    estimate = _estimate(rows, "delta_p", "effect_sum", seed, signed=True)
    if estimate is not None:
        put("delta_p", estimate)
        metrics["delta_p"] |= _root_mean_square(rows["delta_p_rms"], seed)
    return metrics, delta


def _root_mean_square(rows: Sequence[Row], seed: int) -> dict[str, float | None]:
    """√(Σ squares / Σ counts) with its BCa interval over groups."""
    kept = [r for r in rows if r.effect_sum is not None]
    _, s, n = pool_groups(
        [r.group for r in kept], [r.effect_sum or 0.0 for r in kept], [r.count for r in kept]
    )
    interval = bca_interval(lambda w: np.sqrt(w @ s / (w @ n)), len(s), seed=seed)
    return {
        "rms": math.sqrt(s.sum() / n.sum()),
        "rms_low": interval.low,
        "rms_high": interval.high,
    }


def _exp(x: float) -> float | None:
    """e^x; None where that is beyond a float64 (a NLL of 709 nats/token, of broken weights)."""
    return math.exp(x) if x < 709 else None


def _estimate(
    rows: Mapping[str, Sequence[Row]], measure: str, column: str, seed: int, signed: bool = False
) -> Estimate | None:
    kept = [r for r in rows.get(measure, ()) if r.effect_sum is not None]
    if not kept:
        return None
    return estimate_ratio(
        [r.group for r in kept],
        [getattr(r, column) for r in kept],
        [r.count for r in kept],
        signed=signed,
        seed=seed,
    )


def _add_percentiles(metrics: dict[str, Any], run: Run) -> None:
    tokens = run.tokens()
    for name, which in (("kl_base_tuned", KL_PERCENTILES), ("delta_p", DELTA_P_PERCENTILES)):
        if name in metrics:
            metrics[name]["percentiles"] = percentiles(tokens[name].astype(np.float64), which)


def seed_figures(run: Run, rows: Mapping[str, Sequence[Row]]) -> dict[str, float | None] | None:
    """The three figures of the seed's script, for one plain prompt; None for anything else.

    Its "Logit MSE Difference" averages over all T positions of the prompt, the last included,
    whose next token nobody knows; so the scored positions and the probe are pooled.
    """
    nll, mse = rows.get("nll", ()), rows.get("logit_mse", ())
    if len(nll) != 1 or len(mse) != 1 or nll[0].effect_sum is None:
        return None
    (nll,), (mse,), (probe,) = nll, mse, run.probes()
    positions = run.tokens()["position"]
    if not np.array_equal(positions, np.arange(probe["probe_position"])):
        return None  # a prompt with a reply: not every position but the last is scored
    assert nll.base_sum is not None
    assert nll.tuned_sum is not None
    assert mse.effect_sum is not None
    total = mse.effect_sum + probe["probe_logit_mse"]
    return {
        "ppl_base": _exp(nll.base_sum / nll.count),
        "ppl_tuned": _exp(nll.tuned_sum / nll.count),
        "logit_mse": total / (mse.count + 1),
    }


def _speed(run: Run) -> dict[str, float] | None:
    """Tokens per second of base and of tuned, each alone, as this run last measured them."""
    notes = [note["speed"] for note in run.timing() if "speed" in note]
    return notes[-1] if notes else None


def candidates(run: Run) -> dict[str, Any] | None:
    """The likeliest next tokens of both sides, for the item whose probes differ most.

    At the end of a text or prompt; of several items the one with the largest ‖z_t − z_b‖₂ there.
    None where the pair shows no candidates.
    """
    probes = [p for p in run.probes() if p["reason"] is None and p["probe_top_base"]]
    if not probes:
        return None
    probe = max(probes, key=lambda p: (p["probe_logit_l2"], p["item"]))
    return {
        "item": probe["item"],
        **{
            side: [
                {"id": token, "p": p, "text": text} for token, p, text in probe[f"probe_top_{side}"]
            ]
            for side in ("base", "tuned")
        },
    }


def _decide(
    found: Mapping[str, Any],
    metrics: Mapping[str, Any],
    delta: Estimate | None,
    texts: int,
    mse: float | None,
    mse_threshold: float | None,
    ppl_threshold: float | None,
) -> Verdict:
    equal = found["certificate"]["weights_equal"]
    if equal:
        return check_verdict(
            weights_equal=True,
            scored=True,
            delta_nll=delta,
            kl=None,
            mse_centred=None,
            kl_floor=None,
            mse_centred_floor=None,
            texts=texts,
            point=None,
            mse_threshold=mse_threshold,
            ppl_threshold=ppl_threshold,
        )
    if delta is None:
        base, tuned = (metrics[f"bits_per_byte_{side}"]["value"] for side in ("base", "tuned"))
        return Verdict(
            "weights_differ",
            f"Bits per byte alone was compared: base {base:.4f}, tuned {tuned:.4f}.",
        )

    def figure(name: str, key: str = "value") -> float:
        found = metrics[name][key]
        if found is None:
            nll = {side: metrics[f"nll_{side}"]["value"] for side in ("base", "tuned")}
            raise NumericsError(
                f"{name} is beyond a float64: the NLL is {nll['base']:.4g} nats/token of base and "
                f"{nll['tuned']:.4g} of tuned.",
                "Check the weights of both models.",
            )
        return found

    def point() -> PointFigures:
        return PointFigures(
            ppl_base=figure("ppl_base"),
            ppl_tuned=figure("ppl_tuned"),
            logit_mse=figure("logit_mse") if mse is None else mse,
            ppl_floor=figure("ppl_tuned", "noise_floor"),
            logit_mse_floor=figure("logit_mse", "noise_floor"),
        )

    return check_verdict(
        weights_equal=False,
        scored=True,
        delta_nll=delta,
        kl=figure("kl_base_tuned"),
        mse_centred=figure("logit_mse_centred"),
        kl_floor=figure("kl_base_tuned", "noise_floor"),
        mse_centred_floor=figure("logit_mse_centred", "noise_floor"),
        texts=texts,
        point=point() if texts < FEWEST_TEXTS else None,
        mse_threshold=mse_threshold,
        ppl_threshold=ppl_threshold,
    )


def _side(
    path: str, identity: Mapping[str, Any], metrics: Mapping[str, Any], side: str
) -> dict[str, Any]:
    def value(name: str) -> float | None:
        return metrics.get(f"{name}_{side}", {}).get("value")

    return {
        "path": path,
        "fingerprint": identity["fingerprint"],
        "nll": value("nll"),
        "ppl": value("ppl"),
        "bits_per_byte": value("bits_per_byte"),
    }
