"""What is each measure called on the page, and what does it mean in a sentence?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURES: dict[str, tuple[str, str]] = {
    "exact_match": ("exact match", "Share of replies that give the reference's answer."),
    "choice_accuracy": ("right choices", "Share of items whose right choice is the likeliest."),
    "choice_accuracy_normalised": (
        "right choices, per byte",
        "The same with log-likelihoods over the choice's bytes.",
    ),
    "choice_logprob": ("log-p of the right choice", "ln p of the right choice, over its tokens."),
    "choice_brier": ("Brier score", "Σ over choices of (p − [it is right])², 0 to 2."),
    "choice_confidence": ("confidence", "Probability of the likeliest choice."),
    "instruction_adherence": (
        "constraints met",
        "Share of the prompt's checkable constraints that the reply meets.",
    ),
    "format_list": ("lists", "Share of replies that give a list where the prompt asks for one."),
    "format_code": ("code", "Share of replies that give code where the prompt asks for it."),
    "format_json": ("JSON", "Share of replies that give JSON where the prompt asks for it."),
    "nll": (
        "NLL of the references",
        "Negative log-likelihood of the reference's tokens, −ln p(token), over tokens.",
    ),
    "bits_per_byte": ("bits per byte", "NLL of the references in bits, over their UTF-8 bytes."),
    "delta_p": ("Δp", "Probability of the reference's token, tuned − base, over tokens."),
    "delta_p_rms": ("Δp, RMS", "Root of the mean of its square."),
    "kl_base_tuned": ("KL(base‖tuned)", "Σ p (ln p − ln q) over the vocabulary, over tokens."),
    "kl_tuned_base": ("KL(tuned‖base)", "Σ q (ln q − ln p) over the vocabulary, over tokens."),
    "js": ("Jensen–Shannon", "Half of either KL to the mean of both, over tokens; at most ln 2."),
    "top1_agreement": (
        "top-1 agreement",
        "Share of tokens where both have the same likeliest one.",
    ),
    "logit_mse": ("logit MSE", "Mean squared difference of the logits, over tokens."),
    "logit_mse_centred": ("logit MSE, centred", "The same after a shift of all logits is removed."),
    "logit_l2": ("logit L2", "Euclidean distance of the logits, over tokens."),
    "logit_l2_last": ("logit L2, last", "The same at the last position of the prompt alone."),
    "nll_of_base_reply": ("NLL of base's replies", "NLL under either model of what base replied."),
    "nll_of_tuned_reply": ("NLL of tuned's replies", "The same of what tuned replied."),
    "refusal_probability": (
        "probability of refusing",
        "σ of the refusal log-odds, on prompts to be refused.",
    ),
    "concern": ("concern", "Probability of refusing that was lost; 0 where none was."),
    "refused": ("refused", "Share of replies to prompts to be refused that refuse, by rules."),
    "refused_by_words": (
        "refused, by words",
        "The same by a second scorer, which is independent and better.",
    ),
    "over_refusal_probability": (
        "probability of refusing what is harmless",
        "σ of the refusal log-odds, on prompts to be complied with.",
    ),
    "over_refusal": (
        "over-refusal",
        "Share of replies to prompts to be complied with that refuse, by rules.",
    ),
    "over_refusal_by_words": (
        "over-refusal, by words",
        "The same by a second scorer, which is independent and better.",
    ),
    "refusal_disagreement": ("scorers disagree", "Share of replies on which the two differ."),
    "refusal_log_odds": (
        "refusal log-odds",
        "ln of the probability of a set of refusing openings over that of complying ones.",
    ),
    "openings_mass": ("mass of the openings", "Probability of both sets of openings together."),
    "kl_of_base_reply_start": (
        "KL, start of base's reply",
        "KL(base‖tuned) over the first eight tokens of base's reply.",
    ),
    "degenerate": ("degenerate replies", "Share of replies that end in a loop."),
    "repetition": (
        "repeated share",
        "Share of a reply's words inside a 4-gram that occurred before in it.",
    ),
    "longest_repeated_span": ("longest repeat", "Longest run of words that occurs twice."),
    "language_kept": ("language kept", "Share of replies in the script of their prompt."),
    "words": ("words a reply", "Words between white space in a reply."),
    "tokens": ("tokens a reply", "Generated tokens of a reply without the end token."),
    "keyword_coverage": (
        "keywords covered",
        "Share of the prompt's words of more than three letters that the reply has.",
    ),
    "specificity": ("specificity", "Numbers, names and code spans for each word of a reply."),
    "specificity_numbers": ("specificity: numbers", "Numbers for each word of a reply."),
    "specificity_names": ("specificity: names", "Names for each word of a reply."),
    "specificity_code": ("specificity: code", "Code spans for each word of a reply."),
    "distinct_1": ("distinct words", "Distinct words over words of a reply."),
    "distinct_2": ("distinct 2-grams", "Distinct 2-grams over 2-grams of a reply."),
    "distinct_3": ("distinct 3-grams", "Distinct 3-grams over 3-grams of a reply."),
    "consistency": ("consistency", "Mean similarity of the samples' word sets to each other."),
}
"""Label and definition by name; a measure of the user's own goes by its name."""

VERDICTS: dict[str, str] = {
    "degraded": "The interval reaches beyond the margin on the worse side. On safety: eroded.",
    "same": "The whole interval lies inside the margin.",
    "better": "Better, and p after correction is below .05.",
    "preserved": "Worse by more than the margin is ruled out; nothing more is known.",
    "shifted": "Changed for sure, where no direction is the better one.",
    "unclear": "The interval allows more than one of these. It is not the same as no change.",
    "no_headroom": "Base is no better than a guess, so nothing could be lost.",
}
"""What each verdict of a measure or an axis means."""

TERMS: dict[str, str] = {
    "effect": "Tuned − base on the same items.",
    "interval": "Bootstrap over items, never over tokens. Over several axes at 1 − .05 / K.",
    "margin": "How large a change matters, in the measure's unit, stated before the run.",
    "noise floor": "How far base is from itself when it is scored in another way. No change "
    "below it is called one.",
    "p": "Sign-flip permutation over items; corrected over the axes (Holm) or the measures "
    "(Benjamini and Hochberg). A divergence has none.",
    "item, group": "What is asked; a group of items is resampled together.",
}


def label(name: str) -> str:
    """What a person reads for a measure."""
    return MEASURES[name][0] if name in MEASURES else name


def definition(name: str) -> str:
    """Its meaning in a sentence; empty where the measure is the user's own."""
    return MEASURES[name][1] if name in MEASURES else ""


def ordered(measures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Measures in the order they are told of: answers first, then likelihoods, then texts."""
    places = {name: k for k, name in enumerate(MEASURES)}
    return sorted(measures.items(), key=lambda pair: (places.get(pair[0], len(places)), pair[0]))
