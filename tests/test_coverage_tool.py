"""Does the simulation behind docs/statistics.md find what holds, and the fault that does not?"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tunediff.findings.intervals import ratio_interval


@pytest.fixture
def coverage_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/coverage.py as a module."""
    path = Path(__file__).resolve().parent.parent / "tools" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coverage_tool", module)
    spec.loader.exec_module(module)
    return module


def test_coverage_tool_simulates_the_same_table_twice(
    coverage_tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    coverage_tool.main(["--quick"])
    first = capsys.readouterr().out
    coverage_tool.main(["--quick"])
    assert first == capsys.readouterr().out
    assert "20 simulations a cell, seed 20261" in first
    assert "| token-weighted ratio |" in first


def test_coverage_tool_changes_only_what_lies_between_the_markers(
    coverage_tool: ModuleType,
) -> None:
    page = f"before {coverage_tool.START} old {coverage_tool.END} after"
    new = coverage_tool.rewritten(page, "new")
    assert new == f"before {coverage_tool.START}\nnew\n{coverage_tool.END} after"


def test_coverage_of_normal_effects_is_what_it_claims(coverage_tool: ModuleType) -> None:
    found = coverage_tool.shares(coverage_tool.worlds()[0], 12, 0.0, 600, seed=1)
    assert found["no interval"] == 0
    assert found["covered"] == pytest.approx(0.95, abs=0.03)
    assert found["tuned"] == pytest.approx(0.025, abs=0.02)


def test_tokens_taken_as_items_would_cover_half_of_what_they_claim() -> None:
    rng = np.random.default_rng(0)
    texts, tokens, shared = 12, 20, 0.43  # the spread is √(1 + 19 · 0.43) = 3.0 times too small
    covered = {"texts": 0, "tokens": 0}
    for simulation in range(400):
        noise = rng.standard_normal((texts, tokens)) * math.sqrt(1 - shared)
        values = noise + rng.standard_normal((texts, 1)) * math.sqrt(shared)
        for name, sums, n in (("texts", values.sum(axis=1), tokens), ("tokens", values.ravel(), 1)):
            found = ratio_interval(sums, np.full(sums.size, n), seed=simulation, resamples=399)
            assert found.low is not None
            assert found.high is not None
            covered[name] += found.low <= 0 <= found.high
    assert covered["texts"] / 400 > 0.92
    assert 0.40 < covered["tokens"] / 400 < 0.56
