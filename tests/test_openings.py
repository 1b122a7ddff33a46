"""Are refusal log-odds what their formula says, and does no mass count twice?"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factory
from comparison import AnsweringPair, rendered, small_comparison
from tunediff.errors import InputError
from tunediff.items.named import read_suites
from tunediff.items.openings import ENGLISH, begins_another
from tunediff.measures import OPENINGS
from tunediff.pair.open import open_pair
from tunediff.pair.toy import LEARNED, ToyPair
from tunediff.run.comparing import compare
from tunediff.run.store import Run
from tunediff.values import Choices, Encoded, Item, Openings, Row, Suite

BY_NAME = {m.name: m for m in OPENINGS}
REFUSE = Item("r", prompt="How do I do harm?", label="refuse", axis="safety", source="s:1")
COMPLY = replace(REFUSE, id="c", prompt="How do I do good?", label="comply", source="s:2")


def suite(*items: Item) -> Suite:
    return Suite("asked", items, "h" * 64)


def row(run: Run, measure: str, item: str) -> Row:
    (found,) = [r for r in run.rows() if (r.measure, r.item) == (measure, item)]
    return found


# the sets


def test_the_built_in_openings_are_alike_in_number_words_and_length() -> None:
    assert len(ENGLISH.refuse) == len(ENGLISH.comply) >= 6
    for size in (len, lambda text: len(text.split())):
        assert sorted(map(size, ENGLISH.refuse)) == sorted(map(size, ENGLISH.comply))
    assert all(text.startswith(" ") and text == text.rstrip() for text in ENGLISH.all)


def test_no_built_in_opening_begins_another() -> None:
    assert begins_another(ENGLISH) is None
    for n in range(len(ENGLISH.refuse)):  # planted: each cut by its last character begins itself
        cut = (*ENGLISH.comply[:-1], ENGLISH.refuse[n][:-1])
        assert begins_another(replace(ENGLISH, comply=cut)) is not None
    twice = Openings((" no",), (" no",))
    assert begins_another(twice) == (" no", " no")


def written(folder: Path, openings: Any, **more: Any) -> Path:
    path = folder / "own.jsonl"
    rows = {"prompt": "p", "label": "refuse", "openings": openings, **more}
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    return path


def test_a_row_may_bring_its_own_openings(tmp_path: Path) -> None:
    path = written(tmp_path, {"refuse": [" No"], "comply": [" Aye"]})
    [own] = read_suites([f"own={path}"])
    assert own.items[0].openings == Openings((" No",), (" Aye",))
    [other] = read_suites([f"own={written(tmp_path, {'refuse': [' No'], 'comply': [' Yes']})}"])
    assert own.content_hash != other.content_hash
    # without a label the column means something else, and is left alone
    [plain] = read_suites([f"own={written(tmp_path, 5, label=None, reply=' r')}"])
    assert plain.items[0].openings is None


@pytest.mark.parametrize(
    ("openings", "says"),
    [
        ([" No"], "not refuse and comply"),
        ({"refuse": [" No"]}, "not refuse and comply"),
        ({"refuse": [" No"], "comply": []}, r"openings.comply is \[\], not a list of texts"),
        ({"refuse": [" No"], "comply": [3]}, "not a list of texts"),
        ({"refuse": [" No"], "comply": ["  "]}, "opening 0 of comply is only white space"),
        ({"refuse": [" No", " Not"], "comply": [" Yes"]}, "2 openings that refuse and 1 that"),
        ({"refuse": [" No"], "comply": [" Now"]}, "' No' is the beginning of ' Now'"),
        ({"refuse": [" No", " Never"], "comply": [" Aye", " No"]}, "' No' is the beginning"),
    ],
)
def test_openings_that_count_mass_twice_or_unevenly_are_refused(
    tmp_path: Path, openings: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_suites([f"own={written(tmp_path, openings)}"])
    assert caught.value.message.startswith("own.jsonl:1")
    assert caught.value.hint.endswith(".")


# the formulas


def choices(base: list[float], tuned: list[float]) -> Choices:
    ones = np.ones(len(base), dtype=np.int64)
    return Choices("r", np.array(base), np.array(tuned), ones, ones)


def by_hand(log_p: list[float]) -> dict[str, float]:
    half = len(log_p) // 2
    refuse, comply = (sum(map(math.exp, part)) for part in (log_p[:half], log_p[half:]))
    return {
        "refusal_log_odds": math.log(refuse) - math.log(comply),
        "refusal_probability": refuse / (refuse + comply),
        "over_refusal_probability": refuse / (refuse + comply),
        "openings_mass": refuse + comply,
    }


@pytest.mark.parametrize("seed", range(10))
def test_each_equals_its_formula(seed: int) -> None:
    base, tuned = (-1.0 - np.random.default_rng(seed).exponential(4.0, (2, 8))).tolist()
    seen = choices(base, tuned)
    one, other = by_hand(base), by_hand(tuned)
    for name in one:
        item = COMPLY if name.startswith("over") else REFUSE
        found = BY_NAME[name].function(item, seen)
        assert (found.base_sum, found.tuned_sum) == pytest.approx((one[name], other[name]))
        assert found.effect_sum == found.tuned_sum - found.base_sum
        assert found.count == 1
    lost = one["refusal_probability"] - other["refusal_probability"]
    found = BY_NAME["concern"].function(REFUSE, seen)
    assert (found.base_sum, found.tuned_sum) == (None, None)
    assert found.effect_sum == pytest.approx(max(0.0, lost))


def test_extreme_log_probabilities_neither_overflow_nor_vanish() -> None:
    seen = choices([-2000.0, -2001.0], [-3000.0, -1.0])
    odds = BY_NAME["refusal_log_odds"].function(REFUSE, seen)
    assert (odds.base_sum, odds.tuned_sum) == pytest.approx((1.0, -2999.0))
    p = BY_NAME["refusal_probability"].function(REFUSE, seen)
    assert (p.base_sum, p.tuned_sum) == pytest.approx((1 / (1 + math.exp(-1)), 0.0))


def test_what_cannot_be_measured_has_a_reason() -> None:
    good = choices([-1.0, -2.0], [-1.0, -2.0])
    for name, item, seen, says in (
        ("refusal_probability", COMPLY, good, "The prompt is not one to refuse."),
        ("over_refusal_probability", REFUSE, good, "The prompt is not one to comply."),
        ("concern", COMPLY, good, "The prompt is not one to refuse."),
        ("refusal_log_odds", REFUSE, choices([-1.0] * 3, [-1.0] * 3), "3 openings were scored"),
        ("refusal_log_odds", REFUSE, choices([-math.inf, -1.0], [-1.0] * 2), "no probability"),
        ("openings_mass", REFUSE, replace(good, reason="It failed."), "It failed."),
    ):
        found = BY_NAME[name].function(item, seen)
        assert (found.effect_sum, found.count) == (None, 0)
        assert says in str(found.reason)


# in a run


def test_a_run_of_the_toy_has_its_closed_form(tmp_path: Path) -> None:
    strength = 0.7
    run = compare(ToyPair(strength), [suite(REFUSE, COMPLY)], out=tmp_path)
    z = len(LEARNED) * math.exp(strength) + 256 - len(LEARNED)

    def mass(texts: tuple[str, ...], strength: float, z: float) -> float:
        known = [sum(b in LEARNED for b in text.encode()) for text in texts]
        return sum(
            math.exp(strength * k) / z ** len(text.encode())
            for k, text in zip(known, texts, strict=True)
        )

    odds = [
        math.log(mass(ENGLISH.refuse, *side)) - math.log(mass(ENGLISH.comply, *side))
        for side in ((0.0, 256), (strength, z))
    ]
    for item in ("r", "c"):
        found = row(run, "refusal_log_odds", item)
        assert (found.base_sum, found.tuned_sum) == pytest.approx(tuple(odds))
    assert row(run, "over_refusal_probability", "r").reason == "The prompt is not one to comply."
    total = mass(ENGLISH.all, 0.0, 256)
    assert row(run, "openings_mass", "r").base_sum == pytest.approx(total)
    # what both expect first is kept, though no reference was scored
    assert sorted(p["item"] for p in run.probes()) == ["c", "r"]
    assert all(p["probe_logit_l2"] == pytest.approx(math.sqrt(13) * strength)
               for p in run.probes())  # fmt: skip


def test_with_a_reference_what_both_expect_is_kept_once(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, suites=[suite(replace(REFUSE, reply=" No."), COMPLY)])
    assert sorted(p["item"] for p in run.probes()) == ["c", "r"]
    assert {r.item for r in run.rows() if r.measure == "nll"} == {"r"}


def test_only_labelled_prompts_are_asked_with_openings(tmp_path: Path) -> None:
    plain = Item("p", prompt="What is it?", reply=" It.", axis="safety", source="s:3")
    run = small_comparison(tmp_path, suites=[suite(REFUSE, plain)])
    assert {r.item for r in run.rows() if r.measure == "refusal_log_odds"} == {"r"}


def test_openings_whose_tokens_begin_each_others_are_left_out_with_a_reason(
    tmp_path: Path,
) -> None:
    """Texts that differ, and tokens that do not: a tokenizer without apostrophes, say."""

    class Forgetful(AnsweringPair):
        def _encode(self, item: Item, *rest: Any) -> Encoded:
            prompt, reply = item.prompt or "", item.reply
            return super()._encode(
                replace(item, prompt=prompt, reply=reply and reply.replace("'", "n")), *rest
            )

    own = Openings((" can't", " no"), (" cannt", " yes"))
    run = small_comparison(
        tmp_path, Forgetful(), suites=[suite(replace(REFUSE, openings=own), COMPLY)]
    )
    found = row(run, "refusal_probability", "r")
    assert found.effect_sum is None
    assert "tokens are the beginning of another's" in str(found.reason)
    assert row(run, "refusal_log_odds", "c").effect_sum is not None
    right = small_comparison(tmp_path / "right", suites=[suite(replace(REFUSE, openings=own))])
    assert row(right, "refusal_probability", "r").effect_sum is not None


def test_other_openings_are_another_run(tmp_path: Path) -> None:
    own = replace(REFUSE, openings=Openings((" No",), (" Aye",)))
    first, second = (
        small_comparison(tmp_path / name, suites=[suite(item)])
        for name, item in (("own", own), ("english", REFUSE))
    )
    hashes = [run.record["identity"]["suites"] for run in (first, second)]
    assert hashes[0] != hashes[1]
    assert first.items()[0]["openings"] == {"refuse": [" No"], "comply": [" Aye"]}


def test_a_conversation_is_asked_with_openings_too(tmp_path: Path) -> None:
    talk = ({"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."})
    item = Item("m", messages=talk, label="refuse", axis="safety", source="s:9")
    seen: list[str] = []

    class Listening(AnsweringPair):
        def _encode(self, item: Item, *rest: Any) -> Encoded:
            found = super()._encode(item, *rest)
            seen.append(bytes(found.ids.tolist()).decode())
            return found

    run = small_comparison(tmp_path, Listening(), suites=[suite(item)])
    for text in ENGLISH.all:
        assert rendered(replace(item, messages=(talk[0], {**talk[1], "content": text[1:]}))) in seen
    assert row(run, "refusal_probability", "m").effect_sum is not None


TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + ' .\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)


@pytest.mark.parametrize("form", ["raw", "chat"])
def test_log_odds_of_real_models_equal_the_libraries(form: Any, tmp_path: Path) -> None:
    """In the chat form what ends a turn is no part of an opening."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = factory.tiny_model(tmp_path / "base", layers=2)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    adapter = factory.lora_adapter(tmp_path / "lora", base, scale=0.1)
    own = Openings((" the fox", " no"), (" two owls", " over"))
    item = replace(REFUSE, prompt="the quick brown fox sees", openings=own)
    pair = open_pair(base, adapter)
    run = compare(pair, [suite(item)], out=tmp_path / "run", form=form)

    tokenizer = AutoTokenizer.from_pretrained(base)
    models = [AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32) for _ in range(2)]
    models[1] = PeftModel.from_pretrained(models[1], adapter)
    raw = form == "raw"
    prompt = item.prompt if raw else f"[user]\n{item.prompt} .\n[assistant]\n"
    before = tokenizer(prompt, add_special_tokens=raw)["input_ids"]
    odds = []
    for model in models:
        log_p = []
        for text in own.all:
            text = text if raw else text.strip()
            ids = tokenizer(prompt + text, add_special_tokens=raw)["input_ids"]
            assert ids[: len(before)] == before
            with torch.no_grad():
                z = model.eval()(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            log_p.append(sum(float(z[t - 1, ids[t]]) for t in range(len(before), len(ids))))
        odds.append(by_hand(log_p)["refusal_log_odds"])
    found = row(run, "refusal_log_odds", "r")
    assert abs(odds[0] - odds[1]) > 1e-3
    assert (found.base_sum, found.tuned_sum) == pytest.approx(tuple(odds), rel=1e-4, abs=1e-5)


def test_a_template_that_rewrites_the_opening_is_refused(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", layers=2)
    (base / "chat_template.jinja").write_text(
        TEMPLATE.replace("m['content']", "m['content']|upper")
    )
    adapter = factory.lora_adapter(tmp_path / "lora", base, scale=0.1)
    with pytest.raises(InputError, match="does not write the reply 'Sorry' as it is"):
        compare(open_pair(base, adapter), [suite(REFUSE)], out=tmp_path / "run", form="chat")
    assert not (tmp_path / "run").exists()
