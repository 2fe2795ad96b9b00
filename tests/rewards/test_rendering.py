"""The edges of the one rendering; tests/trainers/test_rendering_parity.py compares it with the trainers."""

import json

import pytest
from chat_templates import tokenizer

from trimtab.rewards._rendering import Unrenderable, added, prompt_ids, render, render_all, rows_of

ASK = [{"role": "user", "content": "Name a colour."}]
ANSWER = [{"role": "assistant", "content": "It is blue."}]
TOOLS = [{"type": "function", "function": {"name": "weather"}}]


def test_a_policy_is_asked_without_the_end_that_a_tokenizer_adds():
    tokens = tokenizer(around="both")
    end, beginning = tokens.eos_token_id, tokens.bos_token_id
    assert added(tokens) == ([beginning], [end])
    assert tokens("Name a colour. ")["input_ids"][-1] == end
    asked = prompt_ids(tokens, "Name a colour. ")
    assert asked[0] == beginning
    assert end not in asked
    assert render(tokens, "Name a colour. ", "It is blue.").prompt == asked
    assert prompt_ids(tokens, "Name a colour.</s>")[-1] == end  # one that the prompt itself has stays


def test_a_prompt_of_messages_is_what_its_answer_follows():
    tokens = tokenizer("chatml")
    answer = render(tokens, ASK, ANSWER)
    assert answer.ids[: answer.start] == answer.prompt == prompt_ids(tokens, ASK)
    assert tokens.decode(answer.ids[answer.start :]) == "It is blue.<|im_end|>\n"


def test_where_the_template_drops_the_end_of_a_prompt_the_answer_begins_there():
    answer = render(tokenizer("history without its thoughts"), ASK, ANSWER)
    assert answer.start < len(answer.prompt)
    assert answer.ids[: answer.start] == answer.prompt[: answer.start]


def test_tools_may_be_json():
    tokens = tokenizer("tools")
    with_tools = prompt_ids(tokens, ASK, {"tools": TOOLS})
    assert with_tools == prompt_ids(tokens, ASK, {"tools": json.dumps(TOOLS)})
    assert len(with_tools) > len(prompt_ids(tokens, ASK, {"tools": None}))


def test_the_settings_of_a_row_reach_its_template():
    tokens = tokenizer("thinking mode")
    settings = {"chat_template_kwargs": {"enable_thinking": False}}
    assert tokens.decode(prompt_ids(tokens, ASK, settings)).endswith("<think>\n\n</think>\n\n")
    rows = rows_of({"chat_template_kwargs": [None, {"enable_thinking": False}], "answer": ["a", "b"]}, 2)
    whole = [answer.prompt for answer in render_all(tokens, [(ASK, ANSWER, row) for row in rows])]
    assert whole == [prompt_ids(tokens, ASK), prompt_ids(tokens, ASK, settings)]


def test_a_refusal_has_the_templates_own_words():
    system = [{"role": "system", "content": "Be brief."}, *ASK]
    with pytest.raises(Unrenderable, match="the chat template says: No place for a system message"):
        render(tokenizer("mistral"), system, ANSWER)
    with pytest.raises(Unrenderable, match="the chat template fails: TypeError"):
        render(tokenizer("chatml"), [{"role": "user", "content": [{"type": "text", "text": "a"}]}], ANSWER)


def test_an_answer_may_be_a_string_to_messages_and_the_other_way_around():
    tokens = tokenizer("chatml")
    assert render(tokens, ASK, "It is blue.") == render(tokens, ASK, ANSWER)
    assert render(tokens, "Name a colour. ", ANSWER) == render(tokens, "Name a colour. ", "It is blue.")
