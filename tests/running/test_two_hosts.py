"""Two machines with a network between them: two network namespaces, joined by a virtual cable, and a shared folder."""

import json
import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT, SFT_ROWS
from launches import TWO, finished, trained, until, warm
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts

PORT = "29871"
ENGINES = {"fsdp2": "FSDP", "zero3": "DEEPSPEED"}
HOSTS = {0: ("trimtab-a", "10.77.13.1"), 1: ("trimtab-b", "10.77.13.2")}


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hosts():
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2 for network namespaces")
    for name, _ in HOSTS.values():
        ip("netns", "del", name)
        if ip("netns", "add", name).returncode:
            pytest.skip("this machine allows no network namespaces")
    ip("link", "add", "trimtab0", "type", "veth", "peer", "name", "trimtab1")
    for rank, (name, address) in HOSTS.items():
        ip("link", "set", f"trimtab{rank}", "netns", name)
        for words in (f"addr add {address}/24 dev trimtab{rank}", f"link set trimtab{rank} up", "link set lo up"):
            assert ip("-n", name, *words.split()).returncode == 0
    yield
    for name, _ in HOSTS.values():
        ip("netns", "del", name)


def launch_words(recipe, rank, config):
    """What follows `accelerate launch` on a host."""
    return ["--config_file", f"accelerate_configs/{config}.yaml", "--num_machines", "2", "--num_processes", "2",
            "--machine_rank", str(rank), "--main_process_ip", HOSTS[0][1], "--main_process_port", PORT,
            "scripts/train.py", str(recipe)]  # fmt: skip


def launch(recipe, rank, config):
    """A launch on a host, as a user makes it."""
    name, _ = HOSTS[rank]
    command = ["ip", "netns", "exec", name, sys.executable, "-m", "accelerate.commands.launch",
               *launch_words(recipe, rank, config)]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"GLOO_SOCKET_IFNAME": f"trimtab{rank}"}, text=True,
                            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


def forked_launch(recipe, rank):
    """A launch on a host under DDP, by a fork, which unlike the other engines has to be told that there is no GPU."""
    name, _ = HOSTS[rank]
    variables = {"GLOO_SOCKET_IFNAME": f"trimtab{rank}", "ACCELERATE_USE_CPU": "true", "TEST_NETWORK": name}
    return warm.start("launch", launch_words(recipe, rank, "multi_node_ddp"), **variables)


def ended(processes, timeout):
    try:
        return [(process.returncode, out) for process in processes
                if (out := process.communicate(timeout=timeout)[0]) is not None]  # fmt: skip
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def stage(model, folder, **train):
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SFT_ROWS))
    settings = {"max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1,
                "save_steps": 2, "gradient_checkpointing": False}  # fmt: skip
    return {"sft": {"model": {"model_name_or_path": model}, "data": str(folder / "sft.jsonl"),
                    "train": settings | train}}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)  # the kill below is under DDP
def test_a_recipe_runs_on_two_hosts_and_gives_one_hosts_weights(engine, hosts, model, tmp_path):
    recipe = write_recipe(tmp_path, stage(model, tmp_path), wandb=False)
    for code, out in ended([launch(recipe, rank, f"multi_node_{engine}") for rank in HOSTS], 240):
        assert code == 0, out[-4000:]
    (step,) = Recipe.load(str(recipe), ranks=TWO).steps
    record = artifacts.read_done(step.dir)
    assert (record["distributed"], record["world_size"]) == (ENGINES[engine], 2)
    other = tmp_path / "one"
    other.mkdir()
    recipe = write_recipe(other, stage(model, tmp_path), wandb=False)
    alone = trained(recipe, config=engine)["sft"]
    assert len({artifacts.read_done(each.dir)["files"]["model.safetensors"]["sha256"] for each in (step, alone)}) == 1


@pytest.mark.slow
def test_a_worker_killed_on_one_host_ends_both_and_the_rerun_resumes(hosts, model, tmp_path):
    recipe = write_recipe(tmp_path, stage(model, tmp_path, max_steps=160, save_steps=20), wandb=False)
    (step,) = Recipe.load(str(recipe), ranks=TWO).steps
    launches = [forked_launch(recipe, rank) for rank in HOSTS]
    until(lambda: list(step.dir.glob("checkpoints/checkpoint-*/complete.json")), 200)
    (worker,) = psutil.Process(launches[1].pid).children()
    worker.kill()
    results = [finished(process, 30) for process in launches]
    assert all(code != 0 for code, _ in results)
    assert "exitcode  : -9" in results[1][1]  # which rank, and how, where it died
    assert "rank      : 1" in results[1][1]
    assert not step.done
    for process in [forked_launch(recipe, rank) for rank in HOSTS]:
        code, out = finished(process)
        assert code == 0, out[-4000:]
    assert artifacts.read_done(step.dir)["metrics"]["train/resumed_from"] >= 20
