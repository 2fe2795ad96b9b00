"""What cannot change a result is not in the fingerprint, and everything else is."""

from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar

import pytest
import trl
import yaml
from planned import STAGES, changed, fingerprints
from run_steps import write_recipe

from trimtab.pipelines.planning import identity, kinds
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.references import References
from trimtab.pipelines.stages import Stage

RECIPE = """
stages:
  sft:
    model: {model_name_or_path: org/model}
    data: org/data
    train: {learning_rate: 1e-5, logging_steps: 5, save_steps: 10}
  score:
    completions: org/completions
    rewards:
      helpful: {kind: reward_model, path: org/judge, device: cpu}
      server: {kind: remote, url: "http://host/x", timeout: 5}
      both: {kind: composite, rewards: {server: {kind: remote, url: "http://host/y", tries: 2}}}
"""
SAVING = {*identity.TRAINING, *identity.TRAINING_UNLESS_BEST}
REWARDS = [word for word in kinds.words(kinds.REWARDS) if is_dataclass(kinds.find(kinds.REWARDS, word))]


@dataclass(kw_only=True)
class Draw(Stage):
    """A stage for the tests below."""

    neutral: ClassVar[tuple[str, ...]] = ("threads",)

    width: int = 2
    threads: int = 1
    pen: dict

    @classmethod
    def neutral_inside(cls, key, block):
        return ("brand",) if key == "pen" else ()


@pytest.fixture
def marks(write):
    """The fingerprints of the recipe with overrides, by step."""
    path = write("recipe.yaml", RECIPE)
    return lambda *overrides: fingerprints(path, *overrides)


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path, STAGES)


def identity_of(kind, options):
    """What is fingerprinted of the options of a stage."""
    identities = identity.Identities(References(Document("recipe.yaml"), {}))
    return identities.of_options(kinds.find(kinds.STAGES, kind), options, ("stages", "stage"))


@pytest.mark.parametrize(
    "override",
    [
        "stages.sft.train.logging_steps=7",
        "stages.sft.train.save_steps=3",
        "stages.sft.train.report_to=tensorboard",
        "stages.score.rewards.helpful.device=cuda:1",
        "stages.score.rewards.server.timeout=50",
        "stages.score.rewards.server.concurrency=2",
        "stages.score.rewards.both.rewards.server.tries=9",
        "name=another",
        "output_dir=elsewhere",
        "wandb.project=other",
        "stages.sft.accelerate=ddp",
    ],
)
def test_what_cannot_change_the_result_is_outside(marks, override):
    assert marks() == marks(override)


@pytest.mark.parametrize(
    ("override", "step"),
    [
        ("stages.sft.train.learning_rate=2e-5", "sft"),
        ("stages.sft.train.load_best_model_at_end=true", "sft"),
        ("stages.sft.model.dtype=bfloat16", "sft"),
        ("stages.score.rewards.helpful.head=1", "score"),
        ("stages.score.rewards.server.url=http://other/x", "score"),
        ("stages.score.rewards.server.batch_size=3", "score"),
        ("stages.score.rewards.both.rewards.server.label=answer", "score"),
        ("stages.score.batch_size=3", "score"),
    ],
)
def test_everything_else_is_inside(marks, override, step):
    assert changed(marks(), marks(override)) == [step]


def test_of_training_arguments_only_those_about_logging_and_saving_are_outside():
    arguments = dict.fromkeys(trl.SFTConfig.__dataclass_fields__, "x")
    usual = identity_of("sft", {"train": {**arguments, "load_best_model_at_end": False}})["train"]
    assert arguments.keys() - usual.keys() == SAVING & arguments.keys()
    best = identity_of("sft", {"train": {**arguments, "load_best_model_at_end": True}})["train"]
    assert arguments.keys() - best.keys() == {*identity.TRAINING} & arguments.keys()


