"""A first recipe from a goal, data and a base model: what a new user would change least."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trimtab.pipelines.importing import names
from trimtab.pipelines.planning.errors import RecipeError

COLUMNS = (  # by which a goal can be told, the most telling first
    ("dpo", {"chosen", "rejected"}),
    ("kto", {"label", "completion"}),
    ("sft", {"messages"}),
    ("sft", {"completion"}),
    ("sft", {"text"}),
    ("grpo", {"prompt"}),
)
GOALS = {
    "sft": "imitate answers (rows: messages, or prompt and completion, or text)",
    "reward": "a reward model from pairs (rows: prompt, chosen, rejected)",
    "dpo": "prefer the better of two answers (rows: prompt, chosen, rejected)",
    "kto": "prefer good answers to bad ones (rows: prompt, completion, label)",
    "grpo": "reach a higher reward on prompts (rows: prompt, and answer where it can be checked)",
    "apo": "pairs to a reward model, then three rounds on the policy's own answers, and an evaluation",
}
RATES = {"sft": "2e-5", "reward": "1e-5", "dpo": "5e-7", "kto": "5e-7", "grpo": "1e-6", "apo": "5e-7"}
LORA_RATES = {"sft": "2e-4", "reward": "1e-4", "dpo": "5e-6", "kto": "5e-6", "grpo": "1e-5", "apo": "5e-6"}


def goal_of(data: str) -> str | None:
    """The goal that the columns of a local file of JSON lines speak for; None where they cannot be seen."""
    path = Path(data).expanduser()
    if not path.is_file() or path.suffix not in (".jsonl", ".json"):
        return None
    with path.open(encoding="utf-8") as file:
        try:
            row = json.loads(file.readline())
        except ValueError:
            return None
    columns = set(row) if isinstance(row, dict) else set()
    return next((goal for goal, wanted in COLUMNS if wanted <= columns), None)


def text(goal: str, data: str, model: str, *, lora: bool = False) -> str:
    """The recipe. Raises RecipeError for a goal that is none."""
    if goal not in GOALS:
        raise RecipeError(f"goal {goal!r} is none of {', '.join(GOALS)}")
    source, of_data = names.settle(data)
    base, of_model = names.settle(model)
    notes = "".join(f"# To do: {note}\n" for note in (of_data, of_model) if note)
    rate = (LORA_RATES if lora else RATES)[goal]
    adapter = ", use_peft: true, lora_r: 16, lora_alpha: 32, lora_target_modules: all-linear" if lora else ""
    head = f"""\
# {GOALS[goal].partition(" (")[0].capitalize()}. Next: trimtab plan FILE; trimtab run FILE --shrink; trimtab run FILE
{notes}inputs:
  base: {base}
  rows: {source}

stages:
"""
    return head + STAGES[goal](rate, adapter)


def _trained(name: str, rate: str, adapter: str, more: str = "") -> str:
    return f"""\
  {name}:
    model: {{model_name_or_path: $base{adapter}}}
    data: {{path: $rows, eval_fraction: 0.05}}  # about that share of the prompts is kept apart, and evaluated
    batch_size: 64  # rows of an optimizer step, on all ranks together
    train: {{learning_rate: {rate}, num_train_epochs: 1, lr_scheduler_type: cosine, warmup_steps: 0.1{more}}}
"""


def _sft(rate: str, adapter: str) -> str:
    return _trained("sft", rate, adapter, ", max_length: 2048")


def _reward(rate: str, adapter: str) -> str:
    return _trained("reward", rate, adapter, ", max_length: 2048")


def _dpo(rate: str, adapter: str) -> str:
    return _trained("dpo", rate, adapter, ", max_length: 2048, beta: 0.1")


def _kto(rate: str, adapter: str) -> str:
    return _trained("kto", rate, adapter, ", max_length: 2048, beta: 0.1")


def _grpo(rate: str, adapter: str) -> str:
    return f"""\
  grpo:
    model: {{model_name_or_path: $base{adapter}}}
    data: {{path: $rows, eval_fraction: 0.05}}
    rewards:  # each is one block; docs/rewards.md has them all, and your own function is {{kind: my_rewards.name}}
      right: {{kind: math, column: answer, compare: numbers}}
      brief: {{kind: length, target: 200, at_most: true, weight: 0.1}}
    batch_size: 64  # completions of an optimizer step
    train: {{learning_rate: {rate}, num_generations: 8, max_completion_length: 512, num_train_epochs: 1}}
"""


def _apo(rate: str, adapter: str) -> str:
    return f"""\
{_reward("1e-5", "")}
  apo:
    model: {{model_name_or_path: $base{adapter}}}
    prompts: {{path: $rows}}
    rewards: {{helpful: {{kind: reward_model, path: $reward}}}}
    rounds: 3
    num_generations: 4
    beta: 0.1
    generate: {{max_new_tokens: 512}}
    train: {{learning_rate: {rate}, max_length: 2048}}

  evaluate:
    policies: {{base: $base, apo: $apo}}
    prompts: {{path: $rows, max_rows: 200}}
    rewards:
      helpful: {{kind: reward_model, path: $reward}}
      brief: {{kind: length, target: 200, at_most: true}}
    generate: {{max_new_tokens: 512}}

  report: {{}}
"""


STAGES: dict[str, Callable[[str, str], str]] = {
    "sft": _sft,
    "reward": _reward,
    "dpo": _dpo,
    "kto": _kto,
    "grpo": _grpo,
    "apo": _apo,
}
