"""A stranger's recipe runs none of a stranger's code until its user says so; what it would run is told."""

import importlib.util
import os
import py_compile
import sys

import pytest
from conftest import ROOT
from run_steps import write_recipe

from trimtab.pipelines.planning import consent, preflight, schema, trust
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import consents, launch, runner, slurm

TRACE = "open('ran', 'a').write(__name__ + '\\n')\n"
REWARD = "def f(prompts, completions, **columns): return [1.0] * len(completions)\n"
STAGE = """
from dataclasses import dataclass
from trimtab.pipelines.stages import Stage
@dataclass(kw_only=True)
class Thing(Stage):
    words: int = 3
"""
LAYOUT = """
from dataclasses import dataclass
from trimtab.pipelines.data.layouts import Layout
@dataclass(kw_only=True)
class Rows(Layout):
    title = "a stranger's"
    columns = (("q",),)
    def gives(self, names): return {"prompt": "text"}
    def convert(self, row): yield {"prompt": row["q"]}
"""


@pytest.fixture(autouse=True)
def stranger(tmp_path, monkeypatch):
    """A stranger's folder, which is the current one, and a user who trusts nothing yet."""
    folder = tmp_path / "theirs"
    (folder / "pack").mkdir(parents=True)
    (folder / "evil.py").write_text(TRACE + "def late():\n    import helper\n" + REWARD)
    (folder / "helper.py").write_text(TRACE)
    (folder / "pack" / "__init__.py").write_text(TRACE)
    (folder / "pack" / "inside.py").write_text(TRACE + "from . import beside\n" + REWARD)
    (folder / "pack" / "beside.py").write_text(TRACE)
    (folder / "stages_of.py").write_text(TRACE + STAGE)
    (folder / "layouts_of.py").write_text(TRACE + LAYOUT)
    (folder / "rows.jsonl").write_text('{"prompt": "a", "completion": "b", "q": "c"}\n')
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("TRIMTAB_TRUST")
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def scored(reward, **options):
    return {"score": {"completions": "rows.jsonl", "rewards": {"r": reward}, **options}}


def sampled(**options):
    return {"sample": {"model": {"model_name_or_path": "org/model"}, "prompts": "rows.jsonl", **options}}


EVIL, PACK = ["evil.py", "helper.py"], ["pack/__init__.py", "pack/beside.py", "pack/inside.py"]
NAMED = {
    "a dotted reward": (scored({"kind": "evil.f"}), EVIL),
    "in a package": (scored({"kind": "pack.inside.f"}), PACK),
    "a file": (scored({"kind": "trl_function", "path": "evil.py:f"}), EVIL),
    "a dotted function": (scored({"kind": "trl_function", "path": "pack.inside.f"}), PACK),
    "of verl": (scored({"kind": "verl_function", "path": "evil.py:f"}), EVIL),
    "of openrlhf": (scored({"kind": "openrlhf_function", "path": "evil.py:f"}), EVIL),
    "in a composite": (scored({"kind": "composite", "rewards": {"part": {"kind": "evil.f"}}}), EVIL),
    "by an input": (scored({"kind": "$word"}), EVIL),
    "a stage": ({"first": {"kind": "stages_of.Thing"}, **scored({"kind": "length", "target": 1})}, ["stages_of.py"]),
    "a layout": (sampled(prompts={"path": "rows.jsonl", "layout": "layouts_of.Rows"}), ["layouts_of.py"]),
    "its block": (sampled(prompts={"path": "rows.jsonl", "layout": {"kind": "layouts_of.Rows"}}), ["layouts_of.py"]),
}  # fmt: skip


@pytest.mark.parametrize(("stages", "files"), NAMED.values(), ids=NAMED)
def test_planning_imports_nothing_and_lists_what_would_run(stages, files, stranger):
    path = str(write_recipe(stranger, stages, inputs={"word": "evil.f"}))
    recipe = consents.load(path, refusing=False)
    preflight.check(recipe, recipe.steps, without_hub=True)
    told = consents.section(recipe)
    for file in files:
        (line,) = (line for line in told.splitlines() if file in line)
        assert trust.mark(stranger / file)[:8] in line
        assert "recipe.yaml:" in line
        assert "NOT TRUSTED" in line
    assert told.count("NOT TRUSTED") == len(files)
    assert recipe.steps[0].fingerprint == "unknown"
    with pytest.raises(RecipeError) as refused:
        consents.load(path)
    assert all(file in str(refused.value) for file in files)
    assert "--trust" in str(refused.value)
    assert not (stranger / "ran").exists()


