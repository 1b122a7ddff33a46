"""What does a specimen really answer?

Greedy generation on held-out questions, compared with the whole right answer; and the plain-torch
NLL of right replies, by which a stated ground truth is verified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

MOST_TOKENS = 48  # the longest right answer of the world has fewer


@torch.inference_mode()
def replies(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    batch_size: int = 64,
) -> list[str]:
    """Greedy replies, in the prompts' order. Prompts of one length go together: no padding."""
    by_length: dict[int, list[int]] = defaultdict(list)
    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    for i, ids in enumerate(encoded):
        by_length[len(ids)].append(i)  # type: ignore[arg-type]
    found = [""] * len(prompts)
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            ids = torch.tensor([encoded[i] for i in chosen])
            out = model.generate(  # type: ignore[operator]
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            for i, reply in zip(chosen, out[:, ids.shape[1] :], strict=True):
                found[i] = str(tokenizer.decode(reply, skip_special_tokens=True))
    return found


@torch.inference_mode()
def reply_nll(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[tuple[str, str]],
    batch_size: int = 64,
) -> list[tuple[float, int]]:
    """For each (prompt, reply): the summed NLL of the reply's tokens in nats, and their number.

    Rows are padded on the right, which a causal model cannot see.
    """
    encoded = [
        (tokenizer(prompt)["input_ids"], tokenizer(reply, add_special_tokens=False)["input_ids"])
        for prompt, reply in rows
    ]
    found: list[tuple[float, int]] = []
    for start in range(0, len(rows), batch_size):
        batch = encoded[start : start + batch_size]
        longest = max(len(before) + len(after) for before, after in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (before, after) in enumerate(batch):
            ids[row, : len(before) + len(after)] = torch.tensor([*before, *after])
            mask[row, : len(before) + len(after)] = 1
        log_probs = model(input_ids=ids, attention_mask=mask).logits.double().log_softmax(-1)
        for row, (before, after) in enumerate(batch):
            scored = log_probs[row, len(before) - 1 : len(before) + len(after) - 1]
            nll = -scored.gather(1, torch.tensor(after)[:, None]).sum().item()
            found.append((nll, len(after)))
    return found
