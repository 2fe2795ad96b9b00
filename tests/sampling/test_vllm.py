"""`sample` with `engine: vllm`, on vLLM itself where it is installed, else on tests/stand_in/vllm.py."""

import importlib.util
import json
import os
import re
import sys
from types import SimpleNamespace

import launches
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SFT_ROWS
from launches import Warm, trained
from run_steps import broken, run_recipe, write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.sampling import shards, vllm_engine
from trimtab.scripts import run, train

INSTALLED = importlib.util.find_spec("vllm") is not None
STAND_IN = str(ROOT / "tests" / "stand_in")
GENERATE = {"max_new_tokens": 12, "temperature": 0.8}


@pytest.fixture
def vllm(monkeypatch):
    """vLLM can be imported, here and in processes that are started here."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # the cores of each worker
    if not INSTALLED:
        monkeypatch.syspath_prepend(STAND_IN)
        monkeypatch.setenv("PYTHONPATH", STAND_IN, prepend=os.pathsep)
    yield
    if not INSTALLED:
        for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def forks():
    """A process for launches that could import vLLM when trl looked for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", STAND_IN, prepend=os.pathsep)
        forks = Warm()
        forks.begin()
    return forks


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A model with heads of 32, the smallest that vLLM has kernels for."""
    folder = tmp_path_factory.mktemp("policy")
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
              "num_attention_heads": 2, "initializer_range": 0.3}  # fmt: skip
    stages = {"scratch": {"corpus": str(folder / "corpus.jsonl"), "vocab_size": 270, "config": config}}
    return str(run_recipe(folder, stages)["scratch"].output)


def block(policy, prompts, **options):
    return {"kind": "sample", "model": {"model_name_or_path": policy}, "prompts": prompts, "num_generations": 3,
            "generate": GENERATE, "engine": "vllm", **options}  # fmt: skip


def rows_of(step):
    return pq.read_table(step.output / "train.parquet").to_pylist()


def test_the_columns_are_those_of_transformers_and_so_are_the_log_probabilities(vllm, policy, prompts, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    steps = run_recipe(tmp_path, {
        "ours": block(policy, prompts, sample_batch_size=7), "theirs": block(policy, prompts, engine="transformers"),
        "auto": block(policy, prompts, engine="auto", sample_batch_size=5),
    })  # fmt: skip
    ours, theirs, auto = map(rows_of, steps.values())
    assert [row["completion_ids"] for row in ours] == [row["completion_ids"] for row in auto]
    tables = [pq.read_schema(step.output / "train.parquet") for step in steps.values()]
    assert tables[0] == tables[1]
    for name in ("prompt_index", "sample_index", "prompt_ids"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    stop = AutoTokenizer.from_pretrained(policy).eos_token_id
    for row in ours:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        logps = model(input_ids=ids).logits.log_softmax(-1)[0, len(row["prompt_ids"]) - 1 : -1]
        assert row["logprobs"] == pytest.approx(
            [logps[i, t].item() for i, t in enumerate(row["completion_ids"])], abs=1e-4
        )
        assert stop not in row["completion_ids"][:-1]
        assert row["truncated"] == (len(row["completion_ids"]) == 12 and row["completion_ids"][-1] != stop)
    assert {row["truncated"] for row in ours} == {True, False}  # some end by themselves
    assert len({tuple(row["completion_ids"]) for row in ours}) > len(ours) * 0.8  # each has a seed of its own


def test_the_likeliest_tokens_are_those_of_transformers(vllm, policy, prompts, tmp_path):
    greedy = {"generate": {"do_sample": False, "max_new_tokens": 12}, "num_generations": 1}
    steps = run_recipe(tmp_path, {engine: block(policy, prompts, engine=engine, **greedy)
                                  for engine in ("vllm", "transformers")})  # fmt: skip
    ours, theirs = ([row["completion_ids"] for row in rows_of(step)] for step in steps.values())
    assert ours == theirs


@pytest.mark.slow
def test_completions_do_not_depend_on_the_ranks(vllm, policy, prompts, tmp_path):
    """Two ranks with an engine each, and two ranks where one of them drives an engine for both."""
    many = {"num_generations": 40, "generate": {"max_new_tokens": 4}}  # two parts
    alone = run_recipe(tmp_path, {"sample": block(policy, prompts, **many)})["sample"]
    for name, options in (("two", {}), ("group", {"vllm": {"tensor_parallel_size": 2}})):
        folder = tmp_path / name
        folder.mkdir()
        recipe = write_recipe(folder, {"sample": block(policy, prompts, **many, **options)}, wandb=False)
        step = trained(recipe)["sample"]
        assert [row["completion_ids"] for row in rows_of(step)] == [row["completion_ids"] for row in rows_of(alone)]


def test_what_was_sampled_before_a_run_died_is_not_sampled_again(vllm, policy, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shards, "LEAST", 9)  # parts of three prompts
    whole = run_recipe(tmp_path, {"sample": block(policy, prompts)})["sample"]
    folder = tmp_path / "again"
    folder.mkdir()
    stages = {"sample": block(policy, prompts)}
    (step,) = Recipe.load(str(write_recipe(folder, stages, wandb=False))).steps
    made, write = [], shards.pq.write_table

    def dying(table, path, **keys):
        if len(made) == 4:  # one of them is the prompts'
            raise OSError("the writer is broken")
        made.append(path)
        return write(table, path, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(shards.pq, "write_table", dying)
        assert "OSError: the writer is broken" in broken(folder, stages, capsys)
    kept = {path: path.stat().st_mtime_ns for path in (step.dir / "parts").glob("tokens-*.parquet")}
    assert len(kept) == 3
    seen = []
    real = shards.collect
    monkeypatch.setattr(shards, "collect", lambda step, name, count: (
        seen.append({path: path.stat().st_mtime_ns for path in kept}) or real(step, name, count)))  # fmt: skip
    run_recipe(folder, stages)
    assert seen[0] == kept
    assert rows_of(step) == rows_of(whole)


def test_macros_hand_the_engine_on(vllm, policy, prompts, tmp_path):
    rewards = {"brief": {"kind": "length", "target": 3}}
    model = {"model_name_or_path": policy}
    common = {"model": model, "prompts": prompts, "rewards": rewards, "rounds": 1, "engine": "vllm",
              "vllm": {"gpu_memory_utilization": 0.5}}  # fmt: skip
    recipe = Recipe.load(str(write_recipe(tmp_path, {
        "apo": {**common},
        "self_consuming": {**common, "real_fraction": 0, "monitor": {"stop_if": {"distinct_2": 0.1}}},
        "evaluate": {"policies": {"one": policy}, "prompts": prompts, "rewards": rewards, "engine": "vllm",
                     "vllm": {"gpu_memory_utilization": 0.5}},
    }, wandb=False)))  # fmt: skip
    samples = [step for step in recipe.steps if step.kind == "sample"]
    assert len(samples) == 4
    for step in samples:
        assert (step.options["engine"], step.options["vllm"]) == ("vllm", {"gpu_memory_utilization": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vllm": {"gpu_memory_utilisation": 0.5}},
         r"vllm\.gpu_memory_utilisation: unknown key for vLLM's EngineArgs, did you mean 'gpu_memory_utilization'"),
        ({"vllm": {"seed": 3}}, r"vllm\.seed: is set by the step"),
        ({"generate": {"suppress_tokens": [2]}},
         r"generate\.suppress_tokens: is not among the keys that both engines know: do_sa"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_a_launch(options, message, vllm, policy, prompts, tmp_path, capsys):
    recipe = write_recipe(tmp_path, {"sample": block(policy, prompts, **options)})
    assert run.main([str(recipe), "--plan"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_ranks_that_make_no_whole_groups_are_an_error(vllm, policy, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vllm_engine, "PartialState", lambda: SimpleNamespace(num_processes=3, process_index=0))
    recipe = write_recipe(tmp_path, {"sample": block(policy, prompts, vllm={"tensor_parallel_size": 2})}, wandb=False)
    assert train.main([str(recipe)]) == 2
    assert re.search(
        r"sample\.vllm: an engine takes 2 ranks .* the launch's 3 are no multiple", capsys.readouterr().err
    )


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_the_error_names_the_extra(policy, prompts, tmp_path, capsys):
    assert run.main([str(write_recipe(tmp_path, {"sample": block(policy, prompts)})), "--plan"]) == 2
    assert re.search(r"engine: vLLM cannot be imported .*trimtab\[vllm\]", capsys.readouterr().err)
    assert run_recipe(tmp_path, {"sample": block(policy, prompts, engine="auto")})["sample"].done  # with transformers


@pytest.mark.slow
@pytest.mark.skipif(INSTALLED, reason="vLLM's CPU build takes no weights after it has loaded a model")
@pytest.mark.parametrize("config", ["cpu", "fsdp2"])
def test_grpo_samples_with_vllm_and_hands_it_every_new_policy(config, vllm, forks, policy, tmp_path, monkeypatch):
    """Through trl's own code for it: were the engine's weights old, its log-probabilities would be others."""
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"say a b {i}"}) + "\n" for i in range(10)))
    train = {"max_steps": 3, "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 6,
             "learning_rate": 1e-2, "lr_scheduler_type": "constant", "logging_steps": 1, "beta": 0.1, "use_vllm": True,
             "vllm_mode": "colocate", "vllm_max_model_length": 64, "gradient_checkpointing": False}  # fmt: skip
    stage = {"kind": "constrained", "model": {"model_name_or_path": policy}, "data": str(tmp_path / "prompts.jsonl"),
             "rewards": {"as": {"kind": "pattern", "regex": "a", "count": True, "threshold": 0.4},
                         "brief": {"kind": "length", "target": 5, "threshold": 0.5}},
             "method": "xi", "train": train}  # fmt: skip
    recipe = write_recipe(tmp_path, {"grpo": stage}, wandb=False)
    monkeypatch.setattr(launches, "warm", forks)
    step = trained(recipe, config=config)["grpo"]
    logs = [json.loads(line) for line in (step.dir / "metrics.jsonl").read_text().splitlines()]
    ratios = [row["train/sampling/importance_sampling_ratio/mean"] for row in logs if "train/loss" in row]
    assert ratios == pytest.approx([1.0] * 3, abs=1e-3)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_grpo_with_vllm_is_refused_where_it_is_not_installed(policy, prompts, tmp_path, capsys):
    stage = {
        "kind": "constrained",
        "model": {"model_name_or_path": policy},
        "data": prompts,
        "rewards": {"brief": {"kind": "length", "target": 5, "threshold": 0.5}},
        "train": {"use_vllm": True, "beta": 0.1, "num_generations": 2, "per_device_train_batch_size": 2},
    }
    assert run.main([str(write_recipe(tmp_path, {"grpo": stage})), "--plan"]) == 2
    assert re.search(r"train\.use_vllm: vLLM is not installed: pip install trimtab\[vllm\]", capsys.readouterr().err)
