"""Shared by all tests: no network, one thread per process, and one tiny model per session."""

import gc
import os
import sys

# Before torch: two test processes with two threads each are ten times slower than with one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", WANDB_SILENT="true", TOKENIZERS_PARALLELISM="false")
os.environ.pop("WANDB_API_KEY", None)

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The embedded recipe, shrunk until every step takes a moment.
SHRUNK = [
    "stages.world.sft=64",
    "stages.world.prompts=12",
    "stages.world.pairs=64",
    "stages.world.test=10",
    "stages.scratch.vocab_size=400",
    "stages.scratch.config={model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2}",
    "defaults.train.per_device_train_batch_size=4",
    "defaults.train.per_device_eval_batch_size=4",
    *(
        f"stages.{stage}.train.max_steps=4"
        for stage in ("sft", "coverage", "politeness", "dpo", "apo", "constrained", "curated")
    ),
    "defaults.train.logging_steps=1",
    "defaults.train.save_steps=2",
    "stages.sample.generate.max_new_tokens=8",
    *(f"stages.{stage}.rewards.gold={{kind: length, target: 5, unit: characters}}" for stage in ("apo", "curated")),
    "stages.apo.generate.max_new_tokens=8",
    "stages.curated.generate.max_new_tokens=8",
    "stages.constrained.train.num_generations=2",
    "stages.constrained.train.per_device_train_batch_size=4",
    "stages.constrained.train.max_completion_length=8",
    "stages.constrained.rewards.gold={kind: length, target: 5, unit: characters, weight: 0}",
    "stages.curated.monitor.stop_if.distinct_2=0",
    "stages.evaluate.generate.max_new_tokens=8",
]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Datasets cached by one test run are never met by another."""
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    # the tests' own stages and rewards are trusted, and no configuration of whoever runs them
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
    os.environ["TRIMTAB_TRUST"] = os.pathsep.join([str(tmp_path_factory.getbasetemp()), str(ROOT / "tests")])


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs an accelerator, and is skipped where there is none")


# The files that take longest, in that order: begun last, one of them would run alone while the other cores wait.
LONGEST = (
    *("test_recipes.py", "running/test_engines.py", "running/test_two_hosts.py", "running/test_chaos.py"),
    *("test_wheel.py", "running/test_run.py", "trainers/test_ppo.py", "trainers/test_constrained_resume.py"),
    *("running/test_stopping.py", "running/test_slurm.py", "scoring/test_reward_swap.py", "sampling/test_vllm.py"),
    *("stages/test_threshold_search.py", "training/test_learning.py", "stages/test_self_consuming.py"),
    *("algorithms/test_thresholds.py", "stages/test_apo.py", "training/test_merging.py"),
)


def pytest_collection_modifyitems(items):
    """Puts the longest files first; xdist hands files out in this order."""
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


modules = 0


def pytest_runtest_setup(item):
    """Spares the collector what is imported: a million objects, half a second of each of a training's collections."""
    global modules
    if len(sys.modules) > modules + 100:
        gc.freeze()
        modules = len(sys.modules)


@pytest.fixture
def write(tmp_path):
    """Writes rows as JSON lines (or text as it is) and returns the path."""

    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return write


PROMPT = [{"role": "user", "content": "say a and b"}]
SFT_ROWS = [{"prompt": PROMPT, "completion": [{"role": "assistant", "content": f"a {i} b"}]} for i in range(12)]
PAIR_ROWS = [
    {
        "prompt": PROMPT,
        "chosen": [{"role": "assistant", "content": f"a and b {i}"}],
        "rejected": [{"role": "assistant", "content": f"c {i}"}],
    }
    for i in range(12)
]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random Llama of two layers with the project's chat template, as a folder."""
    from run_steps import run_recipe

    folder = tmp_path_factory.mktemp("model")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
              "num_attention_heads": 2}  # fmt: skip
    stages = {"scratch": {"corpus": str(corpus), "vocab_size": 300, "config": config}}
    return str(run_recipe(folder, stages)["scratch"].output)


@pytest.fixture(scope="session")
def thinker(model, tmp_path_factory):
    """The model, with marks of thoughts in its vocabulary, as a folder."""
    from run_steps import run_recipe

    block = {"model": {"model_name_or_path": model}, "added_tokens": ["<|thinking|>", "<|/thinking|>"]}
    return str(run_recipe(tmp_path_factory.mktemp("thinker"), {"add_tokens": block})["add_tokens"].output)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory):
    """A file of ten prompts of three lengths."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": "say " + "a b " * (1 + i % 3) + str(i)}]} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="session")
def lists(model, tmp_path_factory):
    """Steps sample -> score -> pair, in the selections that `prefer` takes and, of the same scores, in the others."""
    from run_steps import run_recipe

    folder = tmp_path_factory.mktemp("lists")
    prompts = folder / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": "say " + "a b " * (1 + i % 3) + str(i)}]} for i in range(9)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = {"brief": {"kind": "length", "target": 1}, "as": {"kind": "pattern", "regex": "a", "count": True}}
    pair = {"kind": "pair", "completions": "$score", "reward": {"as": 1, "brief": 0.1}}
    return run_recipe(folder, {
        "sample": {"model": {"model_name_or_path": model}, "prompts": str(prompts), "num_generations": 4,
                   "generate": {"max_new_tokens": 6}},
        "score": {"completions": "$sample", "rewards": rewards},
        "ends": {**pair, "select": "ends"},
        "ranked": {**pair, "select": "ranked"},
        "scaled": {**pair, "select": "ranked", "score_scale": 10},
        "pairs": {**pair, "select": "best_worst"},
    })  # fmt: skip


@pytest.fixture
def block(model, lists):
    """A stage `prefer` on lists of all lengths."""
    return {"kind": "prefer", "model": {"model_name_or_path": model}, "data": str(lists["ranked"].output),
            "train": {"max_steps": 2, "per_device_train_batch_size": 3, "learning_rate": 1e-3, "logging_steps": 1,
                      "gradient_checkpointing": False}}  # fmt: skip
