"""What lies in an output directory is listed, and what can go goes, but never what is used or being made."""

import json

import pytest
from conftest import SFT_ROWS
from run_steps import run_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import inventory, locks
from trimtab.pipelines.running import launch
from trimtab.scripts import store


@pytest.fixture
def runs(write, tmp_path):
    """Two recipes that share a step, of which the first has a checkpoint; and a step that an edit has left behind."""
    rows = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    mixed = {"kind": "mix", "synthetic": [rows], "real": rows, "real_fraction": 0.5}
    run_recipe(tmp_path, {"first": mixed, "last": {**mixed, "seed": 7}}, name="one")
    steps = run_recipe(tmp_path, {"first": mixed, "last": {**mixed, "seed": 8}}, name="one")
    run_recipe(tmp_path, {"start": mixed}, name="two")
    checkpoint = steps["first"].dir / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes(1000))
    return tmp_path / "runs"


def left(runs):
    """The steps that no recipe reaches."""
    return [entry.folder for entry in inventory.entries(runs) if not entry.reached]


def test_ls_says_of_each_step_what_it_is_and_who_reaches_it(runs, capsys):
    capsys.readouterr()
    assert store.main(["ls", str(runs)]) == 0
    headings, *lines, summary = capsys.readouterr().out.splitlines()
    assert headings.split() == ["step", "state", "as", "size", "checkpoints", "age", "metric"]
    (shared,) = [line for line in lines if "one/first, two/start" in line]
    assert shared.split()[:2] == [f"steps/{Recipe.load(str(runs.parent / 'recipe.yaml')).steps[0].dir.name}", "done"]
    assert "KiB" in shared
    assert sum("no recipe" in line for line in lines) == 1
    assert summary.startswith("3 steps, ")
    assert summary.endswith(" 1 of no recipe")


def test_prune_shows_first_and_removes_on_request(runs, capsys, monkeypatch):
    (unreached,) = left(runs)
    checkpoints = next(runs.glob("steps/*/checkpoints"))
    assert store.main(["prune", str(runs)]) == 0
    out = capsys.readouterr().out
    assert f"{unreached} " in out
    assert f"{checkpoints} " in out
    assert "can go: --yes removes it" in out
    total = out.splitlines()[-1].partition(" can go")[0]
    assert unreached.exists()
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert f"{total} removed" in capsys.readouterr().out
    assert not unreached.exists()
    assert not checkpoints.exists()
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("all is done"))
    assert launch.run(str(runs.parent / "recipe.yaml")) == 0


def test_a_recipe_whose_folder_is_removed_reaches_nothing(runs, capsys):
    for path in (runs / "one").iterdir():
        path.unlink()
    (runs / "one").rmdir()
    assert len(left(runs)) == 2
    assert store.main(["prune", str(runs), "--yes"]) == 0
    (entry,) = inventory.entries(runs)
    assert entry.reached == ("two/start",)


def test_what_is_being_made_stays_and_while_a_recipe_is_worked_on_all_whole_steps(runs, capsys):
    (unreached,) = left(runs)
    held = locks.Lock(locks.of_folder(unreached), "mine/last")
    held.take()
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert unreached.exists()
    held.release()
    launcher = locks.Lock(runs / "two" / ".lock", "trimtab run two")
    launcher.take()
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert unreached.exists()
    assert "two is worked on by process" in capsys.readouterr().err
    launcher.release()
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert not unreached.exists()


def test_what_a_recipes_options_name_by_its_path_is_reached(runs, capsys):
    (unreached,) = left(runs)
    rows = str(unreached / "output")
    stage = {"kind": "mix", "synthetic": [rows], "real": rows, "real_fraction": 0.5}
    run_recipe(runs.parent, {"reader": stage}, name="three")
    (entry,) = [entry for entry in inventory.entries(runs) if entry.folder == unreached]
    assert entry.reached == ("options of three/reader",)


def test_an_older_recipes_folder_reaches_what_it_links(tmp_path, capsys):
    run = tmp_path / "old"
    for name in ("sft-00000000", "sft-00000001"):
        (run / name / "output").mkdir(parents=True)
        (run / name / "done.json").write_text(json.dumps({"fingerprint": name[-8:], "files": {}}))
    (run / "sft").symlink_to("sft-00000001")
    assert left(tmp_path) == [run / "sft-00000000"]


def test_where_there_are_no_steps(tmp_path, capsys):
    for command in ("ls", "prune"):
        assert store.main([command, str(tmp_path)]) == 2


def test_scores_and_merged_adapters_go_where_every_step_is_finished(runs, capsys):
    shared = [runs / "steps" / name for name in ("scored/length-0a1b", "_merged/adapter-2c3d")]
    for folder in shared:
        folder.mkdir(parents=True)
        (folder / "kept").write_bytes(bytes(1000))
    reached = next(entry.folder for entry in inventory.entries(runs) if entry.reached)
    (reached / "done.json").rename(reached / "away.json")  # a step that has still to go on
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert all(folder.exists() for folder in shared)
    (reached / "away.json").rename(reached / "done.json")
    assert store.main(["prune", str(runs), "--yes"]) == 0
    assert "every step is finished" in capsys.readouterr().out
    assert not any(folder.exists() for folder in shared)
