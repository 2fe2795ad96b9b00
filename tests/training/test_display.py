"""What a training shows: a bar on a terminal, a few lines in a log, a row for each log of rollouts."""

import io
from types import SimpleNamespace

import pytest

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import PREFERENCE, ROLLOUTS
from trimtab.pipelines.training.display import Display, label

ARGS = SimpleNamespace(disable_tqdm=False)
REWARDS = {f"rewards/{name}/{part}": 0.5 for name in ("gold", "brief") for part in ("mean", "std")}
ROLLOUT = {"loss": 0.1, "kl": 0.02, "entropy": 2.0, "completions/mean_length": 31.0, "frac_reward_zero_std": 0.1,
           **REWARDS, **{f"sampling/{name}": 1.0 for name in "abcdefghijklmnop"}}  # fmt: skip


def shown(shows, logs, steps, **more):
    """Goes through a training that logs the same at each step."""
    display = Display("dpo", [*shows.watches, *shows.results], table=shows.table)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=steps, global_step=0)
    display.on_train_begin(ARGS, state, None)
    for number in range(1, steps + 1):
        state.global_step = number
        display.on_step_end(ARGS, state, None)
        display.on_log(ARGS, state, None, logs=dict(logs))
        for evaluated in more.get("evaluated", {}).get(number, []):
            display.on_log(ARGS, state, None, logs=evaluated)
    display.on_log(ARGS, state, None, logs={"train_loss": 0.5, "train_runtime": 1.0})
    display.on_train_end(ARGS, state, None)
    display.on_log(ARGS, state, None, logs={"eval_loss": 0.4})


def test_a_log_has_ten_lines_with_the_three_numbers_of_the_kind(capsys):
    logs = {"loss": 0.69, "grad_norm": 2.0, "rewards/accuracies": 0.55, "rewards/margins": 0.1, "logps/chosen": -9.0}
    shown(PREFERENCE, logs, 200)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == "    dpo 20/200  loss 0.69, accuracies 0.55, margins 0.1"


def test_rollouts_are_rows_below_their_names(capsys):
    shown(ROLLOUTS, ROLLOUT, 40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["dpo", "gold", "brief", "kl", "length", "entropy", "loss"]
    assert lines[40].split() == ["40/40", "0.5", "0.5", "0.02", "31", "2", "0.1"]
    assert len(lines) == 41
    assert len({len(line) for line in lines}) == 1


def test_an_evaluation_on_the_way_has_its_line(capsys):
    shown(PREFERENCE, {"grad_norm": 1.0}, 3, evaluated={2: [{"eval_loss": 0.6, "eval_rewards/accuracies": 0.7}]})
    assert capsys.readouterr().out == "    dpo 2/3  eval accuracies 0.7, eval loss 0.6\n"


def test_verbose_says_every_number(capsys, monkeypatch):
    monkeypatch.setenv(tracking.VERBOSE, "1")
    shown(ROLLOUTS, ROLLOUT, 1)
    assert len(capsys.readouterr().out.split(", ")) == len(ROLLOUT)


def test_a_terminal_has_a_bar_of_one_line(monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    shown(PREFERENCE, {"loss": 0.69, "rewards/accuracies": 0.55}, 3)
    assert capsys.readouterr().out == ""
    drawn = terminal.getvalue()
    assert "    dpo " in drawn
    assert "loss 0.69, accuracies 0.55" in drawn
    assert "\n" not in drawn


@pytest.mark.parametrize(
    ("key", "words"),
    [("train/rewards/gold/mean", "gold"), ("eval/loss", "eval loss"), ("train/multipliers/gold", "multipliers gold")],
)
def test_labels(key, words):
    assert label(key) == words
