"""How a step lies on a machine: its ranks, its batch on each of them, its engine, and what it saves memory by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trimtab.pipelines.training import optimizers

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Launch

CHECKPOINTING = "gradient_checkpointing"
Sharded = Literal["nothing", "optimizer", "everything"]  # split over the ranks


@dataclass(frozen=True)
class Engine:
    """What an accelerate configuration splits over the ranks; with `offloads`, that lies in the machine's memory.

    `rounds_weights` is DeepSpeed's way with bf16: weights and gradients of two bytes, and a copy of the weights of
    four among the optimizer's numbers.
    """

    sharded: Sharded = "nothing"
    offloads: bool = False
    rounds_weights: bool = False

    @classmethod
    def of(cls, config: dict[str, Any]) -> Engine:
        """The engine of an accelerate configuration."""
        deepspeed, fsdp = config.get("deepspeed_config") or {}, config.get("fsdp_config") or {}
        if config.get("distributed_type") == "DEEPSPEED":
            stage = int(deepspeed.get("zero_stage", 2))
            offloads = deepspeed.get("offload_optimizer_device", "none") != "none"
            stages: dict[int, Sharded] = {0: "nothing", 1: "optimizer", 2: "optimizer"}
            return cls(stages.get(stage, "everything"), offloads, rounds_weights=True)
        if config.get("distributed_type") == "FSDP":
            return cls("everything", bool(fsdp.get("fsdp_offload_params")))
        return cls()


@dataclass(frozen=True)
class Setting:
    """Where and how a step is launched; `batch` and `accumulation` are those of a rank.

    `adapters` is the rank of LoRA and what it adapts, None where every weight is trained. `numbers_kept` of each
    weight is what an optimizer of its own class keeps, None where the word of one of transformers' says it. `tokens`
    are those of a micro-batch at the most, where a batch is cut by them.
    """

    ranks: int = 1
    on_cpu: bool = True
    batch: int = 1
    accumulation: int = 1
    checkpointing: bool = False
    bf16: bool = False
    optimizer: str = "adamw_torch_fused"
    numbers_kept: float | None = None
    tokens: int | None = None
    adapters: tuple[int, Any] | None = None
    engine: Engine = Engine()

    @property
    def rows_of_update(self) -> int:
        """The rows behind one step of the optimizer."""
        return self.batch * self.accumulation * self.ranks


def of_stage(stage: Any, launch: Launch, config: dict[str, Any], written: Collection[str]) -> Setting:
    """The setting of a step: what its training arguments, its launch and its accelerate configuration say.

    `written` are the keys of `train` that the recipe has, over which the pipeline sets nothing.
    """
    train, model = getattr(stage, "train", None), getattr(stage, "model", None)
    # passes that train nothing compute in bfloat16 on an accelerator
    place = Setting(launch.processes, launch.on_cpu, bf16=not launch.on_cpu, engine=Engine.of(config))
    if train is None:
        return place
    targets = getattr(model, "lora_target_modules", None)
    with_bf16 = train.bf16 if train.bf16 is not None else not train.fp16
    return Setting(
        ranks=launch.processes,
        on_cpu=launch.on_cpu,
        batch=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        checkpointing=bool(train.gradient_checkpointing) and (not launch.on_cpu or CHECKPOINTING in written),
        bf16=bool(with_bf16 or train.fp16) and not launch.on_cpu,
        optimizer=str(getattr(train.optim, "value", train.optim)),
        numbers_kept=optimizers.numbers_kept(getattr(stage, "optimizer", None)),
        adapters=(model.lora_r, _targets(targets)) if model is not None and model.use_peft else None,
        engine=place.engine,
    )


def _targets(names: Any) -> Any:
    """Names of modules as trl takes them: a list with one word stands for the word."""
    if isinstance(names, list):
        return names[0] if len(names) == 1 else tuple(names)
    return names
