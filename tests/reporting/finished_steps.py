"""Folders as finished steps leave them, to make reports of."""

import json
import math
import random
from pathlib import Path

EVIL = "<script>alert(1)</script>{{7*7}}{% raw %}</div><img src=x onerror=alert(2)>\" ' & \u202e \ud800"


def leave(run: Path, name: str, kind: str, inputs=(), rows=(), metrics=None, **record) -> Path:
    """A finished step's directory; returns the place of its artifact."""
    fingerprint = f"{sum(map(ord, name)):08x}"
    folder = run / f"{name}-{fingerprint}"
    (folder / "output").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = {
        "recipe": run.name,
        "step": name,
        "stage": name,
        "kind": kind,
        "fingerprint": fingerprint,
        "seed": 42,
        "options": {},
        "inputs": {Path(path).parent.name.rpartition("-")[0]: Path(path).parent.name[-8:] for path in inputs},
        "metrics": metrics or {},
        "seconds": 61.25,
        "peak_bytes": 900 << 20,
        "forecast": {"peak_bytes": 990 << 20, "seconds": 49.0},
        "world_size": 1,
        "distributed": "NO",
        "device": "cpu",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "files": {"model.safetensors": {"sha256": "ab" * 32, "bytes": 3279456}},
        "finished": "2026-03-01T12:00:00+0000",
    }
    (folder / "done.json").write_text(json.dumps(done | record))
    return folder / "output"


def curve(count: int, pairs: dict[str, tuple[float, float]], evaluated: int = 0) -> list[dict]:
    """Rows of a metrics.jsonl that fall or rise from the first to the second value of each metric."""
    rng = random.Random(0)
    rows = []
    for step in range(10, 10 * count + 1, 10):
        values = {
            key: last + (first - last) * math.exp(-4 * step / (10 * count)) * (1 + rng.gauss(0, 0.05))
            for key, (first, last) in pairs.items()
        }
        train = {key: value for key, value in values.items() if key.startswith("train")}
        rows.append({"time": 1.0 * step, "step": step, **train, "train/learning_rate": 1e-4, "train/epoch": step / 50})
        if evaluated and step % evaluated == 0:
            rows.append({"time": 1.0 * step, "step": step, **{k: v for k, v in values.items() if k not in train}})
    return rows


def compared(run: Path, name: str, inputs, policies: dict[str, float], samples: list[dict]) -> Path:
    """An artifact of kind `compare`; the first policy is the baseline, the numbers shift each policy's means."""
    baseline = next(iter(policies))
    table = {}
    for policy, shift in policies.items():
        gaps = {"gold": shift, "politeness": -shift / 3, "coverage": shift / 2}
        table[policy] = {
            "rewards": {
                reward: {"mean": 0.41 + gap, "stderr": 0.018, "n": 600, "abstained": 0.0}
                for reward, gap in gaps.items()
            },
            "kl": {"mean": 40 * abs(shift), "stderr": 0.31} if shift else {"mean": 0.0, "stderr": 0.0},
            "length": {"mean": 31.2 + 20 * shift, "stderr": 0.42},
            "distinct_1": 0.061,
            "distinct_2": 0.287,
            "truncated": 0.013,
        }
        if policy != baseline:
            table[policy]["difference"] = {r: {"mean": gap, "stderr": 0.0173} for r, gap in gaps.items()}
            table[policy]["win_rate"] = {
                r: {"rate": 0.5 + gap, "low": 0.45 + gap, "high": 0.55 + gap} for r, gap in gaps.items()
            }
    metrics = {f"{p}/{r}/mean": v["mean"] for p, x in table.items() for r, v in x["rewards"].items()}
    output = leave(run, name, "compare", inputs, metrics=metrics, options={"baseline": baseline})
    found = {"prompts": 300, "completions_per_prompt": 2, "baseline": baseline, "reference": "runs/tiny/sft/output"}
    (output / "evaluation.json").write_text(json.dumps({**found, "policies": table, "samples": samples}))
    return output


def answers(prompt: str, **texts: str) -> dict:
    scores = {"gold": 0.5321, "politeness": -1.25, "coverage": None}
    return {"prompt": prompt, "policies": {name: {"completion": t, "scores": scores} for name, t in texts.items()}}


def whole(run: Path) -> list[Path]:
    """A chain with every section: two reward models, DPO, an evaluation whose texts are hostile."""
    loss = {"train/loss": (5.7, 0.65), "eval/loss": (5.6, 0.71)}
    tokens = {"train/mean_token_accuracy": (0.15, 0.78), "eval/mean_token_accuracy": (0.16, 0.76)}
    ranked = {
        "train/loss": (0.69, 0.3),
        "train/accuracy": (0.5, 0.88),
        "eval/loss": (0.69, 0.33),
        "eval/accuracy": (0.5, 0.86),
    }
    dpo = {"loss": (0.69, 0.42), "rewards/margins": (0.0, 1.4), "rewards/accuracies": (0.5, 0.81)}
    dpo = {f"{split}/{key}": ends for split in ("train", "eval") for key, ends in dpo.items()}
    pairs = [{"time": 0.0, "data/rows": 2765, "data/dropped/equal_pairs": 3}, {"time": 0.0, "eval_data/rows": 277}]
    world = leave(run, "world", "world", metrics={"rows/sft/train": 3000, "rows/prompts/train": 1000}, seconds=2.0)
    scratch = leave(run, "scratch", "scratch", [world], metrics={"parameters": 819072, "vocabulary": 700})
    sft = leave(run, "sft", "sft", [world, scratch], curve(20, loss | tokens, 50), {"eval/loss": 0.71})
    final = {"eval/accuracy": 0.8628, "eval/loss": 0.3312}
    rewards = [leave(run, n, "reward", [world, sft], pairs + curve(20, ranked, 50), final) for n in ("gold", "polite")]
    options = {"model": {"model_name_or_path": str(sft)}, "train": {"learning_rate": 5e-7, "beta": 0.1}}
    where = {"seconds": 4000, "world_size": 8, "device": "NVIDIA H100 80GB HBM3"}
    ranked_right = {"eval/rewards/accuracies": 0.81}
    policy = leave(run, "dpo", "dpo", [world, sft], curve(20, dpo, 50), ranked_right, options=options, **where)
    long = "The oaks grow very slowly and give cool shade. " * 30 + "THE END"
    kind = "I thank you for asking. The beans are green. The oats are pale. I hope this helps you."
    samples = [
        answers(
            "Tell me about beans and oats. Be polite. Use at most 20 words.", sft="The beans are green.", dpo=kind
        ),
        answers("Write about oaks.", sft="", dpo=long),
        answers(EVIL, sft=EVIL, dpo="The owls are quiet."),
    ]
    evaluation = compared(run, "evaluate", [sft, policy], {"sft": 0.0, "dpo": 0.214}, samples)
    return [world, scratch, sft, *rewards, policy, evaluation]
