"""Scoring speed of `kind: reward_model` against TRL's GRPO reward path: the same model, completions and machine.

    python benchmarks/reward_scoring.py data=pairs.jsonl.gz                    # preference rows with chat prompts
    python benchmarks/reward_scoring.py data=... completions=2000 repeats=3 model=runs/mine/helpful/output

TRL's side is `GRPOTrainer._calculate_rewards` itself, with the reward model as TRL loads it, called with one
generation batch at a time: 8 completions, TRL's default, and fewer and more. The completions are the chosen and
rejected answers in the order of the data, two of a prompt side by side, as a sampler's K completions are. The two
sides take turns; the ratios are of the medians, to TRL's default and to its best. Scores must agree to 1e-5: in chat
form TRL is right (its template has the special tokens). In text form it is not, since it adds neither the beginning-
nor the end-of-sequence token that trl.RewardTrainer trains with: the last line says how far that moves its scores.

Without `model` a random Llama of 4 layers and hidden size 256 is made on the data's text.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import datasets
import torch
import transformers
import trl
import yaml

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

CONFIG = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
          "num_attention_heads": 4, "max_position_embeddings": 4096}  # fmt: skip
BATCHES = (2, 8, 32)


def main(data: str, completions: str = "2000", repeats: str = "3", model: str = "") -> None:
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        model = model or make_model(folder, data)
        rows = datasets.load_dataset("json", data_files=data, split="train")
        pairs = [(row["prompt"], row[key]) for row in rows for key in ("chosen", "rejected")][: int(completions)]
        prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
        reward = schema.load_reward({"kind": "reward_model", "path": model})
        trainer = grpo(model, folder)
        reward(prompts=prompts[:2], completions=answers[:2])
        sides = {f"trl, {size} a batch": lambda size=size: theirs(trainer, prompts, answers, size) for size in BATCHES}
        sides["reward_model"] = lambda: ours(reward, prompts, answers)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        scores = {}
        for _ in range(int(repeats)):
            for name, side in sides.items():
                started = time.perf_counter()
                scores[name] = side()
                seconds[name].append(time.perf_counter() - started)
        show(seconds, scores, len(pairs))
        flat = [prompt[-1]["content"] for prompt in prompts[:200]], [answer[0]["content"] for answer in answers[:200]]
        apart = [abs(a - b) for a, b in zip(ours(reward, *flat), theirs(trainer, *flat, 8), strict=True)]
        spread = statistics.pstdev(ours(reward, *flat))
        print(f"text form, 200 completions: trl's scores are off by {statistics.fmean(apart):.3g} on average "
              f"(std of the scores {spread:.3g})")  # fmt: skip


def show(seconds: dict[str, list[float]], scores: dict[str, list[float]], count: int) -> None:
    """The table, the ratio to TRL's best batch, and the largest difference between the scores."""
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    print(f"{count} completions, {torch.get_num_threads()} threads; seconds: median (min .. max)")
    for name, runs in seconds.items():
        print(
            f"  {name:18} {medians[name]:7.2f} ({min(runs):.2f} .. {max(runs):.2f})  {count / medians[name]:6.1f} /s"
        )
    mine = medians.pop("reward_model")
    best = min(medians, key=medians.get)
    default = medians["trl, 8 a batch"]
    print(f"ratio: {default / mine:.2f} to trl's default batch of 8, {medians[best] / mine:.2f} to its best ({best})")
    gap = max(abs(a - b) for a, b in zip(scores["reward_model"], scores[best], strict=True))
    print(f"largest difference between the scores: {gap:.2g}")
    if gap > 1e-5:
        sys.exit("the scores differ by more than 1e-5")


def ours(reward, prompts: list, answers: list) -> list[float]:
    """256 completions a call, as the `score` stage does."""
    found = []
    for at in range(0, len(prompts), 256):
        found += reward(prompts=prompts[at : at + 256], completions=answers[at : at + 256])
    return found


def theirs(trainer: trl.GRPOTrainer, prompts: list, answers: list, size: int) -> list[float]:
    """`size` completions a call, as a generation batch of TRL's trainer."""
    found = []
    for at in range(0, len(prompts), size):
        block, said = prompts[at : at + size], answers[at : at + size]
        inputs = [{"prompt": prompt} for prompt in block]
        found += trainer._calculate_rewards(inputs, block, said, [[] for _ in block])[:, 0].tolist()
    return found


def grpo(model: str, folder: str) -> trl.GRPOTrainer:
    """TRL's trainer with the reward model, and any small policy, which is not used."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    tiny = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                    vocab_size=len(tokenizer))  # fmt: skip
    args = trl.GRPOConfig(output_dir=folder, report_to="none", bf16=False, use_cpu=not torch.cuda.is_available())
    prompts = datasets.Dataset.from_list([{"prompt": "a"}] * 8)
    return trl.GRPOTrainer(model=transformers.LlamaForCausalLM(tiny), processing_class=tokenizer, reward_funcs=model,
                           args=args, train_dataset=prompts)  # fmt: skip


def make_model(folder: str, data: str) -> str:
    """A random reward model with the project's chat template and a vocabulary learned on the data."""
    path = Path(folder) / "recipe.yaml"
    rows = datasets.load_dataset("json", data_files=data, split="train")
    corpus = Path(folder) / "corpus.jsonl"
    rows.map(lambda row: {"messages": row["prompt"] + row["chosen"]}, remove_columns=rows.column_names).to_json(corpus)
    stages = {"scratch": {"corpus": str(corpus), "vocab_size": 4096, "config": CONFIG}}
    path.write_text(yaml.safe_dump({"output_dir": folder, "wandb": False, "stages": stages}))
    if train.main([str(path)]):
        sys.exit(1)
    made = str(Recipe.load(str(path)).steps[0].output)
    torch.manual_seed(0)
    reward = f"{folder}/reward"
    transformers.logging.set_verbosity_error()
    transformers.AutoModelForSequenceClassification.from_pretrained(made, num_labels=1).save_pretrained(reward)
    transformers.AutoTokenizer.from_pretrained(made).save_pretrained(reward)
    return reward


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
