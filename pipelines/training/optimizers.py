"""The optimizer that a recipe names by its class: looked at in the plan, and given to a trainer.

transformers' Trainer makes it of its own groups of parameters (no decay on norms and biases), its learning rate and
its schedule, and saves and loads its state: what `train` says of those holds for any class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import yaml

from trimtab.pipelines.planning import commands, consent, kinds, memos
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.optimizer_blocks import CLASS, KEY, keys_of
from trimtab.pipelines.trainers.seams.engines import sharding
from trimtab.pipelines.training import dry

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

SPLITTING = ("FSDP", "DEEPSPEED")
OF_WORDS = ("optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon")


def check(stage: Any, step: Step) -> None:
    """Raises RecipeError for an optimizer that cannot be made of its keys, or not under the engine of the launch."""
    block = stage.optimizer or {}
    if CLASS not in block:
        return
    place = (*step.path, KEY)
    for key in OF_WORDS:
        if key in step.options.get("train", {}):
            message = (
                f"is of transformers' own optimizers, and `optimizer` names {block[CLASS]}: leave one of them out"
            )
            raise RecipeError(message, (*step.path, "train", key))
    if consent.withheld(consent.code_in({KEY: block}, step.path)):
        return
    seen, engine = _seen(block, place), engine_of(step)
    if "." not in block[CLASS]:  # those of libraries take seconds to import, and say nothing of it
        _require_room(stage, step)
    if seen["of_one_point"] and _learns_again(stage.train):
        raise RecipeError(
            f"{block[CLASS]} {seen['of_one_point']}, and here several steps learn from one rollout: leave "
            "`num_iterations` and `steps_per_generation` out, or take another optimizer",
            place,
        )
    if seen["needs_whole"] and engine:
        raise RecipeError(
            f"{block[CLASS]} {seen['needs_whole']}, and {engine} splits them over the ranks: launch it as one process "
            "or under DDP (`accelerate: ddp`), or take AdamW or Lion, which treat each number by itself",
            place,
        )
    if seen["not_by_copies"] and engine == "DEEPSPEED":
        raise RecipeError(
            f"{block[CLASS]} {seen['not_by_copies']}: launch it under DDP or FSDP2 (`accelerate: ddp` or `fsdp2`), "
            "or take AdamW or Lion",
            place,
        )
    if engine == "FSDP" and (reason := _unsplit(block, place)):
        raise RecipeError(
            f"{block[CLASS]} cannot step weights that FSDP2 has split: {reason} Where the class has the key, "
            "`foreach: false` steps them one by one; or launch it under DDP (`accelerate: ddp`), or take another",
            place,
        )


def check_critics(stage: Any, step: Step) -> None:
    """Raises RecipeError for an optimizer that cannot train critics beside a policy."""
    block = stage.optimizer or {}
    if CLASS not in block or consent.withheld(consent.code_in({KEY: block}, step.path)):
        return
    if reason := _seen(block, (*step.path, KEY))["of_one_loss"]:
        cure = "train without critics (`grpo`, or `trainer: grpo`), or take another optimizer"
        raise RecipeError(f"{block[CLASS]} {reason}: {cure}", (*step.path, KEY))


def _learns_again(train: Any) -> bool:
    """Whether a training samples from its policy, and takes more than one step for what it has sampled."""
    parts = getattr(train, "steps_per_generation", None) or train.gradient_accumulation_steps
    return getattr(train, "num_iterations", 1) > 1 or parts > train.gradient_accumulation_steps


def _require_room(stage: Any, step: Step) -> None:
    """Raises RecipeError where the class keeps too much of as many weights as are trained, if that is known."""
    cls = _class(stage.optimizer, (*step.path, KEY))
    weights = dry.weights_trained(stage, step) if hasattr(cls, "require_room") else None
    if weights is not None:
        try:
            cls.require_room(weights, **keys_of(stage.optimizer))
        except ValueError as error:
            raise RecipeError(f"{stage.optimizer[CLASS]}: {error}", (*step.path, KEY)) from error


def engine_of(step: Step) -> str | None:
    """FSDP or DEEPSPEED where the step's weights will be split by it, or are in this launch."""
    if sharding() or step.launch is None:
        return sharding()
    engine = yaml.safe_load(commands.accelerate_config(step).read_text()).get("distributed_type")
    return engine if engine in SPLITTING else None


