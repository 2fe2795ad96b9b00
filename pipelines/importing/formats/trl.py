"""TRL's configurations and command lines, and those of its family: alignment-handbook, open-r1 and SPPO."""

from __future__ import annotations

import re
from typing import Any

from trimtab.pipelines.importing import arguments, names, rewards, rows
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning.errors import RecipeError

NAMED = (  # in the program's words, or the file's name
    ("grpo", r"\bgrpo|_grpo"),
    ("rloo", r"\brloo|_rloo"),
    ("kto", r"\bkto|_kto"),
    ("reward", r"\breward\b|\breward(?:_modeling)?\.py|reward_model|\brm\b"),
    ("dpo", r"\bs?dpo|_dpo|\borpo|_orpo|\bsppo|_sppo|\bcpo|_cpo|simpo"),
    ("sft", r"\bsft|_sft|\bcpt\b"),
)
KEYS = {  # that only one kind has
    "grpo": {"num_generations", "reward_funcs", "max_completion_length", "reward_weights"},
    "kto": {"desirable_weight", "undesirable_weight"},
    "reward": {"center_rewards_coefficient"},
    "dpo": {"beta", "precompute_ref_log_probs", "rpo_alpha", "max_prompt_length", "simpo_gamma"},
    "sft": {"packing", "max_seq_length", "dataset_text_field", "assistant_only_loss", "completion_only_loss"},
}
LOSSES: dict[str, tuple[Any, str]] = {
    "sppo": ("sppo_hard", "with the win rates themselves: `kind: prefer` with `loss: sppo` on a policy's own answers"),
    "sppo_single": ("sppo_hard", "with the win rates themselves: `kind: prefer` with `loss: sppo`"),
    "rpo": (["sigmoid", "sft"], "the preference and the likelihood of the chosen answer, by `loss_weights`"),
    "kto_pair": ("apo_zero", "TRL has removed it: `kind: kto` takes unpaired answers"),
    "simpo": ("sigmoid_norm", "by the length of the answers, with a reference; without one: `kind: prefer`"),
}
CURES = {
    "system_prompt": "the rows say it: put a message of the role `system` in front of each prompt (docs/data.md)",
    "chat_template": "write the template to a file and name it in `train.chat_template_path` of sft or reward",
    "parallel_code_exec_per_proc": "programs run in `workers` processes of the reward `code`",
    "remove_unused_columns": arguments.REASONS["remove_unused_columns"],
    "auto_insert_empty_system_msg": "rows are rendered by the model's chat template as it is",
}
OF_REWARDS = re.compile(
    r"^(?:cosine_\w+|repetition_\w+|code_\w+|ioi_provider|piston_endpoint|morph_router_url|e2b_router_url"
    r"|max_completion_len|soft_punish_cache|code_eval_\w+)$"
)


def recognises(source: Source) -> bool:
    """Whether a source has the family's keys, or calls one of its programs."""
    known = {"model_name_or_path", "per_device_train_batch_size", "learning_rate", "dataset_name", "dataset_mixer"}
    return bool(known & source.values.keys()) or re.search(r"\btrl\b|run_\w+\.py", source.command) is not None


def translate(source: Source) -> list[Draft]:
    """The one stage that it is. Raises RecipeError where its kind cannot be told."""
    draft = Draft.of(kind_of(source), source)
    _model(draft)
    if draft.takes_prompts():
        _policy(draft)
    _loss(draft)
    _template(draft)
    rows.of_family(draft)
    draft.drop_all(CURES)
    for key in [key for key in draft.left if OF_REWARDS.match(key)]:
        draft.drop(key, "an option of a reward: it stands in that reward's block")
    arguments.translate(draft)
    arguments.finish(draft)
    if "data" not in draft.block:
        draft.put("data", rows.entry(draft, "DATA"))
    return [draft]


