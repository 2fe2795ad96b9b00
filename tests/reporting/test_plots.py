"""The drawings: learning curves and the chain of steps."""

import math

from reporting.finished_steps import curve

from trimtab.pipelines.reporting import plots


def test_curves_of_an_unknown_kind_and_of_patterns():
    rows = curve(30, {"train/reward": (0.0, 1.0), "train/loss": (1.0, 0.2), "eval/loss": (1.0, 0.3)}, 100)
    assert [title for title, _ in plots.curves(rows, {})] == ["loss", "reward"]
    rows = [{"step": n, "train/multiplier/a": n / 2, "train/multiplier/b": math.nan} for n in range(5000)]
    [(title, svg)] = plots.curves(rows, {"Multipliers": ["train/multiplier/*"], "Nothing": ["no/such"]})
    assert title == "Multipliers"
    assert len(svg) < 40_000
    assert "#0" not in svg.replace('"#', "").replace("url(#", "")  # every colour is the page's
    assert plots.curves([{"time": 1.0, "rows": 3}, {"step": 1, "train/x": "text"}], {}) == []


def test_a_title_with_a_star_is_a_panel_for_each_name():
    series = {"r/c/mean": 0.5, "t/a": 0.1 + 0.2, "t/b": 3.0}
    rows = [{"step": n, "r/a/mean": float(n), "r/b/mean": 1.0 - n, **series} for n in range(9)]
    drawn = dict(plots.curves(rows, {"* and its threshold": ["r/*/mean", "t/*"]}))
    assert list(drawn) == ["a and its threshold", "b and its threshold"]  # c has none
    assert all("stroke-dasharray" in svg for svg in drawn.values())


def test_one_point_is_a_number_and_no_curve():
    rows = [{"step": 1, "reward/a": 0.5, "reward/<b>": 2.0}]
    [(_, table)] = plots.curves(rows, {"Reward": ["reward/*"]}, "round")
    assert "<svg" not in table
    assert "<th scope=row>&lt;b&gt;</th><td>2</td>" in table
    [(_, table)] = plots.curves(rows, {"Reward": ["reward/a"]}, "round")
    assert "round 1</th><td>0.5</td>" in table
    [(_, drawing)] = plots.curves([*rows, {"step": 2, "reward/a": 0.7}], {"Reward": ["reward/a"]}, "round")
    assert ">round</text>" in drawing


def test_the_chain_holds_a_lane_while_a_step_is_still_read():
    drawings = plots.chain([[], [0], [0, 1], [2], [9]])
    assert len(drawings) == 5
    assert [drawing.count("<circle") for drawing in drawings] == [1] * 5
    assert drawings[1].count("V30") == 2  # step 0 passes, step 1 begins
    assert "l-3.5" in drawings[2]
    assert "l-3.5" not in drawings[4]
    assert plots.chain([]) == []


def test_a_step_that_reads_all_others_holds_no_lanes():
    drawings = plots.chain([*([n] for n in range(-1, 29)), list(range(30))])
    assert 'width="14"' in drawings[0]
    assert "<path" not in drawings[-1]
