"""Are agreement, win rate and the calibration by people's labels what the books say they are?"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from fractions import Fraction
from math import sqrt
from typing import Any

import krippendorff
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from tunediff.findings.agreement import cohen_kappa, coincidences, krippendorff_alpha
from tunediff.findings.correlation import rank_correlation
from tunediff.findings.intervals import NO_SPREAD, TOO_FEW, TOO_SPARSE, percentile_interval
from tunediff.findings.prediction import powered_mean
from tunediff.findings.proportions import wilson_interval
from tunediff.findings.raters import _estimate, _wilson, rating_rows, summarize_ratings
from tunediff.report.ratings import draw_ratings
from tunediff.values import Row

# agreement


def counted(ratings: np.ndarray, values: int) -> np.ndarray:
    return np.stack([(ratings == v).sum(axis=0) for v in range(values)], axis=1)


@pytest.mark.parametrize("scale", ["nominal", "ordinal"])
def test_alpha_is_the_librarys(scale: Any) -> None:
    random_ = np.random.default_rng(0)
    for _ in range(100):
        raters, units, values = random_.integers([2, 4, 2], [5, 30, 6])
        ratings = random_.integers(0, values, (raters, units)).astype(float)
        ratings[random_.random((raters, units)) < 0.2] = np.nan  # not every rater rated all
        met = coincidences(counted(ratings, values)).sum(axis=0)
        wanted = krippendorff.alpha(
            reliability_data=ratings, level_of_measurement=scale, value_domain=list(range(values))
        )
        assert float(krippendorff_alpha(met, scale)) == pytest.approx(wanted, abs=1e-12)


def test_alpha_of_the_book() -> None:
    """Krippendorff, Computing Krippendorff's alpha-reliability (2011), example C: .743, .815."""
    gap = np.nan
    ratings = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]) - 1  # fmt: skip
    met = coincidences(counted(ratings, 5)).sum(axis=0)
    assert round(float(krippendorff_alpha(met, "nominal")), 3) == 0.743
    assert round(float(krippendorff_alpha(met, "ordinal")), 3) == 0.815


def test_alpha_of_nothing_to_disagree_on_is_none() -> None:
    assert np.isnan(krippendorff_alpha(coincidences(np.array([[2, 0], [2, 0]])).sum(0), "nominal"))
    assert np.isnan(krippendorff_alpha(coincidences(np.array([[1, 0], [0, 1]])).sum(0), "ordinal"))


def test_kappa_is_the_librarys() -> None:
    random_ = np.random.default_rng(1)
    for _ in range(100):
        values = int(random_.integers(2, 6))
        one, other = random_.integers(0, values, (2, 25)).tolist()
        table = np.zeros((values, values))
        np.add.at(table, (one, other), 1)
        for scale, weights in (("nominal", None), ("ordinal", "quadratic")):
            wanted = cohens_kappa(table, wt=weights, return_results=False)
            got = cohen_kappa(one, other, values, scale)  # type: ignore[arg-type]
            assert got == pytest.approx(wanted, abs=1e-12)


def test_kappa_of_nothing_to_disagree_on_is_none() -> None:
    assert cohen_kappa([1, 1], [1, 1], 3, "nominal") is None
    assert cohen_kappa([], [], 3, "nominal") is None


# correlation and its interval


def test_rank_correlation_is_scipys() -> None:
    random_ = np.random.default_rng(2)
    for _ in range(30):
        x, y = random_.integers(0, 6, (2, 25)).astype(float)
        rho, interval = rank_correlation(x, y, [str(k) for k in range(25)], seed=0)
        assert rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < rho < interval.high


