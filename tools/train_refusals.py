"""How did the weights of ``measures/refusal_words.py`` come to be? By this command.

    .venv/bin/python tools/train_refusals.py [--check | --cross-validate]

Three logistic regressions with an L2 penalty on the labelled replies of ``tests/data``, but for
the blind ones: does the first sentence turn the request down, does the reply refuse, does it refuse
all. Either answer weighs alike, and a feature is one that at least three replies have. The second
and third are told what the first says of a reply; so that they do not trust it too much, each
reply is judged there by a model that has learnt nothing of its writer.

The command writes ``src/tunediff/measures/refusal_weights.npz``. ``--check`` compares with that
file instead; ``--cross-validate`` prints how replies of writers are judged by models that learnt
from other writers, which takes eight times as long.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from tunediff.measures import refusal_words as words

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data"
LABELLED = (DATA / "refusals_seen.jsonl", DATA / "refusals_blind.jsonl",
            *sorted((DATA / "refusals_written").glob("*.jsonl")))  # fmt: skip
WEIGHTS = ROOT / "src" / "tunediff" / "measures" / "refusal_weights.npz"
LEAST = 3  # replies that have a feature
PENALTY = 1 / 30
MOST = 100_000  # features that are kept, those of the largest weights
ROUND = 127  # steps on either side of zero
PARTS, FOLDS = 4, 8  # of the writers: for the first model's say, and for cross-validation
NEAR = 0.5  # of log-odds: what rounding may make of another order of summing
_YIELDED = ("refusal then compliance", "refusal followed by compliance")  # turned down, then given


@dataclass(frozen=True)
class Labelled:
    """Replies, their labels, and who wrote them (in the older files: to which prompt)."""

    rows: list[dict[str, str]]
    writers: list[str]

    @classmethod
    def read(cls) -> Labelled:
        """All that may be learnt from."""
        rows, writers = [], []
        for path in LABELLED:
            for line in path.read_text("utf-8").splitlines():
                rows.append(json.loads(line))
                old = path.parent == DATA
                writers.append(rows[-1]["prompt"] if old else path.stem)
        return cls(rows, writers)

    def parts(self, number: int) -> np.ndarray:
        """Which of so many parts each reply is in; those of one writer stay together."""
        names = sorted(set(self.writers))
        shuffled = np.random.default_rng(0).permutation(len(names)) % number
        part = dict(zip(names, shuffled, strict=True))
        return np.array([part[writer] for writer in self.writers])


@dataclass(frozen=True)
class Matrices:
    """The features of all replies as sparse matrices (replies, places), and the three answers."""

    opening: sparse.csr_matrix
    whole: sparse.csr_matrix
    after_no: sparse.csr_matrix
    after: sparse.csr_matrix
    answers: dict[str, np.ndarray]

    @classmethod
    def of(cls, labelled: Labelled) -> Matrices:
        """Every reply's features."""
        texts = (words.plain_texts(row["prompt"], row["reply"]) for row in labelled.rows)
        found = [words.features(asked, said) for asked, said in texts]
        label = np.array([row["refused"] for row in labelled.rows])
        yielded = np.array([row["kind"] in _YIELDED for row in labelled.rows])
        return cls(
            _matrix([f.opening for f in found]),
            _matrix([f.whole for f in found]),
            _matrix([f.after_no for f in found]),
            _matrix([f.after for f in found]),
            {
                "turned_down": (label != "none") | yielded,
                "refused": label != "none",
                "wholly": label == "full",
            },
        )  # fmt: skip

    def joined(self, opening: np.ndarray) -> sparse.csr_matrix:
        """As ``Features.joined``, of all replies at once."""
        parts = (_vectors(self.whole), _vectors(self.after_no), _vectors(self.after))
        return _matrix(
            [
                words.Features({}, whole, after_no, after).joined(own)
                for whole, after_no, after, own in zip(*parts, opening.tolist(), strict=True)
            ]
        )


def main() -> None:
    """Train, and write, compare, or cross-validate."""
    parser = argparse.ArgumentParser(description="Train the scorer of refusals by words.")
    parser.add_argument("--check", action="store_true", help="compare with the file")
    parser.add_argument("--cross-validate", action="store_true", help="judge each writer by others")
    asked = parser.parse_args()
    labelled = Labelled.read()
    X = Matrices.of(labelled)
    every = np.ones(len(labelled.rows), dtype=bool)
    if asked.cross_validate:
        cross_validate(labelled, X)
        return
    made = written(train(labelled, X, every))
    if not asked.check:
        WEIGHTS.write_bytes(made)
        print(f"{len(labelled.rows)} replies; {len(made):,} bytes")
        return
    again, kept = words.read(io.BytesIO(made)), words.load()
    far = max(_apart(X, again, kept))
    print(f"The log-odds of {len(labelled.rows)} replies differ by {far:.3f} at most.")
    sys.exit(0 if far < NEAR else "The weights differ.")


