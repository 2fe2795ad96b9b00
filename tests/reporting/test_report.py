"""The report: a page of whatever the steps left, with every foreign string escaped."""

import json
import math
import random
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.reporting import plots
from trimtab.pipelines.stages import report
from trimtab.pipelines.stages.report import Report

EVIL = "<script>alert(1)</script>{{7*7}}{% raw %}</div><img src=x onerror=alert(2)>\" ' & \u202e \ud800"
VOID = {"meta", "br", "img", "link"}


def leave(run: Path, name: str, kind: str, inputs=(), rows=(), metrics=None, **record) -> Path:
    """A finished step's directory; returns the place of its artifact."""
    mark = f"{sum(map(ord, name)):08x}"
    folder = run / f"{name}-{mark}"
    (folder / "output").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = {
        "recipe": run.name,
        "step": name,
        "stage": name,
        "kind": kind,
        "fingerprint": mark,
        "seed": 42,
        "options": {},
        "inputs": {Path(path).parent.name.rpartition("-")[0]: Path(path).parent.name[-8:] for path in inputs},
        "metrics": metrics or {},
        "seconds": 61.25,
        "world_size": 1,
        "distributed": "NO",
        "device": "cpu",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "files": {"model.safetensors": {"sha256": "ab" * 32, "bytes": 3279456}},
        "finished": "2026-03-01T12:00:00+0000",
    }
    (folder / "done.json").write_text(json.dumps(done | record))
    return folder / "output"


def curve(count: int, pairs: dict[str, tuple[float, float]], evaluated: int = 0) -> list[dict]:
    """Rows of a metrics.jsonl that fall or rise from the first to the second value of each metric."""
    rng = random.Random(0)
    rows = []
    for step in range(10, 10 * count + 1, 10):
        values = {
            key: last + (first - last) * math.exp(-4 * step / (10 * count)) * (1 + rng.gauss(0, 0.05))
            for key, (first, last) in pairs.items()
        }
        train = {key: value for key, value in values.items() if key.startswith("train")}
        rows.append({"time": 1.0 * step, "step": step, **train, "train/learning_rate": 1e-4, "train/epoch": step / 50})
        if evaluated and step % evaluated == 0:
            rows.append({"time": 1.0 * step, "step": step, **{k: v for k, v in values.items() if k not in train}})
    return rows


def compared(run: Path, name: str, inputs, policies: dict[str, float], samples: list[dict]) -> Path:
    """An artifact of kind `compare`; the first policy is the baseline, the numbers shift each policy's means."""
    baseline = next(iter(policies))
    table = {}
    for policy, shift in policies.items():
        gaps = {"gold": shift, "politeness": -shift / 3, "coverage": shift / 2}
        table[policy] = {
            "rewards": {
                reward: {"mean": 0.41 + gap, "stderr": 0.018, "n": 600, "abstained": 0.0}
                for reward, gap in gaps.items()
            },
            "kl": {"mean": 40 * abs(shift), "stderr": 0.31} if shift else {"mean": 0.0, "stderr": 0.0},
            "length": {"mean": 31.2 + 20 * shift, "stderr": 0.42},
            "distinct_1": 0.061,
            "distinct_2": 0.287,
            "truncated": 0.013,
        }
        if policy != baseline:
            table[policy]["difference"] = {r: {"mean": gap, "stderr": 0.0173} for r, gap in gaps.items()}
            table[policy]["win_rate"] = {
                r: {"rate": 0.5 + gap, "low": 0.45 + gap, "high": 0.55 + gap} for r, gap in gaps.items()
            }
    metrics = {f"{p}/{r}/mean": v["mean"] for p, x in table.items() for r, v in x["rewards"].items()}
    output = leave(run, name, "compare", inputs, metrics=metrics, options={"baseline": baseline})
    found = {"prompts": 300, "completions_per_prompt": 2, "baseline": baseline, "reference": "runs/tiny/sft/output"}
    (output / "evaluation.json").write_text(json.dumps({**found, "policies": table, "samples": samples}))
    return output


def answers(prompt: str, **texts: str) -> dict:
    scores = {"gold": 0.5321, "politeness": -1.25, "coverage": None}
    return {"prompt": prompt, "policies": {name: {"completion": t, "scores": scores} for name, t in texts.items()}}


