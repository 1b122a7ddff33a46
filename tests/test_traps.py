"""Is every known trap of this field that touches tunediff planted in some test?

The keys are ways in which tools of this kind were seen to print wrong numbers. The tests named
plant the fault and see it caught; here it is only proven that they exist.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parent

PLANTED = {
    "the adapter is not applied": [
        "test_certificate.py::test_an_adapter_that_is_not_applied",
        "test_bad_input.py::test_bad_adapters",
    ],
    "base stands in for tuned after a load error": [
        "test_certificate.py::test_nothing_stands_in_for_what_cannot_be_opened",
    ],
    "base is changed by loading the adapter": [
        "test_certificate.py::test_a_base_changed_by_loading",
    ],
    "wrong base or revision": [
        "test_certificate.py::test_another_base",
        "test_bad_input.py::test_an_adapter_or_a_model_of_another_base",
    ],
    "a stored answer of another model is served": [
        "test_check_command.py::test_another_run_does_not_go_into_the_folder",
    ],
    "merging rounds": ["test_certificate.py::test_merging_that_rounds"],
    "the tied head is lost on merge": [
        "test_certificate.py::test_a_head_lost_on_merging",
        "test_certificate.py::test_a_tied_head_changes_on_merging",
    ],
    "BOS twice, or missing": [
        "test_encoding.py::test_two_bos_are_refused",
        "test_encoding.py::test_bos_is_context_and_never_scored",
    ],
    "padding side, positions, attention to padding": [
        "test_certificate.py::test_positions_that_run_on",
    ],
    "packed sequences see each other": ["test_certificate.py::test_texts_that_see_each_other"],
    "wrong denominators": [
        "test_encoding.py::test_bytes_of_a_whole_text_are_its_utf8",
        "test_check_shared.py::test_numbers_equal_the_oracle_on_the_target",
    ],
    "labels shifted twice or not at all": [
        "test_check_command.py::test_the_seeds_figures_are_found_again",
    ],
    "tokenizer or vocabulary differs": [
        "test_encoding.py::test_each_difference_has_its_name",
        "test_check_shared.py::test_two_unrelated_models",
    ],
    "truncation": ["test_encoding.py::test_a_long_text_is_refused_unless_it_may_be_cut"],
    "prompt and reply merge at the border": [
        "test_encoding.py::test_a_token_across_the_border_is_the_replys",
    ],
    "NaN or infinite weights or logits": [
        "test_certificate.py::test_weights_that_are_not_finite",
        "test_engine.py::test_an_item_with_bad_logits_fails_alone",
    ],
    "dropout left on": ["test_certificate.py::test_dropout_left_on"],
    "dtype differs between the sides": [
        "test_certificate.py::test_both_sides_have_the_dtype_asked_for",
    ],
    "bf16 noise read as a change": [
        "test_engine.py::test_the_floor_is_larger_in_bfloat16",
        "test_pair_hf.py::test_bfloat16_stays_within_its_own_floor",
    ],
    "batch size changes the answer": [
        "test_engine.py::test_scores_do_not_depend_on_packs_or_chunks",
        "test_engine.py::test_order_and_company_change_nothing",
    ],
    "EOS masked in training": [
        "test_lora.py::test_labels_end_with_the_end_token_and_score_the_reply_alone"
    ],
    "a failure counted as a zero": [
        "test_engine.py::test_an_item_with_bad_logits_fails_alone",
    ],
    "tokens treated as independent": [
        "test_coverage_tool.py::test_tokens_taken_as_items_would_cover_half_of_what_they_claim",
    ],
    "fewer samples look safer": ["test_check_command.py::test_the_point_rule"],
    "a product that only claims to be float32": [
        "test_engine.py::test_a_rounding_product_is_found_and_not_used",
    ],
    "a template that never ends": ["test_template.py::test_endless_templates_end_in_an_error"],
    "a part that is half written": [
        "test_survival.py::test_the_campaign_catches_a_write_that_is_not_atomic",
    ],
}


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        f"{path.name}::{node.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_trap_is_planted_somewhere() -> None:
    existing = set().union(*map(_tests, TESTS.glob("test_*.py")))
    missing = {trap: set(names) - existing for trap, names in PLANTED.items()}
    assert {trap: names for trap, names in missing.items() if names} == {}
