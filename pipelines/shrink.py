"""Any recipe on a CPU in a minute: tiny random models of the same architectures, a few rows, two training steps.

    python scripts/run.py recipes/mistral-7b/apo.yaml --shrink

What comes out is worthless; that it comes out shows that the recipe's stages fit together, before a GPU is rented. Hub
models become random ones of their family, hub data a few rows in the same format, reward models from outside tiny
ones, and servers a reward on length. Everything else is the recipe's own. The shrunk recipe is a file to look at.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines import plugins, preflight
from pipelines.data import Data
from pipelines.document import Document
from pipelines.errors import RecipeError
from pipelines.recipe import Recipe

FOLDER = Path("runs") / "shrunk"
GROUPS = {"num_generations": 2, "max_completion_length": 8, "generation_batch_size": None, "use_vllm": False}  # GRPO
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
# a word in a model's name -> transformers' model_type, the first that fits
FAMILIES = {
    "mixtral": "mistral", "mistral": "mistral", "zephyr": "mistral", "qwen3": "qwen3", "qwen": "qwen2",
    "gemma-2": "gemma2", "gemma": "gemma", "phi-3": "phi3", "gpt2": "gpt2", "olmo-2": "olmo2",
    "smollm": "llama", "llama": "llama", "roberta": "roberta",
}  # fmt: skip
TRAIN = {"max_steps": 2, "num_train_epochs": 1, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2,
         "gradient_accumulation_steps": 1, "logging_steps": 1, "save_steps": 1, "warmup_steps": 0,
         "bf16": False, "fp16": False, "tf32": None, "gradient_checkpointing": False}  # fmt: skip
TOKENS = {"eos_token": None, "pad_token": None, "chat_template_path": None}  # of the vocabulary that is not there
CHANGED = TRAIN | TOKENS | GROUPS
LENGTH = 256  # tokens
WORLD = {"sft": 64, "prompts": 12, "pairs": 64, "test": 10}
QUESTIONS = ["What is 2 + 2?", "Name a colour.", "Say hello.", "Where does rain come from?", "What do cats eat?",
             "Count to three.", "Why is the sky blue?", "Tell me a story."]  # fmt: skip


def shrunk(path: str, overrides: Sequence[str] = ()) -> str:
    """The path of the shrunk recipe, in `runs/shrunk`, with the rows and models that it names.

    Raises RecipeError for a model of no known family.
    """
    document = Document.read(path, overrides)
    stages = _resolved(document.values.get("stages") or {}, document.values.get("inputs") or {})
    words = [f"output_dir={FOLDER}", "wandb=false", *(f"defaults.train.{k}={json.dumps(v)}" for k, v in TRAIN.items())]
    for name, block in stages.items():
        block = block or {}
        cls = plugins.find("pipelines.stages", block.get("kind", name), ("stages", name))
        words += [f"stages.{name}.{key}={json.dumps(value)}" for key, value in _stage(cls, block, stages)]
    values = Document.read(path, [*overrides, *words]).values
    made = FOLDER / f"{values.get('name') or Path(path).stem}.yaml"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(made)


def _resolved(value: Any, inputs: Mapping[str, str]) -> Any:
    """The stages with what `inputs` stand for in the place of their names."""
    if isinstance(value, Mapping):
        return {key: _resolved(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, inputs) for item in value]
    return inputs.get(value[1:], value) if isinstance(value, str) and value.startswith("$") else value


def _stage(cls: type, block: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of what changes in one stage."""
    hints, fields = plugins.hints(cls), cls.__dataclass_fields__
    kind = cls.__module__.rpartition(".")[2]
    yield "accelerate", "cpu"
    for key in fields:
        value = block.get(key)
        if hints[key] in (Data, Data | None) and value is not None and not _inside(value, stages):
            yield key, str(rows(kind, key))
        elif key == "train":
            yield from ((f"train.{name}", CHANGED.get(name)) for name in value or {} if name in CHANGED)
            if "max_length" in getattr(plugins.bare(hints[key]), "__dataclass_fields__", {"max_length"}):
                yield "train.max_length", LENGTH  # GRPO knows no such key
        elif key in ("model", "reference") and isinstance(value, Mapping):
            yield from _model(f"{key}.", value, stages)
        elif key == "reference" and isinstance(value, str) and not _inside(value, stages):
            yield key, model(value)
        elif key == "policies":
            yield from ((f"{key}.{n}", model(v)) for n, v in (value or {}).items() if not _inside(v, stages))
        elif key in ("rewards", "labels"):
            yield from ((f"{key}.{n}", found) for n, v in (value or {}).items() if (found := _reward(v, stages)) != v)
        elif key == "metric" and isinstance(value, Mapping):
            yield key, _reward(value, stages)
        elif key == "thresholds" and value:
            yield f"{key}.patience", 1
        elif key == "generate":
            yield f"{key}.max_new_tokens", 8
        elif key == "engine":  # vLLM has no kernels for models this small
            yield key, "transformers"
        elif key == "monitor" and value:
            if value.get("stop_if"):  # a random model is beyond every limit
                yield f"{key}.stop_if", {k: -1 if k in ("entropy", "distinct_2") else 1e9 for k in value["stop_if"]}
            if isinstance(value.get("reference"), Mapping):
                yield from _model(f"{key}.reference.", value["reference"], stages)
    if "num_generations" in fields and (block.get("num_generations") or 3) > 3:
        yield "num_generations", 3
    if kind == "proxy_points":
        yield "window", 1
    if kind == "openings":
        yield "words", 2
    if kind == "world":
        yield from WORLD.items()
    if kind == "scratch":
        yield "vocab_size", 400
        config = block.get("config") or {}
        yield "config", {"model_type": config.get("model_type", "llama"), **SIZES}


