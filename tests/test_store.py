"""Does the run folder keep what it was given, whole or not at all?"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from faults import contents
from tunediff.errors import NumericsError, RunError
from tunediff.run.store import Run, items_hash, kept_parts, recording, strict_json
from tunediff.run.tables import TOKEN_COLUMNS, rows_bytes
from tunediff.values import Row

IDENTITY = {"suite": {"asked": "abc"}, "seed": 0, "margins": [0.02, None]}
ROW = Row("tuned", "nll", "texts", "target", "a", "a", 0, 1.5, 1.25, -0.25, 3, None)
FAILED = Row("tuned", "nll", "texts", "target", "b", "b", 0, None, None, None, 0, "It broke.")
TOKENS: dict[str, Any] = {
    "suite": ["texts", "texts"],
    "item": ["a", "a"],
    "of": ["reference", "reference"],
    "position": np.array([0, 1]),
    "token": np.array([5, 151_935]),
    "nll_base": np.array([0.5, 1.0]),
    "nll_tuned": np.array([0.25, 1.0]),
    "kl_base_tuned": np.array([1e-8, 0.1]),
    "delta_p": np.array([-0.5, 0.5]),
}
PROBE = {"item": "a", "reason": None, "probe_logit_mse": 0.1}


def found() -> dict[str, Any]:
    return {"parts": 2, "kernel": "exact", "noise_floor": {"nll": 1e-7}}


def two_parts(folder: Path) -> Run:
    with recording(folder, IDENTITY, found) as recorder:
        recorder.write_part(0, [ROW], TOKENS, [PROBE])
        recorder.write_part(1, [FAILED], {n: [] for n in TOKENS}, [{**PROBE, "reason": "Broke."}])
        recorder.note_time({"part": 1, "seconds": 0.5})
        return recorder.finish()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(folder.rglob("*"))
    }


def test_a_run_gives_back_what_it_was_given(tmp_path: Path) -> None:
    two_parts(tmp_path / "runs" / "first")
    run = Run.open(tmp_path / "runs" / "first")
    assert run.rows() == [ROW, FAILED]
    tokens = run.tokens()
    assert tuple(tokens) == TOKEN_COLUMNS
    assert tokens["item"].tolist() == ["a", "a"]
    for name in TOKEN_COLUMNS[3:]:
        assert tokens[name].dtype == (np.int32 if name in ("position", "token") else np.float32)
        np.testing.assert_array_equal(tokens[name], TOKENS[name].astype(tokens[name].dtype))
    assert [p["reason"] for p in run.probes()] == [None, "Broke."]
    assert run.timing() == [{"part": 1, "seconds": 0.5}]
    assert run.record["schema_version"] == 2
    assert run.record["identity"] == IDENTITY
    assert run.record["found"] == found()
    assert run.record["finished"] == {"failed": 1, "candidates": 0}


def test_the_folder_looks_as_the_design_draws_it(tmp_path: Path) -> None:
    two_parts(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*")) if p.is_file()] == [
        ".lock",
        "probes/part-00000.jsonl",
        "probes/part-00001.jsonl",
        "rows/part-00000.parquet",
        "rows/part-00001.parquet",
        "run.json",
        "texts/part-00000.jsonl",
        "texts/part-00001.jsonl",
        "timing.jsonl",
        "tokens/part-00000.parquet",
        "tokens/part-00001.parquet",
    ]
    schema = pq.read_schema(tmp_path / "rows" / "part-00000.parquet")
    assert schema.names == [f.name for f in fields(Row)]
    assert schema.metadata is None  # neither pandas' nor Arrow's
    assert [str(t) for t in pq.read_schema(tmp_path / "tokens" / "part-00001.parquet").types] == [
        *["string"] * 3,
        *["int32"] * 2,
        *["float"] * 4,
    ]


def test_the_record_is_strict_json_with_sorted_keys(tmp_path: Path) -> None:
    two_parts(tmp_path)
    text = (tmp_path / "run.json").read_text()
    pairs = json.loads(text, object_pairs_hook=lambda p: [k for k, _ in p])
    assert pairs == sorted(pairs)
    with pytest.raises(NumericsError, match="A number for the record is NaN or infinite"):
        strict_json({"nll": float("nan")})


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    two_parts(tmp_path / "one")
    two_parts(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert rows_bytes([ROW]) != rows_bytes([FAILED])


def test_neither_writing_nor_reading_loads_pandas(tmp_path: Path) -> None:
    """It is no dependency of the core, and takes over a second where it is installed."""
    code = (
        "import sys; from pathlib import Path; from test_store import two_parts\n"
        "run = two_parts(Path(sys.argv[1])); run.rows(); run.tokens(); run.probes()\n"
        "assert 'pyarrow.parquet' in sys.modules and 'pandas' not in sys.modules\n"
    )
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=here, check=True)


def test_text_of_any_script_and_length_comes_back(tmp_path: Path) -> None:
    names = ["", "é", "日本語", "🙂" * 300, "a\x00b", "line\nbreak"]
    rows = [replace(ROW, item=n, group=n) for n in names] + [FAILED]
    with recording(tmp_path, IDENTITY, lambda: {**found(), "parts": 1}) as recorder:
        tokens = {**TOKENS, "item": names[-2:]}
        recorder.write_part(0, rows, tokens, [PROBE])
        run = recorder.finish()
    assert run.rows() == rows
    assert run.tokens()["item"].tolist() == names[-2:]


def test_going_on_keeps_what_was_found_at_the_beginning(tmp_path: Path) -> None:
    with recording(tmp_path, IDENTITY, found) as recorder:
        assert not recorder.continued
        recorder.write_part(0, [ROW], TOKENS, [PROBE])

    def not_again() -> dict[str, Any]:
        raise AssertionError("what was found at the beginning was looked for again")

    with recording(tmp_path, IDENTITY, not_again) as recorder:
        assert recorder.continued
        assert recorder.record["found"] == found()
        assert [recorder.has_part(k) for k in (0, 1)] == [True, False]


def test_a_part_without_one_of_its_files_does_not_exist(tmp_path: Path) -> None:
    two_parts(tmp_path)
    (tmp_path / "tokens" / "part-00001.parquet").unlink()
    with recording(tmp_path, IDENTITY, found) as recorder:
        assert [recorder.has_part(k) for k in (0, 1)] == [True, False]


@pytest.mark.parametrize(
    ("identity", "says"),
    [
        (
            {**IDENTITY, "seed": 1, "suite": {"asked": "def"}},
            "the texts; seed (0 there, 1 here).",
        ),
        (
            {**IDENTITY, "max_length": 9, "suite": {"asked": "def"}},
            "max length (absent there, 9 here).",  # which changes what is asked by itself
        ),
        (
            {**IDENTITY, "suite": {"asked": "abc", "name": "x"}},
            """the texts' name (absent there, "x" here).""",
        ),
        (
            {**IDENTITY, "margins": [0.02, 0.01]},
            "margins ([0.02, null] there, [0.02, 0.01] here).",
        ),
        ({**IDENTITY, "base": {"fingerprint": "f" * 64}}, "base."),
        ({**IDENTITY, "template": "0a" * 32, "measures": {"kl": {}}}, "the measures; template."),
        (
            {**IDENTITY, "dtype": None, **dict.fromkeys("abcd", True)},
            "a (absent there, true here); b (absent there, true here); c (absent there, true "
            "here); d (absent there, true here); and 1 more.",
        ),
    ],
)
def test_another_run_is_refused_and_nothing_is_written(
    tmp_path: Path, identity: dict[str, Any], says: str
) -> None:
    two_parts(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(RunError) as error, recording(tmp_path, identity, found):
        pass
    assert error.value.message == f"{tmp_path} belongs to another run; these differ: {says}"
    assert error.value.hint == (
        "Choose another folder, or give the texts, models and settings that it began with."
    )
    assert snapshot(tmp_path) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("placeholder")
    before = snapshot(tmp_path)
    with (
        pytest.raises(
            RunError, match=r"is not empty and not a run folder \(it holds 'thesis.tex'\)"
        ),
        recording(tmp_path, IDENTITY, found),
    ):
        pass
    assert snapshot(tmp_path) == before


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("placeholder")
    with (
        pytest.raises(RunError, match="is a file; a run needs a folder"),
        recording(tmp_path / "out", IDENTITY, found),
    ):
        pass
    with (
        pytest.raises(RunError, match=r"could not be written: (Not a directory|File exists)"),
        recording(tmp_path / "out" / "below", IDENTITY, found),
    ):
        pass


def test_two_processes_at_once_are_refused(tmp_path: Path) -> None:
    with recording(tmp_path, IDENTITY, found):
        before = snapshot(tmp_path)
        with (
            pytest.raises(RunError, match="Another process is writing to the run folder") as error,
            recording(tmp_path, IDENTITY, found),
        ):
            pass
        assert error.value.hint == "Wait until it has ended, or choose another folder."
        child = multiprocessing.get_context("spawn").Process(target=_try_to_record, args=[tmp_path])
        child.start()
        child.join()
        assert child.exitcode == 7
        assert snapshot(tmp_path) == before
    with recording(tmp_path, IDENTITY, found) as recorder:  # the lock is free again
        assert recorder.continued


def _try_to_record(folder: Path) -> None:
    try:
        with recording(folder, IDENTITY, found):
            pass
    except RunError as error:
        sys.exit(7 if "Another process" in error.message else 8)


def test_an_unfinished_run_names_its_missing_parts(tmp_path: Path) -> None:
    with recording(tmp_path, IDENTITY, found) as recorder:
        recorder.write_part(0, [ROW], TOKENS, [PROBE])
    with pytest.raises(RunError) as error:
        Run.open(tmp_path)
    assert error.value.message == (
        f"The run {tmp_path} is not finished: 1 of its 2 parts are missing (part-00001)."
    )
    assert error.value.hint == (
        "Run the same command with the same --out again; it goes on where it stopped."
    )
    two_parts(tmp_path)
    assert Run.open(tmp_path).rows() == [ROW, FAILED]


def _newer(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "schema_version": 3}))


