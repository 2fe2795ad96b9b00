"""The contract of every file in rewards/, found by listing the folder, and each reward's own arithmetic."""

import json
import math
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trimtab import rewards
from trimtab.pipelines.planning import kinds, schema
from trimtab.pipelines.planning.errors import RecipeError

OPTIONS = {
    "answer_span": {"rewards": {"brief": {"kind": "length", "target": 4}}},
    "classifier": {"path": "CLASSIFIER", "labels": ["x", "y", "z"]},
    "code": {"tests": "no_tests", "url": "http://127.0.0.1:9/run_code"},
    "composite": {"rewards": {"brief": {"kind": "length", "target": 4}, "form": {"kind": "pattern", "regex": "a+"}}},
    "ensemble": {"rewards": {"x": {"kind": "length", "target": 4}, "y": {"kind": "length", "target": 2}}},
    "dialogue_metric": {"column": "label"},
    "judge": {"url": "SERVER", "model": "judge"},
    "length": {"target": 4},
    "math": {"column": "number", "compare": "numbers"},
    "meteor": {"column": "label"},
    "openrlhf_function": {"path": "FUNCTIONS", "tokenizer": "MODEL"},
    "pattern": {"regex": "a+"},
    "remote": {"url": "SERVER", "tokenizer": "MODEL"},
    "reward_model": {"path": "REWARD_MODEL"},
    "trl_function": {"path": "FUNCTIONS:words"},
    "verl_function": {"path": "FUNCTIONS"},
}
OF_ALL = {"dialogue_metric"}  # a score is one of all completions together
FUNCTIONS = """
def words(completions, **kwargs):
    return [1.0 for _ in completions]

def reward_func(queries, prompts, labels):
    return [float(len(query)) for query in queries]

def compute_score(solution_str):
    return len(solution_str) / 100
"""
PROMPTS = ["Say a.", "Say b.", "Say a."]
COMPLETIONS = ["a a a a", "b b b b b b", ""]


def chat(role, texts):
    return [[{"role": role, "content": text}] for text in texts]


@pytest.fixture(scope="module")
def stand_ins(reward_model, model, tmp_path_factory):
    """What the words in OPTIONS stand for."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    functions = tmp_path_factory.mktemp("functions") / "functions.py"
    functions.write_text(FUNCTIONS)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lengths)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/get_reward"
    classifier = tmp_path_factory.mktemp("classifier")
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=3).save_pretrained(classifier)
    AutoTokenizer.from_pretrained(model).save_pretrained(classifier)
    yield {"FUNCTIONS": str(functions), "MODEL": model, "REWARD_MODEL": reward_model, "CLASSIFIER": str(classifier),
           "SERVER": url}  # fmt: skip
    server.shutdown()


class Lengths(BaseHTTPRequestHandler):
    """OpenRLHF's contract, the reward being the length of the query; of a question in a chat, a verdict."""

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        verdict = {"choices": [{"message": {"content": "Verdict: 5"}}]}
        lengths = {"rewards": [len(query) for query in call.get("query", ())]}
        reply = json.dumps(verdict if "messages" in call else lengths).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *words):
        """Not to the terminal."""


@pytest.fixture
def load(stand_ins):
    def load(kind, **options):
        options = OPTIONS.get(kind, {}) | options
        for key, value in options.items():
            if isinstance(value, str):
                word = value.partition(":")[0]
                options[key] = value.replace(word, stand_ins.get(word, word))
        return schema.load_reward({"kind": kind, **options})

    return load