def train(labelled: Labelled, X: Matrices, chosen: np.ndarray) -> dict[str, words.Model]:
    """The three models, learnt from the chosen replies."""
    parts, down = labelled.parts(PARTS), X.answers["turned_down"]
    opening = np.zeros(len(chosen))
    for part in range(PARTS):
        others, own = chosen & (parts != part), chosen & (parts == part)
        opening[own] = _log_odds(X.opening[own], _fit(X.opening[others], down[others]))
    joined = X.joined(opening)
    refused = X.answers["refused"]
    told = chosen & refused
    return {
        "turned_down": _fit(X.opening[chosen], down[chosen]),
        "refused": _fit(joined[chosen], refused[chosen]),
        "wholly": _fit(joined[told], X.answers["wholly"][told]),
    }


def cross_validate(labelled: Labelled, X: Matrices) -> None:
    """Print the balanced accuracy over replies whose writers were not learnt from."""
    fold = labelled.parts(FOLDS)
    refused, wholly = np.zeros(len(fold)), np.zeros(len(fold))
    for k in range(FOLDS):
        models, own = train(labelled, X, fold != k), fold == k
        joined = X.joined(_log_odds(X.opening, models["turned_down"]))[own]
        refused[own] = _log_odds(joined, models["refused"])
        wholly[own] = _log_odds(joined, models["wholly"])
    said = np.where(refused <= 0, "none", np.where(wholly > 0, "full", "partial"))
    label = np.array([row["refused"] for row in labelled.rows])
    is_, was = said != "none", label != "none"
    two = (np.mean(is_[was]) + np.mean(~is_[~was])) / 2
    three = np.mean([np.mean(said[label == k] == k) for k in ("full", "partial", "none")])
    print(f"{len(label)} replies: balanced accuracy {two:.3f}, of three classes {three:.3f}")
    for kind in sorted({row["kind"] for row in labelled.rows}):
        own = np.array([row["kind"] == kind for row in labelled.rows])
        print(f"{kind:32}{np.sum(is_[own] == was[own]):6} of {own.sum()}")


def written(models: dict[str, words.Model]) -> bytes:
    """The file: of every model the places and rounded weights of its largest features."""
    arrays: dict[str, np.ndarray] = {}
    for name, model in models.items():
        step = np.abs(model.weights).max() / ROUND
        steps = np.round(model.weights / step).astype(np.int8)
        largest = np.argsort(-np.abs(model.weights), kind="stable")[:MOST]
        kept = np.sort(largest[steps[largest] != 0])
        arrays[f"{name}_places"] = np.diff(model.places[kept], prepend=0).astype(np.uint32)
        arrays[f"{name}_weights"] = steps[kept]
        arrays[f"{name}_step"], arrays[f"{name}_bias"] = np.array(step), np.array(model.bias)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _fit(X: sparse.csr_matrix, yes: np.ndarray) -> words.Model:
    """Logistic regression; the weights of features that too few replies have are 0."""
    kept = np.flatnonzero(np.bincount(X.indices, minlength=1 << words.BITS) >= LEAST)
    A = sparse.csr_matrix(X[:, kept])
    At, sign = A.T.tocsr(), np.where(yes, 1.0, -1.0)
    weight = np.where(yes, len(yes) / (2 * yes.sum()), len(yes) / (2 * (~yes).sum()))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, bias = flat[:-1], flat[-1]
        margin = sign * (A @ w + bias)
        slope = -weight * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        fit = (weight * np.logaddexp(0, -margin)).sum() + PENALTY / 2 * (w @ w)
        return fit, np.append(At @ slope + PENALTY * w, slope.sum())

    found = minimize(loss, np.zeros(len(kept) + 1), jac=True, method="L-BFGS-B",
                     options={"maxiter": 500, "maxfun": 1000, "ftol": 1e-11}).x  # fmt: skip
    return words.Model(kept, found[:-1], float(found[-1]))


def _log_odds(X: sparse.csr_matrix, model: words.Model) -> np.ndarray:
    weights = np.zeros(1 << words.BITS)
    weights[model.places] = model.weights
    return X @ weights + model.bias


def _apart(X: Matrices, one: words.Models, other: words.Models) -> Iterator[float]:
    """How far two trainings lie apart in what they say of the replies, at most."""
    joined = X.joined(_log_odds(X.opening, one.turned_down))
    for name, over in (("turned_down", X.opening), ("refused", joined), ("wholly", joined)):
        said = (_log_odds(over, getattr(models, name)) for models in (one, other))
        yield float(np.abs(np.subtract(*said)).max())


def _matrix(found: Sequence[words.Vector]) -> sparse.csr_matrix:
    starts = np.cumsum([0, *map(len, found)])
    places = np.fromiter((k for own in found for k in own), np.int64, starts[-1])
    sizes = np.fromiter((x for own in found for x in own.values()), np.float64, starts[-1])
    return sparse.csr_matrix((sizes, places, starts), shape=(len(found), 1 << words.BITS))


def _vectors(X: sparse.csr_matrix) -> Iterator[words.Vector]:
    for start, end in zip(X.indptr, X.indptr[1:], strict=False):
        yield dict(zip(X.indices[start:end].tolist(), X.data[start:end].tolist(), strict=True))


if __name__ == "__main__":
    main()
