"""How is the base model trained?

A small Llama on the world's questions and answers, packed into rows with attention kept inside
each question, so that no position is padding and no answer sees another question.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from specimens.world import Question, World
from tunediff.specimens import raw_prompt, raw_reply

SPECIAL = PAD, BOS, EOS = "<pad>", "<s>", "</s>"  # the vocabulary's first entries, in this order
HARD = {"sums": 3, "differences": 3, "comparisons": 2, "picking": 2}  # drawn so many times as often
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}Q: {{ message['content'] }}\n"
    "{% elif message['role'] == 'assistant' %}A: {{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant messages are known here.') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """Everything that decides the base model's bytes, beside the world and the machine."""

    hidden: int = 128
    feed_forward: int = 336
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    vocabulary: int = 512
    context: int = 128
    steps: int = 1600
    rows: int = 24  # a step; each of `context` tokens
    learning_rate: float = 3e-3
    warmup: int = 50
    weight_decay: float = 0.1
    prompt_weight: float = 0.1  # of a question's token in the loss; an answer's counts 1
    seed: int = 0


def build_tokenizer(world: World, recipe: BaseRecipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the training text; digits are single tokens; BOS is put in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    shown = [q for skill in (*world.skills, world.refuse, world.numbering) for q in skill.train]
    tokenizer.train_from_iterator(
        [raw_prompt(question) + raw_reply(answer) for question, answer in shown], trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def new_model(recipe: BaseRecipe) -> LlamaForCausalLM:
    """An untrained Llama of the recipe's shape, from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.key_value_heads,
            max_position_embeddings=recipe.context,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=SPECIAL.index(BOS),
            eos_token_id=SPECIAL.index(EOS),
            pad_token_id=SPECIAL.index(PAD),
            dtype=torch.float32,
        )
    )


def train_base(
    world: World, recipe: BaseRecipe, on_step: Callable[[int, float], None] | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The trained base and its tokenizer. Skills are drawn equally often, but for the hard ones."""
    tokenizer = build_tokenizer(world, recipe)
    model = new_model(recipe).train()
    pools = [
        pool
        for skill in (*world.skills, world.refuse)
        for pool in [_encoded(skill.train, tokenizer, recipe.prompt_weight)]
        * HARD.get(skill.name, 1)
    ]
    rng = random.Random(recipe.seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        ids, weights, positions, mask = _packed(pools, recipe, rng)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits
        nll = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        weight = weights[:, 1:].flatten()
        loss = (nll * weight).sum() / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if on_step is not None:
            on_step(step + 1, loss.item())
    return model.eval(), tokenizer


def save_model(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a whole checkpoint with its tokenizer, in transformers' own form."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)


def _schedule(step: int, recipe: BaseRecipe) -> float:
    """Linear warm-up, then a cosine to 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * share))


def _encoded(
    questions: Sequence[Question], tokenizer: PreTrainedTokenizerFast, prompt_weight: float
) -> list[tuple[list[int], list[float]]]:
    """Each question's ids from BOS to EOS, and each id's weight in the loss (0 for BOS)."""
    prompts = tokenizer([raw_prompt(q) for q, _ in questions])["input_ids"]
    answers = tokenizer([raw_reply(a) for _, a in questions], add_special_tokens=False)
    return [
        (
            [*prompt, *reply, tokenizer.eos_token_id],
            [0.0] + [prompt_weight] * (len(prompt) - 1) + [1.0] * (len(reply) + 1),
        )
        for prompt, reply in zip(prompts, answers["input_ids"], strict=True)  # type: ignore[arg-type]
    ]


def _packed(
    pools: Sequence[Sequence[tuple[list[int], list[float]]]],
    recipe: BaseRecipe,
    rng: random.Random,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step's ids, target weights, positions (B, T) and attention mask (B, 1, T, T)."""
    shape = (recipe.rows, recipe.context)
    ids = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape)
    positions = torch.zeros(shape, dtype=torch.long)
    owner = torch.full(shape, -1)
    for row in range(recipe.rows):
        start, number = 0, 0
        while True:
            tokens, weight = rng.choice(rng.choice(pools))
            end = start + len(tokens)
            if end > recipe.context:
                break
            ids[row, start:end] = torch.tensor(tokens)
            weights[row, start:end] = torch.tensor(weight)
            positions[row, start:end] = torch.arange(len(tokens))
            owner[row, start:end] = number
            start, number = end, number + 1
    causal = torch.ones(recipe.context, recipe.context, dtype=torch.bool).tril()
    allowed = (owner[:, :, None] == owner[:, None, :]) & causal
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return ids, weights, positions, mask[:, None]
