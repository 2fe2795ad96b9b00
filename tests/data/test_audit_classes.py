"""Each class of rows that are not right: what belongs to it, what does not, and what follows."""

import re
from types import SimpleNamespace

import chat_templates
import pytest
import trl
from conftest import ROOT

from trimtab.pipelines.data import forms
from trimtab.pipelines.data.audit import classes, facts
from trimtab.pipelines.data.audit.checking import Audit, Reader
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError

ASKED = [{"role": "user", "content": "say a and b"}]
SAID = [{"role": "assistant", "content": "a and b"}]


def turn(role, content):
    return [{"role": role, "content": content}]


def pair(chosen="a and b", rejected="c", prompt=ASKED):
    return {"prompt": prompt, "chosen": turn("assistant", chosen), "rejected": turn("assistant", rejected)}


RIGHT = {
    forms.SFT: [{"messages": turn("user", f"say {i}") + SAID} for i in range(30)],
    forms.PREFERENCE: [pair(f"a {i}", f"c {i}") for i in range(30)],
    forms.UNPAIRED: [{"prompt": ASKED, "completion": turn("assistant", f"{i}"), "label": i > 9} for i in range(30)],
    forms.PROMPTS: [{"prompt": turn("user", f"say {i}")} for i in range(30)],
}
SYSTEM = turn("system", "be brief")
BARE = {"chosen": ASKED + SAID, "rejected": ASKED + turn("assistant", "c")}

