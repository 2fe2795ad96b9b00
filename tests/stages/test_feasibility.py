"""What cannot come about, whatever the steps before it leave, is found in the plan."""

import json

import pytest
from conftest import SFT_ROWS
from run_steps import write_recipe
from short_trainings import BRIEF, TRAIN, write_rows

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe

CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
MODEL = {"model_name_or_path": "$scratch"}
REWARDS = {"brief": BRIEF}
OTHER = {"as": {"kind": "pattern", "regex": "a"}}
SHORT = {"max_new_tokens": 4}
SAMPLE = {"kind": "sample", "model": MODEL, "prompts": "$said", "num_generations": 2, "generate": SHORT}
SCORE = {"kind": "score", "completions": "$sample", "rewards": REWARDS}
SCORED = {"sample": SAMPLE, "score": SCORE}
PAIR = {"kind": "pair", "completions": "$score", "reward": "brief"}
LOOP = {"model": MODEL, "prompts": "$said", "rewards": REWARDS, "generate": SHORT, "train": TRAIN}
APO = {"kind": "apo", **LOOP}
SELF = {"kind": "self_consuming", **LOOP, "real_fraction": 0, "monitor": {"stop_if": {"kl": 9}}}
FEW = "$tiny/prompts"  # 4 of them
ONLINE = {"num_generations": 2, "per_device_train_batch_size": 16, "beta": 0.1, "max_completion_length": 4}
GOLD = {"gold": {**BRIEF, "weight": 0}, "brief": {**BRIEF, "threshold": 0.5}, **OTHER}
SEARCH = {
    "kind": "constrained",
    "model": MODEL,
    "data": "$said",
    "eval_data": "$told",
    "rewards": GOLD,
    "thresholds": {"metric": "gold", "patience": 5},
    "train": {**ONLINE, "per_device_train_batch_size": 4, "max_steps": 6},
}


def monitored(**limits):
    return {"kind": "monitor", "scored": "$score", "stop_if": limits}


def compared(sample, score):
    """Two policies, the other of which differs in some keys."""
    there = {"sample-2": {**SAMPLE, **sample}, "score-2": {**SCORE, "completions": "$sample-2", **score}}
    return {**SCORED, **there, "compare": {"scored": {"a": "$score", "b": "$score-2"}, "baseline": "a"}}


CASES = {
    "pair.completions: every prompt will have one answer": {
        **SCORED, "sample": {**SAMPLE, "num_generations": 1}, "pair": PAIR},
    "dpo.data: pair will leave rows of prompt, completions,.* here chosen": {
        **SCORED, "pair": {**PAIR, "select": "ranked"}, "dpo": {"model": MODEL, "data": "$pair", "train": TRAIN}},
    "prefer.data: pair will leave rows of prompt, chosen,.* here prompt . completions": {
        **SCORED, "pair": PAIR, "prefer": {"model": MODEL, "data": "$pair", "train": TRAIN}},
    "kto.data: sft will leave a model and no rows": {
        "sft": {"model": MODEL, "data": "$tiny/sft", "train": TRAIN},
        "kto": {"model": MODEL, "data": "$sft", "train": TRAIN}},
    "apo.prompts: 4 prompts cannot be split into 5 folds": {"apo": {**APO, "prompts": FEW, "rounds": 5}},
    "loop.prompts: 4 prompts cannot be split into 5 folds": {
        "loop": {**SELF, "prompts": FEW, "rounds": 5, "split_prompts": True}},
    "sample.prompts: 4 prompts cannot be split": {"sample": {**SAMPLE, "prompts": FEW, "fold": [1, 5]}},
    "apo.monitor.stop_if.length: is a multiple of the first": {
        "apo": {**APO, "rounds": 1, "monitor": {"stop_if": {"length": 2}}}},
    "monitor.stop_if.distinct_2: is a multiple of the `first`": {**SCORED, "monitor": monitored(distinct_2=0.5)},
    "monitor.stop_if.real_nll: a limit on `real_nll` needs `real`": {**SCORED, "monitor": monitored(real_nll=2)},
    "loop.stop_if.real_nll: a limit on `real_nll` needs `real`": {
        "loop": {**SELF, "monitor": {"stop_if": {"real_nll": 2}}}},
    "loop.real: one of synthetic and real rows is chat": {
        "loop": {**SELF, "prompts": FEW, "real": "$written", "real_fraction": 0.5}},
    "compare.scored.b: will have 3 answers to each prompt": compared({"num_generations": 3}, {}),
    "compare.scored.b: will have scores by as, and a by brief": compared({}, {"rewards": OTHER}),
    "compare.scored.b: will answer other prompts than a": compared({"prompts": "$told"}, {}),
    "extrapolate.previous: is `new` itself": {"extrapolate": {"new": "$scratch", "previous": "$scratch"}},
    "last_good.models: name the model": {"last_good": {"models": [], "monitors": []}},
    "last_good.monitors: 2 monitors for 1 models": {
        **SCORED, "monitor": monitored(entropy=0.1),
        "last_good": {"models": ["$scratch"], "monitors": ["$monitor", "$monitor"]}},
    "score.batch_size: must be at least 1": {**SCORED, "score": {**SCORE, "batch_size": 0}},
    "surface.runs: name at least one": {"surface": {"runs": [], "rewards": ["a"]}},
    "constrained.data: a rollout needs 8 different prompts, there are 4": {
        "constrained": {**SEARCH, "data": FEW, "thresholds": None, "train": {**ONLINE, "max_steps": 2}}},
    "constrained.thresholds.patience: a point may take 5 steps": {"constrained": SEARCH},
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rows = {
        "said": [{"prompt": f"say {number} a b"} for number in range(6)],
        "told": [{"prompt": f"tell {number} c"} for number in range(6)],
        "written": [{"prompt": f"say {number}", "completion": f" a {number}"} for number in range(6)],
        "corpus": [{"text": json.dumps(row)} for row in SFT_ROWS],
    }
    return {name: write_rows(folder / f"{name}.jsonl", rows[name]) for name in rows}


@pytest.fixture
def planned(inputs, tmp_path):
    """Plans stages after a tiny world and a model that are both still to be made."""

    def planned(stages):
        first = {
            "scratch": {"corpus": "$corpus", "vocab_size": 300, "config": CONFIG},
            "tiny": {"kind": "world", "sft": 8, "prompts": 4, "pairs": 8, "test": 4},
        }
        recipe = Recipe.load(str(write_recipe(tmp_path, {**first, **stages}, inputs=inputs)))
        return preflight.check(recipe, recipe.steps)

    return planned


@pytest.mark.parametrize("message", CASES)
def test_what_cannot_come_about_is_found_in_the_plan(planned, message):
    with pytest.raises(RecipeError, match=f"stages.{message}"):
        planned(CASES[message])


def test_what_fits_is_not_refused(planned):
    lists = {**SCORED, "pair": {**PAIR, "select": "ends"}, "prefer": {"model": MODEL, "data": "$pair", "train": TRAIN}}
    pairs = {"pairs": PAIR, "dpo": {"model": MODEL, "data": "$pairs", "train": TRAIN}}
    loops = {"apo": {**APO, "prompts": FEW, "rounds": 4}, "loop": {**SELF, "monitor": {"stop_if": {"length": 2}}}}
    searched = {"constrained": {**SEARCH, "train": {**SEARCH["train"], "max_steps": 8}}}
    assert planned({**lists, **pairs, **compared({}, {}), **loops, **searched}) == []
