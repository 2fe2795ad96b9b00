"""People in the chain: it waits with a sentence, goes on when the answers are there, and their numbers are right."""

import json

import pytest
from labelling.sheets import EVIL
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe, write_recipe
from short_trainings import write_rows

from trimtab.pipelines.labelling import formats
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.reporting import page, records
from trimtab.pipelines.running import labelling, progress, pruning, runner
from trimtab.scripts import label as script


def rows(*texts_of_prompts):
    table = []
    for index, texts in enumerate(texts_of_prompts):
        for number, text in enumerate(texts):
            row = {"prompt": f"prompt {index}", "completion": text, "prompt_index": index, "sample_index": number}
            table.append({**row, "scores": {"other": float(number)}})
    return table


def chain(tmp_path, **options):
    data = write_rows(tmp_path / "sampled.jsonl", rows(["a", "b"], ["same", "same"], ["c", "d", "e"]))
    return {
        "people": {"kind": "label", "completions": data, **options},
        "pair": {"completions": "$people", "reward": "people"},
        "curate": {"completions": "$people", "reward": "people", "temperature": 0},
    }


def answer(folder, rater, better):
    """A rater who takes the answer that comes first in `better`."""
    given = []
    for question in folder.sheet.questions:
        order = sorted(range(len(question.answers)), key=lambda place: better.index(question.answers[place]))
        shown = tuple(range(len(question.answers)))
        given.append(Judgement(question.id, rater, "ranked", tuple(order[:1]), shown, 3.0))
    folder.save(rater, given)


def test_a_run_waits_for_people_and_goes_on(tmp_path, capsys):
    path = str(write_recipe(tmp_path, {**chain(tmp_path, raters=2), "report": {}}, wandb=False))
    assert runner.train(path) == 75
    told = capsys.readouterr().out
    assert "people waits for people: 2 of 2 questions have still to be answered by 2 people. `trimtab label " in told
    run = tmp_path / "runs" / "test"
    folder = labelling.asked(run)
    assert (folder.path / "label.html").is_file()
    answer(folder, "ann", "abcde")
    assert progress.status(path) == 0
    assert "people  waiting  0 of 2 questions are answered" in capsys.readouterr().out
    assert runner.train(path) == 75
    assert "2 of 2 questions" in capsys.readouterr().out
    answer(folder, "bo", "bacde")
    assert labelling.progress(folder) == "all 2 questions are answered: `trimtab run` goes on"
    assert runner.train(path) == 0
    steps = {step.name: step for step in Recipe.load(path).steps}
    scored = [(row["completion"], row["scores"]["people"], row["scores"]["other"]) for row in rows_of(steps["people"])]
    assert scored == [("a", 0.5, 0.0), ("b", 0.5, 1.0), ("c", 1.0, 0.0), ("d", 0.0, 1.0)]
    metrics = metrics_of(steps["people"])
    assert metrics["judgements"] == 4
    assert metrics["agreement/krippendorff"] == 0, "they agree on one of two, as chance would"
    kept = json.loads((steps["people"].output / "labels.json").read_text())
    assert set(kept["raters"]) == {"ann", "bo"}
    assert len(kept["judgements"]) == 4
    html = (steps["report"].output / "report.html").read_text()
    assert '<h2 id="people">' in html
    assert '<th scope="row">bo</th>' in html
    assert pruning.prune(str(tmp_path / "runs"), really=True) == 0
    assert len(folder.judgements()) == 4, "what people have said stays"


def test_answers_outlive_what_is_asked_beside_them_and_come_from_files(tmp_path, capsys):
    path = str(write_recipe(tmp_path, chain(tmp_path), wandb=False))
    assert runner.train(path) == 75
    run = str(tmp_path / "runs" / "test")
    assert script.main([run, "--give", "label_studio", "--output", str(tmp_path / "tool")]) == 0
    tasks = json.loads((tmp_path / "tool" / "tasks.json").read_text())
    for task in tasks:
        by = {"completed_by": 1, "result": [{"value": {"choices": ["answer_1"]}}]}
        task["annotations"] = [by]
    answered = tmp_path / "answered.json"
    answered.write_text(json.dumps(tasks))
    assert script.main([run, "--take", str(answered)]) == 0
    assert "2 answers of 1" in capsys.readouterr().out
    assert runner.train(path) == 0
    assert runner.train(path, ["stages.people.raters=2"]) == 75
    assert "2 of 2 questions have still to be answered by 2 people" in capsys.readouterr().out
    assert runner.train(path, [f"stages.people.labels=[{answered}]", "stages.people.instructions=Again"]) == 0