def test_a_resample_is_ranked_anew() -> None:
    """Against scipy on the items that were drawn, one resample at a time."""
    random_ = np.random.default_rng(3)
    x, y = random_.normal(size=(2, 12)).round(1)
    drawn: list[float] = []

    def kept(statistic: Any, groups: int, **_: Any) -> None:
        for _ in range(50):
            chosen = random_.integers(0, groups, groups)
            weights = np.bincount(chosen, minlength=groups)[None].astype(float)
            drawn.append(float(statistic(weights)[0]))
            assert drawn[-1] == pytest.approx(
                stats.spearmanr(x[chosen], y[chosen]).statistic, abs=1e-12
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunediff.findings.correlation.percentile_interval", kept)
        rank_correlation(x, y, [f"{k:02}" for k in range(12)], seed=0)
    assert len(set(drawn)) > 40


def test_the_percentile_interval_of_a_mean_is_scipys_and_repeats() -> None:
    data = np.random.default_rng(4).normal(size=40)
    mean = lambda w: w @ data / w.sum(axis=1)  # noqa: E731
    ours = percentile_interval(mean, 40, seed=0)
    assert ours == percentile_interval(mean, 40, seed=0)
    theirs = stats.bootstrap((data,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert [ours.low, ours.high] == pytest.approx(theirs.confidence_interval, abs=0.02)


def test_what_a_resample_does_not_have_can_only_widen() -> None:
    data = np.random.default_rng(5).normal(size=30)

    def sparse(share: float) -> Any:
        def statistic(w: np.ndarray) -> np.ndarray:
            means = w @ data / w.sum(axis=1)
            means[: int(share * len(means))] = np.nan
            return means

        return percentile_interval(statistic, 30, seed=0)

    whole, some, many = sparse(0), sparse(0.01), sparse(0.05)
    assert some.low < whole.low < whole.high < some.high
    assert (many.low, many.note) == (None, TOO_SPARSE)


def test_few_groups_or_no_spread_give_no_interval() -> None:
    flat = lambda w: np.full(len(w), 0.5)  # noqa: E731
    assert percentile_interval(flat, 5, seed=0).note == TOO_FEW
    assert percentile_interval(flat, 29, seed=0).note == NO_SPREAD
    assert percentile_interval(flat, 30, seed=0).low == 0.5


# prediction-powered inference


def by_hand(y: Sequence[float], x: Sequence[float], r: Sequence[float]) -> tuple[float, float]:
    """θ and its standard error in exact fractions."""
    n, N = len(y), len(r)
    Y, X, R = ([Fraction(v) for v in part] for part in (y, x, r))
    mean = lambda v: sum(v) / len(v)  # noqa: E731
    all_x = X + R
    var = sum((v - mean(all_x)) ** 2 for v in all_x) / (n + N - 1)
    cov = sum((a - mean(Y)) * (b - mean(X)) for a, b in zip(Y, X, strict=True)) / (n - 1)
    slope = cov / ((1 + Fraction(n, N)) * var)
    theta = mean(Y) + slope * (mean(R) - mean(X))
    left = [a - slope * b for a, b in zip(Y, X, strict=True)]
    own = sum((v - mean(left)) ** 2 for v in left) / (n - 2) / n
    rest = slope**2 * sum((v - mean(R)) ** 2 for v in R) / (N - 1) / N
    return float(theta), sqrt(own + rest)


def test_the_corrected_mean_by_hand() -> None:
    random_ = np.random.default_rng(6)
    y = random_.choice([-1.0, 0.0, 1.0], 20)
    x, rest = random_.normal(size=20) + y, random_.normal(size=55)
    found = powered_mean(y, x, rest)
    assert found is not None
    theta, error = by_hand(y, x, rest)
    assert found.value == pytest.approx(theta, rel=1e-12)
    half = stats.t.ppf(0.975, 18) * error
    assert [found.low, found.high] == pytest.approx([theta - half, theta + half], rel=1e-12)


def test_unit_sign_and_shift_of_the_measure_do_not_matter() -> None:
    random_ = np.random.default_rng(7)
    z = random_.normal(size=80)
    y = z[:20] + 0.3 * random_.normal(size=20)
    plain, other = (
        powered_mean(y, f(z[:20]), f(z[20:])) for f in (lambda v: v, lambda v: 7 - 9 * v)
    )
    assert plain is not None
    assert other is not None
    assert other.value == pytest.approx(plain.value, rel=1e-10)
    assert other.narrower == pytest.approx(plain.narrower, rel=1e-10)
    assert plain.narrower > 1.3


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("n", "N"), [(10, 30), (20, 20), (20, 180)])
def test_the_corrected_interval_covers(n: int, N: int, rho: float) -> None:
    """Labels of three values, and a measure of another unit and sign that knows them by ρ."""
    random_ = np.random.default_rng([n, N, int(10 * rho)])
    normal = stats.norm(0.3)
    truth = normal.sf(0.5) + (normal.cdf(0.5) - normal.cdf(-0.5)) / 2
    trials, hits = 1500, 0
    for _ in range(trials):
        z, noise = random_.normal(size=(2, n + N))
        said = rho * z + sqrt(1 - rho**2) * noise + 0.3
        y = np.where(said > 0.5, 1, np.where(said < -0.5, 0, 0.5))
        found = powered_mean(y[:n], 3 - 7 * z[:n], 3 - 7 * z[n:])
        hits += found is not None and found.low <= truth <= found.high
    assert 0.93 < hits / trials < 0.97  # three standard errors of 95 %: ±1.7 %


def test_a_measure_that_predicts_nothing_changes_little() -> None:
    random_ = np.random.default_rng(8)
    y, x, rest = random_.normal(size=30), random_.normal(size=30), random_.normal(size=300)
    found = powered_mean(y, x, rest)
    assert found is not None
    assert 0.9 < found.narrower < 1.1
    assert found.value == pytest.approx(y.mean(), abs=0.15)


def test_nothing_to_go_by_gives_no_corrected_mean() -> None:
    v = np.arange(12.0)
    assert powered_mean(v[:9], v[:9], v) is None  # too few labels
    assert powered_mean(v, v, v[:1]) is None  # nothing unrated
    assert powered_mean(np.ones(12), v, v) is None
    assert powered_mean(v, np.ones(12), v) is None


# what a study says


def rating(rater: str, item: Any, base: int, tuned: int, **more: Any) -> dict[str, Any]:
    preference = "base" if base > tuned else "tuned" if tuned > base else "tie"
    return {
        **{"rater": rater, "suite": "s", "item": f"i{item}", "axis": "target"},
        **{"group": f"i{item}", "again": False, "a": "base", "base": base, "tuned": tuned},
        **{"preference": preference, **more},
    }


def summary(ratings: Sequence[dict[str, Any]], rows: Sequence[Row] = (), pool: Any = ()) -> Any:
    return summarize_ratings(ratings, rows, pool, variant="v", seed=0)


def made(items: int, raters: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    r = random.Random(seed)
    return [
        rating(f"r{k}", i, r.randint(1, 5), r.choice([2, 3, 4, 5, 5]),
               a=r.choice(["base", "tuned"]))
        for k in range(raters) for i in range(items)
    ]  # fmt: skip


def test_ratings_as_rows() -> None:
    said = [rating("a", 1, 2, 5), rating("b", 1, 4, 4), rating("a", 1, 1, 5, again=True)]
    preference, adherence = sorted(rating_rows(said, "v"), key=lambda r: r.measure, reverse=True)
    where = ("v", "human_preference", "s", "target", "i1", "i1", 0)
    assert preference == Row(*where, 0.5, 1.5, 1.0, 2, None)
    assert adherence == Row("v", "human_adherence", *where[2:], 6.0, 9.0, 3.0, 2, None)


def test_the_figures_of_a_study() -> None:
    said = made(20)
    found = summary(said)
    wins = [{"base": 0, "tie": 0.5, "tuned": 1}[r["preference"]] for r in said]
    assert found["items"] == 20
    assert found["ratings"] == 40
    win = found["win_rate"]
    assert win["value"] == pytest.approx(sum(wins) / 40, abs=1e-15)
    assert [win["won"], win["tied"], win["lost"]] == [wins.count(v) for v in (1, 0.5, 0)]
    assert win["low"] < win["value"] < win["high"]
    assert win["method"] == "bootstrap over items"
    preference = found["measures"]["human_preference"]
    assert preference["tuned"] == pytest.approx(win["value"])
    assert preference["base"] == pytest.approx(1 - win["value"])
    assert preference["effect"] == pytest.approx(2 * win["value"] - 1)
    adherence = found["measures"]["human_adherence"]
    for side in ("base", "tuned"):
        assert adherence[side] == pytest.approx(sum(r[side] for r in said) / 40)
    assert adherence["effect"] == pytest.approx(adherence["tuned"] - adherence["base"])
    for k, own in enumerate(found["raters"]):
        assert own["rater"] == f"r{k}"
        assert own["win_rate"] == pytest.approx(sum(wins[20 * k : 20 * k + 20]) / 20)
    side = found["side"]
    assert side["of"] == len(said) - win["tied"]
    assert side["a"] == sum(r["preference"] == r["a"] for r in said)
    assert (side["low"], side["high"]) == wilson_interval(side["a"], side["of"])


def test_items_are_resampled_and_not_ratings() -> None:
    """Twenty raters who say the same are no more than one: the interval stays."""
    one = made(20, 1)
    many = [{**r, "rater": f"r{k}"} for k in range(20) for r in one]
    a, b = (summary(s)["measures"]["human_adherence"] for s in (one, many))
    assert [b["low"], b["high"]] == pytest.approx([a["low"], a["high"]], abs=1e-9)
    assert b["groups"] == 20


def test_one_rater_without_ties_has_wilsons_interval() -> None:
    said = [rating("a", k, 1, 3) if k < 14 else rating("a", k, 3, 1) for k in range(20)]
    win = summary(said)["win_rate"]
    assert (win["low"], win["high"]) == wilson_interval(14, 20)
    assert win["method"] == "Wilson"
    always = summary([rating("a", k, 1, 3) for k in range(20)])["win_rate"]
    assert always["value"] == 1
    assert 0.8 < always["low"] < always["high"] == 1
    tied = [*said[1:], rating("a", 0, 2, 2)]
    assert summary(tied)["win_rate"]["method"] == "bootstrap over items"


def test_where_tuned_wins_nearly_always_the_interval_is_wilsons_over_items() -> None:
    """Two raters; one item tied by one of them. Twenty items are evidence, and not certainty."""
    said = [rating(r, k, 1, 5) for r in ("a", "b") for k in range(20)]
    for changed, wins in (({}, 40), ({0: rating("a", 0, 2, 2)}, 39.5)):
        found = summary([changed.get(k, line) for k, line in enumerate(said)])
        win = found["win_rate"]
        assert win["value"] == pytest.approx(wins / 40)
        assert [win["low"], win["high"]] == pytest.approx(wilson_interval(wins / 2, 20))
        assert (win["method"], win["note"]) == ("Wilson over items", None)
        preference = found["measures"]["human_preference"]
        assert preference["low"] == pytest.approx(2 * win["low"] - 1)
        assert preference["verdict"] == "better"


@pytest.mark.parametrize("lead", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("tied", [0.2, 0.8])
def test_the_win_rates_interval_covers(lead: float, tied: float) -> None:
    """Two raters of twenty items, whose common and own views are normal."""
    random_ = np.random.default_rng([int(10 * lead), int(10 * tied)])
    normal = stats.norm(lead)
    truth = normal.sf(tied) + (normal.cdf(tied) - normal.cdf(-tied)) / 2
    hits, trials = 0, 120
    for _ in range(trials):
        common, own = random_.normal(size=20), random_.normal(size=(2, 20))
        views = lead + sqrt(0.6) * common + sqrt(0.4) * own
        said = [
            rating(f"r{k}", i, *((3, 4) if v > tied else (4, 3) if v < -tied else (3, 3)))
            for k, own_views in enumerate(views) for i, v in enumerate(own_views)
        ]  # fmt: skip
        rows = [r for r in rating_rows(said, "v") if r.measure == "human_preference"]
        estimate, _ = _wilson(said, _estimate(rows, seed=0))
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 2 * truth - 1 <= estimate.high
    assert hits / trials > 0.91  # two standard errors below 95 %


def test_all_ratings_equal_is_said_in_words() -> None:
    said = [rating(r, k, 3, 3) for r in ("a", "b") for k in range(20)]
    found = summary(said)
    for name in ("preference", "adherence"):
        alpha = found["agreement"][name]
        assert alpha["alpha"] is None
        assert alpha["note"] == "all ratings are equal: agreement cannot be told from chance"
    assert found["agreement"]["kappa"][0]["preference"] is None
    assert found["win_rate"]["value"] == 0.5
    assert (found["win_rate"]["low"], found["win_rate"]["note"]) == (None, "no spread seen")
    assert found["side"]["share"] is None


def test_one_rater_agrees_with_nobody() -> None:
    found = summary(made(20, 1))["agreement"]
    assert found["preference"]["alpha"] is None
    assert found["adherence"]["note"] == "no item was rated by two raters"
    assert found["kappa"] == []


def test_few_items_have_no_interval() -> None:
    found = summary(made(5))
    assert found["win_rate"]["low"] is None
    assert found["win_rate"]["note"] == TOO_FEW
    assert found["agreement"]["adherence"]["note"] == TOO_FEW
    assert found["agreement"]["adherence"]["alpha"] is not None


def test_second_showings_count_for_consistency_alone() -> None:
    said = made(20)
    twice = [
        {**said[0], "again": True},
        {**said[25], "again": True, "base": 1, "tuned": 5, "preference": "tuned"},
    ]
    plain, more = summary(said), summary([*said, *twice])
    assert more["shown_twice"] == 2
    assert plain["consistency"] == {
        "items": 0, "same_preference": 0, "mean_score_difference": None,
    }  # fmt: skip
    apart = abs(said[25]["base"] - 1) + abs(said[25]["tuned"] - 5)
    same = 1 + (said[25]["preference"] == "tuned")
    assert more["consistency"] == {
        "items": 2, "same_preference": same, "mean_score_difference": apart / 4,
    }  # fmt: skip
    for name in ("ratings", "win_rate", "measures", "agreement", "side"):
        assert more[name] == plain[name]


def test_alpha_covers_what_many_items_have() -> None:
    """Two raters, twenty items: a little short, as docs/rate.md says."""
    random_ = np.random.default_rng(9)

    def met(n: int) -> np.ndarray:
        common, own = random_.normal(size=n), random_.normal(size=(2, n))
        said = np.digitize(sqrt(0.8) * common + sqrt(0.2) * own, [-1.2, -0.4, 0.3, 1.1])
        return coincidences(counted(said, 5))

    truth = float(krippendorff_alpha(met(200_000).sum(axis=0), "ordinal"))
    hits = 0
    for seed in range(400):
        own = met(20).reshape(20, -1)
        interval = percentile_interval(
            lambda w, own=own: krippendorff_alpha((w @ own).reshape(-1, 5, 5), "ordinal"),
            20, seed=seed, resamples=399,
        )  # fmt: skip
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= truth <= interval.high
    assert 0.90 < hits / 400 < 0.98


# automatic measures against people


def row(measure: str, item: int, effect: float | None, **more: Any) -> Row:
    given = {"sample": 0, "group": f"i{item}", "count": 2, **more}
    total = None if effect is None else effect * given["count"]
    return Row("v", measure, "s", "target", f"i{item}", given["group"], given["sample"], None, None,
               total, given["count"], None if total is not None else "no figure")  # fmt: skip


def calibrated(rows: Sequence[Row], items: int = 20, pool: int = 60) -> dict[str, Any]:
    said = made(items)
    found = summary(said, rows, {("s", f"i{k}") for k in range(pool)})["calibration"]
    return {f"{line['measure']} {line['against'].removeprefix('human_')}": line for line in found}


def preferred(said: Sequence[dict[str, Any]], item: int) -> float:
    own = [r for r in said if r["item"] == f"i{item}"]
    return float(np.mean([{"base": -1, "tie": 0, "tuned": 1}[r["preference"]] for r in own]))


def test_a_measure_is_held_against_people() -> None:
    said, noise = made(20), np.random.default_rng(10).normal(size=60)
    good = [preferred(said, k) if k < 20 else noise[k] for k in range(60)]
    rows = [row("good", k, good[k]) for k in range(60)]
    rows += [row("reversed", k, -3 * good[k]) for k in range(60)]
    rows += [row("noise", k, noise[k]) for k in range(60)]
    rows += [row("flat", k, 1.0) for k in range(60)] + [row("few", k, noise[k]) for k in range(9)]
    found = calibrated(rows)
    assert {key.split()[0] for key in found} == {"good", "reversed", "noise"}
    line = found["good preference"]
    assert line["rho"] == pytest.approx(1)
    assert found["reversed preference"]["rho"] == pytest.approx(-1)
    assert abs(found["noise preference"]["rho"]) < 0.6
    assert [line["items"], line["unrated"]] == [20, 40]
    wanted = powered_mean(np.array(good[:20]), np.array(good[:20]), np.array(good[20:]))
    assert wanted is not None
    assert line["corrected"] == pytest.approx(wanted.value)
    assert [line["corrected_low"], line["corrected_high"]] == pytest.approx(
        [wanted.low, wanted.high]
    )
    assert line["corrected_narrower"] == pytest.approx(wanted.narrower)
    assert all(line["exploratory"] for line in found.values())


def test_items_that_could_not_be_drawn_do_not_count() -> None:
    noise = np.random.default_rng(11).normal(size=80)
    rows = [row("m", k, noise[k]) for k in range(80)]
    assert calibrated(rows, pool=60)["m preference"]["unrated"] == 40


def test_of_several_samples_the_one_that_people_saw_counts() -> None:
    noise = np.random.default_rng(12).normal(size=60)
    rows = [row("m", k, noise[k]) for k in range(60)]
    others = [row("m", k, 99.0 + k % 7, sample=s) for k in range(60) for s in (1, 2)]
    assert calibrated([*others, *rows]) == calibrated(rows)


def test_rated_items_without_a_figure_leave_no_corrected_mean() -> None:
    """The rated would be another sample of items than the unrated."""
    noise = np.random.default_rng(13).normal(size=60)
    rows = [row("m", k, None if k in (3, 30) else noise[k]) for k in range(60)]
    line = calibrated(rows)["m preference"]
    assert line["items"] == 19
    assert line["rho"] is not None
    assert line["corrected"] is None
    assert line["corrected_note"] == "1 of the rated items have no figure"
    line = calibrated([row("m", k, noise[k]) for k in range(60)], pool=20)["m preference"]
    assert (line["corrected"], line["unrated"]) == (None, 0)
    assert line["corrected_note"].startswith("nearly every item was rated")


def test_items_in_groups_are_resampled_together_and_not_corrected() -> None:
    noise = np.random.default_rng(14).normal(size=60)
    rows = [row("m", k, noise[k], group=f"g{k // 4}") for k in range(60)]
    line = calibrated(rows)["m preference"]
    assert line["corrected"] is None
    assert line["corrected_note"].startswith("items come in groups")
    assert line["note"] == TOO_FEW  # twenty items, five groups


# what is drawn

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\u202e\x9b31m" + "読み書き" * 30 + "[bold]x[/bold]" + "y" * 99


@pytest.mark.parametrize("raters", [1, 2, 4])
@pytest.mark.parametrize("items", [1, 7, 20])
def test_what_is_drawn_fits_a_terminal_whatever_the_names_are(raters: int, items: int) -> None:
    said = [{**r, "rater": f"{r['rater']}{HOSTILE}"} for r in made(items, raters)]
    noise = np.random.default_rng(15).normal(size=60)
    rows = [row("a_measure_with_quite_a_long_name", k, noise[k]) for k in range(60)]
    found = summary(said, rows, {("s", f"i{k}") for k in range(60)})
    console = Console(width=80, highlight=False, emoji=False, markup=False, color_system=None,
                      file=io.StringIO())  # fmt: skip
    text = draw_ratings(console, {"variant": HOSTILE, "summary": found})
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert all(c.isprintable() or c == "\n" for c in text)
    assert f"rated  {items * raters} ratings of {items} items by {raters}, blind" in text
    assert ("a_measure" in text) == (items == 20)