@pytest.mark.parametrize("word", REWARDS)
def test_of_a_reward_only_what_its_class_calls_neutral_is_outside(word):
    cls = kinds.find(kinds.REWARDS, word)
    options = dict.fromkeys((field.name for field in fields(cls) if field.init), "x")
    neutral = set(getattr(cls, "neutral", ()))
    assert neutral <= options.keys()
    block = identity_of("score", {"rewards": {"one": {"kind": word, **options}}})["rewards"]["one"]
    assert block.keys() == options.keys() - neutral | {"kind"}
    assert block["kind"].keys() == {"word", "sha256"}


def test_of_a_stage_only_what_its_class_calls_neutral_is_outside(tmp_path):
    stage = {"kind": f"{__name__}.Draw", "pen": {"brand": "a", "color": "red"}}
    recipe = write_recipe(tmp_path, {"draw": stage})
    before = fingerprints(recipe)
    for override in ("stages.draw.threads=8", "stages.draw.pen.brand=b"):
        assert fingerprints(recipe, override) == before
    for override in ("stages.draw.width=3", "stages.draw.pen.color=blue"):
        assert changed(before, fingerprints(recipe, override)) == ["draw"]


def test_what_stages_call_neutral_are_keys_of_theirs():
    for word in kinds.words(kinds.STAGES):
        cls = kinds.find(kinds.STAGES, word)
        assert {*cls.neutral} <= {field.name for field in fields(cls)}, word


def test_a_change_reaches_the_step_and_those_that_refer_to_it(recipe):
    before = fingerprints(recipe)
    assert changed(before, fingerprints(recipe, "stages.dpo.train.beta=0.2")) == ["dpo", "after"]
    assert changed(before, fingerprints(recipe, "seed=7")) == ["sft", "dpo", "after"]
    assert changed(before, fingerprints(recipe, "stages.after.seed=7")) == ["after"]


def test_a_default_written_out_is_the_same_step(recipe):
    assert fingerprints(recipe, "stages.sft.eval_data=null") == fingerprints(recipe)


def test_saving_matters_where_the_best_checkpoint_is_chosen(recipe):
    best = "stages.dpo.train.load_best_model_at_end=true"
    before = fingerprints(recipe, best)
    assert changed(before, fingerprints(recipe, best, "stages.dpo.train.save_steps=7")) == ["dpo", "after"]


def test_local_files_count_by_content_not_by_place(recipe, write):
    one, two = write("one.jsonl", "a"), write("two.jsonl", "a")
    first = fingerprints(recipe, f"stages.sft.data={one}")
    assert first == fingerprints(recipe, f"stages.sft.data={two}")
    write("two.jsonl", "b")
    assert changed(first, fingerprints(recipe, f"stages.sft.data={two}")) == ["sft", "dpo", "after"]


@pytest.mark.parametrize(
    "reward", [{"kind": "judge.judge"}, {"kind": "trl_function", "path": "judge.py:judge"}], ids=["dotted", "by path"]
)
def test_the_source_of_a_users_function_is_a_part_of_it(reward, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, recipe = tmp_path / "judge.py", tmp_path / "recipe.yaml"
    code.write_text("def judge(prompts, completions, **columns):\n    return [1.0] * len(completions)\n")
    recipe.write_text(yaml.safe_dump({"stages": {"score": {"completions": "org/x", "rewards": {"judge": reward}}}}))
    before = fingerprints(recipe)
    assert fingerprints(recipe) == before
    code.write_text(code.read_text().replace("1.0", "2.0"))
    assert changed(before, fingerprints(recipe)) == ["score"]


def test_the_audit_is_in_the_fingerprint_where_it_changes_which_rows_are_used(write):
    stage = {"kind": "sft", "model": {"model_name_or_path": "org/model"}, "data": "org/data", "train": {}}
    recipe = write("audited.yaml", yaml.safe_dump({"stages": {"sft": stage}}))

    def fingerprint(*overrides):
        return fingerprints(recipe, *overrides)["sft"]

    for same in ("{}", "{empty: refuse}", "{empty: drop}", "{cut: refuse, overlap: warn}"):
        assert fingerprint(f"stages.sft.audit={same}") == fingerprint(), same
    others = [
        fingerprint(f"stages.sft.audit={other}") for other in ("{empty: warn}", "{overlap: drop}", "{cut: drop}")
    ]
    assert len({fingerprint(), *others}) == 4
