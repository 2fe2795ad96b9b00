"""The evaluation of policies side by side, and the report of the chain that led to it."""

import json

import pytest

from trimtab.pipelines.reporting import by_prompt


def test_evaluation_of_a_policy_against_itself_is_even(chained):
    result = json.loads((chained["evaluate"].output / "evaluation.json").read_text())
    two = result["policies"]["two"]
    assert two["win_rate"]["as"]["rate"] == 0.5  # the same seed, the same completions
    assert two["difference"]["as"] == {"mean": 0.0, "stderr": 0.0}
    assert two["kl"]["mean"] == pytest.approx(0, abs=1e-4)
    assert result["prompts"] == 7
    values = by_prompt.read(chained["evaluate"].output)
    for name in ("one", "two"):
        mean = result["policies"][name]["rewards"]["as"]["mean"]
        assert sum(values[f"{name}/as/mean"].values()) / 7 == pytest.approx(mean)
    assert "wins vs one" in (chained["evaluate"].output / "summary.txt").read_text()


def test_report_shows_the_chain(chained):
    page = (chained["report"].output / "report.html").read_text()
    for step in chained.values():
        assert step.name == "report" or step.fingerprint in page
