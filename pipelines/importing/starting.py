"""A first recipe from a goal, data and a base model: what a new user would change least.

A kind says in `starts` how a recipe begins with it; no list of goals is kept here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trimtab.pipelines.importing import names
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import RecipeError

FOR_ADAPTERS = 10  # their learning rate, over that of all weights
ADAPTER = ", use_peft: true, lora_r: 16, lora_alpha: 32, lora_target_modules: all-linear"
TRAINED = """\
  %(kind)s:
    model: {model_name_or_path: $base%(adapter)s}
    data: {path: $rows, eval_fraction: 0.05}  # about that share of the prompts is kept apart, and evaluated
    batch_size: 64  # rows of an optimizer step, on all ranks together
    train: {learning_rate: %(rate)s, num_train_epochs: 1, lr_scheduler_type: cosine, warmup_steps: 0.1, \
max_length: 2048%(more)s}
"""


@dataclass(frozen=True)
class Start:
    """How a first recipe begins with a kind of stage.

    `goal` says in words what it is for, and `rows` of what. `tells` are sets of columns that speak for it. `stages` is
    YAML in which `$base` is the model and `$rows` the data, `%(rate)s` a learning rate, `%(adapter)s` the keys of an
    adapter, `%(kind)s` the word, and `%(more)s` further keys of `train`.
    """

    goal: str
    rows: str
    rate: float
    tells: tuple[tuple[str, ...], ...] = ()
    stages: str = TRAINED
    more: str = ""


def goals() -> dict[str, Start]:
    """How a recipe begins, by goal: the kinds that say so."""
    said = {word: kinds.find(kinds.STAGES, word).starts for word in kinds.words(kinds.STAGES)}
    return {word: start for word, start in said.items() if start}


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
    spoken = {word: [len(told) for told in start.tells if columns.issuperset(told)] for word, start in goals().items()}
    fitting = {word: max(counts) for word, counts in spoken.items() if counts}
    return max(fitting, key=lambda word: fitting[word], default=None)


def text(goal: str, data: str, model: str, *, lora: bool = False) -> str:
    """The recipe. Raises RecipeError for a goal that is none."""
    known = goals()
    if goal not in known:
        raise RecipeError(f"goal {goal!r} is none of {', '.join(known)}")
    start = known[goal]
    source, of_data = names.settle(data)
    base, of_model = names.settle(model)
    notes = "".join(f"# To do: {note}\n" for note in (of_data, of_model) if note)
    rate = start.rate * FOR_ADAPTERS if lora else start.rate
    written = f"{rate:.0e}".replace("e-0", "e-")
    words = {"kind": goal, "rate": written, "adapter": ADAPTER if lora else "", "more": start.more}
    return f"""\
# {start.goal.capitalize()}. Next: trimtab plan FILE; trimtab run FILE --shrink; trimtab run FILE
{notes}inputs:
  base: {base}
  rows: {source}

stages:
{start.stages % words}"""
