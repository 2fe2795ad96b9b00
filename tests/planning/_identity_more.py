def test_a_change_reaches_the_step_and_those_that_refer_to_it(recipe):
    assert changed(marks(recipe), marks(recipe, "stages.dpo.train.beta=0.2")) == ["dpo", "after"]
    assert changed(marks(recipe), marks(recipe, "seed=7")) == ["sft", "dpo", "after"]
    assert changed(marks(recipe), marks(recipe, "stages.after.seed=7")) == ["after"]


@pytest.mark.parametrize(
    "override",
    [
        "stages.dpo.train.logging_steps=1",
        "stages.dpo.train.save_steps=7",
        "stages.dpo.train.report_to=wandb",
        "stages.dpo.accelerate=ddp",
        "output_dir=elsewhere",
        "wandb.project=other",
    ],
)
def test_what_cannot_change_the_result_is_not_in_the_fingerprint(recipe, override):
    assert marks(recipe, override) == marks(recipe)


def test_saving_counts_when_the_best_checkpoint_is_kept(recipe):
    best = "stages.dpo.train.load_best_model_at_end=true"
    assert changed(marks(recipe, best), marks(recipe, best, "stages.dpo.train.save_steps=7")) == ["dpo", "after"]


def test_local_files_count_by_content_not_by_place(tmp_path, write):
    one, two = write("one.jsonl", "a"), write("two.jsonl", "a")
    recipe = write_recipe(tmp_path, STAGES)
    first = marks(recipe, f"stages.sft.data={one}")
    assert first == marks(recipe, f"stages.sft.data={two}")
    write("two.jsonl", "b")
    assert changed(first, marks(recipe, f"stages.sft.data={two}")) == ["sft", "dpo", "after"]


def test_a_reward_is_known_by_its_source(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def score(prompts, completions, **columns): return [0.0] * len(prompts)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stages = {"score": {"completions": "hub/data", "rewards": {"a": {"kind": "mine.score"}}}}
    recipe = write_recipe(tmp_path, stages)
    before = marks(recipe)
    (tmp_path / "mine.py").write_text("def score(prompts, completions, **columns): return [1.0] * len(prompts)\n")
    assert changed(before, marks(recipe)) == ["score"]


def test_a_default_written_out_is_the_same_step(recipe):
    assert marks(recipe, "stages.sft.eval_data=null") == marks(recipe)