# form, a row of the class, what follows from it among 30 right ones, and what is said
ROWS = [
    (forms.SFT, "missing", {"messages": None}, "refuse", "column 'messages' is null"),
    (forms.SFT, "missing", {"messages": ASKED + turn("assistant", None)}, "refuse",
     "message 1 of 'messages' has no content"),
    (forms.SFT, "roles", {"messages": turn("human", "a") + turn("gpt", "b")}, "refuse", "role 'human' of 'messages'"),
    (forms.SFT, "role_order", {"messages": ASKED + ASKED + SAID}, "warn", "two turns of 'user' in a row"),
    (forms.SFT, "role_order", {"messages": ASKED + SYSTEM + SAID}, "warn",
     "message 1 of 'messages' is a system message"),
    (forms.SFT, "role_order", {"messages": SAID + ASKED + SAID}, "warn", "'messages' begins with 'assistant'"),
    (forms.SFT, "last_speaker", {"messages": ASKED + SAID + ASKED}, "drop",
     "'messages' ends with a message of role 'user'"),
    (forms.SFT, "empty", {"messages": ASKED + turn("assistant", " \n")}, "drop", "'messages' is empty"),
    (forms.SFT, "empty", {"messages": []}, "drop", "'messages' is empty"),
    (forms.SFT, "empty_turn", {"messages": turn("user", " ") + SAID}, "warn", "message 0 of 'messages' is empty"),
    (forms.PREFERENCE, "empty", pair(chosen=""), "drop", "'chosen' is empty"),
    (forms.PREFERENCE, "empty_rejected", pair(rejected=""), "warn", "'rejected' is empty"),
    (forms.PREFERENCE, "last_speaker", {**pair(), "chosen": turn("user", "a")}, "drop", "'chosen' ends with"),
    (forms.PREFERENCE, "equal_pairs", pair("c", "c"), "drop", "chosen equals rejected"),
    (forms.PREFERENCE, "prompt_again", {**pair(), "chosen": ASKED + SAID, "rejected": ASKED + turn("assistant", "c")},
     "drop", "chosen and rejected begin with the prompt"),
    (forms.PREFERENCE, "duplicates", RIGHT[forms.PREFERENCE][3], "warn", "stands in the data already"),
    (forms.PROMPTS, "duplicates", RIGHT[forms.PROMPTS][3], "warn", "stands in the data already"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    """What one test has seen is not what the next one sees."""
    facts._seen.clear()


@pytest.fixture
def audit(write):
    """Audits rows and returns (the rows that are kept, the counts)."""
    step = SimpleNamespace(path=("stages", "dpo"), stage="dpo", pending=lambda name: False, maker=lambda name: None)

    def audit(rows, form, held_out=None, **settings):
        blocks = [
            schema.build(trl.DatasetMixtureConfig, forms.mixture(write(f"{name}.jsonl", given))) if given else None
            for name, given in (("rows", rows), ("held_out", held_out))
        ]
        kept, counts = Audit(step, **settings).kept(blocks[0], "data", form, blocks[1])
        return kept, {key.removeprefix("data/"): count for key, count in counts.items()}

    return audit


@pytest.mark.parametrize("form", RIGHT, ids=lambda form: form.name)
def test_nothing_is_wrong_with_right_rows(form, audit):
    rows, counts = audit(RIGHT[form], form)
    assert counts == {"rows": 30}
    assert len(rows) == 30


@pytest.mark.parametrize(("form", "word", "row", "action", "said"), ROWS, ids=[f"{row[1]}-{row[4]}" for row in ROWS])
def test_a_row_of_a_class_is_named_and_has_its_consequence(form, word, row, action, said, audit):
    right = RIGHT[form]
    if action == "refuse":
        with pytest.raises(RecipeError, match=r"rows.jsonl, row 17: .*, as in 1 of 31 rows: ") as raised:
            audit([*right[:17], row, *right[17:]], form)
        assert said in raised.value.message
        assert classes.CLASSES[word].cure in raised.value.message
        assert f"`audit: {{{word}: drop}}`" in raised.value.message
        assert raised.value.path == ("stages", "dpo", "data")
        rows, counts = audit([*right[:17], row, *right[17:]], form, actions={word: "drop"})
        action = "drop"
    else:
        rows, counts = audit([*right[:17], row, *right[17:]], form)
    assert counts == {
        "rows": 30 if action == "drop" else 31,
        f"{'dropped' if action == 'drop' else 'warned'}/{word}": 1,
    }
    if action == "drop":
        assert [set(row) for row in rows] == [set(row) for row in right]
        assert list(rows[rows.column_names[0]]) == [row[rows.column_names[0]] for row in right]


@pytest.mark.parametrize("word", ["empty", "last_speaker", "equal_pairs", "prompt_again"])
def test_more_rows_than_a_small_share_are_refused_unless_the_recipe_says_otherwise(word, audit):
    form, row = next((form, row) for form, of, row, *_ in ROWS if of == word)
    rows = RIGHT[form][:4] + [row] * 5
    with pytest.raises(RecipeError, match=r"row 4: .*, as in 5 of 9 rows"):
        audit(rows, form)
    kept, counts = audit(rows, form, actions={word: "drop"})
    assert (len(kept), counts[f"dropped/{word}"]) == (4, 5)
    kept, counts = audit(rows, form, actions={word: "warn"})
    assert (len(kept), counts[f"warned/{word}"]) == (9, 5)


def test_no_row_left_is_an_error(audit):
    with pytest.raises(RecipeError, match=r"no row is left \(empty"):
        audit([pair(chosen="")] * 3, forms.PREFERENCE, actions={"empty": "drop"})


def test_what_is_usual_is_not_wrong(audit):
    """Tool calls without content, empty system messages, several answers of tools, implicit prompts of many turns."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": "1 2"}]}
    tools = [*ASKED, call, *turn("tool", "3"), *turn("tool", "4"), *SAID]
    assert audit([{"messages": turn("system", "") + tools}] + RIGHT[forms.SFT], forms.SFT)[1] == {"rows": 31}
    talk = ASKED + SAID + turn("user", "and c")
    rows = [{"chosen": talk + turn("assistant", f"{i}"), "rejected": talk + turn("assistant", "no")} for i in range(9)]
    assert audit(rows, forms.PREFERENCE)[1] == {"rows": 9}
    short = [{"prompt": "Hi", "chosen": f"Hi {i}", "rejected": f"Hi, {i}"} for i in range(9)]
    assert audit(short, forms.PREFERENCE)[1] == {"rows": 9}


def test_pairs_on_two_prompts(audit):
    other = {"chosen": ASKED + SAID, "rejected": turn("user", "say c") + turn("assistant", "c")}
    later = {"chosen": ASKED + SAID + ASKED + SAID, "rejected": ASKED + SAID + turn("user", "why?") + SAID}
    rows = [{"chosen": ASKED + turn("assistant", f"{i}"), "rejected": BARE["rejected"]} for i in range(30)]
    kept, counts = audit([*rows, other, later], forms.PREFERENCE)
    assert counts == {"rows": 30, "dropped/different_prompts": 2}
    assert kept["chosen"][-1] == rows[-1]["chosen"]


def test_a_prompt_of_text_that_stands_in_the_answer_again(audit):
    prompt = "Write about the old stone bridge."
    rows = [{"prompt": prompt, "completion": f"{prompt} It is {i} years old."} for i in range(9)]
    with pytest.raises(RecipeError, match="row 0: the completion begins with the prompt, as in 9 of 9 rows"):
        audit(rows, forms.SFT)


def test_text_and_messages_in_one_row(audit):
    rows = [{"chosen": ASKED + SAID, "rejected": "say a and b: c"}] * 3
    with pytest.raises(RecipeError, match="'rejected' is text, and 'chosen' is messages"):
        audit(rows, forms.PREFERENCE)


@pytest.mark.parametrize("label", ["good", 1, 0.5])
def test_labels_of_answers_are_true_or_false(label, audit):
    rows = [{**row, "label": label} for row in RIGHT[forms.UNPAIRED]]
    with pytest.raises(RecipeError, match=f"label {label!r} is neither true nor false, as in 30 of 30 rows"):
        audit(rows, forms.UNPAIRED)


def test_parts_and_numbers_in_the_place_of_text(audit):
    parts = [{"type": "image", "text": None}]
    with pytest.raises(RecipeError, match="a part of type 'image': only text is read"):
        audit([{"messages": [{"role": "user", "content": parts}]}], forms.SFT)
    with pytest.raises(RecipeError, match="row 0: 'text' is int64"):
        audit([{"text": 3}], forms.SFT)
    with pytest.raises(RecipeError, match="needs messages with role and content"):
        audit([{"messages": [{"from": "human", "value": "a"}]}], forms.SFT)


def test_rows_that_are_also_evaluated_on(audit):
    rows, held_out = RIGHT[forms.PREFERENCE], [pair("x", "y"), RIGHT[forms.PREFERENCE][4]]
    assert audit(rows, forms.PREFERENCE, held_out)[1] == {"rows": 30, "warned/overlap": 1}
    kept, _ = audit(rows, forms.PREFERENCE, held_out, actions={"overlap": "drop"})
    assert list(kept["chosen"]) == [row["chosen"] for row in rows[:4] + rows[5:]]


@pytest.fixture(scope="module")
def tokenizer(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def test_rows_that_never_end_are_refused_when_they_are_all(audit, tokenizer):
    rows = RIGHT[forms.PREFERENCE]
    lengths = [
        len(tokenizer.apply_chat_template(ASKED + row["chosen"], return_dict=True)["input_ids"]) for row in rows
    ]
    train = SimpleNamespace(max_length=min(lengths) - 1)
    with pytest.raises(RecipeError, match=r"beyond max_length \(\d+\): its end is never learned, as in 30 of 30 rows"):
        audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=train)
    packed = SimpleNamespace(max_length=train.max_length, packing=True, packing_strategy="wrapped")
    assert audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=packed)[1] == {"rows": 30}


def test_rows_that_are_cut_are_counted(audit, tokenizer):
    long = {"messages": ASKED + turn("assistant", "a and b " * 40)}
    rows = [*RIGHT[forms.SFT], long]
    train = SimpleNamespace(max_length=60)
    counts = audit(rows, forms.SFT, tokenizer=tokenizer, train=train)[1]
    assert counts == {"rows": 31, "warned/cut": 1, "warned/endless": 1}
    with pytest.raises(RecipeError, match=r"row 30: \d+ tokens, and max_length is 60, as in 1 of 31 rows"):
        audit(rows, forms.SFT, tokenizer=tokenizer, train=train, actions={"cut": "refuse"})


def test_pairs_that_are_equal_only_within_max_length(audit, tokenizer):
    begin = "a and b " * 20
    rows = [*RIGHT[forms.PREFERENCE], pair(begin + "a", begin + "b b b")]
    counts = audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=SimpleNamespace(max_length=50))[1]
    assert counts == {"rows": 30, "dropped/equal_pairs": 1, "warned/cut": 1, "warned/endless": 1}


def test_an_answer_that_is_the_beginning_of_the_other(audit, tokenizer):
    rows = [*RIGHT[forms.PREFERENCE], pair("a and b", "a and b and more")]
    assert audit(rows, forms.PREFERENCE, tokenizer=tokenizer)[1] == {"rows": 31, "warned/prefix_pairs": 1}


@pytest.mark.parametrize(("opening", "joined"), [("Assistant: ", 30), ("Assistant:\n", 0), ("Assistant:", 0)])
def test_a_blank_that_becomes_one_token_with_the_answer(opening, joined, audit):
    """The tokenizer knows " blue" as one token, as most do; a line's end stays by itself."""
    tokens = chat_templates.tokenizer("plain role names")
    assert len(tokens(" blue")["input_ids"]) == 1
    tokens.chat_template = tokens.chat_template.replace("': ' + m", f"{opening.removeprefix('Assistant')!r} + m")
    tokens.chat_template = tokens.chat_template.replace("{{ 'Assistant: ' }}", f"{{{{ {opening!r} }}}}")
    rows = [{"prompt": turn("user", f"say {i}"), "completion": turn("assistant", "blue")} for i in range(30)]
    counts = audit(rows, forms.SFT, tokenizer=tokens)[1]
    assert counts.get("warned/joined", 0) == joined
    if joined:
        with pytest.raises(RecipeError, match="row 0: ' ' at the prompt's end becomes one token with the answer"):
            audit(rows, forms.SFT, tokenizer=tokens, actions={"joined": "refuse"})


def test_prompts_that_no_context_holds(audit, tokenizer):
    rows = [*RIGHT[forms.PROMPTS], {"prompt": turn("user", "say a and b " * 50)}]
    kept, counts = audit(rows, forms.PROMPTS, tokenizer=tokenizer, readers=[Reader("model", tokenizer, 100)])
    assert counts == {"rows": 30, "dropped/beyond_context": 1}
    assert list(kept["prompt"]) == [row["prompt"] for row in RIGHT[forms.PROMPTS]]
    readers = [Reader("model", tokenizer, 1000), Reader("judge", tokenizer, 4)]
    with pytest.raises(RecipeError, match=r"the context of judge is 4, as in 31 of 31 rows"):
        audit(rows, forms.PROMPTS, tokenizer=tokenizer, readers=readers)


def test_prompts_without_a_token(audit, tokenizer):
    with pytest.raises(RecipeError, match="row 1: the prompt is empty, or white space alone"):
        audit(
            [{"prompt": "a"}, {"prompt": ""}], forms.PROMPTS, tokenizer=tokenizer, readers=[Reader("m", tokenizer, 9)]
        )


def test_a_conversation_that_the_template_refuses(audit, tokenizer, monkeypatch):
    strict = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", strict)
    rows = [*RIGHT[forms.SFT], {"messages": SYSTEM + ASKED + SAID}]
    with pytest.raises(RecipeError, match="row 30: the chat template says: no system, as in 1 of 31 rows"):
        audit(rows, forms.SFT, tokenizer=tokenizer)


def test_roles_that_the_template_names_are_known(audit, tokenizer, monkeypatch):
    template = (
        "{% for m in messages %}{{ 'Q: ' if m['role'] == 'human' else 'A: ' }}"
        "{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    rows = [{"messages": turn("human", f"say {i}") + SAID} for i in range(9)]
    assert audit(rows, forms.SFT, tokenizer=tokenizer)[1] == {"rows": 9}


def test_a_second_look_reads_neither_rows_nor_tokens(audit, tokenizer, monkeypatch):
    rows = [*RIGHT[forms.PREFERENCE], pair("c", "c")]
    first = audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=SimpleNamespace(max_length=40))[1]
    facts._seen.clear()
    monkeypatch.setattr("trimtab.pipelines.data.audit.rows.RowAudit.read", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(
        "trimtab.pipelines.data.audit.tokens.TokenAudit.read", lambda *_: pytest.fail("tokenised again")
    )
    again = audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=SimpleNamespace(max_length=40))[1]
    assert again == first
    with pytest.raises(RecipeError, match=r"max_length \(2\)"):
        audit(rows, forms.PREFERENCE, tokenizer=tokenizer, train=SimpleNamespace(max_length=2))


def test_the_page_shows_the_table_of_the_code():
    page = (ROOT / "docs" / "data.md").read_text()
    shown = re.findall(r"^\| `(\w+)` \| (.+?) \| (\w+) \| (.+?) \|$", page, re.MULTILINE)
    shares = {0.0: "always", 1.0: "never"}
    table = [
        (word, of.says, of.action, shares.get(of.limit, f"above {of.limit:.0%}"))
        for word, of in classes.CLASSES.items()
    ]
    assert [(word, says, action, refused) for word, says, action, refused in shown] == table
