"""What stages share that train a policy on the rewards of what it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms.target_surrogates import Proximal
from trimtab.pipelines.data import loading, promises
from trimtab.pipelines.planning import consent, field_types, schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import cut
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.training.arguments import too_few_prompts
from trimtab.rewards import _source

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.trainers.reward_functions import RewardFunction

CLIPPED = ("grpo", "bnpo", "dr_grpo", "dapo")  # losses with the clipped ratio of each token
HELD = dict.fromkeys(("epsilon", "epsilon_high", "delta", "off_policy_mask_threshold"), "`proximal`")


def by_micro_batch(train: Mapping[str, Any]) -> bool:
    """Whether a loss is a mean, or has a threshold, of the tokens of a micro-batch."""
    return train.get("loss_type") == "bnpo" or train.get("top_entropy_quantile", 1.0) != 1.0


def check_set_elsewhere(stage: Any, step: Step, elsewhere: Mapping[str, str]) -> None:
    """Raises RecipeError for keys of `train` that say something else than upstream's default, and what to use."""
    kind: Any = type(stage)
    for key, instead in elsewhere.items():
        if getattr(stage.train, key) != field_types.training_defaults(kind)[key]:
            raise RecipeError(f"is set by the method: use {instead}", (*step.path, "train", key))


def check_proximal(stage: Any, step: Step) -> None:
    """Raises RecipeError where a stage's `proximal` cannot take the place of the clip."""
    place = (*step.path, "proximal")
    if stage.proximal is None:
        if stage.distance is not None:
            raise RecipeError("is that of `proximal`, which is not given", (*step.path, "distance"))
        return
    if not stage.proximal > 0:
        raise RecipeError(f"must be above 0, got {stage.proximal:g}", place)
    check_set_elsewhere(stage, step, HELD)
    if stage.train.loss_type not in CLIPPED or stage.train.importance_sampling_level != "token":
        known = ", ".join(CLIPPED)
        raise RecipeError(f"takes the place of the clip of each token's ratio: `loss_type` one of {known}", place)


def proximal(stage: Any) -> Proximal | None:
    """What holds the steps of a rollout, None for trl's clip."""
    return None if stage.proximal is None else Proximal(stage.proximal, stage.distance or "kl")


def check_sampler(stage: Any, step: Step) -> None:
    """Raises RecipeError for what the sampler of a training does not do, or not on this machine."""
    generation.check_training(stage.train, (*step.path, "train"))
    if stage.train.use_vllm and find_spec("vllm") is None:
        raise RecipeError("vLLM is not installed: pip install trimtab[vllm]", (*step.path, "train", "use_vllm"))


def check_prompts_ahead(stage: Any, step: Step) -> None:
    """`check_prompts`, as far as it is known before the steps above have run."""
    if not any(map(step.pending, chain.from_iterable(map(loading.files, stage.data.datasets)))):
        check_prompts(stage, step)
    elif (promised := promises.of(stage.data, step).rows) is not None:
        _require(stage.train, step, promised)


def check_prompts(stage: Any, step: Step) -> None:
    """Raises RecipeError where a rollout needs more prompts than there are: trl would train no step.

    A plan knows of one process; a run checks again for as many as there are.
    """
    _require(stage.train, step, len(loading.load(stage.data, (*step.path, "data"))))


def _require(train: Any, step: Step, prompts: int) -> None:
    parts = train.steps_per_generation or train.gradient_accumulation_steps
    completions = train.generation_batch_size or train.per_device_train_batch_size * parts
    needed = completions // train.num_generations
    if prompts < needed:
        raise RecipeError(too_few_prompts(prompts, needed), (*step.path, "data"))


def reward_functions(rewards: Mapping[str, Mapping[str, Any]], step: Step) -> list[RewardFunction]:
    """The rewards of a stage, as trl calls them."""
    from trimtab.pipelines.trainers.reward_functions import RewardFunction

    functions = []
    for name, block in rewards.items():
        parts = cut(block, constrained=True)
        reward = schema.load_reward(parts.reward, (*step.path, "rewards", name))
        functions.append(RewardFunction(name, reward, **parts.policy))
    return functions


def reward_weights(rewards: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """The weights of rewards in their sum, in their order."""
    return [block.get("weight", 1.0) for block in rewards.values()]


def check_word(word: str, path: tuple[str, ...]) -> None:
    """Raises RecipeError for a dotted word that leads to no code of the user's own.

    Code of installed packages runs without consent, and a tool is called with arguments that a model has written.
    """
    place = _source.locate(word)
    if place is None or place.name is None:
        raise RecipeError(f"{word!r} leads to no function: write module.name of a file in this folder", path)
    if _source.is_installed(place.file):
        raise RecipeError(f"{word} is of an installed package: write a function of your own that calls it", path)


def load_word(word: str, step: Step) -> Any:
    """What a dotted word leads to. Raises Withheld where nobody has consented to run it."""
    consent.require(consent.code_of(step))
    place = _source.locate(word)
    assert place is not None  # which the check has seen
    return getattr(place.load(), place.name or "")