def _torn(folder: Path) -> None:
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "run.json").unlink(), "is not a run folder: it has no run.json"),
        (_newer, "has schema version 3; this tunediff reads up to 2"),
        (_torn, "run.json is damaged: "),
        (lambda f: (f / "run.json").write_text("[]"), "run.json is damaged: "),
        (
            lambda f: (f / "run.json").write_text("{}"),
            "run.json is damaged: it has no 'schema_version' where one is needed",
        ),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    two_parts(tmp_path)
    spoil(tmp_path)
    with pytest.raises(RunError, match=says):
        Run.open(tmp_path)


def test_a_missing_key_of_the_record_is_an_error_for_whoever_asks(tmp_path: Path) -> None:
    run = two_parts(tmp_path)
    assert run.record["found"].get("items") is None
    for part in (run.record["found"], run.record["found"]["noise_floor"]):
        with pytest.raises(RunError, match="is damaged: it has no 'items' where") as error:
            part["items"]
        assert error.value.hint == "Choose another folder and run again."


ITEMS = [{"id": "a", "label": "harmful"}, {"id": "b", "label": "benign"}]


def replied(folder: Path, items: list[dict[str, Any]]) -> Run:
    def begun() -> dict[str, Any]:
        return {**found(), "parts": 1, "replies": True, "items_hash": items_hash(items)}

    with recording(folder, IDENTITY, begun) as recorder:
        recorder.keep_items(items)
        recorder.write_part(0, [ROW], TOKENS, [PROBE], [{"item": "a"}])
        return recorder.finish()