def test_consent_is_to_a_content(stranger, capsys):
    path = str(write_recipe(stranger, scored({"kind": "evil.f"}), wandb=False))
    assert launch.plan(path) == 0
    assert "NOT TRUSTED" in capsys.readouterr().out
    for refusing in (runner.train, launch.run, launch.check_rewards):
        assert refusing(path) == 2
        assert "stages.score.rewards.r.kind: evil.py would run: read it" in capsys.readouterr().err
    assert not (stranger / "ran").exists()
    assert launch.plan(path, trusting=True) == 0
    assert "NOT" not in (told := capsys.readouterr().out)
    assert " trusted" in told
    assert (stranger / "ran").read_text() == "evil\n"  # and no helper: nobody has called what imports it
    assert runner.train(path) == 0
    (stranger / "helper.py").write_text(TRACE + "# more\n")
    assert launch.plan(path) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum("NOT TRUSTED" in line for line in told) == 1
    assert runner.train(path) == 2


REFUSED = {
    "subprocess.run": scored({"kind": "subprocess.run"}),
    "with options": scored({"kind": "subprocess.Popen", "args": ["touch", "ran"]}),
    "os.system": scored({"kind": "os.system"}),
    "shutil.rmtree": scored({"kind": "shutil.rmtree"}),
    "builtins.eval": scored({"kind": "builtins.eval"}),
    "an import that acts": scored({"kind": "antigravity.geohash"}),
    "trimtab's own": scored({"kind": "trimtab.pipelines.planning.files.content_hash"}),
    "only **": scored({"kind": "any_of.f"}),
    "trl": scored({"kind": "trl_function", "path": "subprocess.run"}),
    "trl, in a file": scored({"kind": "trl_function", "path": f"{os.__file__}:popen"}),
    "trl, only **": scored({"kind": "trl_function", "path": "any_of.py:f"}),
    "verl": scored({"kind": "verl_function", "path": "shutil.copyfile"}),
    "openrlhf": scored({"kind": "openrlhf_function", "path": "shutil.copytree"}),
    "nested": scored({"kind": "composite", "rewards": {"part": {"kind": "os.system"}}}),
    "a stage": {"first": {"kind": "subprocess.Popen", "args": ["touch", "ran"]}},
    "a layout": sampled(prompts={"path": "rows.jsonl", "layout": "subprocess.Popen"}),
}


@pytest.mark.parametrize("is_trusted", [False, True])
@pytest.mark.parametrize("stages", REFUSED.values(), ids=REFUSED)
def test_only_what_has_the_signature_is_called(stages, is_trusted, stranger, monkeypatch):
    (stranger / "any_of.py").write_text("def f(*args, **kwargs): open('ran', 'w')\n")
    if is_trusted:
        monkeypatch.setenv("TRIMTAB_TRUST", str(stranger))
    sys.modules.pop("antigravity", None)
    path = str(write_recipe(stranger, stages))
    with pytest.raises(RecipeError) as refused:
        preflight.check(recipe := Recipe.load(path), recipe.steps, without_hub=True)
    assert "recipe.yaml:" in str(refused.value)
    assert "antigravity" not in sys.modules
    assert not (stranger / "ran").exists()


def test_what_is_installed_needs_no_consent_and_is_listed(stranger):
    for reward in (
        {"kind": "trl.rewards.think_format_reward"},
        {"kind": "trl_function", "path": "trl.rewards.think_format_reward"},
    ):
        recipe = consents.load(str(write_recipe(stranger, scored(reward))))
        assert "trl.rewards.think_format_reward" in (told := consents.section(recipe))
        assert " installed" in told
        assert schema.load_reward(reward)(prompts=["p"], completions=[[{"content": "<think>a</think>b"}]]) == [1.0]
    for path in ROOT.glob("recipes/*.yaml"):
        assert "NOT TRUSTED" not in consents.section(consents.load(str(path)))