@pytest.fixture(scope="module")
def reward_model(model, tmp_path_factory):
    """A sequence-classification checkpoint with a head, made from the tiny model."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("rm")
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", kinds.words(kinds.REWARDS))
@pytest.mark.parametrize("form", ["strings", "messages"])
def test_contract(kind, form, load):
    reward = load(kind)
    if form == "strings":
        prompts, completions = PROMPTS, COMPLETIONS
    else:
        prompts, completions = chat("user", PROMPTS), chat("assistant", COMPLETIONS)
    columns = {"completion_ids": [[1, 2], [3], [4]], "label": ["x", "y", "z"], "number": ["1", "2", "3"],
               "no_tests": [None] * 3}  # fmt: skip
    columns["trainer_state"] = None
    scores = reward(prompts=prompts, completions=completions, **columns)
    assert len(scores) == 3
    assert all(score is None or (isinstance(score, float) and math.isfinite(score)) for score in scores)
    first = {name: column and column[:1] for name, column in columns.items()}
    alone = reward(prompts=prompts[:1], completions=completions[:1], **first)
    assert kind in OF_ALL or alone == pytest.approx(scores[:1], abs=1e-5)
    assert reward(prompts=[], completions=[]) == []


def test_length(load):
    assert load("length")(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, -0.5, -1.0]
    assert load("length", at_most=True)(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, -0.5, 0.0]
    assert load("length", unit="characters")(prompts=["p"], completions=["abcd"]) == [0.0]
    assert load("length", unit="tokens")(prompts=["p"], completions=["x"], completion_ids=[[1, 2]]) == [-0.5]


def test_pattern(load):
    assert load("pattern")(prompts=PROMPTS, completions=COMPLETIONS) == [1.0, 0.0, 0.0]
    assert load("pattern", absent=True)(prompts=PROMPTS, completions=COMPLETIONS) == [0.0, 1.0, 1.0]
    assert load("pattern", count=True)(prompts=PROMPTS, completions=COMPLETIONS) == [4.0, 0.0, 0.0]
    with pytest.raises(RecipeError, match="not a regular expression"):
        load("pattern", regex="(")


def test_repetition(load):
    scores = load("repetition", ngram_size=1)(prompts=["p", "p"], completions=["a b c d", "a a a a"])
    assert scores == [0.0, -0.75]
    assert load("repetition")(prompts=["p"], completions=["a b c a b c"]) == [-0.25], "of four trigrams one repeats"


def test_reward_model_scores_do_not_depend_on_the_batch(load):
    prompts, completions = chat("user", PROMPTS), chat("assistant", COMPLETIONS)
    together = load("reward_model")(prompts=prompts, completions=completions)
    alone = load("reward_model", tokens_per_batch=1)(prompts=prompts, completions=completions)
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_language_model_is_not_a_reward_model(load, model):
    with pytest.raises(ValueError, match=r"has no trained head \(score.weight would be random\)"):
        load("reward_model", path=model)(prompts=["p"], completions=["c"])


def test_any_function_or_class_by_its_dotted_path(tmp_path, monkeypatch):
    (tmp_path / "team.py").write_text(
        "def constant(prompts, completions, value=1.0, **columns): return [value] * len(prompts)\n"
        "class Twice:\n"
        "    def __init__(self, value): self.value = value\n"
        "    def __call__(self, prompts, completions, **columns): return [2 * self.value] * len(prompts)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert schema.load_reward({"kind": "team.constant"})(prompts=["p"], completions=["c"]) == [1.0]
    with_options = schema.load_reward({"kind": "team.constant", "value": 3.0})
    assert isinstance(with_options, partial)
    assert with_options(prompts=["p"], completions=["c"]) == [3.0]
    assert schema.load_reward({"kind": "team.Twice", "value": 2.0})(prompts=["p"], completions=["c"]) == [4.0]
    with pytest.raises(RecipeError, match=r"team\.py has no 'missing'"):
        schema.load_reward({"kind": "team.missing"})


def test_rewards_work_as_trl_reward_functions(load, model, tmp_path):
    """The same objects go into TRL's GRPOTrainer unchanged."""
    import trl
    from datasets import Dataset

    args = trl.GRPOConfig(output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2,
                          max_completion_length=4, use_cpu=True, bf16=False, report_to="none",
                          gradient_checkpointing=False)  # fmt: skip
    data = Dataset.from_list([{"prompt": prompt} for prompt in chat("user", PROMPTS)])
    trainer = trl.GRPOTrainer(model=model, reward_funcs=load("length").__call__, args=args, train_dataset=data)
    trainer.train()
    assert any("rewards/__call__/mean" in row for row in trainer.state.log_history)


def test_the_text_of_messages_is_that_of_their_parts():
    parts = [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": " two"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    assert rewards.text(messages) == "one two\n"
