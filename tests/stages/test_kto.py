"""Kind `kto`: what it learns, what it reads, and that one file is all that a kind needs."""

import subprocess
from pathlib import Path

import pytest
from conftest import PAIR_ROWS, PROMPT, ROOT
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.recording.artifacts import read_done
from trimtab.pipelines.running import runner
from trimtab.pipelines.shrinking import recipe as shrinking

THUMBS = [
    {
        "prompt": PROMPT,
        "completion": [{"role": "assistant", "content": f"a and b {i}" if i % 2 else f"c {i}"}],
        "label": bool(i % 2),
    }
    for i in range(16)
]


def stage(model, data, **train):
    arguments = {
        "max_steps": 8,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "gradient_checkpointing": False,
    }
    audit = {"overlap": "warn"}
    return {"model": {"model_name_or_path": model}, "data": data, "eval_data": data, "audit": audit,
            "train": arguments | train}  # fmt: skip


def test_it_tells_good_answers_from_bad_ones(model, write, tmp_path):
    """The margin between the labelled answers begins at 0 and grows; trained on turned labels, it becomes negative."""
    right = write("right.jsonl", THUMBS)
    turned = write("turned.jsonl", [{**row, "label": not row["label"]} for row in THUMBS])
    margins = {}
    for data in (right, turned):
        folder = tmp_path / Path(data).stem
        folder.mkdir(exist_ok=True)
        step = run_recipe(folder, {"kto": {**stage(model, data), "eval_data": right}})["kto"]
        logged = [row for row in tracking.read(step.dir / "metrics.jsonl") if "train/rewards/margins" in row]
        assert logged[0]["train/rewards/margins"] == pytest.approx(0, abs=1e-4)
        margins[data] = read_done(step.dir)["metrics"]["eval/rewards/margins"]
    assert margins[right] > 0.01
    assert margins[turned] < -0.01


def test_pairs_are_taken_apart(model, write, tmp_path):
    steps = run_recipe(tmp_path, {"kto": stage(model, write("pairs.jsonl", PAIR_ROWS), max_steps=1)})
    assert steps["kto"].done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_device_train_batch_size": 1}, "train.per_device_train_batch_size: must be at least 2, got 1"),
        ({"loss_type": "ktoo"}, "train.loss_type: expected one of kto, apo_zero_unpaired"),
    ],
)
def test_what_the_trainer_would_refuse_is_an_error_of_the_plan(model, write, tmp_path, change, message):
    path = write_recipe(tmp_path, {"kto": stage(model, write("thumbs.jsonl", THUMBS), **change)})
    with pytest.raises(RecipeError, match=message):
        preflight.check(recipe := Recipe.load(str(path)), recipe.steps)


def test_columns_are_checked(model, write, tmp_path):
    rows = [{"prompt": row["prompt"], "answer": row["completion"], "label": row["label"]} for row in THUMBS]
    path = write_recipe(tmp_path, {"kto": stage(model, write("thumbs.jsonl", rows))})
    with pytest.raises(RecipeError, match=r"kto.data: .*has no column 'completion'.*prompt \+ completion \+ label"):
        preflight.check(recipe := Recipe.load(str(path)), recipe.steps)


def test_it_shrinks_and_is_in_the_report(write, tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "FOLDER", tmp_path / "shrunk")
    block = {"model": {"model_name_or_path": "org/llama-7b"}, "data": "org/thumbs", "train": {"learning_rate": 1e-6}}
    path = shrinking.shrunk(str(write_recipe(tmp_path, {"kto": block, "report": {}})))
    assert runner.train(path) == 0
    steps = {step.name: step for step in Recipe.load(path).steps}
    html = (steps["report"].output / "report.html").read_text()
    assert "Reward margin" in html
    assert "Rewards of good and bad answers" in html


def test_it_is_in_the_docs_and_no_other_file_of_the_package_knows_its_word():
    assert "## kto" in (ROOT / "docs" / "stages.md").read_text()
    others = ":!pipelines/importing"  # the words of other programs
    words = ["git", "grep", "-liE", r"\bkto\b", "--", "pipelines", "scripts", "rewards", others]
    files = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert set(files) <= {"pipelines/stages/kto.py", "pipelines/stages/__init__.py"}, "the contract's example is KTO"
