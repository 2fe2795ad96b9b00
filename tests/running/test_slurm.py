"""The Slurm launcher, with an sbatch that runs the script here and an srun that is one node."""

import os
import stat
import sys

import pytest
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import run, train

SBATCH = """#!/bin/bash
# the last word is the script; it is run at once, as a job of one node
bash -n "${@: -1}" || exit 9
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=localhost SLURM_NNODES=1 SLURM_NODEID=0
bash "${@: -1}" > FOLDER/job.log 2>&1 || { cat FOLDER/job.log >&2; exit 1; }
echo 4711
"""
SRUN = '#!/bin/bash\necho "srun $*" >> FOLDER/srun.log\n[ "$1" = --kill-on-bad-exit=1 ] && shift\nexec "$@"\n'
SCONTROL = "#!/bin/bash\necho 127.0.0.1\n"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.replace("FOLDER", str(tmp_path)))
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PATH", f"{folder}:/usr/local/bin:/usr/bin:/bin")  # no environment is activated
    return tmp_path


@pytest.fixture
def recipe(model, write, tmp_path):
    rows = [{"prompt": "say a", "completion": f" a {i}"} for i in range(8)]
    stage = {"model": {"model_name_or_path": model}, "data": write("sft.jsonl", rows),
             "train": {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_checkpointing": False}}  # fmt: skip
    return str(write_recipe(tmp_path, {"a": {"kind": "sft", **stage}, "b": {"kind": "sft", "seed": 1, **stage}},
                            wandb=False))  # fmt: skip


@pytest.mark.slow
def test_a_job_runs_every_pending_step_and_queued_again_none(recipe, slurm, capsys):
    assert run.main([recipe, "--launcher", "slurm", "--sbatch=--nodes=1"]) == 0, capsys.readouterr().err
    assert "job 4711: 2 steps" in capsys.readouterr().out
    loaded = Recipe.load(recipe)
    assert all(step.done for step in loaded.steps)
    calls = (slurm / "srun.log").read_text().splitlines()
    assert len(calls) == 2
    assert "--machine_rank" in calls[0]
    assert "accelerate_configs/multi_node_ddp.yaml" in calls[0]  # whatever this machine has
    assert all(artifacts.read_done(step.dir)["world_size"] == 1 for step in loaded.steps)  # a rank for each GPU
    script = (loaded.run / "slurm.sh").read_text()
    assert "#SBATCH --nodes=1\n" in script
    assert "#SBATCH --requeue\n" in script
    assert run.main([recipe, "--launcher", "slurm"]) == 0
    assert "every step is done" in capsys.readouterr().out
    (slurm / "bin" / "srun").write_text("#!/bin/bash\nprintf '%s\\n' \"$*\" >> " + f"{slurm}/requeued.log\n")
    assert os.system(f"sbatch {loaded.run}/slurm.sh > /dev/null") == 0  # the steps of a requeued job ...
    words = [
        call.partition("scripts/train.py ")[2].split() for call in (slurm / "requeued.log").read_text().splitlines()
    ]
    assert [command[-1] for command in words] == ["a", "b"]
    assert [train.main(command) for command in words] == [0, 0]  # ... say that they are done
    assert capsys.readouterr().out.count("    done: ") == 2


def test_the_script_can_be_read_before(recipe, capsys):
    assert (
        run.main([recipe, "--plan", "--launcher", "slurm", "--sbatch=--nodes=4", "--", "--num_processes", "32"]) == 0
    )
    out = capsys.readouterr().out
    assert "#SBATCH --nodes=4" in out
    assert out.count("--num_processes") == out.count("--num_processes 32") == 3  # in the plan, and twice in the script
    assert out.count("accelerate_configs/multi_node_ddp.yaml") == 3
    assert out.count("srun --kill-on-bad-exit=1") == 2
    assert out.count(f"{sys.executable} -m accelerate.commands.accelerate_cli launch") == 2  # in the script


def test_without_slurm_the_error_says_so(recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run.main([recipe, "--launcher", "slurm"]) == 1
    assert "No such file or directory: 'sbatch'" in capsys.readouterr().err
