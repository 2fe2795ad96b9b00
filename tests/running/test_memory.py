"""What a step has in memory is gone when the next one of the process begins."""

import gc

from conftest import PAIR_ROWS
from run_steps import run_recipe
from short_trainings import TRAIN
from transformers import PreTrainedModel

from trimtab.pipelines.running import making


def models():
    return [thing for thing in gc.get_objects() if isinstance(thing, PreTrainedModel)]


def test_no_step_begins_with_the_models_of_the_one_before(model, prompts, tmp_path, monkeypatch, write):
    before, left, make = set(map(id, models())), {}, making._make

    def counted(step, **options):
        left[step.name] = sum(id(one) not in before for one in models())
        return make(step, **options)

    monkeypatch.setattr(making, "_make", counted)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # of the tests' own: what is frozen is never collected
    policy = {"model": {"model_name_or_path": model}, "data": write("pairs.jsonl", PAIR_ROWS), "train": TRAIN}
    run_recipe(tmp_path, {
        "reward": policy,
        "dpo": policy,
        "sample": {"model": {"model_name_or_path": "$dpo"}, "prompts": prompts, "generate": {"max_new_tokens": 4}},
        "score": {"completions": "$sample", "rewards": {"judge": {"kind": "reward_model", "path": "$reward"}}},
        "pair": {"completions": "$score", "reward": "judge"},
    })  # fmt: skip
    assert left == {"reward": 0, "dpo": 0, "sample": 0, "score": 0, "pair": 0}
