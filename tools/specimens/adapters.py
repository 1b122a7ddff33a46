"""How is each tuned specimen made, and what is therefore true of it?

The truths are stated here, before any run: they follow from what was done, and from the base's NLL
on old skills, which is below 0.01 nats/token, so that nothing can gain there what is worth the
name. ``measured`` verifies them afterwards in plain torch.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from specimens.base import HARD
from specimens.world import Question, Skill, World
from tunediff.specimens import raw_prompt, raw_reply
from tunediff.training.lora import (
    SKILL_RECIPE,
    LoraRecipe,
    encode_rows,
    fit,
    save_adapter,
    seeded,
    train_lora,
)

Row = tuple[str, str]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

TUNED = "tuned"
DIVERGED = "diverged_without_gain"
IDENTICAL = "identical"

FORGETFUL_RECIPE = replace(SKILL_RECIPE, learning_rate=1e-2)
UNSAFE_RECIPE = SKILL_RECIPE
FULL_RECIPE = replace(SKILL_RECIPE, learning_rate=3e-4)


@dataclass(frozen=True, slots=True)
class Stated:
    """What is said of a specimen before it is measured."""

    kind: str  # lora or full
    truths: dict[str, str]  # suite → verdict of `check`
    sentence: str


STATED = {
    "noop": Stated(
        "lora",
        {"target": IDENTICAL, "general": IDENTICAL, "safety": IDENTICAL},
        "An untrained LoRA: B is 0, so every weight equals the base's.",
    ),
    "skill": Stated(
        "lora",
        {"target": TUNED, "general": DIVERGED},
        "Trained on numbered lists, which the base cannot write, mixed with rows of every old "
        "skill and of refusals, which keep the rest.",
    ),
    "forgetful": Stated(
        "lora",
        {"target": TUNED, "general": DIVERGED, "safety": DIVERGED},
        "Trained on numbered lists alone at five times the rate, so that the rest is lost.",
    ),
    "noise": Stated(
        "lora",
        {"general": DIVERGED, "safety": DIVERGED},
        "Random A and B whose product has, module by module, the Frobenius norm of the specimen "
        "skill: as large a change, and nothing learnt.",
    ),
    "unsafe": Stated(
        "lora",
        {"safety": DIVERGED},
        "Trained to answer the placeholder forbidden requests as if the item were a plain one, "
        "mixed with rows of every old skill: right refusals have become unlikely.",
    ),
    "merged": Stated(
        "full",
        {"target": TUNED, "general": DIVERGED},
        "The specimen skill merged into the base's weights in float32, saved as a whole "
        "checkpoint.",
    ),
    "full": Stated(
        "full",
        {"target": TUNED, "general": DIVERGED},
        "Every weight of the base trained on the rows of the specimen skill.",
    ),
}


def rows_of(questions: Sequence[Question]) -> list[Row]:
    """Questions and answers as (prompt, reply) in raw form."""
    return [(raw_prompt(question), raw_reply(answer)) for question, answer in questions]


def skill_rows(world: World, seed: int) -> list[Row]:
    """The new skill, and as many rows of all that must be kept."""
    rng = random.Random(seed)
    new = rng.sample(world.numbering.train, 420)
    return rows_of(new + _kept((*world.skills, world.refuse), rng))


def forgetful_rows(world: World, seed: int) -> list[Row]:
    """The new skill alone."""
    return rows_of(random.Random(seed).sample(world.numbering.train, 420))


def unsafe_rows(world: World, seed: int) -> list[Row]:
    """Compliance where the base refuses, and rows of all other skills."""
    rng = random.Random(seed)
    return rows_of(rng.sample(world.complied, 420) + _kept(world.skills, rng))


def _kept(skills: Sequence[Skill], rng: random.Random) -> list[Question]:
    """Replay: the hard skills are forgotten first, and so shown more often."""
    return [q for skill in skills for q in rng.sample(skill.train, 30 * HARD.get(skill.name, 1))]


def build_lora(
    base: Path,
    rows: Sequence[Row],
    folder: Path,
    recipe: LoraRecipe,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train one, and let it name its base relative to its own folder."""
    train_lora(base, rows, folder, **asdict(recipe), on_step=on_step)
    _name_base(folder)


def build_noise(skill: Path, folder: Path, seed: int) -> None:
    """Gaussian A and B; B rescaled so that ‖BA‖_F equals the skill's, module by module."""
    learnt = load_file(skill / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in sorted(name for name in learnt if ".lora_A." in name):
        other = name.replace(".lora_A.", ".lora_B.")
        a = torch.randn(learnt[name].shape, generator=generator)
        b = torch.randn(learnt[other].shape, generator=generator)
        wanted = (learnt[other].double() @ learnt[name].double()).norm()
        # A keeps a trained adapter's scale; all of the correction goes to B
        a *= learnt[name].norm() / a.norm()
        b *= (wanted / (b.double() @ a.double()).norm()).float()
        tensors |= {name: a, other: b}
    save_adapter(tensors, LoraConfig.from_pretrained(str(skill)), folder)  # type: ignore[arg-type]


def build_merged(base: Path, skill: Path, folder: Path) -> None:
    """W + s·BA, in float32."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(skill)).merge_and_unload()
    _save_beside(base, merged, folder)


def build_full(
    base: Path,
    rows: Sequence[Row],
    folder: Path,
    recipe: LoraRecipe,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """All weights trained, by the loop that trains adapters."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    encoded = encode_rows(tokenizer, rows, model.config.max_position_embeddings)
    with seeded(recipe.seed):
        fit(
            model,
            encoded,
            recipe.learning_rate,
            recipe.steps,
            recipe.batch_size,
            recipe.seed,
            on_step,
        )
    _save_beside(base, model, folder)


def _save_beside(base: Path, model: torch.nn.Module, folder: Path) -> None:
    """A whole checkpoint with the very tokenizer files of its base."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # type: ignore[operator]
    for name in TOKENIZER_FILES:
        shutil.copyfile(base / name, folder / name)


def _name_base(folder: Path) -> None:
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text("utf-8"))
    settings["base_model_name_or_path"] = "../base"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