def whole(run: Path) -> list[Path]:
    """A chain with every section: two reward models, DPO, an evaluation whose texts are hostile."""
    loss = {"train/loss": (5.7, 0.65), "eval/loss": (5.6, 0.71)}
    tokens = {"train/mean_token_accuracy": (0.15, 0.78), "eval/mean_token_accuracy": (0.16, 0.76)}
    ranked = {
        "train/loss": (0.69, 0.3),
        "train/accuracy": (0.5, 0.88),
        "eval/loss": (0.69, 0.33),
        "eval/accuracy": (0.5, 0.86),
    }
    dpo = {"loss": (0.69, 0.42), "rewards/margins": (0.0, 1.4), "rewards/accuracies": (0.5, 0.81)}
    dpo = {f"{split}/{key}": ends for split in ("train", "eval") for key, ends in dpo.items()}
    pairs = [{"time": 0.0, "data/pairs": 2765, "data/equal_pairs_dropped": 3}, {"time": 0.0, "eval_data/pairs": 277}]
    world = leave(run, "world", "world", metrics={"rows/sft/train": 3000, "rows/prompts/train": 1000}, seconds=2.0)
    scratch = leave(run, "scratch", "scratch", [world], metrics={"parameters": 819072, "vocabulary": 700})
    sft = leave(run, "sft", "sft", [world, scratch], curve(20, loss | tokens, 50), {"eval/loss": 0.71})
    final = {"eval/accuracy": 0.8628, "eval/loss": 0.3312}
    rewards = [leave(run, n, "reward", [world, sft], pairs + curve(20, ranked, 50), final) for n in ("gold", "polite")]
    options = {"model": {"model_name_or_path": str(sft)}, "train": {"learning_rate": 5e-7, "beta": 0.1}}
    policy = leave(run, "dpo", "dpo", [world, sft], curve(20, dpo, 50), {"eval/rewards/accuracies": 0.81},
                   options=options, seconds=4000, world_size=8, device="NVIDIA H100 80GB HBM3")  # fmt: skip
    long = "The oaks grow very slowly and give cool shade. " * 30 + "THE END"
    kind = "I thank you for asking. The beans are green. The oats are pale. I hope this helps you."
    samples = [
        answers(
            "Tell me about beans and oats. Be polite. Use at most 20 words.", sft="The beans are green.", dpo=kind
        ),
        answers("Write about oaks.", sft="", dpo=long),
        answers(EVIL, sft=EVIL, dpo="The owls are quiet."),
    ]
    return [world, scratch, sft, *rewards, policy,
            compared(run, "evaluate", [sft, policy], {"sft": 0.0, "dpo": 0.214}, samples)]  # fmt: skip


def page(outputs: list[Path], samples: int = 8) -> str:
    html = report.render([report.read(path) for path in outputs], samples, "tiny")
    Balanced().feed(html)
    assert not re.search(r'(?:src|href)="(?!#)', html.replace('href="#', ""))
    return html


