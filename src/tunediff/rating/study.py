"""What is a rating study of a run: which items, whose ratings, and what is handed on of them?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunediff.errors import RunError, UsageError
from tunediff.findings.raters import summarize_ratings
from tunediff.rating.showing import Exchange, Key, choose, exchanges, fingerprint
from tunediff.rating.store import FILE, Store, Study, unrated
from tunediff.run.ratings import SCHEMA_VERSION
from tunediff.run.store import Run

ITEMS = 20


@dataclass(frozen=True)
class OpenStudy:
    """A study at work: what raters read, and where what they say is kept.

    ``said``: the items of the study. ``pool``: all items from which they were drawn.
    """

    run: Run
    store: Store
    said: Mapping[Key, Exchange]
    pool: Collection[Key]

    def close(self) -> None:
        """Let go of the file."""
        self.store.close()


def open_study(
    run: Run,
    *,
    items: int | None = None,
    seed: int | None = None,
    suites: Sequence[str] = (),
    begin: bool = True,
) -> OpenStudy:
    """Begin a study of a run, or go on with the one that was begun.

    What it is of was settled when it began; what is given must agree with that.

    Args:
        run: of ``tunediff compare``.
        items: how many are rated; None: 20, or all where there are fewer.
        seed: of which items are drawn; None: 0.
        suites: from which they are drawn; empty: from all.
        begin: begin a study where there is none.

    Raises:
        UsageError: no replies, no such suite, or a study of other items was begun.
        RunError: the run's replies are not those that were rated; see also ``Store.open``.

    """
    made, named = fingerprint(run), tuple(sorted(set(suites)))
    new = None
    if begin:
        drawn = choose(list(exchanges(run, suites)), ITEMS if items is None else items, seed or 0)
        new = Study(made, named, seed or 0, tuple(drawn))
    store = Store.open(run.folder, new)
    try:
        kept = store.study
        if kept.run != made:
            raise RunError(
                f"{run.folder / FILE} holds ratings of other replies than the run has now.",
                "Move the file away to begin anew, or restore the run.",
            )
        pool = exchanges(run, kept.suites)
        for option, given, was in (
            ("--items", items and min(items, len(pool)), len(kept.items)),
            ("--seed", seed, kept.seed),
            ("--suite", named or None, kept.suites),
        ):
            if given is not None and given != was:
                raise UsageError(
                    f"{option} {_words(given)} came, and the study in {run.folder} was begun with "
                    f"{_words(was)}.",
                    f"Leave it out to go on; or move {FILE} away to begin anew.",
                )
        return OpenStudy(run, store, {key: pool[key] for key in kept.items}, pool.keys())
    except BaseException:
        store.close()
        raise


def export(study: OpenStudy, *, anonymous: bool = False) -> dict[str, Any]:
    """The object of ``ratings.json``: the study, every rating with its sides resolved, a summary.

    Raises:
        RunError: nothing was rated.

    """
    run, store = study.run, study.store
    ratings = store.ratings()
    if not ratings:
        raise unrated(run.folder)
    standings = store.raters()
    names = {s.rater: f"rater {k}" if anonymous else s.rater for k, s in enumerate(standings, 1)}
    items = {(i["suite"], i["id"]): i for i in run.items()}
    lines = []
    for rating in ratings:
        item = items[rating.suite, rating.item]
        more = {"axis": item["axis"], "group": item["group"] or rating.item}
        lines.append({**asdict(rating), **more, "rater": names[rating.rater]})
    identity, begun = run.record["identity"], store.study
    return {
        "schema_version": SCHEMA_VERSION,
        "variant": identity["variant"],
        "study": {
            "items": len(begun.items),
            "pool": len(study.pool),
            "suites": list(begun.suites),
            "seed": begun.seed,
        },
        "raters": [
            {"rater": names[s.rater], "rated": s.done, "of": s.of} for s in standings if s.done
        ],
        "ratings": lines,
        "summary": summarize_ratings(
            lines, run.rows(), study.pool, variant=identity["variant"], seed=identity["seed"]
        ),
    }


def _words(value: Any) -> str:
    return (", ".join(value) or "all") if isinstance(value, tuple) else str(value)