def kind_of(source: Source) -> str:
    """The kind of stage, by the program, by keys that one kind alone has, or by the file's name and its folder."""
    values = {key for key, value in source.values.items() if value is not None}
    if source.command:
        for kind, pattern in NAMED:
            if re.search(pattern, source.command):
                return kind
    folder = source.folder.resolve().name
    for kind, pattern in NAMED:
        if re.search(pattern, source.name) or re.search(pattern, folder):
            return kind
    for kind, keys in KEYS.items():
        if keys & values:
            return kind
    said = " ".join(str(source.values.get(key, "")) for key in ("output_dir", "hub_model_id", "run_name"))
    for kind, pattern in NAMED:
        if re.search(pattern, said.lower().replace("-", " ")):
            return kind
    if {"dataset_mixer", "dataset_name", "dataset_mixture", "datasets"} & values:
        return "sft"
    raise RecipeError(f"{source.name}: cannot tell whether it is sft, dpo, kto, reward or grpo: name the file so")


def _model(draft: Draft) -> None:
    key = "model_name_or_path" if draft.look("model_name_or_path") is not None else "model"
    if draft.look(key) is None:
        draft.put("model.model_name_or_path", f"{names.YOURS}/model")
        draft.notes.append(f"no model is named: put one in the place of {names.YOURS}/model")
        return
    arguments.first_model(draft, key)
    if draft.look("load_in_4bit") or draft.look("load_in_8bit"):
        draft.notes.append("quantised weights need bitsandbytes: pip install bitsandbytes")


def _policy(draft: Draft) -> None:
    """The rewards of a policy's training, whose weighted sum it maximises."""
    draft.put("rewards", {})
    asked = draft.look("reward_funcs") or []
    weights = draft.look("reward_weights") or []
    weights = weights if isinstance(weights, list) else [weights]
    model = draft.look("reward_model_name_or_path", "reward_model_path")
    blocks: dict[str, dict[str, Any]] = {}
    if model is not None:
        blocks["reward_model"] = rewards.model(draft, model)
    for word in [asked] if isinstance(asked, str) else asked:
        label, block = rewards.named(draft, str(word))
        blocks[label if label not in blocks else f"{label}_{len(blocks)}"] = block
    for (_, block), weight in zip(blocks.items(), weights, strict=False):
        if float(weight) != 1:
            block["weight"] = weight
    if not blocks:
        blocks["reward"] = rewards.stand_in(draft, "reward", "no reward is named: write one")
    for key in ("reward_funcs", "reward_model_name_or_path", "reward_model_path"):
        if draft.left.get(key) is not None:
            draft.settle(key, "rewards", "one block for each, by the name that its curve will have")
    if draft.left.get("reward_weights") is not None:
        draft.settle("reward_weights", "rewards", "`weight` in each reward's block")
    draft.put("rewards", blocks)


def _loss(draft: Draft) -> None:
    loss = draft.look("loss_type")
    if draft.kind == "dpo" and isinstance(loss, str) and loss in LOSSES:
        draft.change("loss_type", "train.loss_type", *LOSSES[loss])
    if draft.kind == "dpo" and draft.left.get("rpo_alpha") is not None:
        draft.put("train.loss_type", ["sigmoid", "sft"])
        draft.change("rpo_alpha", "train.loss_weights", [1.0, draft.look("rpo_alpha")], "a mixture of two losses")
    of_source = (draft.source.command, draft.source.name, draft.source.folder.resolve().name)
    words = " ".join((*of_source, str(draft.look("output_dir"))))
    for word in ("orpo", "cpo", "simpo"):
        if draft.kind == "dpo" and re.search(rf"\b{word}|_{word}", words):
            draft.notes.append(
                f"{word.upper()} has no reference model; this is DPO with one, on the same pairs. On a policy's own "
                "answers `kind: prefer` has `loss: orpo`"
            )
            break


def _template(draft: Draft) -> None:
    """A chat template that is written out, or a word for one."""
    template = draft.look("chat_template")
    if isinstance(template, str) and draft.kind in ("sft", "reward") and names.settle(template)[1] == "":
        draft.rename("chat_template", "train.chat_template_path")
    elif isinstance(template, str):
        draft.notes.append(f"chat_template: {CURES['chat_template']}")
