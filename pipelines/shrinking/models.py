"""Tiny random models of the families that public recipes name."""

from __future__ import annotations

from pathlib import Path

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.training import from_scratch

SEED = 42
VOCABULARY = 400
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}  # what every family but GPT-2 knows
TEXTS = ("What is 2 + 2? It is 4.", "Name a colour. It is blue.", "Tell me a story. Once there was a cat.")
# a word in a model's name -> transformers' model_type, the first that fits
FAMILIES = {
    "mixtral": "mistral",
    "mistral": "mistral",
    "zephyr": "mistral",
    "qwen3": "qwen3",
    "qwen": "qwen2",
    "gemma-2": "gemma2",
    "gemma": "gemma",
    "phi-3": "phi3",
    "gpt2": "gpt2",
    "olmo-2": "olmo2",
    "smollm": "llama",
    "llama": "llama",
    "roberta": "roberta",
}


def tiny(name: str, folder: Path, *, scores: bool = False) -> str:
    """The folder of a random model of the family of `name`; with `scores` a sequence-classification model.

    Raises RecipeError for a model of no known family.
    """
    family = next((kind for word, kind in FAMILIES.items() if word in name.lower()), None)
    if family is None:
        raise RecipeError(f"--shrink knows no family for the model {name!r} (it knows {', '.join(FAMILIES)})")
    target = folder / (f"{family}-scores" if scores else family)
    if (target / "config.json").exists():
        return str(target)
    if scores:
        _with_scores(tiny(name, folder), target)
    else:
        target.mkdir(parents=True, exist_ok=True)
        config = {"model_type": family, **from_scratch.SMALLEST, **({} if family == "gpt2" else GROUPED)}
        tokenizer = from_scratch.make_tokenizer(TEXTS, vocab_size=VOCABULARY)
        from_scratch.save_model(tokenizer, config, target, seed=SEED)
    return str(target)


def _with_scores(base: str, target: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(SEED)
    scorer = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    torch.nn.init.normal_(scorer.score.weight)
    scorer.save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)
