"""The batch that is trained is what a step is; micro-batches, accumulation and ranks are how a launch makes it up."""

import pytest
from planned import changed
from run_steps import write_recipe

from trimtab.pipelines.planning import batch, preflight, table
from trimtab.pipelines.planning.errors import Mistakes, RecipeError
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe

TOKENS = "tokens_per_batch"
SIZE, PARTS, ROLLOUT = "per_device_train_batch_size", "gradient_accumulation_steps", "generation_batch_size"
MODEL = {"model_name_or_path": "hub/model"}
REWARDS = {"brief": {"kind": "length", "target": 5, "threshold": 0.5}, "as": {"kind": "pattern", "regex": "a"}}
STAGES = {
    "sft": {"model": MODEL, "data": "hub/data", "train": {}},
    "grpo": {"kind": "constrained", "model": {"model_name_or_path": "$sft"}, "data": "hub/prompts",
             "rewards": REWARDS, "train": {"num_generations": 4, "beta": 0.1}},
    "sample": {"model": {"model_name_or_path": "$grpo"}, "prompts": "hub/prompts"},
    "score": {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 5}}},
    "apo": {"model": {"model_name_or_path": "$sft"}, "prompts": "hub/prompts", "rounds": 1,
            "rewards": {"brief": {"kind": "length", "target": 5}}, "train": {}},
}  # fmt: skip
ALL_AFTER = ["sft", "grpo", "sample", "score", "apo-1-sample", "apo-1-score", "apo-1-monitor", "apo-1-pair", "apo"]


@pytest.fixture
def planned(tmp_path):
    """The steps by name of the recipe with overrides, on so many ranks."""
    recipe = str(write_recipe(tmp_path, STAGES))

    def plan(*overrides, ranks=1):
        return {step.name: step for step in Recipe.load(recipe, overrides, Ranks(every=ranks)).steps}

    return plan


def made_up(step):
    return (step.batch.per_device, step.batch.accumulation, step.batch.ranks)


def marks(steps):
    return {name: step.fingerprint for name, step in steps.items()}