def _model(prefix: str, value: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    name = value.get("model_name_or_path")
    if name and not _inside(name, stages):
        yield f"{prefix}model_name_or_path", model(name)
    if "dtype" in value:
        yield f"{prefix}dtype", "float32"
    if "attn_implementation" in value:
        yield f"{prefix}attn_implementation", None
    if "load_in_4bit" in value:
        yield f"{prefix}load_in_4bit", False


def _reward(block: Any, stages: Mapping[str, Any]) -> Any:
    """A reward's block, with what is outside this machine replaced, also inside composites."""
    if not isinstance(block, Mapping):
        return block
    own = {key: block[key] for key in plugins.CONSTRAINT if key in block}
    if block.get("kind") in ("remote", "gold"):  # a random model's answers are all alike to a strict judge
        return {"kind": "length", "target": 5, "unit": "characters", **own}
    changed = {key: _reward(value, stages) if key != "rewards" else
               {n: _reward(v, stages) for n, v in value.items()} for key, value in block.items()}  # fmt: skip
    if block.get("kind") == "reward_model":
        changed = {key: value for key, value in changed.items() if key in ("kind", "path", "normalize", "head")}
        changed |= own
        if not _inside(block["path"], stages):
            changed |= {"path": model(block["path"], scores=True)}
            changed.pop("normalize", None)
    return changed


def _inside(value: Any, stages: Mapping[str, Any]) -> bool:
    """Whether a value of the recipe is (in) the artifact of one of its stages."""
    if isinstance(value, Mapping):
        value = value.get("path", value.get("datasets"))
    if isinstance(value, list):
        return all(_inside(item, stages) for item in value)
    if not isinstance(value, str) or not value.startswith("$"):
        return False
    name = value[1:].split("/")[0]
    return any(name == stage or name.startswith(f"{stage}-") for stage in stages)


def rows(kind: str, key: str) -> Path:
    """A file with a few rows in the format that the stage's key takes."""

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    extra = {"answer": "4", "ground_truth": "4", "label": "4"}
    found = []
    for at, question in enumerate(QUESTIONS):
        prompt, good, bad = said("user", question), said("assistant", f"It is {at}."), said("assistant", "No.")
        if kind == "classifier":
            found.append({"text": f"{question}\nIt is {at}.\n", "label": at % 2})
        elif kind == "dialogues":
            found.append({"dialog": [question, f"It is {at}.", "Thanks."] * 3, "act": [2, 1, 1 + at % 4] * 3})
        elif kind in ("scratch", "openings"):
            found.append({"text": f"{question} It is {at}."})
        elif kind in ("reward", "dpo", "prefer"):
            found.append({"prompt": prompt, "chosen": good, "rejected": bad})
        elif kind == "sft" or key in ("real", "real_eval"):
            found.append({"messages": prompt + good})
        else:
            found.append({"prompt": prompt, **extra})
    form = "pairs" if "chosen" in found[0] else "-".join(found[0])
    path = FOLDER / "rows" / f"{form}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def model(name: str, *, scores: bool = False) -> str:
    """A tiny random model of the family that `name` belongs to; with `scores` a reward model."""
    family = next((kind for word, kind in FAMILIES.items() if word in name.lower()), None)
    if family is None:
        raise RecipeError(f"--shrink knows no family for the model {name!r} (it knows {', '.join(FAMILIES)})")
    folder = FOLDER / "models" / (f"{family}-scores" if scores else family)
    if (folder / "config.json").exists():
        return str(folder)
    if not scores:
        _language_model(family, folder)
        return str(folder)
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    base = model(name)
    set_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    torch.nn.init.normal_(scorer.score.weight)
    scorer.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


def _language_model(family: str, folder: Path) -> None:
    """What a `scratch` stage makes, whose code it is."""
    config = {"model_type": family, **SIZES, **({} if family == "gpt2" else GROUPED)}
    stage = {"corpus": str(rows("scratch", "corpus")), "vocab_size": 400, "config": config}
    recipe = FOLDER / "rows" / "model.yaml"
    recipe.write_text(yaml.safe_dump({"output_dir": str(FOLDER), "stages": {"scratch": stage}}))
    step = Recipe.load(str(recipe)).steps[0]
    folder.mkdir(parents=True, exist_ok=True)
    preflight.build(step).run(dataclasses.replace(step, output=folder))