def test_cached_bytecode_is_not_believed(stranger):
    """A file that was read and consented to, and beside it bytecode of another that claims to need no check."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    (stranger / "good.py").write_text(REWARD)
    target = importlib.util.cache_from_source(str(stranger / "good.py"))
    py_compile.compile(str(stranger / "evil.py"), target, invalidation_mode=unchecked)
    for reward in ({"kind": "good.f"}, {"kind": "trl_function", "path": "good.py:f"}):
        trust.give({trust.mark(stranger / "good.py"): "good.py"})
        assert schema.load_reward(reward)(prompts=["p"], completions=["c"]) == [1.0]
    assert not (stranger / "ran").exists()


def test_a_strangers_folder_is_not_on_the_path(stranger):
    """Consent to one file lets in none of those that lie beside it under the name of a library."""
    (stranger / "xdist_of_nobody.py").write_text(TRACE)
    trust.give({trust.mark(stranger / name): name for name in ("evil.py", "helper.py")})
    schema.load_reward({"kind": "evil.f"})
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("xdist_of_nobody")


def test_a_folder_is_trusted_for_good(stranger, monkeypatch, tmp_path):
    recipe = Recipe.load(str(write_recipe(stranger, scored({"kind": "evil.f"}))))
    codes = consent.code_of(recipe.steps[0])
    assert len(consent.withheld(codes)) == 2
    for entry, given in ((tmp_path, True), (stranger, True), (tmp_path / "config", False), ("theirs", False)):
        monkeypatch.setenv("TRIMTAB_TRUST", f"/nowhere{os.pathsep}{entry}")
        assert (not consent.withheld(codes)) == given
    monkeypatch.delenv("TRIMTAB_TRUST")
    file = trust.config_folder() / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"trust: [{stranger}]\n")
    assert not consent.withheld(codes)
    (stranger / "helper.py").unlink()
    (stranger / "helper.py").symlink_to(tmp_path / "elsewhere.py")  # what it leads to lies in no trusted folder
    (tmp_path / "elsewhere.py").write_text(TRACE)
    assert consent.withheld(consent.code_of(recipe.steps[0]))
    file.write_text("trust: ~/work\n")
    with pytest.raises(RecipeError, match=r"config.yaml: trust: expected a list of folders"):
        consent.withheld(codes)


def test_workers_run_what_their_launcher_has_handed_down_and_nothing_else(stranger, monkeypatch, tmp_path):
    path = str(write_recipe(stranger, scored({"kind": "evil.f"})))
    recipe = consents.load(path, trusting=True)
    ((name, marks),) = consents.handed_down(recipe).items()
    assert marks.count(",") == 1
    assert f"export {name}={marks}\n" in slurm.script(recipe, {}, (), stranger)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another host"))
    monkeypatch.setenv(name, marks)
    assert consents.load(path).steps[0].fingerprint != "unknown"
    (stranger / "evil.py").write_text(REWARD + "# another\n")
    monkeypatch.setenv("TRIMTAB_TRUST", str(stranger))
    with pytest.raises(RecipeError, match=r"evil.py would run"):
        consents.load(path, trusting=True)
    assert not (tmp_path / "another host").exists()


@pytest.mark.parametrize(("answer", "given"), [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_people_are_asked_where_there_are_any(answer, given, stranger, monkeypatch, capsys):
    path = str(write_recipe(stranger, scored({"kind": "evil.f"})))
    monkeypatch.setattr(consents.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(consents.sys.stdin, "readline", lambda: answer, raising=False)
    monkeypatch.setattr(consents.sys.stderr, "isatty", lambda: True, raising=False)
    recipe = consents.load(path, refusing=False)
    asked = capsys.readouterr().err
    assert "evil.py" in asked
    assert "Have you read it, and may it run here? [y/N]" in asked
    assert (recipe.steps[0].fingerprint != "unknown") == given
    monkeypatch.setenv("LOCAL_RANK", "0")
    (stranger / "evil.py").write_text(REWARD + "# another\n")
    consents.load(path, refusing=False)
    assert capsys.readouterr().err == ""


def test_code_of_a_models_repository(stranger, tmp_path):
    """By repository and revision; of a folder its files, and what its configuration points to."""
    folder = stranger / "model"
    folder.mkdir()
    (folder / "modeling_own.py").write_text(TRACE)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "org/other--modeling.Model"}}')
    block = {"model": {"model_name_or_path": "org/own", "model_revision": "abc"}, "data": "rows.jsonl"}

    def listed(**changes):
        path = str(write_recipe(stranger, {"sft": {**block, "train": {}, **changes}}))
        return [code.mark for step in Recipe.load(path).steps for code in consent.code_of(step)]

    assert listed() == []
    assert listed(train={"trust_remote_code": False}) == []
    assert listed(train={"trust_remote_code": True}) == ["org/own@abc"]
    assert listed(train={"model_init_kwargs": '{"trust_remote_code": true}'}) == ["org/own@abc"]
    local = {"model_name_or_path": "model", "attn_implementation": "org/kernel"}
    marks = listed(model={**local, "model_name_or_path": str(folder)}, train={"trust_remote_code": True})
    assert sorted(marks) == sorted([trust.mark(folder / "modeling_own.py"), "org/other@main", "org/kernel@main"])
    path = str(write_recipe(stranger, {"sft": {**block, "train": {"trust_remote_code": True}}}))
    with pytest.raises(RecipeError, match=r"train\.trust_remote_code: org/own@abc \(code from the Hub\) would run"):
        consents.load(path)
    assert consents.load(path, trusting=True).steps
    assert consents.load(path).steps


def test_a_server_asks_too(stranger, write):
    path = stranger / "server.yaml"
    path.write_text("reward: {kind: evil.f}\n")
    with pytest.raises(RecipeError, match=r"server.yaml:1: reward.kind: evil.py would run"):
        consents.allow(Document.read(str(path)))
    assert not (stranger / "ran").exists()
    consents.allow(Document.read(str(path)), trusting=True)
    assert schema.load_reward({"kind": "evil.f"})