def test_preferences_and_rankings_become_completions(tmp_path):
    pairs = [{"prompt": f"p{number}", "chosen": f"good {number}", "rejected": EVIL} for number in range(3)]
    ranking = [{"prompt": "p", "completions": ["xxx", "xx", "x"], "completion_scores": [3.0, 2.0, 1.0]}]
    brief = {"kind": "length", "target": 1, "unit": "characters"}
    steps = run_recipe(
        tmp_path,
        {
            "pairs": {"kind": "label", "completions": write_rows(tmp_path / "p.jsonl", pairs), "stand_in": brief},
            "ranked": {
                "kind": "label",
                "completions": write_rows(tmp_path / "r.jsonl", ranking),
                "answers": 3,
                "ranked": 2,
                "stand_in": brief,
            },
        },
    )
    assert metrics_of(steps["pairs"])["as_labelled"] == 1
    assert [row["scores"]["people"] for row in rows_of(steps["pairs"])] == [1, 0] * 3
    assert [row["completion"] for row in rows_of(steps["ranked"])] == ["xxx", "xx", "x"]
    assert [row["scores"]["people"] for row in rows_of(steps["ranked"])] == [0, 0.5, 1]


def test_known_answers_are_mixed_in_and_not_left_in_the_rows(tmp_path, capsys):
    gold = write_rows(tmp_path / "gold.jsonl", [{"prompt": "g", "chosen": "right", "rejected": "wrong"}])
    path = str(write_recipe(tmp_path, chain(tmp_path, gold=gold, gold_least=0.9), wandb=False))
    assert runner.train(path) == 75
    folder = labelling.asked(tmp_path / "runs" / "test")
    answer(folder, "bo", ["a", "b", "c", "d", "e", "wrong", "right"])
    assert runner.train(path) == 75, "who misses what is known does not count"
    answer(folder, "ann", ["b", "a", "d", "c", "e", "right", "wrong"])
    assert runner.train(path) == 0
    step = Recipe.load(path).steps[0]
    assert [row["completion"] for row in rows_of(step) if row["scores"]["people"] == 1] == ["b", "d"]
    assert metrics_of(step)["gold/right"] == 1
    assert metrics_of(step)["raters"] == 1


def test_what_cannot_be_asked_is_told(tmp_path, capsys):
    stages = chain(tmp_path)

    def told(**options):
        return refused(tmp_path, {"people": {**stages["people"], **options}}, capsys)

    assert "people.answers: must be from 2 to 9, got 1" in told(answers=1)
    assert "people.ranked: must be at least 1, and at most `answers`, got 3" in told(ranked=3)
    assert "people.raters: must be at least 1, got 0" in told(raters=0)
    assert "people.gold_least: is a share of the questions in `gold`, and there are none" in told(gold_least=0.5)
    assert "people.labels.0: no such file: none.json" in told(labels=["none.json"])
    alike = write_rows(tmp_path / "alike.jsonl", rows(["same", "same"]))
    assert "no prompt has two different answers" in told(completions=alike)


def test_a_folder_without_questions_is_told(tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 2
    assert "has no step that asks people: name the folder of a recipe" in capsys.readouterr().err
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"judgements": [{"question": "x"}]}')
    path = str(write_recipe(tmp_path, chain(tmp_path), wandb=False))
    assert runner.train(path) == 75
    assert script.main([str(tmp_path / "runs" / "test" / "people"), "--take", str(wrong)]) == 2
    assert "wrong.json: there is no question 'x'" in capsys.readouterr().err


def test_the_page_of_a_run_shows_hostile_raters_as_text(tmp_path):
    stages = chain(tmp_path)
    path = str(write_recipe(tmp_path, stages, wandb=False))
    assert runner.train(path) == 75
    evil = "<img src=x onerror=alert(1)>"
    answer(labelling.asked(tmp_path / "runs" / "test"), evil, "abcde")
    assert runner.train(path) == 0
    html = page.render([records.read(Recipe.load(path).steps[0].output)], 8, "test")
    assert "<img" not in html
    assert "&lt;img src=x" in html


@pytest.mark.parametrize("tool", formats.writers())
def test_every_tool_that_takes_questions_is_given_all_of_them(tool, tmp_path):
    from labelling.sheets import sheet

    asked = sheet()
    content = formats.write(tool, asked, tmp_path)[0].read_text()
    assert all(question.id in content for question in asked.questions)