class Balanced(HTMLParser):
    """Fails on a tag that is closed by another, and on any element that could run or load something."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "img", "iframe", "link", "object")
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag not in ("script", "img")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_section_is_filled(tmp_path):
    html = page(whole(tmp_path / "tiny"))
    for note in ("No evaluation", "No step logged", "No reward model", "No completions", 'class="note"'):
        assert note not in html
    assert html.count('class="plot"') == 2 + 2 * 2 + 3
    assert "0.624 ± 0.018" in html  # dpo's gold
    assert "+0.214 ± 0.017 (+12.4 s.e.)" in html
    assert "wins 71.4% [66.4, 76.4]" in html
    assert "0.863 ± 0.021" in html  # accuracy, with the binomial error over 277 pairs
    assert "8 × NVIDIA H100" in html
    assert "1 h 06 min" in html
    assert "abstained" in html
    assert "learning_rate: 5.0e-07" in html


def test_hostile_text_stays_text(tmp_path):
    html = page(whole(tmp_path / "tiny"))
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}{% raw %}&lt;/div&gt;") == 2
    assert "49{%" not in html


def test_hostile_names_stay_text(tmp_path):
    rows = curve(5, {f"train/{EVIL[:-2]} --> <b>": (1.0, 0.5), f"eval/{EVIL[:-2]}": (1.0, 0.5)}, 20)
    output = leave(tmp_path / "tiny", "odd", EVIL, rows=rows, metrics={EVIL: 1.0}, options={EVIL: EVIL}, device=EVIL)
    assert 'class="plot"' in page([output])


def test_long_completions_are_folded():
    shown, rest = report.cut("word " * 300)
    assert len(shown) <= report.SHOWN
    assert shown + rest == "word " * 300
    assert report.cut("x" * 2000)[0] == "x" * report.SHOWN
    assert report.cut("short") == ("short", "")
    assert report.cut([{"role": "assistant", "content": "a"}, {"role": "user", "content": None}]) == ("a\n", "")


def test_missing_and_broken_things_are_notes(tmp_path):
    run = tmp_path / "tiny"
    bare = leave(run, "bare", "dpo", metrics={"eval/loss": math.nan}, seconds=None, versions=None, files=None)
    (bare.parent / "metrics.jsonl").unlink()
    empty = leave(run, "empty", "compare")
    broken = leave(run, "broken", "compare")
    (broken / "evaluation.json").write_text('{"policies": {"a": {"rewards": null}, "b": null}, "samples": [{}]')
    partial = leave(run, "partial", "compare")
    nan = {"mean": math.nan, "stderr": math.nan}
    found = {
        "a": {"rewards": {"r": nan}, "kl": None},
        "b": {"difference": {"r": nan}, "win_rate": {"r": {"rate": None}}},
    }
    (partial / "evaluation.json").write_text(json.dumps({"policies": found, "samples": [{"policies": {"a": {}}}]}))
    unfinished = run / "sft-12345678" / "output"
    html = page([bare, empty, broken, partial, unfinished, tmp_path / "nowhere" / "output"])
    assert html.count("evaluation.json cannot be read") == 2
    assert html.count("is not finished") == 2
    assert "nan" not in html.lower().replace("finance", "")
    assert "No step logged a curve" in html


def test_no_steps_is_a_page():
    html = page([])
    assert "No steps." in html
    assert "No evaluation among these steps." in html


def test_scored_rows_are_shown_where_nothing_was_evaluated(tmp_path):
    sampled = leave(tmp_path / "tiny", "sample", "sample")
    scored = leave(tmp_path / "tiny", "score", "score", [sampled])
    rows = [
        {"prompt": [{"role": "user", "content": f"Ask {n // 2}"}], "completion": f"Say {n}", "scores": {"r": n / 4}}
        for n in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), scored / "train.parquet")
    html = page([sampled, scored], samples=2)
    assert "Ask 1" in html
    assert "Say 3" in html
    assert "Ask 2" not in html
    assert "completion 2" in html
    assert "train.parquet cannot be read" in page([sampled])
    (scored / "train.parquet").write_text("not parquet")
    assert "train.parquet cannot be read" in page([scored])


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


def test_results_are_what_matters_of_a_kind():
    scores = {"rewards/gold/abstained": 0.0, "rewards/gold/mean": 1.25, "rewards/kind/mean": math.nan, "x": 2}
    assert report.results(scores, report.KINDS["score"].results) == [("gold", "1.25")]
    assert report.results({"train/runtime": 3.0, "a[b]": 1, "c/d": 2, "e": 3}, ()) == [("a[b]", "1"), ("c d", "2")]


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
    rows = [{"step": n, "r/a/mean": float(n), "r/b/mean": 1.0 - n, "r/c/mean": 0.5, "t/a": 0.1 + 0.2, "t/b": 3.0}
            for n in range(9)]  # fmt: skip
    drawn = dict(plots.curves(rows, {"* and its threshold": ["r/*/mean", "t/*"]}))
    assert list(drawn) == ["a and its threshold", "b and its threshold"]  # c has none
    assert all("stroke-dasharray" in svg for svg in drawn.values())


def test_the_chain_holds_a_lane_while_a_step_is_still_read():
    drawings = plots.chain([[], [0], [0, 1], [2], [9]])
    assert len(drawings) == 5
    assert [drawing.count("<circle") for drawing in drawings] == [1] * 5
    assert drawings[1].count("V30") == 2  # step 0 passes, step 1 begins
    assert "l-3.5" in drawings[2]
    assert "l-3.5" not in drawings[4]
    assert plots.chain([]) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (3000, "3,000"),
        (0.86283, "0.8628"),
        (-1.25, "−1.25"),
        (5e-7, "5.00e−07"),
        (0, "0"),
    ],
)
def test_numbers(value, shown):
    assert report.number(value) == shown


@pytest.mark.parametrize(
    ("mean", "stderr", "shown"),
    [(0.6241, 0.0183, "0.624 ± 0.018"), (31.24, 4.2, "31.2 ± 4.2"), (1.5, None, "1.500"), (math.nan, 1, "–")],
)
def test_errors_have_two_digits(mean, stderr, shown):
    assert report.with_error({"mean": mean, "stderr": stderr}) == shown
