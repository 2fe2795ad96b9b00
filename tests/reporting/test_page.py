"""The page: whatever the steps left is shown, and every foreign string is escaped."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from reporting.finished_steps import EVIL, curve, leave, whole

from trimtab.pipelines.reporting import records
from trimtab.pipelines.reporting.page import render

VOID = {"meta", "br", "img", "link"}


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


def page(outputs: list[Path], samples: int = 8) -> str:
    html = render([records.read(path) for path in outputs], samples, "tiny")
    Balanced().feed(html)
    assert not re.search(r'(?:src|href)="(?!#)', html.replace('href="#', ""))
    return html


def test_every_section_is_filled(tmp_path):
    html = page(whole(tmp_path / "tiny"))
    for note in (
        "No evaluation",
        "No step logged",
        "No reward model",
        "No step read",
        "No completions",
        'class="note"',
    ):
        assert note not in html
    assert html.count('class="plot"') == 2 + 2 * 2 + 3
    assert "0.624 ± 0.018" in html  # dpo's gold
    assert "+0.214 ± 0.017 (+12.4 s.e.)" in html
    assert "wins 71.4% [66.4, 76.4]" in html
    assert "0.863 ± 0.021" in html  # accuracy, with the binomial error over 277 pairs
    assert "<td>equal_pairs 3</td>" in html  # left out of a reward model's pairs
    assert "8 × NVIDIA H100" in html
    assert "1 h 06 min" in html
    assert "abstained" in html
    assert "learning_rate: 5.0e-07" in html


def test_what_was_forecast_stands_beside_what_was_measured(tmp_path):
    html = page(whole(tmp_path / "tiny"))
    for cell in ("990 MiB", "900 MiB", "+10%", "49.0 s", "−20%"):
        assert re.search(rf'<td class="n">(<span class="bar"[^>]*></span>)?{re.escape(cell)}</td>', html), cell


def test_hostile_text_stays_text(tmp_path):
    html = page(whole(tmp_path / "tiny"))
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}{% raw %}&lt;/div&gt;") == 2
    assert "49{%" not in html


def test_hostile_names_stay_text(tmp_path):
    rows = curve(5, {f"train/{EVIL[:-2]} --> <b>": (1.0, 0.5), f"eval/{EVIL[:-2]}": (1.0, 0.5)}, 20)
    output = leave(tmp_path / "tiny", "odd", EVIL, rows=rows, metrics={EVIL: 1.0}, options={EVIL: EVIL}, device=EVIL)
    assert 'class="plot"' in page([output])


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
    (partial / "evaluation.json").write_text(
        json.dumps({"policies": found, "notes": ["a: no KL"], "samples": [{"policies": {"a": {}}}]})
    )
    unfinished = run / "sft-12345678" / "output"
    html = page([bare, empty, broken, partial, unfinished, tmp_path / "nowhere" / "output"])
    assert html.count("evaluation.json cannot be read") == 2
    assert '<p class="note">a: no KL</p>' in html
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


def test_a_kind_from_outside_shows_what_its_class_says(tmp_path, monkeypatch):
    code = """
from dataclasses import dataclass
from typing import ClassVar
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Stage

@dataclass(kw_only=True)
class Thing(Stage):
    loss: str = "hinge"
    shows: ClassVar[Shows] = Shows(
        {"Energy of the thing": ("train/energy",)}, ("energy/*",), section="reward model"
    )
"""
    (tmp_path / "stages_of_a_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    rows = curve(5, {"train/energy": (2.0, 1.0), "train/loss": (1.0, 0.5)})
    metrics = {"train/loss": 0.5, "energy/last": 1.0625, "eval/accuracy": 0.75}
    html = page([leave(tmp_path / "tiny", "thing", "stages_of_a_test.Thing", rows=rows, metrics=metrics)])
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == ["Energy of the thing"]
    assert '<span class="muted">energy last</span> 1.062' in html
    assert "No reward model" not in html
    assert "<td>hinge</td>" in html
    assert "No completions among these steps." in html


def test_the_steps_of_a_loop_are_drawn_round_by_round(tmp_path):
    run = tmp_path / "tiny"
    logged = [{"step": 0, "entropy": 3.0}]
    rounds = [
        leave(run, f"loop-{n}", "monitor", rows=logged, metrics={"entropy": 3.0 - n}, stage="loop") for n in (1, 2)
    ]
    html = page(rounds)
    assert html.count('class="plot"') == 1
    assert '<h3>loop-2 <span class="tag">monitor</span></h3>' in html


def test_code_from_outside_that_is_broken_is_drawn_without_it(tmp_path, monkeypatch):
    (tmp_path / "broken_stages_of_a_test.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows = curve(5, {"train/loss": (1.0, 0.5)})
    assert page([leave(tmp_path / "tiny", "thing", "broken_stages_of_a_test.Thing", rows=rows)]).count("<figure>") == 1
