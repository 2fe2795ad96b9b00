"""What raters have said: kept, counted, left out, and read from other tools' files."""

import json
from dataclasses import replace

import pytest
from labelling.sheets import kept, said, sheet

from trimtab.pipelines.labelling import folder, formats, judgements, page
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.planning.errors import RecipeError


def by_id(asked):
    return {question.id: question for question in asked.questions}


def test_answers_are_kept_by_rater_and_the_last_one_counts(tmp_path):
    there = kept(tmp_path, raters=2)
    first, second = there.sheet.questions[:2]
    there.save("ann/../.. ☃", [said(first, "ann/../.. ☃"), said(second, "ann/../.. ☃")])
    there.save("bo", [said(first, "bo", [1])])
    there.save("bo", [said(first, "bo", [0])], undone=[second.id])
    there.save("ann/../.. ☃", [], undone=[second.id])
    again = folder.read(there.path)
    assert again.sheet == there.sheet
    assert [(one.rater, one.order) for one in again.judgements()] == [("ann/../.. ☃", (0,)), ("bo", (0,))]
    assert sorted(path.parent.name for path in tmp_path.rglob("*☃*")) == []
    assert len(list((there.path / "answers").iterdir())) == 2, "a name is no path"
    assert again.open() == [question.id for question in there.sheet.questions[1:]]


def test_the_same_questions_have_the_same_folder_whatever_is_asked_beside_them(tmp_path):
    assert kept(tmp_path, raters=3, reasons=True).path == kept(tmp_path).path
    assert kept(tmp_path, ranked=2, answers=3).path != kept(tmp_path, answers=3).path
    assert sheet(count=3).key != sheet(count=4).key


def test_a_question_is_open_to_who_has_not_answered_it_until_enough_others_have(tmp_path):
    there = kept(tmp_path, count=3, gold=1, raters=1)
    known, one, other = [question.id for question in there.sheet.questions]
    there.save("ann", [said(question) for question in there.sheet.questions[:2]])
    assert there.open() == [other]
    assert there.open("bo") == [known, other], "a known answer is asked of everyone"
    assert there.open("ann") == [known, one, other]


def test_who_misses_known_answers_is_left_out_and_asked_after(tmp_path):
    there = kept(tmp_path, count=4, gold=2, gold_least=0.6)
    there.save("ann", [said(question) for question in there.sheet.questions])
    there.save("bo", [said(question, "bo", [1]) for question in there.sheet.questions])
    assert {one.rater for one in there.counted()} == {"ann"}
    assert not there.open()
    there.save("ann", [], undone=[question.id for question in there.sheet.questions])
    assert len(there.open()) == 4
    skipped = [Judgement(question.id, "cy", "skip") for question in there.sheet.questions]
    assert judgements.unreliable(skipped, by_id(there.sheet), 1.0) == set(), "a skip is no mistake"


def test_the_numbers_of_raters():
    asked = sheet(count=4, gold=1)
    first = [said(question, "ann", [0]) for question in asked.questions]
    second = [said(question, "bo", [number % 2], seconds=4.0) for number, question in enumerate(asked.questions)]
    tie = replace(second[3], verdict="tie", order=())
    metrics = judgements.summary([*first, *second[:3], tie], by_id(asked))
    assert metrics["judgements"] == 8
    assert metrics["raters"] == 2
    assert metrics["ties"] == 1 / 8
    assert metrics["position/first"] == 6 / 7
    assert metrics["position/even"] == 0.5
    assert metrics["position/first_low"] < 6 / 7 < metrics["position/first_high"]
    assert metrics["seconds/median"] == 3
    assert metrics["gold/right"] == 1
    assert metrics["agreement/cohen"] == pytest.approx(0)  # one rater has one category only
    assert judgements.by_rater([*first, *second], by_id(asked))["bo"]["position/first"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "other"}, "there is no question 'other'"),
        ({"rater": " "}, "`rater` is a name of 1 to 40 characters"),
        ({"rater": "x" * 41}, "`rater` is a name"),
        ({"verdict": "best"}, "`verdict` is one of ranked, tie, skip, not 'best'"),
        ({"order": [2]}, "`order` names 1 different answers of 2 or more, not \\[2\\]"),
        ({"order": [True]}, "`order` names"),
        ({"order": []}, "`order` names"),
        ({"verdict": "tie"}, "`order` names 0"),
        ({"shown": [0, 0]}, "`shown` is an order of 2 answers"),
        ({"seconds": -1}, "`seconds` is a number from 0 on, not -1"),
        ({"seconds": float("nan")}, "`seconds` is a number"),
    ],
)
def test_a_wrong_judgement_is_named(change, message):
    asked = sheet()
    right = said(asked.questions[0]).values()
    assert judgements.read(right, by_id(asked), 1).values() == right
    with pytest.raises(ValueError, match=message):
        judgements.read({**right, **change}, by_id(asked), 1)


