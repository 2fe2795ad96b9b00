"""Score, abstention and failure: each policy, what is kept on disk, and what a second launch asks for."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import accelerate
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from run_steps import run_recipe, write_recipe

from trimtab.pipelines.data import loading
from trimtab.pipelines.planning import preflight, schema
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts, locks, watch
from trimtab.pipelines.scoring import asking, journal
from trimtab.rewards import RewardFailure, outcomes
from trimtab.scripts import train

# Scores the number in the completion; `trouble` holds what each number meets; `asked` is a record of every call.
REWARD = """
import json, pathlib
HERE = pathlib.Path(__file__).parent

def count(prompts, completions, log_extra, log_metric, **columns):
    trouble = json.loads((HERE / "trouble.json").read_text())
    numbers = [int(c.split()[-1]) for c in completions]
    with (HERE / "asked.jsonl").open("a") as file:
        file.write(json.dumps(numbers) + "\\n")
    log_extra("half", [n / 2 for n in numbers])
    log_metric("calls", 1.0)
    from trimtab.rewards import RewardFailure, settled
    def one(n):
        meets = trouble.get(str(n), "fine")
        return {"fine": n, "abstain": None, "nan": float("nan"), "inf": float("inf"), "text": "1",
                "fail": RewardFailure("the server of sk-abcdefghijkl is down")}[meets]
    return settled([one(n) for n in numbers])

def short(prompts, completions, **columns):
    return [0.0]

def broken(prompts, completions, **columns):
    raise KeyError("answer")