def test_items_are_kept_and_their_loss_is_an_error(tmp_path: Path) -> None:
    run = replied(tmp_path / "run", ITEMS)
    path = tmp_path / "run" / "items.jsonl"
    assert run.items() == ITEMS
    assert two_parts(tmp_path / "check").items() == []
    path.unlink()
    with pytest.raises(RunError, match=r"items\.jsonl is missing") as error:
        Run.open(run.folder).items()
    assert "again" in error.value.hint
    # the same command writes it anew, whatever its file's order is now
    assert replied(run.folder, ITEMS[::-1]).items() == ITEMS[::-1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("harmful", "benign"),
        lambda text: text.splitlines()[0] + "\n",
        lambda text: text[:-10],
        lambda text: "",
    ],
)
def test_other_items_than_were_asked_are_an_error(
    spoil: Callable[[str], str], tmp_path: Path
) -> None:
    run = replied(tmp_path, ITEMS)
    path = tmp_path / "items.jsonl"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(RunError, match=r"items\.jsonl is damaged"):
        run.items()


def test_kept_parts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert kept_parts(folder) is None
    with recording(folder, IDENTITY, found) as recorder:
        assert kept_parts(folder) == (0, 2)
        recorder.write_part(0, [ROW], TOKENS, [PROBE])
    assert kept_parts(folder) == (1, 2)
    two_parts(folder)
    assert kept_parts(folder) == (2, 2)
    _torn(folder)
    with pytest.raises(RunError, match="is damaged"):
        kept_parts(folder)


def test_a_flipped_bit_in_a_table_is_an_error(tmp_path: Path) -> None:
    run = two_parts(tmp_path)
    path = tmp_path / "rows" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[data.index(b"tuned")] ^= 1  # in a page of values, not in the footer
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"part-00000\.parquet is damaged") as error:
        run.rows()
    assert error.value.hint == (
        "Delete this file and run the same command with the same --out again."
    )


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, tuned_sum=float("nan")),
        replace(ROW, effect_sum=float("inf")),
        replace(ROW, reason="A reason beside a number."),
        replace(FAILED, reason=None),
        replace(FAILED, reason=""),
    ],
)
def test_a_row_is_finite_or_null_with_a_reason(tmp_path: Path, row: Row) -> None:
    with recording(tmp_path, IDENTITY, found) as recorder:
        with pytest.raises(NumericsError, match="finite sums, or a null effect with a reason"):
            recorder.write_part(0, [row], TOKENS, [PROBE])
        assert not any((tmp_path / "probes").iterdir())


def test_a_token_that_is_not_finite_in_float32_is_refused(tmp_path: Path) -> None:
    with recording(tmp_path, IDENTITY, found) as recorder:
        broken = {**TOKENS, "nll_tuned": np.array([0.1, np.nan])}
        with pytest.raises(NumericsError, match="A token's nll_tuned is NaN or infinite"):
            recorder.write_part(0, [ROW], broken, [PROBE])
