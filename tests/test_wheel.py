"""The installed product: a wheel in an empty environment and an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, SHRUNK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the files that git has or would take."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(words, check=True, capture_output=True)
    (built,) = target.glob("trimtab-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs `trimtab` of an environment that has the wheel, and the packages that it needs, but not this checkout."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    here = Path(sysconfig.get_path("purelib"))
    packages = environment / "lib" / here.parent.name / "site-packages"
    (packages / "needed.pth").write_text(
        f"{here}\n"
    )  # the packages; its own .pth files, and so the checkout, are not read
    python = str(environment / "bin" / "python")
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    words = [*quiet, "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    subprocess.run(words, check=True)
    folder = tmp_path_factory.mktemp("empty")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def trimtab(*words, ok=True):
        done = subprocess.run([environment / "bin" / "trimtab", *words], cwd=folder, env=variables, text=True,
                              capture_output=True)  # fmt: skip
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    trimtab.folder, trimtab.python = folder, environment / "bin" / "python"
    return trimtab


def test_it_has_one_import_name_and_brings_its_recipes(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"trimtab"}
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.yaml")}
    shipped |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "accelerate_configs").glob("*.yaml")}
    modules = {
        path.relative_to(ROOT).as_posix()
        for folder in ("pipelines", "rewards")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {f"trimtab/{name}" for name in shipped | modules} <= set(names)
    assert not [name for name in names if "tests/" in name or "benchmarks/" in name]


def test_nothing_of_the_checkout_is_imported(installed):
    words = [
        installed.python,
        "-c",
        "import trimtab, trimtab.rewards; print(trimtab.__file__, trimtab.rewards.__file__)",
    ]
    where = subprocess.run(words, cwd=installed.folder, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in where


def test_a_shipped_recipe_is_planned_by_its_name(installed):
    plan = installed("plan", "mistral-7b/apo").stdout
    assert "apo-1-sample" in plan
    assert "accelerate_configs/cpu.yaml" in plan


def test_the_embedded_recipe_is_trained_by_a_launch(installed):
    installed("train", "tiny", *SHRUNK, "--stage", "world", "--stage", "scratch")
    installed("run", "tiny", *SHRUNK, "--only", "sft")
    record = json.loads((installed.folder / "runs" / "tiny" / "sft" / "done.json").read_text())
    assert record["metrics"]["train/steps"] == 4
    assert "trimtab" in record["versions"]


def test_a_users_own_rewards_beside_the_recipe_are_theirs(installed):
    (installed.folder / "rewards.py").write_text(
        "def polite(prompts, completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    (installed.folder / "mine.yaml").write_text(
        "stages:\n"
        "  score:\n"
        "    completions: rows.jsonl\n"
        "    rewards: {polite: {kind: rewards.polite}, brief: {kind: length, target: 3}}\n"
    )
    (installed.folder / "rows.jsonl").write_text('{"prompt": "Say hello.", "completion": "Hello."}\n' * 3)
    assert "polite (rewards.polite) of score: ok" in installed("check-rewards", "mine.yaml").stdout
    installed("train", "mine.yaml")
    done = json.loads((installed.folder / "runs" / "mine" / "score" / "done.json").read_text())
    assert done["metrics"]["rewards/polite/mean"] == 1.0


def test_a_typo_is_one_line(installed):
    for words in (("plan", "tinny"), ("plan", "tiny", "stages.dpo.train.bta=1"), ("rum", "tiny")):
        failed = installed(*words, ok=False)
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1, failed.stderr