def numbers_kept(block: Mapping[str, Any] | None) -> float | None:
    """How many numbers the optimizer of a block keeps of each weight; None where the block names none, or may not."""
    if not block or CLASS not in block or kinds.is_withheld(kinds.OPTIMIZERS, block[CLASS]):
        return None
    return _seen(block, ())["kept"]


def install(trainer: Any, block: Mapping[str, Any] | None) -> None:
    """Has a trainer that has no optimizer yet make the one of the block."""
    if not block or CLASS not in block:
        return
    cls = _class(block, ())
    if hasattr(cls, "grouped"):
        cls = _grouping(cls, trainer)
    trainer.optimizer_cls_and_kwargs = (cls, {"lr": trainer.args.learning_rate, **keys_of(block)})


def average(trainer: Any) -> None:
    """Puts the weights that are to be kept in the place of those that are stepped, where an optimizer has both."""
    if callable(getattr(trainer.optimizer, "eval", None)):  # schedule-free ones
        trainer.optimizer.eval()


def _class(block: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    import torch

    cls = kinds.find(kinds.OPTIMIZERS, block[CLASS], (*place, CLASS))
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise RecipeError(f"{block[CLASS]} is no torch.optim.Optimizer", (*place, CLASS))
    return cls


def _grouping(cls: Any, trainer: Any) -> Any:
    """The class, with groups that know the names of their parameters."""

    def __init__(self: Any, params: Any, **keys: Any) -> None:
        names = {value: name for name, value in trainer.model.named_parameters()}
        cls.__init__(self, cls.grouped(params, names), **keys)

    return type(cls.__name__, (cls,), {"__init__": __init__})


def _seen(block: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """What an optimizer says of itself, "" where nothing, and how many numbers it keeps of a weight.

    It takes some steps on a few numbers for that, once: importing a library takes seconds, so the answer is
    remembered.
    """
    return _remembered("what it does", block, lambda: _look(block, place))


def _unsplit(block: Mapping[str, Any], place: tuple[str, ...]) -> str:
    """Why an optimizer cannot step weights that FSDP2 has split, "" where it can or the launch has begun."""
    from torch import distributed

    from trimtab.pipelines.algorithms import stepping

    if distributed.is_initialized():
        return ""  # its first step will say it
    return _remembered("split", block, lambda: stepping.split_step_fails(_maker(block, place)))


def _remembered(question: str, block: Mapping[str, Any], ask: Callable[[], Any]) -> Any:
    word = block[CLASS]
    located = kinds.place(kinds.OPTIMIZERS, word)
    if located is None or located.files:
        return ask()  # of a user's own file, which may change
    made_of = [question, word, keys_of(block), _version(word.partition(".")[0]), located.file.stat().st_mtime]
    return memos.recalled("optimizers", made_of, ask)


def _maker(block: Mapping[str, Any], place: tuple[str, ...]) -> Callable[[list[dict[str, Any]]], Any]:
    from trimtab.pipelines.algorithms import stepping

    cls, keys = _class(block, place), keys_of(block)
    return lambda groups: cls(groups, lr=stepping.RATE, **keys)


def _look(block: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    from trimtab.pipelines.algorithms import stepping

    cls, keys = _class(block, place), keys_of(block)
    try:
        stepped = stepping.look(_maker(block, place))
    except Exception as error:  # whatever a stranger's class raises of keys that it does not take
        raise RecipeError(f"{block[CLASS]} cannot be made and stepped with these keys: {error}", place) from error
    needs_whole = getattr(cls, "needs_whole", "" if stepped.by_element else "takes whole matrices into account")
    kept = cls.numbers_kept(keys) if hasattr(cls, "numbers_kept") else stepped.kept
    said = {key: getattr(cls, key, "") for key in ("of_one_point", "of_one_loss")}
    not_by_copies = ""
    if callable(getattr(cls, "eval", None)):  # schedule-free ones
        not_by_copies = "keeps other weights than it steps, which DeepSpeed's copies of these cannot make room for"
    elif stepped.counts:
        not_by_copies = "counts its steps for all weights together, and ZeRO-3 steps a part of them after another"
    return {**said, "needs_whole": needs_whole, "kept": kept, "not_by_copies": not_by_copies}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
