"""The stage that writes the report."""

import sys
from types import SimpleNamespace

from reporting.finished_steps import whole

from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.stages.report import Report


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    steps = whole(tmp_path / "tiny")
    output = tmp_path / "tiny" / "report-00000000" / "output.partial"
    output.mkdir(parents=True)
    step = Step("report", "report", "report", {}, 42, "auto", "0" * 8, output.parent, output, ())
    stage = Report(steps=[str(path) for path in (*steps, steps[-1])])
    for main, metrics in ((False, {}), (True, {"steps": len(steps), "unfinished": 0})):
        state = SimpleNamespace(is_main_process=main)
        monkeypatch.setitem(sys.modules, "accelerate", SimpleNamespace(PartialState=lambda state=state: state))
        assert stage.run(step) == metrics
        assert (output / "report.html").exists() == main
    assert "tiny" in (output / "report.html").read_text(encoding="utf-8")


def test_a_recipe_need_not_name_the_steps(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "stages: {world: {}, scratch: {corpus: $world/sft}, report: {}, few: {kind: report, steps: [$world]}}"
    )
    every, few = Recipe.load(str(file)).steps[2:]
    assert [step.name for step in every.inputs] == ["world", "scratch"]
    assert [step.name for step in few.inputs] == ["world"]
    assert every.options["steps"] == [str(step.output) for step in every.inputs]
