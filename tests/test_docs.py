"""The pages that are made from the dataclasses are up to date, and the README's commands exist."""

import re

import pytest
from conftest import ROOT

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.reporting import reference
from trimtab.scripts import docs, schema


@pytest.mark.parametrize("name", reference.PACKAGES)
def test_pages_match_the_dataclasses(name):
    assert (ROOT / "docs" / name).read_text() == reference.page(name), "run `make docs`"


def test_the_schema_for_editors_is_that_of_the_code():
    assert schema.main(["--check"]) == 0, "run `make docs`"


def test_the_check_meets_a_stale_page_and_writes_nothing(tmp_path, capsys):
    folder = ["--output", str(tmp_path / "pages")]
    assert docs.main(["--check", *folder]) == 1
    assert not (tmp_path / "pages").exists()
    assert docs.main(folder) == docs.main(["--check", *folder]) == 0
    (tmp_path / "pages" / "rewards.md").write_text("# Rewards\n")
    assert docs.main(["--check", *folder]) == 1
    assert "rewards.md is stale" in capsys.readouterr().err


def test_every_file_that_the_documents_name_exists():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for path in re.findall(
            r"(?:recipes|scripts|docs|accelerate_configs|benchmarks)/[\w./-]+\.\w+", page.read_text()
        ):
            assert path.startswith(("recipes/mine", "recipes/your")) or (ROOT / path).exists(), f"{page.name}: {path}"


def test_the_tests_that_the_table_of_faults_names_exist():
    for line in (ROOT / "docs" / "results" / "faults.md").read_text().splitlines():
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", line)
        assert names or not line.startswith("| ") or re.match(r"\| (fault|---) ", line) or "here to try" in line, line
        for path, name in names:
            assert f"def {name}(" in (ROOT / "tests" / path).read_text(), f"{path}::{name}"


def test_the_readmes_recipe_is_a_right_one(write):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    recipe = Recipe.load(write("mine.yaml", text))
    assert [step.kind for step in recipe.steps[:3]] == ["sft", "reward", "dpo"]
    for step in recipe.steps:
        preflight.build(step)


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"`?make (\w+)", (ROOT / "README.md").read_text()):
        assert target in targets
