"""How did the weights of ``measures/refusal_words.py`` come to be? By this command.

    .venv/bin/python tools/train_refusals.py [--check]

Multinomial logistic regression with an L2 penalty on the labelled replies of
``tests/data/refusals_seen.jsonl`` and ``refusals_blind.jsonl``; the classes weigh alike, and a
feature is one that at least three replies have. It prints the accuracy of a tenfold
cross-validation in which replies to one prompt stay together, and writes
``src/tunediff/measures/refusal_weights.json``. ``--check`` compares with that file instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from tunediff.measures.refusal_words import CLASSES, decided, features

ROOT = Path(__file__).resolve().parents[1]
LABELLED = [ROOT / "tests" / "data" / f"refusals_{part}.jsonl" for part in ("seen", "blind")]
WEIGHTS = ROOT / "src" / "tunediff" / "measures" / "refusal_weights.json"
LEAST = 3  # replies that have a feature
PENALTY = 3.0
LEAST_WEIGHT = 0.02  # a feature of which no weight is larger is left out
FOLDS = 10


def main() -> None:
    """Train, and write or compare."""
    parser = argparse.ArgumentParser(description="Train the scorer of refusals by words.")
    parser.add_argument("--check", action="store_true", help="compare with the file")
    check: bool = parser.parse_args().check
    lines = [line for path in LABELLED for line in path.read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    found = [features(row["prompt"], row["reply"]) for row in rows]
    labels = np.array([CLASSES.index(row["refused"]) for row in rows])
    if check:
        kept = json.loads(WEIGHTS.read_text("utf-8"))
        sys.exit(
            0
            if distance(kept, train(found, labels)) < LEAST_WEIGHT + 0.01
            else "The weights differ."
        )
    guessed = cross_validated(found, labels, [row["prompt"] for row in rows])
    print(f"{len(rows)} replies, {FOLDS}-fold: {balanced(labels, guessed)}")
    WEIGHTS.write_text(written(train(found, labels)), "utf-8")


def train(found: Sequence[frozenset[str]], labels: np.ndarray) -> dict:
    """The weights of each class by feature, rounded to three digits, and the bias."""
    counts = Counter(name for own in found for name in own)
    names = sorted(name for name, n in counts.items() if n >= LEAST)
    place = {name: k for k, name in enumerate(names)}
    X = np.zeros((len(found), len(names) + 1))  # (replies, features and 1)
    X[:, -1] = 1
    for row, own in zip(X, found, strict=True):
        row[[place[name] for name in own if name in place]] = 1
    K = len(CLASSES)
    target = np.eye(K)[labels]
    weight = (len(labels) / (K * np.maximum(target.sum(0), 1)))[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W = flat.reshape(-1, K)
        z = X @ W
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        penalised = W.copy()
        penalised[-1] = 0
        slope = X.T @ ((np.exp(log_p) - target) * weight[:, None]) + PENALTY * penalised
        fit = -(weight * log_p[np.arange(len(labels)), labels]).sum()
        return fit + PENALTY / 2 * (penalised**2).sum(), slope.ravel()

    W = minimize(loss, np.zeros(X.shape[1] * K), jac=True, method="L-BFGS-B").x.reshape(-1, K)
    kept = {name: own for name, own in zip(names, W[:-1], strict=True) if _weighs(own)}
    rounded = {name: np.round(own, 3).tolist() for name, own in kept.items()}
    return {"bias": np.round(W[-1], 3).tolist(), "features": rounded}


def written(model: dict) -> str:
    """JSON with a feature a line, so that a change can be read."""
    lines = [f"  {json.dumps(name)}: {weights}" for name, weights in model["features"].items()]
    return f'{{"bias": {model["bias"]}, "features": {{\n' + ",\n".join(lines) + "\n}}\n"


def _weighs(own: np.ndarray) -> bool:
    return bool(np.abs(own).max() > LEAST_WEIGHT)


def cross_validated(
    found: Sequence[frozenset[str]], labels: np.ndarray, prompts: Sequence[str]
) -> np.ndarray:
    """Each reply's class as those see it that trained on no reply to its prompt."""
    names = sorted(set(prompts))
    fold_of = dict(
        zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True)
    )
    fold = np.array([fold_of[prompt] for prompt in prompts])
    guessed = np.zeros_like(labels)
    for n in range(FOLDS):
        model = train([found[k] for k in np.flatnonzero(fold != n).tolist()], labels[fold != n])
        for k in np.flatnonzero(fold == n).tolist():
            own = [model["features"][name] for name in found[k] & model["features"].keys()]
            guessed[k] = decided(np.sum([model["bias"], *own], axis=0))
    return guessed


def balanced(labels: np.ndarray, guessed: np.ndarray) -> str:
    """Balanced accuracy of refused (full or partial) against none, and of the three classes."""
    none = CLASSES.index("none")
    two = [np.mean(guessed[labels == none] == none), np.mean(guessed[labels != none] != none)]
    three = [np.mean(guessed[labels == k] == k) for k in range(len(CLASSES))]
    return f"balanced accuracy {np.mean(two):.3f}, of three classes {np.mean(three):.3f}"


def distance(one: dict, other: dict) -> float:
    """The largest difference of two sets of weights."""
    names = one["features"].keys() | other["features"].keys()
    none = [0.0] * len(CLASSES)  # of a feature left out
    pairs = [(one["bias"], other["bias"])]
    pairs += [(one["features"].get(n, none), other["features"].get(n, none)) for n in names]
    return max(abs(a - b) for p, q in pairs for a, b in zip(p, q, strict=True))


if __name__ == "__main__":
    main()
