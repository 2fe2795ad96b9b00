"""What multipliers and critics cost: a step against one of trl's GRPOTrainer on the same completions, in one run.

    python benchmarks/constrained_overhead.py                 # two minutes on 2 cores
    python benchmarks/constrained_overhead.py repeats=5 steps=30 completions=32

The same random Llama, prompts, rewards, seeds and lengths; the trainers take turns: trl's, GRPO with multipliers, and
PPO with critics on the policy's trunk and on their own. Prints seconds per step of wall clock and of this process's
CPU time, medians over the repeats, and their ratios to trl's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from trimtab.pipelines.algorithms.advantages import CriticSettings
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
from trimtab.pipelines.algorithms.objectives import Lagrangian
from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
from trimtab.pipelines.trainers.constrained_ppo import ConstrainedPPOTrainer
from trimtab.pipelines.trainers.reward_functions import RewardFunction
from trimtab.rewards.length import Length
from trimtab.rewards.pattern import Pattern


def main(repeats: str = "5", steps: str = "20", completions: str = "32") -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = language_model(folder)
        data = Dataset.from_list([{"prompt": f"w{i} w{i + 1} w{i + 2}"} for i in range(200)])
        found: dict[str, list[tuple[float, float]]] = {
            name: [] for name in ("trl", "grpo", "ppo shared", "ppo separate")
        }
        for _ in range(int(repeats)):
            for name, times in found.items():
                times.append(run(name, model, data, int(steps), int(completions)))
        wall, cpu = ({name: statistics.median(pair[at] for pair in times) for name, times in found.items()}
                     for at in (0, 1))  # fmt: skip
        for name in found:
            ratios = f"ratio {wall[name] / wall['trl']:.3f}, {cpu[name] / cpu['trl']:.3f} of CPU time"
            print(f"{name:14}{wall[name]:.3f} s a step, {cpu[name]:.3f} s of CPU time, {ratios}")


def run(name: str, model: str, data: Dataset, steps: int, completions: int) -> tuple[float, float]:
    """Seconds per step, wall clock and CPU."""
    with tempfile.TemporaryDirectory() as folder:
        args = trl.GRPOConfig(
            folder, beta=0.1, num_generations=8, max_completion_length=64, per_device_train_batch_size=completions,
            max_steps=steps, save_strategy="no", report_to="none", gradient_checkpointing=False, disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=torch.cuda.is_available(), scale_rewards="batch",
        )  # fmt: skip
        functions = [
            RewardFunction("brief", Length(target=20)),
            RewardFunction("words", Pattern(regex="w1", count=True)),
        ]
        if name == "trl":
            trainer = trl.GRPOTrainer(model, reward_funcs=functions, args=args, train_dataset=data)
        else:
            multipliers = Multipliers({"brief": Constraint(-0.5), "words": Constraint(1.0, "equal")})
            own = {"objective": Lagrangian({}, multipliers), "model": model, "reward_funcs": functions, "args": args,
                   "train_dataset": data}  # fmt: skip
            if name == "grpo":
                trainer = ConstrainedGRPOTrainer(**own)
            else:
                trainer = ConstrainedPPOTrainer(critics=CriticSettings(trunk=name.split()[1]), **own)
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps


def language_model(folder: str) -> str:
    """A random Llama of 3 M parameters that knows the words w0 to w999, and never says the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i + 2 for i in range(1000)} | {"<pad>": 0, "<eos>": 1}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=1002, hidden_size=192, intermediate_size=512, num_hidden_layers=4, eos_token_id=1,
                         num_attention_heads=6, pad_token_id=0, bos_token_id=None)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