@pytest.mark.parametrize(
    ("size", "parts", "ranks"), [(16, 2, 1), (8, 4, 1), (8, 2, 2), (2, 4, 4), (32, 1, 1)], ids=lambda value: str(value)
)
def test_one_batch_is_one_fingerprint_however_trls_keys_make_it_up(size, parts, ranks, planned):
    whole = planned(f"defaults.train.{SIZE}=32")
    cut = planned(f"defaults.train.{SIZE}={size}", f"defaults.train.{PARTS}={parts}", ranks=ranks)
    assert marks(cut) == marks(whole)
    assert {str(step.batch) for step in cut.values() if step.batch} == {f"32 = {size} x {parts} x {ranks}"}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_global_batch_is_made_up_on_the_ranks_that_there_are(ranks, planned):
    whole = planned(f"defaults.train.{SIZE}=32")
    steps = planned("defaults.batch_size=32", ranks=ranks)
    assert marks(steps) == marks(whole)
    assert made_up(steps["sft"]) == (8, 4 // ranks, ranks)
    assert steps["sft"].options["train"] == {SIZE: 8, PARTS: 4 // ranks}
    assert steps["grpo"].options["train"] == {"num_generations": 4, "beta": 0.1, SIZE: 8, PARTS: 4 // ranks,
                                              ROLLOUT: 32}  # fmt: skip
    assert steps["apo"].options["train"][PARTS] == 4 // ranks  # a macro hands it on
    assert {steps[name].batch for name in ("sample", "score", "apo-1-sample")} == {None}
    assert not {"batch_size", PARTS} & {*steps["sample"].options, *steps["score"].options}


def test_other_ranks_with_the_same_keys_of_trls_train_another_batch(planned):
    assert changed(marks(planned()), marks(planned(ranks=2))) == ALL_AFTER
    assert changed(marks(planned()), marks(planned("defaults.batch_size=16"))) == ALL_AFTER
    assert marks(planned("defaults.batch_size=16")) == marks(planned(ranks=2))


def test_a_given_size_is_the_largest(planned):
    given = planned("stages.sft.batch_size=48", f"stages.sft.train.{SIZE}=20")
    assert made_up(given["sft"]) == (16, 3, 1)
    assert made_up(planned("stages.sft.batch_size=7")["sft"]) == (7, 1, 1)
    assert [made_up(planned("stages.sft.batch_size=48", f"stages.sft.train.{SIZE}={most}")["sft"])[0]
            for most in (1, 5, 20, 48, 99)] == [1, 4, 16, 48, 48]  # fmt: skip


def test_a_size_is_open_where_neither_the_recipe_nor_the_result_says_one(planned):
    steps = planned("defaults.batch_size=16")
    assert steps["sft"].batch.is_open
    assert steps["sft"].batch.sizes == [16, 8, 4, 2, 1]
    assert steps["grpo"].batch.of_size(2) == batch.Batch(2, 8, 1, 16, is_given=True, is_open=True)
    assert not planned()["sft"].batch.is_open
    for said in (f"train.{SIZE}=4", "train.dataloader_drop_last=true"):
        assert not planned("stages.sft.batch_size=16", f"stages.sft.{said}")["sft"].batch.is_open


def test_a_step_with_another_size_is_the_same_step(planned):
    step = planned("defaults.batch_size=16")["sft"]
    other = batch.resized(step, 2)
    assert other.options["train"] == {SIZE: 2, PARTS: 8}
    assert (other.fingerprint, other.batch.rows) == (step.fingerprint, step.batch.rows)


@pytest.mark.parametrize("ranks", [1, 2])
def test_micro_batches_by_tokens_are_of_the_same_step(ranks, planned):
    """As many rows as ever are a step's, so the fingerprint is that of micro-batches by rows."""
    rows = ("stages.sft.batch_size=16", "stages.apo.batch_size=16")
    whole = planned(*rows, ranks=ranks)
    steps = planned(*rows, f"stages.sft.{TOKENS}=4096", f"stages.apo.{TOKENS}=4096", ranks=ranks)
    assert marks(steps) == marks(whole)
    for name in ("sft", "apo"):
        assert made_up(steps[name]) == (16 // ranks, 1, ranks)
        assert (steps[name].batch.tokens, steps[name].batch.is_open) == (4096, False)
        assert str(steps[name].batch) == f"16 = {16 // ranks} x {ranks} by 4096 tokens"


def test_evaluating_and_finding_a_size_are_outside(planned):
    same = ("defaults.train.per_device_eval_batch_size=2", "stages.sft.train.auto_find_batch_size=true")
    assert marks(planned(*same)) == marks(planned())
    best = "stages.sft.train.load_best_model_at_end=true"
    assert changed(marks(planned(best)), marks(planned(best, same[0])))


def test_a_rollout_is_inside_in_completions(planned):
    steps = {words: planned(*words.split()) for words in (
        f"stages.grpo.train.{SIZE}=8 stages.grpo.train.steps_per_generation=4",
        f"stages.grpo.train.{SIZE}=4 stages.grpo.train.{PARTS}=2 stages.grpo.train.steps_per_generation=8",
        f"stages.grpo.train.{SIZE}=8 stages.grpo.train.{ROLLOUT}=32",
        f"stages.grpo.batch_size=8 stages.grpo.train.{ROLLOUT}=32",
    )}  # fmt: skip
    assert len({step["grpo"].fingerprint for step in steps.values()}) == 1
    assert {step["grpo"].batch.rollout for step in steps.values()} == {32}
    assert changed(marks(planned()), marks(next(iter(steps.values())))) == ["grpo", "sample", "score"]


@pytest.mark.parametrize(
    ("stage", "train", "key"),
    [
        ("sft", "train_sampling_strategy=group_by_length", "parts"),
        ("sft", "dataloader_drop_last=true", "parts"),
        ("grpo", "loss_type=bnpo", "micro_batch"),
    ],
)
def test_what_depends_on_micro_batches_says_so_in_the_fingerprint(stage, train, key, planned):
    words = (f"stages.{stage}.train.{train}", "defaults.batch_size=16")
    whole, cut = (planned(*words, f"defaults.train.{SIZE}={size}")[stage] for size in (16, 4))
    assert whole.fingerprint != cut.fingerprint
    assert key in whole.identity["options"]["train"]


@pytest.mark.parametrize(
    ("words", "ranks", "error"),
    [
        ("stages.sft.batch_size=32", 3, "cannot be shared out evenly on 3 ranks: use 30 or 33, or 2 or 4 ranks"),
        ("stages.sft.batch_size=1", 2, "use 2, or 1 ranks"),
        ("stages.sft.batch_size=0", 1, "must be at least 1, got 0"),
        ("stages.sft.batch_size=x", 1, "stages.sft.batch_size: expected"),
        (f"stages.sft.batch_size=8 stages.sft.train.{PARTS}=2", 1, f"sft.train.{PARTS}: follows from `batch_size`"),
        ("stages.grpo.batch_size=6", 1, "grpo.batch_size: 6 is no multiple of num_generations, 4: use 4 or 8"),
        ("stages.grpo.batch_size=8 stages.grpo.train.steps_per_generation=2", 1, f"give `{ROLLOUT}`, in completions"),
        ("stages.sft.batch_size=8 stages.sft.train.auto_find_batch_size=true", 1, "would train another batch"),
        ("stages.sample.batch_size=8", 1, "a stage that samples has 'sample_batch_size'"),
        ("stages.sft.train.batch_size=8", 1, "stands beside its `train`"),
        (f"stages.sft.{TOKENS}=9", 1, f"stages.sft.{TOKENS}: cuts the rows of an optimizer step: say how many"),
        (f"stages.sft.batch_size=8 stages.sft.{TOKENS}=0", 1, "must be at least 1, got 0"),
        (f"stages.sft.batch_size=8 stages.sft.{TOKENS}=9 stages.sft.train.{SIZE}=2", 1, f"{SIZE}: follows from"),
        (f"stages.sft.batch_size=8 stages.sft.{TOKENS}=9 stages.sft.train.packing=true", 1, "lays rows end to end"),
        (f"stages.grpo.batch_size=8 stages.grpo.{TOKENS}=9", 1, "is not for this kind"),
        (f"stages.sft.batch_size=8 stages.sft.{TOKENS}=9 stages.sft.train.dataloader_drop_last=true", 1,
         "the result depends on how it is cut"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_up_is_an_error_with_what_can(words, ranks, error, planned):
    def looked_at():
        mistakes = Mistakes()
        preflight.look(planned(*words.split(), ranks=ranks).values(), mistakes)
        mistakes.raise_any()

    with pytest.raises(RecipeError) as raised:
        looked_at()
    assert error in str(raised.value)


def test_the_plan_shows_what_makes_up_each_batch(tmp_path):
    recipe = Recipe.load(str(write_recipe(tmp_path, STAGES)), ["defaults.batch_size=32"], Ranks(every=2))
    lines = {line.split()[0]: line for line in table.table(recipe, recipe.steps, auto="cpu").splitlines()}
    assert lines["sft"].endswith("pending  32 = 8 x 2 x 2")
    assert " = " not in lines["sample"]
