"""The points of a sweep compared: errors over seeds and prompts, and a difference only where there is one."""

import random

import pytest
import yaml
from planned import STAGES
from reporting.test_page import Balanced

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting import by_prompt, comparison, comparison_page
from trimtab.pipelines.running import comparing

EVALUATE = {"kind": "compare", "scored": {"dpo": "$dpo"}, "baseline": "dpo"}
SWEEP = {"stages.dpo.train.beta": [0.1, 0.5, 0.9], "seed": [1, 2, 3]}


@pytest.fixture
def recipe(write, tmp_path):
    document = {"name": "r", "output_dir": str(tmp_path / "runs"), "sweep": SWEEP}
    stages = {"sft": STAGES["sft"], "dpo": STAGES["dpo"], "evaluate": EVALUATE}
    return Recipe.load(write("r.yaml", yaml.safe_dump({**document, "stages": stages}, sort_keys=False)))


def leave(step, metrics, rows=(), values=None):
    """Publishes what a step would leave."""
    partial = artifacts.fresh(step.dir)
    (partial / "artifact").write_text("x")
    if values:
        by_prompt.write(partial, values)
    (step.dir / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    record = {"kind": step.kind, "step": step.name, "fingerprint": step.fingerprint, "metrics": metrics, "seconds": 1}
    artifacts.publish(step.dir, record, "all")


def evaluated(recipe, gains, points=9):
    """Leaves all steps of the first points, where `gains` are what a setting adds to every score."""
    for point in recipe.points[:points]:
        rng = random.Random(point.seeds)
        prompts = {name: rng.gauss(0, 1) for name in by_prompt.identifiers(map(str, range(40)))}
        for step in point.steps.values():
            if step.done:
                continue
            if step.written == "evaluate":
                gain = gains[point.setting]
                values = {name: value + gain + rng.gauss(0, 0.01) for name, value in prompts.items()}
                fixed = dict.fromkeys(prompts, 1.0)
                mean = sum(values.values()) / 40
                metrics = {"dpo/gold/mean": mean, "dpo/gold/stderr": 0.1, "dpo/fixed/mean": 1.0}
                leave(step, metrics, values={"dpo/gold/mean": values, "dpo/fixed/mean": fixed})
            else:
                rows = [f'{{"time": 1, "step": {at}, "train/loss": {1 / at}}}' for at in (1, 2, 3)]
                leave(step, {"eval/loss": 1.0}, rows)


def test_a_true_difference_is_told_and_none_is_invented(recipe):
    evaluated(recipe, {"beta=0.1": 0.0, "beta=0.5": 0.0, "beta=0.9": 1.0})
    result = comparison.compare(recipe)
    rows = {row.setting: row for row in result.tables["evaluate: dpo/gold"]}
    assert [row.verdict for row in rows.values()] == ["what the others are compared with", "no difference", "higher"]
    assert rows["beta=0.9"].gap.paired
    assert rows["beta=0.9"].gap.mean == pytest.approx(1, abs=0.02)
    assert rows["beta=0.9"].estimate.stderr > 10 * rows["beta=0.9"].gap.stderr
    assert (rows["beta=0.1"].estimate.seeds, rows["beta=0.1"].estimate.prompts) == (3, 40)
    assert result.same == ["sft: eval/loss", "evaluate: dpo/fixed"]
    assert result.done == 9
    assert [title for title, _ in result.curves] == ["dpo: train/loss"]
    assert result.comparisons == 2


def test_points_that_are_not_done_are_left_out_and_common_seeds_are_paired(recipe):
    evaluated(recipe, {"beta=0.1": 0.0, "beta=0.5": 0.2}, points=5)
    result = comparison.compare(recipe)
    first, second = result.tables["evaluate: dpo/gold"]
    assert (result.done, first.estimate.seeds, second.estimate.seeds) == (5, 3, 2)
    assert second.gap.paired
    assert "5 of 9 points are done" in comparing.text(result)


def test_the_page_and_the_table_say_the_same(recipe):
    evaluated(recipe, {"beta=0.1": 0.0, "beta=0.5": 0.0, "beta=0.9": 1.0})
    result = comparison.compare(recipe)
    text, html = comparing.text(result), comparing.write(recipe, result).read_text()
    Balanced().feed(html)
    for words in ("no difference", "higher", "3 seeds × 40 prompts", "the 2 comparisons", "beta=0.9"):
        assert words in text
        assert words in html
    assert "The same in every setting: sft: eval/loss; evaluate: dpo/fixed." in html
    assert html.count("<figure>") == 1
    assert comparison_page.probability(0.00001) == "p < 0.001"


def test_nothing_done_is_a_page_too(recipe):
    html = comparison_page.render(comparison.compare(recipe))
    Balanced().feed(html)
    assert "0 of 9 points done" in html
