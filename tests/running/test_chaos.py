"""A recipe that is killed again and again ends as an undisturbed one: benchmarks/chaos.py in short."""

from random import Random

import pytest
from chains import Chain
from constrained_runs import REWARDS, constrained
from kills import Blow
from launches import warm
from outputs import metrics_of
from run_steps import write_recipe
from short_trainings import BRIEF, TRAIN

pytestmark = pytest.mark.slow
BLOWS = {
    "train": [
        Blow("kill", 0, "samples are kept"),
        Blow("int", 0, "a save is complete"),
        Blow("kill", 0, "a save is written"),
        Blow("term, term", 0, "metrics are logged"),
    ],
    "ranks": [
        Blow("worker", 0, "scores are kept"),
        Blow("launcher", 0, "a save is complete"),
        Blow("int", 0, "metrics are logged"),
    ],
    "run": [Blow("kill", 0, "an artifact is published"), Blow("term", 0, "a save is complete")],
    "jobs": [Blow("kill", 0, "a save is complete"), Blow("worker", 0, "scores are kept")],
}
# the stage from which a chain is hit; run.py starts a launch for each step, of which two show what five do
FIRST = {"train": "sample", "ranks": "sample", "run": "dpo", "jobs": "sample"}
# waits, so that no part of the chain is over before a blow falls on it, however fast the machine is
SLOW = """
import time

def slow(completions, **columns):
    time.sleep(0.1)
    return [float(len(str(completion))) for completion in completions]
"""


@pytest.fixture(scope="module")
def folder(model, prompts, tmp_path_factory):
    """A recipe of samples, their scores, and two trainings that save often."""
    folder = tmp_path_factory.mktemp("chaos")
    (folder / "waiting.py").write_text(SLOW)
    slow = {"kind": "trl_function", "path": f"{folder / 'waiting.py'}:slow"}
    policy = {"model_name_or_path": model}
    dpo = {"model": policy, "data": "$pairs", "train": {**TRAIN, "max_steps": 24, "save_steps": 2}}
    trained = constrained(model, prompts, rewards={**REWARDS, "slow": {**slow, "weight": 0}}, train={"max_steps": 20})
    stages = {
        "sample": {"model": policy, "prompts": prompts, "num_generations": 4, "sample_batch_size": 2,
                   "generate": {"max_new_tokens": 8}},
        "score": {"completions": "$sample", "rewards": {"brief": BRIEF, "slow": slow}, "batch_size": 8},
        "pairs": {"kind": "pair", "completions": "$score", "reward": "brief"},
        "dpo": dpo,
        **trained,
    }  # fmt: skip
    write_recipe(folder, stages, wandb=False)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The runs of one process and of two ranks that nobody disturbs."""
    runs = {}
    for mode in ("train", "ranks"):
        chain = Chain(warm, mode, folder / "recipe.yaml", "sample", folder / "now", folder / f"{mode}-undisturbed")
        chain.begin(folder)
        assert chain.end() == 0
        runs[mode] = chain.store.rename(folder / f"{mode}-reference")
    return {**runs, "run": runs["train"], "jobs": runs["train"]}


@pytest.mark.parametrize("mode", BLOWS)
def test_a_recipe_that_is_hit_again_and_again_ends_as_an_undisturbed_one(mode, folder, undisturbed):
    chain = Chain(warm, mode, folder / "recipe.yaml", FIRST[mode], folder / "now", folder / mode)
    chain.begin(undisturbed[mode])
    hits = list(chain.kills(BLOWS[mode], Random(0)))
    struck = [(hit["signal"], hit["expected"]) for hit in hits]
    assert struck == [(blow.signal, True) for blow in BLOWS[mode]], hits
    assert not any(hit["orphans"] or hit["locked"] for hit in hits), hits
    assert chain.end() == 0
    compared, different = chain.differences(undisturbed[mode])
    assert compared > 3 * len(chain.steps)
    assert not different
    trained = [metrics_of(step) for step in chain.steps if step.kind in ("dpo", "constrained")]
    assert any(metrics["train/resumed_from"] for metrics in trained)