"""


@pytest.fixture
def bench(tmp_path):
    """A folder with the reward's file, 12 completions of 4 prompts, and ways to run and to look."""
    (tmp_path / "count.py").write_text(REWARD)
    rows = [{"prompt": f"p{i // 3}", "prompt_index": i // 3, "completion": f"token hf_abcdefghijkl {i}"}
            for i in range(12)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def trouble(**meets):
        (tmp_path / "trouble.json").write_text(json.dumps({key.removeprefix("n"): v for key, v in meets.items()}))
        (tmp_path / "asked.jsonl").write_text("")

    def stages(name="count", **options):
        block = {"kind": "trl_function", "path": f"{tmp_path}/count.py:{name}", **options}
        return {"score": {"completions": str(tmp_path / "rows.jsonl"), "rewards": {"r": block}, "batch_size": 4}}

    def run(*args, **options):
        return train.main([str(write_recipe(tmp_path, stages(*args, **options), wandb=False))])

    def asked():
        return [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]

    def step(*args, **options):
        return Recipe.load(str(write_recipe(tmp_path, stages(*args, **options), wandb=False))).steps[-1]

    def scores(found):
        return [row["scores"]["r"] for row in pq.read_table(found.output / "train.parquet").to_pylist()]

    trouble()
    return SimpleNamespace(**locals())


@pytest.mark.parametrize(
    ("meets", "reason"),
    [
        ("nan", "the score is nan"),
        ("inf", "the score is inf"),
        ("text", "expected a number, got '1'"),
        ("fail", "the server of (redacted) is down"),
    ],
)
def test_a_failure_stops_the_step_and_names_reward_sample_and_cure(bench, meets, reason, capsys):
    bench.trouble(n6=meets)
    assert bench.run() == 1
    error = capsys.readouterr().err
    assert f"error: reward 'r' failed on completion 6 ('token (redacted) 6'): {reason}" in error
    assert "1 failed (`on_failure` is stop); 7 of 12 are scored and kept: the same command goes on from there" in error
    assert not bench.step().done


@pytest.mark.parametrize(
    ("name", "reason"),
    [("short", "1 scores came back for 4 completions"), ("broken", "KeyError: 'answer'")],
)
def test_a_wrong_count_or_an_exception_fails_the_whole_call(bench, name, reason, capsys):
    assert bench.run(name) == 1
    assert reason in capsys.readouterr().err


def test_what_another_process_scores_is_waited_for_and_not_asked_again(bench, monkeypatch, caplog):
    assert bench.run() == 0
    step = bench.step()
    folder = journal._folder(step, "r")
    scored = (folder / "rank-0.jsonl").rename(folder / "by-then")
    (step.dir / "done.json").unlink()
    other = locks.Lock(locks.of_folder(folder), "other/score")
    other.take()

    def ends(seconds):
        if seconds == locks.POLL:
            scored.rename(folder / "rank-0.jsonl")
            other.release()

    monkeypatch.setattr(locks.time, "sleep", ends)
    bench.trouble()
    assert bench.run() == 0
    assert bench.asked() == []
    assert "score: r is asked the same by process" in caplog.text


def test_the_same_command_scores_what_is_missing_and_ends_as_if_nothing_had_happened(bench, tmp_path):
    bench.trouble(n6="fail")
    assert bench.run() == 1
    assert bench.asked() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    bench.trouble(n1="fail")  # was scored: nobody asks again
    assert bench.run() == 0
    assert bench.asked() == [[6], [8, 9, 10, 11]]
    step = bench.step()
    assert bench.scores(step) == list(range(12))
    bench.trouble()
    undisturbed = run_recipe(tmp_path, bench.stages(), output_dir=str(tmp_path / "other"))["score"]
    assert pq.read_table(step.output / "train.parquet") == pq.read_table(undisturbed.output / "train.parquet")
    ours, theirs = (artifacts.read_done(s.dir)["metrics"] for s in (step, undisturbed))
    assert ours == theirs
    assert ours == {"rewards/r/scored": 1, "rewards/r/abstained": 0, "rewards/r/failed": 0, "rewards/r/mean": 5.5,
                    "rewards/r/std": pytest.approx(3.452, abs=1e-3), "rewards/r/half/mean": 2.75,
                    "rewards/r/half/stderr": pytest.approx(0.5204, abs=1e-4),
                    "rewards/r/calls": 1}  # fmt: skip


def test_a_line_torn_by_a_killed_process_is_scored_again(bench):
    bench.trouble(n6="fail")
    assert bench.run() == 1
    (journal,) = bench.step().dir.parent.glob("scored/*/rank-0.jsonl")
    journal.write_text(journal.read_text() + '{"row": 8, "sco')
    bench.trouble()
    assert bench.run() == 0
    assert bench.asked() == [[6], [8, 9, 10, 11]]
    assert bench.scores(bench.step()) == list(range(12))


def test_abstaining_leaves_out_the_one_and_skipping_its_prompt(bench):
    bench.trouble(n4="fail", n9="abstain")
    assert bench.run(on_failure="abstain") == 0
    expected = [float(n) for n in range(12)]
    expected[4] = expected[9] = None
    step = bench.step(on_failure="abstain")
    assert bench.scores(step) == expected
    metrics = artifacts.read_done(step.dir)["metrics"]
    assert [metrics[f"rewards/r/{key}"] * 12 for key in ("scored", "abstained", "failed")] == pytest.approx([10, 1, 1])

    bench.trouble(n4="fail")  # another policy is another step, and finds the scores: only what failed is tried again
    assert bench.run(on_failure="skip_group") == 0
    assert bench.asked() == [[4]]
    step = bench.step(on_failure="skip_group")
    assert bench.scores(step) == [0, 1, 2, None, None, None, 6, 7, 8, None, 10, 11]
    assert artifacts.read_done(step.dir)["metrics"]["rewards/r/skipped"] == pytest.approx(2 / 12)


def test_too_many_failures_stop_whatever_the_policy(bench, capsys):
    bench.trouble(n1="fail", n2="fail")
    assert bench.run(on_failure="abstain") == 1
    assert "2 failed (more than `max_failures` allows)" in capsys.readouterr().err
    assert bench.run(on_failure="abstain", max_failures=0.2) == 0


def test_another_reward_leaves_the_scores_of_the_first_alone(bench, tmp_path):
    assert bench.run() == 0
    bench.trouble()
    stages = bench.stages()
    stages["score"]["rewards"]["brief"] = {"kind": "length", "target": 3}
    step = run_recipe(tmp_path, stages)["score"]
    assert bench.asked() == []
    rows = pq.read_table(step.output / "train.parquet").to_pylist()
    assert [row["scores"] for row in rows[:2]] == [{"r": 0.0, "brief": 0.0}, {"r": 1.0, "brief": 0.0}]


def test_how_a_reward_is_asked_is_not_part_of_what_it_says(bench, tmp_path):
    block = {"kind": "remote", "url": "http://127.0.0.1:9/get_reward"}
    stages = {"score": {"completions": str(tmp_path / "rows.jsonl"), "rewards": {"r": block}}}
    path = str(write_recipe(tmp_path, stages))
    marks = {Recipe.load(path, words).steps[0].fingerprint
             for words in ([], ["stages.score.rewards.r.timeout=9"], ["stages.score.rewards.r.tries=2"])}  # fmt: skip
    assert len(marks) == 1
    assert Recipe.load(path, ["stages.score.rewards.r.protocol=llamafactory"]).steps[0].fingerprint not in marks


def test_the_source_of_a_function_is_part_of_the_fingerprint(bench, tmp_path):
    before = bench.step().fingerprint
    (tmp_path / "count.py").write_text(REWARD + "\n# another")
    assert bench.step().fingerprint != before


def test_ranks_share_the_batches(bench, monkeypatch):
    """Two ranks, as two threads with a barrier, score what one rank scores, each of them every second batch."""
    step, barrier, rank = bench.step(), threading.Barrier(2), threading.local()
    stage = preflight.build(step)
    monkeypatch.setattr(
        accelerate,
        "PartialState",
        lambda: SimpleNamespace(
            num_processes=2, process_index=rank.number, is_main_process=False, wait_for_everyone=barrier.wait
        ),
    )

    def run(number):
        rank.number = number
        rows = loading.load(stage.completions)
        return journal.score(step, "r", schema.load_reward(stage.rewards["r"]), rows, 4).outcomes

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, (0, 1))) == [list(range(12))] * 2
    assert {path.name for path in step.dir.parent.rglob("*.jsonl")} == {"rank-0.jsonl", "rank-1.jsonl"}
    assert sorted(bench.asked()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_skip_group_needs_to_know_the_prompts(bench, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c 1"}) + "\n")
    assert bench.run(on_failure="skip_group") == 2
    assert "prompt_index" in capsys.readouterr().err
    assert bench.run(on_failure="skip") == 2
    assert "stages.score.rewards.r.on_failure: expected one of stop, abstain, skip_group" in capsys.readouterr().err


def test_outcomes_of_every_kind_of_number():
    import numpy as np
    import torch

    def reward(prompts, completions, **columns):
        return [True, np.float32(0.5), torch.tensor(2.0), torch.tensor([3.0]), np.array([1.0, 2.0]), 10**400]

    found = outcomes(reward, ["p"] * 6, ["c"] * 6, name="r", indices=range(20, 26))
    assert found[:4] == [1.0, 0.5, 2.0, 3.0]
    assert isinstance(found[4], RewardFailure)
    assert found[4].index == 24
    assert isinstance(found[5], RewardFailure)
    assert outcomes(reward, [], []) == []


def test_outcomes_of_an_async_reward():
    async def reward(prompts, completions, **columns):
        return [float(len(c)) for c in completions]

    assert outcomes(reward, ["p", "p"], ["a", "bb"]) == [1.0, 2.0]


def flipped(text):
    return text.replace('"score": 3', '"score": 7')


def cut_off(text):
    return text[: len(text) // 2]


def no_text(text):
    return text.replace('"row"', '"r\udcff"', 3)


def no_line_of_ours(text):
    return text + '5\n[]\n"row"\n{"row": 1}\n{"row": "1", "score": 9}\n{"row": 2, "score": 9, "check": 1}\n'


@pytest.mark.parametrize("damage", [flipped, cut_off, no_text, no_line_of_ours, lambda text: ""])
def test_what_a_disk_has_damaged_is_scored_again(damage, bench):
    bench.trouble(n11="fail")
    assert bench.run() == 1
    (journal,) = bench.step().dir.parent.glob("scored/*/rank-0.jsonl")
    journal.write_bytes(damage(journal.read_text()).encode(errors="surrogateescape"))
    bench.trouble()
    assert bench.run() == 0
    assert bench.scores(bench.step()) == list(range(12))


SLOW = """
import time

def slow(prompts, completions, **columns):
    time.sleep(1)
    return [0.0] * len(completions)
"""


def test_a_reward_that_hangs_ends_the_process_with_step_reward_and_line(bench, tmp_path, monkeypatch, capfd):
    (tmp_path / "count.py").write_text(SLOW)
    ended = []
    monkeypatch.setattr(watch.os, "_exit", ended.append)
    monkeypatch.setenv("TRIMTAB_STALL", "0.7")
    assert bench.run("slow") == 0  # that it goes on here is no part of it
    assert ended == [watch.STALLED] * 3  # one for each batch
    told = capfd.readouterr().err
    assert "error: score: rank 0 has stood still for 0.7 s in reward r, rows 0 to 3; its threads:" in told
    assert 'count.py", line 5 in slow' in told


def test_a_reward_that_moves_is_left_alone_however_long_all_of_it_takes(bench, monkeypatch):
    ended = []
    monkeypatch.setattr(watch.os, "_exit", ended.append)
    monkeypatch.setenv("TRIMTAB_STALL", "1")
    monkeypatch.setattr(asking, "ask", lambda *args, ask=asking.ask: time.sleep(0.4) or ask(*args))
    assert bench.run() == 0
    assert ended == []


def test_the_waits_for_a_remote_reward_are_told_by_their_quantiles():
    scores = journal.Scores([1.0], waits=[0.1] * 98 + [1.0, 9.0])
    summary = scores.summary("far", [1.0])
    assert [summary[f"rewards/far/wait_seconds/p{share}"] for share in (50, 95, 99)] == pytest.approx([0.1, 0.1, 1.08])
    assert not any("wait" in name for name in journal.Scores([1.0]).summary("near", [1.0]))


def test_words_that_a_reward_logs_can_be_written_to_a_file():
    def noted(prompts, completions, log_extra, **columns):
        log_extra("note", ["half of a smiley: \ud83d"])
        return [1.0]

    rows = Dataset.from_list([{"prompt": "p", "completion": "c"}])
    assert asking.ask(noted, "noted", rows, [0])[:2] == ([1.0], {"note": ["half of a smiley: \ufffd"]})
