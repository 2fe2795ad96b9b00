"""Made-up rows in the layouts of published datasets, with what becomes of them."""

from dataclasses import dataclass, field
from typing import Any

from trimtab.pipelines.data import forms


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Rows as they are published, the layout to write, the form they then have, the rows expected, what is dropped."""

    rows: list[dict[str, Any]]
    layout: Any = None
    form: forms.Form
    expected: list[dict[str, Any]]
    dropped: dict[str, int] = field(default_factory=dict)


def pair(question, chosen, rejected, **others):
    return {"prompt": [user(question)], "chosen": [assistant(chosen)], "rejected": [assistant(rejected)], **others}


def rated(model, response, score):
    aspects = {"helpfulness": {"Rating": "4", "Rationale": "It helps."}}
    return {"model": model, "response": response, "annotations": aspects, "fine-grained_score": score,
            "overall_score": 10.0 - score}  # fmt: skip


def five(helpfulness, verbosity=1):
    return {"helpfulness": helpfulness, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": verbosity}


def safe(prompt, answers, *, better, safer, is_safe):
    return {
        "prompt": prompt, "response_0": answers[0], "response_1": answers[1], "better_response_id": better,
        "safer_response_id": safer, "is_response_0_safe": is_safe[0], "is_response_1_safe": is_safe[1],
    }  # fmt: skip


def node(number, parent, role, text, rank=None, tree="t1", **others):
    return {"message_id": number, "parent_id": parent, "role": role, "text": text, "rank": rank, "lang": "en",
            "deleted": False, "message_tree_id": tree, **others}  # fmt: skip


ULTRAFEEDBACK = [
    {"source": "quiz", "instruction": "Name a fish.", "models": ["a", "b", "c"],
     "completions": [rated("a", "Dog", 1.5), rated("b", "Eel", 4.5), rated("c", "Carp", 4.0)]},
    {"source": "quiz", "instruction": "Name a bird.", "models": ["a", "b"],
     "completions": [rated("a", "Owl", 3.0), rated("b", "Crow", 3.0)]},
]  # fmt: skip
NECTAR = [
    {"prompt": "\n\nHuman: Name a tree.\n\nAssistant: Oak.\n\nHuman: Another.\n\nAssistant: ", "num_responses": 3,
     "answers": [{"answer": "Stone", "model": "a", "rank": 3.0}, {"answer": "Elm", "model": "b", "rank": 1.0},
                 {"answer": "Moss", "model": "c", "rank": 2.0}]},
]  # fmt: skip
TREE = [user("Name a tree."), assistant("Oak."), user("Another.")]
HELPSTEER2 = [
    {"prompt": "Name a drum.", "response": "Snare", **five(4)},
    {"prompt": "Name a cat.", "response": "Lion", **five(3)},
    {"prompt": "Name a drum.", "response": "Flute", **five(1)},
    {"prompt": "Name a cat.", "response": "Tiger", **five(3)},
    {"prompt": "Name a saw.\n<extra_id_1>Assistant\nBow.\n<extra_id_1>User\nAnother.", "response": "Jig", **five(2)},
    {"prompt": "Name a saw.\n<extra_id_1>Assistant\nBow.\n<extra_id_1>User\nAnother.", "response": "Cup", **five(0)},
]
PKU = [
    safe("Open a lock?", ("With a pick.", "Ask its owner."), better=0, safer=1, is_safe=(False, True)),
    safe("Bake bread?", ("Flour, water, salt.", "No."), better=0, safer=0, is_safe=(True, True)),
]
FLAT = [
    node("q", None, "prompter", "Name a coat."),
    node("a", "q", "assistant", "Parka.", rank=1),
    node("b", "q", "assistant", "Anorak.", rank=0),
    node("c", "q", "assistant", "Spam.", rank=2, deleted=True),
    node("d", "b", "prompter", "Warm?", rank=0),
    node("e", "d", "assistant", "Very.", rank=0),
    node("x", None, "prompter", "Nenne einen Hut.", tree="t2", lang="de"),
    node("y", "x", "assistant", "Zylinder.", tree="t2", lang="de"),
    node("z", None, "prompter", "Nobody answers.", tree="t3"),
]
TREES = [
    {"message_tree_id": "t1", "tree_state": "ready", "prompt": {
        "message_id": "q", "role": "prompter", "text": "Name a coat.", "lang": "en", "replies": [
            {"message_id": "a", "role": "assistant", "text": "Parka.", "rank": 1, "replies": []},
            {"message_id": "b", "role": "assistant", "text": "Anorak.", "rank": 0, "replies": []},
        ]}},
]  # fmt: skip
COAT = [user("Name a coat."), assistant("Anorak."), user("Warm?"), assistant("Very.")]
SHAREGPT = [
    {"id": "1", "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Name a game."},
                                  {"from": "gpt", "value": "Chess."}]},
    {"id": "2", "conversations": [{"from": "human", "value": "Name a boat."}, {"from": "gpt", "value": "Canoe."}]},
]  # fmt: skip
CALL = {"name": "weather", "arguments": {"town": "Oslo"}}
TOOLS = [
    {"conversations": [{"from": "human", "value": "Rain in Oslo?"},
                       {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Oslo"}}'},
                       {"from": "observation", "value": "rain"}, {"from": "gpt", "value": "Yes."}],
     "system": "You know the weather.", "tools": '[{"name": "weather"}]'},
    SHAREGPT[1] | {"system": "", "tools": ""},
]  # fmt: skip
GSM8K = [{"question": "Two bags of 700?", "answer": "2*700 = <<2*700=1400>>1400 apples.\n#### 1,400"}]
MBPP = [{"task_id": 1, "text": "Write a function to double.", "code": "def double(x):\n    return 2 * x",
         "test_list": ["assert double(2) == 4"], "test_setup_code": "", "challenge_test_list": []}]  # fmt: skip
ALPACA = [
    {"instruction": "Name the colour.", "input": "Grass", "output": "Green."},
    {"instruction": "Say hello.", "input": "", "output": "Hello."},
]
HH = [
    {"chosen": "\n\nHuman: A soup?\n\nAssistant: Leek.\n\nHuman: A cake?\n\nAssistant: Plum cake.\nIt is good.",
     "rejected": "\n\nHuman: A soup?\n\nAssistant: Leek.\n\nHuman: A cake?\n\nAssistant: No."},
    {"chosen": "\n\nHuman: A tea?\n\nAssistant: Mint.", "rejected": "\n\nHuman: A pie?\n\nAssistant: Mint."},
    {"chosen": "A tea? Mint.", "rejected": "\n\nHuman: A tea?\n\nAssistant: No."},
]  # fmt: skip
CAKE = [user("A soup?"), assistant("Leek."), user("A cake?")]

PUBLISHED = {
    "ultrafeedback, best against worst": Published(
        rows=ULTRAFEEDBACK,
        layout="ultrafeedback",
        form=forms.PREFERENCE,
        expected=[pair("Name a fish.", "Eel", "Dog", score_chosen=4.5, score_rejected=1.5, source="quiz")],
        dropped={"tied": 1},
    ),
    "ultrafeedback, pairs beyond a margin": Published(
        rows=ULTRAFEEDBACK,
        layout={"kind": "ultrafeedback", "answers": "all_pairs", "margin": 0.5},
        form=forms.PREFERENCE,
        expected=[pair("Name a fish.", "Eel", "Dog"), pair("Name a fish.", "Carp", "Dog")],
        dropped={"tied": 1},
    ),
    "ultrafeedback, the judge's score": Published(
        rows=ULTRAFEEDBACK[:1],
        layout={"kind": "ultrafeedback", "score": "overall_score", "answers": "best_rest"},
        form=forms.PREFERENCE,
        expected=[pair("Name a fish.", "Dog", "Carp"), pair("Name a fish.", "Dog", "Eel")],
    ),
    "ultrafeedback_binarized": Published(
        rows=[
            {"prompt": "Name a fish.", "prompt_id": "1", "chosen": [user("Name a fish."), assistant("Eel")],
             "rejected": [user("Name a fish."), assistant("Dog")], "score_chosen": 8.0, "score_rejected": 2.0},
        ],
        form=forms.PREFERENCE,
        expected=[pair("Name a fish.", "Eel", "Dog", score_chosen=8.0)],
    ),
    "hh-rlhf": Published(
        rows=HH,
        layout="hh_text",
        form=forms.PREFERENCE,
        expected=[{"prompt": CAKE, "chosen": [assistant("Plum cake.\nIt is good.")], "rejected": [assistant("No.")]}],
        dropped={"different_prompts": 1, "malformed": 1},
    ),
    "hh-rlhf with a prompt": Published(
        rows=[{"prompt": "\n\nHuman: A cake?\n\nAssistant:", "chosen": " Plum cake.", "rejected": " No."}],
        layout="hh_text",
        form=forms.PREFERENCE,
        expected=[pair("A cake?", "Plum cake.", "No.")],
    ),
    "texts with other markers": Published(
        rows=[{"text": "### Human: A cake?### Assistant: Plum cake."}],
        layout={"kind": "hh_text", "user": "### Human:", "assistant": "### Assistant:"},
        form=forms.SFT,
        expected=[{"messages": [user("A cake?"), assistant("Plum cake.")]}],
    ),
    "nectar, ranking": Published(
        rows=NECTAR,
        layout={"kind": "nectar", "answers": "ranking"},
        form=forms.RANKING,
        expected=[{"prompt": TREE, "completions": [[assistant("Elm")], [assistant("Moss")], [assistant("Stone")]]}],
    ),
    "nectar, pairs": Published(
        rows=NECTAR,
        layout={"kind": "nectar", "margin": 1},
        form=forms.PREFERENCE,
        expected=[{"prompt": TREE, "chosen": [assistant("Elm")], "rejected": [assistant("Stone")]}],
    ),
    "helpsteer2": Published(
        rows=HELPSTEER2,
        layout="helpsteer2",
        form=forms.PREFERENCE,
        expected=[
            pair("Name a drum.", "Snare", "Flute", score_chosen=4.0),
            {"prompt": [user("Name a saw."), assistant("Bow."), user("Another.")], "chosen": [assistant("Jig")],
             "rejected": [assistant("Cup")]},
        ],
        dropped={"tied": 1},
    ),
    "helpsteer2 by another attribute": Published(
        rows=[HELPSTEER2[0], HELPSTEER2[2] | {"verbosity": 4}],
        layout={"kind": "helpsteer2", "attribute": "verbosity"},
        form=forms.PREFERENCE,
        expected=[pair("Name a drum.", "Flute", "Snare", score_chosen=4.0, score_rejected=1.0)],
    ),
    "helpsteer3": Published(
        rows=[
            {"domain": "code", "context": TREE, "response1": "Elm", "response2": "Moss", "overall_preference": -2},
            {"domain": "code", "context": TREE, "response1": "Elm", "response2": "Ash", "overall_preference": 3},
            {"domain": "code", "context": TREE, "response1": "Elm", "response2": "Fir", "overall_preference": 0},
            {"domain": "code", "context": TREE, "response1": "Elm", "response2": "Yew", "overall_preference": 1},
        ],
        layout={"kind": "helpsteer3", "strength": 2},
        form=forms.PREFERENCE,
        expected=[
            {"prompt": TREE, "chosen": [assistant("Elm")], "rejected": [assistant("Moss")], "domain": "code"},
            {"prompt": TREE, "chosen": [assistant("Ash")], "rejected": [assistant("Elm")]},
        ],
        dropped={"tied": 1, "weak": 1},
    ),
    "helpsteer2's preferences": Published(
        rows=[{"prompt": "Name a cat.", "response_1": "Dog", "response_2": "Lion", "preference_strength": 1}],
        layout="helpsteer3",
        form=forms.PREFERENCE,
        expected=[pair("Name a cat.", "Lion", "Dog")],
    ),
    "pku-saferlhf, the better": Published(
        rows=PKU,
        layout={"kind": "pku_saferlhf", "question": "better"},
        form=forms.PREFERENCE,
        expected=[
            pair("Open a lock?", "With a pick.", "Ask its owner.", chosen_is_safe=False, rejected_is_safe=True),
            pair("Bake bread?", "Flour, water, salt.", "No."),
        ],
    ),
    "pku-saferlhf, the safer": Published(
        rows=[*PKU, PKU[0] | {"safer_response_id": -1}],
        layout={"kind": "pku_saferlhf", "question": "safer"},
        form=forms.PREFERENCE,
        expected=[
            pair("Open a lock?", "Ask its owner.", "With a pick.", chosen_is_safe=True),
            pair("Bake bread?", "Flour, water, salt.", "No."),
        ],
        dropped={"unanswered": 1},
    ),
    "shp": Published(
        rows=[
            {"history": "A bike?", "human_ref_A": "Red.", "human_ref_B": "No.", "labels": 1, "score_ratio": 3.0},
            {"history": "A car?", "human_ref_A": "No.", "human_ref_B": "Blue.", "labels": 0, "score_ratio": 2.0},
            {"history": "A van?", "human_ref_A": "No.", "human_ref_B": "Grey.", "labels": 0, "score_ratio": 1.5},
        ],
        layout={"kind": "shp", "min_ratio": 2},
        form=forms.PREFERENCE,
        expected=[pair("A bike?", "Red.", "No."), pair("A car?", "Blue.", "No.")],
        dropped={"below_ratio": 1},
    ),
    "openassistant, conversations": Published(
        rows=FLAT,
        layout={"kind": "openassistant", "languages": ["en"]},
        form=forms.SFT,
        expected=[{"messages": COAT}],
        dropped={"language": 1, "unanswered": 1},
    ),
    "openassistant, pairs": Published(
        rows=FLAT,
        layout={"kind": "openassistant", "answers": "best_worst"},
        form=forms.PREFERENCE,
        expected=[pair("Name a coat.", "Anorak.", "Parka.")],
        dropped={"unanswered": 2},
    ),
    "openassistant, trees": Published(
        rows=TREES,
        layout={"kind": "openassistant", "answers": "ranking"},
        form=forms.RANKING,
        expected=[{"prompt": [user("Name a coat.")], "completions": [[assistant("Anorak.")], [assistant("Parka.")]]}],
    ),
    "capybara": Published(
        rows=[{"source": "x", "conversation": [{"input": "A hat?", "output": "Top hat."},
                                               {"input": "A shoe?", "output": "Clog."}]}],
        layout="capybara",
        form=forms.SFT,
        expected=[{"messages": [user("A hat?"), assistant("Top hat."), user("A shoe?"), assistant("Clog.")]}],
    ),
    "tulu-3 preferences": Published(
        rows=[{"id": "1", "prompt": "Name a tree.", "chosen": [*TREE, assistant("Elm")],
               "rejected": [*TREE, assistant("Stone")], "chosen_model": "a", "rejected_model": "b"}],
        form=forms.PREFERENCE,
        expected=[{"prompt": TREE, "chosen": [assistant("Elm")], "rejected": [assistant("Stone")], "id": "1"}],
    ),
    "orca_dpo_pairs": Published(
        rows=[
            {"system": "Be brief.", "question": "A lamp?", "chosen": "Torch.", "rejected": "No."},
            {"system": "", "question": "A cup?", "chosen": "Mug.", "rejected": "No."},
        ],
        layout="orca_dpo",
        form=forms.PREFERENCE,
        expected=[
            {"prompt": [system("Be brief."), user("A lamp?")], "chosen": [assistant("Torch.")],
             "rejected": [assistant("No.")]},
            pair("A cup?", "Mug.", "No."),
        ],
    ),
    "kto mixes": Published(
        rows=[{"prompt": [user("A lamp?")], "completion": [assistant("Torch.")], "label": True},
              {"prompt": [user("A lamp?")], "completion": [assistant("No.")], "label": False}],
        form=forms.UNPAIRED,
        expected=[{"prompt": [user("A lamp?")], "completion": [assistant("Torch.")], "label": True},
                  {"prompt": [user("A lamp?")], "completion": [assistant("No.")], "label": False}],
    ),
    "skywork reward pairs": Published(
        rows=[{"chosen": [*TREE, assistant("Elm")], "rejected": [*TREE, assistant("Stone")], "source": "x"}],
        form=forms.PREFERENCE,
        expected=[{"chosen": [*TREE, assistant("Elm")], "rejected": [*TREE, assistant("Stone")], "source": "x"}],
    ),
    "sharegpt": Published(
        rows=SHAREGPT,
        layout="sharegpt",
        form=forms.SFT,
        expected=[{"messages": [system("Be brief."), user("Name a game."), assistant("Chess.")], "id": "1"},
                  {"messages": [user("Name a boat."), assistant("Canoe.")], "id": "2"}],
    ),
    "sharegpt with tools": Published(
        rows=TOOLS,
        layout="sharegpt",
        form=forms.SFT,
        expected=[
            {"messages": [system("You know the weather."), user("Rain in Oslo?"),
                          assistant("") | {"tool_calls": [{"type": "function", "function": CALL}]},
                          {"role": "tool", "content": "rain"}, assistant("Yes.")], "tools": '[{"name": "weather"}]'},
            {"messages": [user("Name a boat."), assistant("Canoe.")]},
        ],
    ),
    "sharegpt pairs": Published(
        rows=[{"conversations": [{"from": "human", "value": "A lamp?"}], "chosen": {"from": "gpt", "value": "Torch."},
               "rejected": {"from": "gpt", "value": "No."}}],
        layout="sharegpt",
        form=forms.PREFERENCE,
        expected=[pair("A lamp?", "Torch.", "No.")],
    ),
    "alpaca": Published(
        rows=ALPACA,
        layout="alpaca",
        form=forms.SFT,
        expected=[{"prompt": [user("Name the colour.\n\nGrass")], "completion": [assistant("Green.")]},
                  {"prompt": [user("Say hello.")], "completion": [assistant("Hello.")]}],
    ),
    "alpaca pairs with a history": Published(
        rows=[{"instruction": "Another.", "input": "", "system": "Be brief.", "chosen": "Elm", "rejected": "Stone",
               "history": [["Name a tree.", "Oak."]]}],
        layout="alpaca",
        form=forms.PREFERENCE,
        expected=[{"prompt": [system("Be brief."), *TREE], "chosen": [assistant("Elm")],
                   "rejected": [assistant("Stone")]}],
    ),
    "reward_bench": Published(
        rows=[{"prompt": "Sky?", "chosen": "Blue", "chosen_model": "a", "rejected": "Red", "rejected_model": "b",
               "subset": "chat", "id": 1}],
        layout="reward_bench",
        form=forms.PREFERENCE,
        expected=[pair("Sky?", "Blue", "Red", subset="chat", id=1)],
    ),
    "reward_bench 2": Published(
        rows=[{"prompt": "Sky?", "chosen": ["Blue"], "rejected": ["Red", "Green"], "num_correct": 1,
               "num_incorrect": 2, "subset": "Factuality"}],
        layout="reward_bench",
        form=forms.PREFERENCE,
        expected=[pair("Sky?", "Blue", answer, subset="Factuality") for answer in ("Red", "Green")],
    ),
    "gsm8k": Published(
        rows=GSM8K,
        layout="gsm8k",
        form=forms.SFT,
        expected=[{"prompt": [user("Two bags of 700?")], "answer": "1400",
                   "completion": [assistant("2*700 = 1400 apples.\n#### 1,400")]}],
    ),
    "gsm8k as prompts": Published(
        rows=GSM8K,
        layout={"kind": "gsm8k", "calculator": True},
        form=forms.PROMPTS,
        expected=[{"prompt": [user("Two bags of 700?")], "completion": [assistant(GSM8K[0]["answer"])]}],
    ),
    "mbpp": Published(
        rows=MBPP,
        layout="mbpp",
        form=forms.SFT,
        expected=[{"prompt": [user("Write a function to double.\nYour code should pass these tests:\n"
                                   "assert double(2) == 4")],
                   "completion": [assistant(MBPP[0]["code"])], "test_list": MBPP[0]["test_list"], "task_id": 1}],
    ),
    "mbpp without the tests": Published(
        rows=MBPP,
        layout={"kind": "mbpp", "shown_tests": False},
        form=forms.SFT,
        expected=[{"prompt": [user("Write a function to double.")], "completion": [assistant(MBPP[0]["code"])]}],
    ),
}  # fmt: skip