def test_a_damaged_file_of_answers_is_named(tmp_path):
    there = kept(tmp_path)
    there.save("ann", [said(there.sheet.questions[0])])
    next((there.path / "answers").iterdir()).write_text("{")
    with pytest.raises(RecipeError, match=r"ann\.json cannot be read: .*: mend it, or move it away"):
        there.judgements()


def export(tool, asked, tmp_path):
    """The questions as a tool's file, for a test to answer."""
    return json.loads(formats.write(tool, asked, tmp_path)[0].read_text())


def test_argilla_there_and_back(tmp_path):
    asked = sheet(answers=3)
    records = export("argilla", asked, tmp_path)
    values = [[{"value": "answer_2", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}], [{"value": None}]]
    for record, given in zip(records, values, strict=False):
        record["responses"] = {"preference": given, "reason": [{"value": "short", "user_id": "u1"}]}
    shown = [int(place) for place in records[0]["metadata"]["shown"].split(",")]
    assert records[0]["fields"]["answer_2"] == asked.questions[0].answers[shown[1]]
    answered = tmp_path / "answered.json"
    answered.write_text(json.dumps(records))
    first, second = formats.read(answered, asked)
    assert (first.order, first.rater, first.reason) == ((shown[1],), "u1", "short")
    assert (second.verdict, second.rater, list(second.shown)) == ("tie", "u2", shown)


def test_argillas_rankings_are_read_in_both_of_its_spellings(tmp_path):
    asked = sheet(count=1, answers=3, ranked=3)
    records = export("argilla", asked, tmp_path)
    shown = [int(place) for place in records[0]["metadata"]["shown"].split(",")]
    objects = [{"value": "answer_1", "rank": 2}, {"value": "answer_3", "rank": 1}, {"value": "answer_2", "rank": 3}]
    names = ["answer_3", "answer_1", "answer_2"]
    answered = tmp_path / "answered.json"
    for value in (objects, names):
        records[0]["responses"] = {"ranking": [{"value": value, "user_id": "u"}]}
        answered.write_text(json.dumps(records))
        assert formats.read(answered, asked)[0].order == (shown[2], shown[0], shown[1])


def test_label_studio_there_and_back(tmp_path):
    asked = sheet()
    tasks = export("label_studio", asked, tmp_path)
    interface = (tmp_path / "interface.xml").read_text()
    assert interface.count("<Choice ") == 4
    assert "Which is better? &lt;/script&gt;" in interface
    results = [
        [{"type": "choices", "value": {"choices": ["answer_2"]}}, {"type": "rating", "value": {"rating": 3}}],
        [{"type": "pairwise", "value": {"selected": "left"}}],
        [{"type": "choices", "value": {"choices": ["tie"]}}],
        [],
    ]
    for number, (task, result) in enumerate(zip(tasks, results, strict=True)):
        by = {"id": 7, "email": "ann@example.org"} if number else 7
        skipped = {"was_cancelled": not result, "lead_time": 1.5, "completed_by": by}
        task["annotations"] = [{"result": result, **skipped}]
    answered = tmp_path / "answered.json"
    answered.write_text(json.dumps(tasks))
    given = formats.read(answered, asked)
    shown = [task["data"]["shown"] for task in tasks]
    assert [one.order for one in given] == [(shown[0][1],), (shown[1][0],), (), ()]
    assert [one.verdict for one in given] == ["ranked", "ranked", "tie", "skip"]
    assert [one.rater for one in given] == ["7", *["ann@example.org"] * 3]
    assert given[0].seconds == 1.5
    with pytest.raises(RecipeError, match="one best answer of each question: ask with `ranked: 1`"):
        formats.write("label_studio", sheet(answers=3, ranked=2), tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "is a file of none of argilla, label_studio, page: export the answers as JSON"),
        ('{"judgements": []}', "holds no answer that was handed in"),
        ('{"judgements": [{"question": "x"}]}', "there is no question 'x': it was asked of other completions"),
        ('[{"annotations": [], "id": 1}]', "KeyError 'data'"),
    ],
)
def test_a_file_that_is_not_right_is_named(content, message, tmp_path):
    file = tmp_path / "answers.json"
    file.write_text(content)
    with pytest.raises(RecipeError, match=message):
        formats.read(file, sheet())


def test_the_page_has_no_markup_of_anybody_else_and_does_not_say_what_is_known():
    html = page.render(sheet(gold=2))
    assert html.count("<script") == html.count("</script>") == 2
    assert "<img" not in html
    assert "gold" not in html
    assert "default-src 'none'" in html
