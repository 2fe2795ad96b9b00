"""Reward functions written for TRL, OpenRLHF and verl run unchanged, and score exactly as when called by hand."""

import importlib.util
import itertools
import pickle
import textwrap

import chat_templates
import pytest

from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import PartlyScored, RewardFailure, _function, outcomes

PROMPTS = ["1+1=", "2+2=", "3+3="]
COMPLETIONS = ["2", "5", "#### 6"]
ANSWERS = ["2", "4", "6"]
CHAT = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
ANSWERED = [[{"role": "assistant", "content": completion}] for completion in COMPLETIONS]


@pytest.fixture
def load(tmp_path):
    """Writes a function's source into a file; returns the reward that runs it and the function itself."""
    names = map("functions_{}.py".format, itertools.count())

    def load(kind, source, name=None, **options):
        file = tmp_path / next(names)
        file.write_text(textwrap.dedent(source))
        path = f"{file}:{name}" if name else str(file)
        spec = importlib.util.spec_from_file_location("by_hand", file)
        spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
        default = {"openrlhf_function": "reward_func", "verl_function": "compute_score"}.get(kind)
        return schema.load_reward({"kind": kind, "path": path, **options}), getattr(module, name or default)

    return load


class Log(dict):
    """Remembers what was logged, as TRL's two functions do."""

    def extra(self, column, values):
        self[column] = values


# TRL

TRL = {
    "sync": """
        def reward_func(completions, **kwargs):
            return [float(len(completion)) / 3 for completion in completions]
    """,
    "with a column": """
        def reward_func(prompts, completions, answer, **kwargs):
            return [1.0 if c.endswith(a) else 0.0 for c, a in zip(completions, answer)]
    """,
    "every keyword": """
        def reward_func(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **kwargs):
            return [0.1 * len(ids) + trainer_state.global_step for ids in completion_ids]
    """,
    "abstains": """
        def reward_func(completions, answer, **kwargs):
            return [None if c.startswith("#") else 1.0 for c in completions]
    """,
    "async": """
        import asyncio

        async def reward_func(prompts, completions, answer, **kwargs):
            await asyncio.sleep(0)
            return [float(c == a) for c, a in zip(completions, answer)]
    """,
    "async object": """
        class Judge:
            async def __call__(self, prompts, completions, **kwargs):
                return [0.3 for _ in completions]

        reward_func = Judge()
    """,
    "partial": """
        import functools

        def scaled(completions, scale, **kwargs):
            return [scale * len(c) for c in completions]

        reward_func = functools.partial(scaled, scale=0.7)
    """,
}


@pytest.mark.parametrize("form", TRL)
def test_trl(form, load):
    from transformers import TrainerState

    reward, by_hand = load("trl_function", TRL[form], "reward_func")
    columns = {"completion_ids": [[1], [2, 3], [4]], "answer": ANSWERS, "trainer_state": TrainerState(global_step=7)}
    columns |= dict.fromkeys(("log_extra", "log_metric"), lambda name, value: None)
    expected = by_hand(prompts=PROMPTS, completions=COMPLETIONS, **columns)
    if form.startswith("async"):
        import asyncio

        async def wait():
            return await expected

        expected = asyncio.run(wait())
    assert reward(prompts=PROMPTS, completions=COMPLETIONS, **columns) == expected
    assert outcomes(reward, PROMPTS, COMPLETIONS, **columns) == expected


def test_trl_passes_what_the_trainer_gives_and_stands_in_for_it(load):
    source = """
        def reward_func(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, weight, **kwargs):
            log_extra("length", [len(c) for c in completions])
            log_metric("mean", 0.5)
            return [weight * trainer_state.global_step, completion_ids, kwargs]
    """
    reward, _ = load("trl_function", source, "reward_func", kwargs={"weight": 2})
    assert reward(prompts=["p"], completions=["c"], other=[1]) == [0, None, {"other": [1]}]
    log = Log()
    reward(prompts=["p"], completions=["c"], log_extra=log.extra, log_metric=log.extra, trainer_state=None)
    assert log == {"length": [1], "mean": 0.5}
    assert reward.__name__ == "reward_func"


def test_trl_by_dotted_path():
    reward = schema.load_reward({"kind": "trl_function", "path": "trl.rewards.think_format_reward"})
    completions = [[{"role": "assistant", "content": text}] for text in ("<think>a</think>b", "b")]
    assert reward(prompts=CHAT[:2], completions=completions) == [1.0, 0.0]


def test_trl_functions_are_checked(load):
    with pytest.raises(
        RecipeError, match=r"unexpected keyword argument 'completion_ids'.*\*\*kwargs in its signature"
    ):
        load("trl_function", "def f(prompts, completions): return [0.0]", "f")
    reward, _ = load("trl_function", "def f(completions, answer, **kwargs): return [0.0]", "f")
    with pytest.raises(ValueError, match=r"no column 'answer', did you mean 'answers'\?"):
        reward(prompts=["p"], completions=["c"], answers=["a"])


def test_trl_function_in_a_trainer(load, model, tmp_path):
    import trl
    from datasets import Dataset

    source = """
        def brevity(prompts, completions, answer, trainer_state, log_metric, **kwargs):
            log_metric("at_step", float(trainer_state.global_step))
            return [-float(len(c[0]["content"])) for c in completions]
    """
    reward, _ = load("trl_function", source, "brevity")
    args = trl.GRPOConfig(output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2,
                          max_completion_length=4, use_cpu=True, bf16=False, report_to="none",
                          gradient_checkpointing=False)  # fmt: skip
    data = Dataset.from_dict({"prompt": CHAT, "answer": ANSWERS})
    trainer = trl.GRPOTrainer(model=model, reward_funcs=reward, args=args, train_dataset=data)
    trainer.train()
    assert any("rewards/brevity/mean" in row and row["at_step"] == 0 for row in trainer.state.log_history)


# OpenRLHF

OPENRLHF = {
    "tensor": """
        import torch

        def reward_func(queries, prompts, labels):
            return torch.tensor([len(query) / 3 for query in queries])
    """,
    "dict": """
        import torch

        def reward_func(queries, prompts, labels, **kwargs):
            right = [float(q[len(p) :] == label) for q, p, label in zip(queries, prompts, labels)]
            reward = torch.tensor(right) - 0.25
            return {"rewards": reward, "scores": reward + 0.25, "extra_logs": {"batch": len(queries)}}
    """,
    "list": """
        def reward_func(queries, prompts, labels, **kwargs):
            return {"rewards": [0.0] * len(queries)}
    """,
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("form", OPENRLHF)
def test_openrlhf(form, size, load):
    reward, by_hand = load("openrlhf_function", OPENRLHF[form], label="answer", batch_size=size)
    log = Log()
    scores = reward(prompts=PROMPTS, completions=COMPLETIONS, answer=ANSWERS, log_extra=log.extra)
    queries = [prompt + completion for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    expected = []
    for i in range(0, 3, size):
        found = by_hand(queries[i : i + size], PROMPTS[i : i + size], ANSWERS[i : i + size])
        found = found["rewards"] if isinstance(found, dict) else found
        expected += found if isinstance(found, list) else found.tolist()
    assert scores == expected
    assert log == ({"scores": [1.0, 0.0, 0.0], "batch": [float(size)] * 3} if form == "dict" else {})


def test_openrlhf_returns_a_bare_number_for_one(load):
    reward, by_hand = load("openrlhf_function", "def reward_func(queries, prompts, labels): return 0.0")
    assert reward(prompts=PROMPTS, completions=COMPLETIONS) == [by_hand(None, None, None)] * 3


def test_openrlhf_batches_fail_alone(load):
    source = """
        def reward_func(queries, prompts, labels, **kwargs):
            if "5" in queries[0]:
                raise TimeoutError("sandbox")
            return {"rewards": [1.0], "scores": None, "extra_logs": None} if "6" in queries[0] else [1.0, 2.0]
    """
    reward, _ = load("openrlhf_function", source)
    with pytest.raises(PartlyScored) as raised:
        reward(prompts=PROMPTS, completions=COMPLETIONS)
    wrong, failed, right = raised.value.outcomes
    assert wrong.reason == "the function returned 2 rewards for 1 completions"
    assert failed.reason.startswith("TimeoutError: sandbox (")
    assert "functions_0.py:4, in reward_func" in failed.reason
    assert right == 1.0
    found = outcomes(reward, PROMPTS, COMPLETIONS, name="right", indices=[5, 6, 7])
    assert (found[1].reward, found[1].index, found[1].sample) == ("right", 6, "5")
    reward, _ = load("openrlhf_function", source, batch_size=2)
    assert reward(prompts=PROMPTS, completions=COMPLETIONS) == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("returned", ["None", "{'rewards': None}", "{'scores': [1.0]}"])
def test_openrlhf_nothing_is_a_failure(returned, load):
    reward, _ = load("openrlhf_function", f"def reward_func(queries, prompts, labels): return {returned}")
    (found,) = outcomes(reward, ["p"], ["c"])
    assert found.reason == "the function returned no rewards"


ECHO = """
    seen = []

    def reward_func(queries, prompts, labels, **kwargs):
        seen.extend(zip(queries, prompts, labels))
        return [0.0] * len(queries)
"""


def test_openrlhf_queries_have_the_special_tokens(load, model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    reward, _ = load("openrlhf_function", ECHO, tokenizer=model)
    rendered = tokenizer.apply_chat_template(CHAT[0], tokenize=False, add_generation_prompt=True)
    assert rendered != PROMPTS[0]
    whole = rendered + COMPLETIONS[0] + tokenizer.eos_token
    prompt_ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    ids = tokenizer(COMPLETIONS[0], add_special_tokens=False)["input_ids"]
    one = {"prompts": CHAT[:1], "completions": ANSWERED[:1]}
    reward(**one)
    reward(**one, completion_ids=[[*ids, tokenizer.eos_token_id]])
    reward(**one, prompt_ids=[prompt_ids], completion_ids=[[*ids, tokenizer.eos_token_id]])
    reward(**one, prompt_ids=[prompt_ids], completion_ids=[ids])  # cut off: no end of sequence
    reward(prompts=PROMPTS[:1], completions=COMPLETIONS[:1])
    rendered_prompt, cut = (whole, rendered, ""), (rendered + COMPLETIONS[0], rendered, "")
    text = (PROMPTS[0] + COMPLETIONS[0] + tokenizer.eos_token, PROMPTS[0], "")
    assert reward._function.__globals__["seen"] == [rendered_prompt] * 3 + [cut, text]


def test_openrlhf_queries_have_the_tools_of_their_row(load, tmp_path):
    tokens = chat_templates.tokenizer("tools")
    tokens.save_pretrained(tmp_path / "policy")
    reward, _ = load("openrlhf_function", ECHO, tokenizer=str(tmp_path / "policy"))
    tools = [{"type": "function", "function": {"name": "weather"}}]
    reward(prompts=CHAT[:2], completions=ANSWERED[:2], tools=[tools, None])
    ((_, prompt, _), (_, other, _)) = reward._function.__globals__["seen"]
    assert prompt == tokens.apply_chat_template(CHAT[0], tools=tools, tokenize=False, add_generation_prompt=True)
    assert "<tools>" not in other


def test_openrlhf_renders_again_what_was_sampled_by_another_vocabulary(load, model):
    reward, _ = load("openrlhf_function", ECHO, tokenizer=model)
    one = {"prompts": CHAT[:1], "completions": ANSWERED[:1]}
    reward(**one)
    reward(**one, prompt_ids=[[5, 6]], completion_ids=[[7, 8]], vocabulary=["another"])
    by_text, by_ids = reward._function.__globals__["seen"]
    assert by_text == by_ids


def test_openrlhf_says_what_is_missing(load):
    reward, _ = load("openrlhf_function", ECHO, label="anser")
    with pytest.raises(ValueError, match=r"no column 'anser', did you mean 'answer'.*columns: answer, id"):
        reward(prompts=PROMPTS, completions=COMPLETIONS, answer=ANSWERS, id=[1, 2, 3], log_extra=print)
    reward, _ = load("openrlhf_function", ECHO)
    with pytest.raises(ValueError, match="such as `tokenizer: \\$sft`"):
        reward(prompts=CHAT, completions=ANSWERED)
    with pytest.raises(RecipeError, match="batch_size must be at least 1"):
        load("openrlhf_function", ECHO, batch_size=0)
    with pytest.raises(RecipeError, match="missing a required argument: 'judge'"):
        load("openrlhf_function", "def reward_func(queries, prompts, labels, judge): return 0.0")


# verl

EXTRA = [{"index": 0}, {"index": 1}, None]
VERL = {
    "keywords": """
        def compute_score(data_source, solution_str, ground_truth, extra_info=None):
            return len(solution_str) / 3 + len(data_source) + extra_info.get("index", 9)
    """,
    "reward_kwargs": """
        def compute_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0, **kwargs):
            return bonus + float(solution_str.endswith(ground_truth))
    """,
    "short": """
        def compute_score(solution_str, ground_truth, method="strict", format_score=0.1, score=1.0, bonus=0):
            return score if solution_str == ground_truth else format_score
    """,
    "two other names": """
        def compute_score(predict, truth, bonus=0) -> float:
            return len(predict) - 0.1 * int(truth)
    """,
    "bool": """
        def compute_score(solution_str, ground_truth, bonus=0):
            return solution_str == ground_truth
    """,
    "dict": """
        def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
            return {"score": 0.3 * len(solution_str), "acc": solution_str == ground_truth, "pred": solution_str}
    """,
    "async": """
        import asyncio

        async def compute_score(data_source, solution_str, ground_truth, extra_info, **kwargs):
            await asyncio.sleep(0)
            return {"score": 1 if solution_str == ground_truth else 0}
    """,
}


@pytest.mark.parametrize("column", ["reward_model", "ground_truth", "answer"])
@pytest.mark.parametrize("form", VERL)
def test_verl(form, column, load):
    import asyncio
    import inspect

    rule = [{"style": "rule", "ground_truth": answer} for answer in ANSWERS]
    truths = {column: rule if column == "reward_model" else ANSWERS}
    options = {"ground_truth": "answer"} if column == "answer" else {}
    if form != "keywords":
        options["kwargs"] = {"bonus": 0.5}
    reward, by_hand = load("verl_function", VERL[form], data_source="unused", **options)
    log = Log()
    columns = {**truths, "data_source": ["a", "bb", "ccc"], "extra_info": EXTRA, "log_extra": log.extra}
    scores = reward(prompts=CHAT, completions=ANSWERED, **columns)
    takes = inspect.signature(by_hand).parameters
    expected = []
    for source, solution, truth, extra in zip(["a", "bb", "ccc"], COMPLETIONS, ANSWERS, EXTRA, strict=True):
        arguments = {"data_source": source, "solution_str": solution, "ground_truth": truth, "extra_info": extra or {}}
        if form == "two other names":
            found = by_hand(solution, truth)
        else:
            found = by_hand(**{name: value for name, value in arguments.items() if name in takes},
                            **options.get("kwargs", {}))  # fmt: skip
        found = asyncio.run(found) if inspect.isawaitable(found) else found
        expected.append(found["score"] if isinstance(found, dict) else found)
    assert scores == expected
    assert log == {"dict": {"acc": [1.0, 0.0, 0.0]}, "async": {}}.get(form, {"acc": expected})


@pytest.mark.parametrize("asynchronous", ["", "async "], ids=["sync", "async"])
def test_verl_batch_form(asynchronous, load):
    source = f"""
        {asynchronous}def compute_score(data_sources, solution_strs, ground_truths, extra_infos, **kwargs):
            assert kwargs == {{"scale": 0.1}}
            assert len(data_sources) == len(extra_infos) == 3
            return [{{"score": 0.1 * len(s), "right": s == t}} for s, t in zip(solution_strs, ground_truths)]
    """
    reward, _ = load("verl_function", source, kwargs={"scale": 0.1})
    log = Log()
    scores = reward(prompts=PROMPTS, completions=COMPLETIONS, ground_truth=ANSWERS, log_extra=log.extra)
    assert scores == [0.1 * 1, 0.1 * 1, 0.1 * 6]
    assert log == {"right": [1.0, 0.0, 0.0]}


def test_verl_batch_of_another_length_fails(load):
    reward, _ = load("verl_function", "def compute_score(solution_strs, ground_truths): return [1.0]")
    found = outcomes(reward, PROMPTS, COMPLETIONS, ground_truth=ANSWERS)
    assert {outcome.reason for outcome in found} == {"ValueError: the function returned 1 scores for 3 completions"}


@pytest.mark.parametrize("asynchronous", ["", "async "], ids=["sync", "async"])
def test_verl_rows_fail_alone(asynchronous, load):
    source = f"""
        {asynchronous}def compute_score(data_source, solution_str, ground_truth, extra_info=None):
            if solution_str == "2":
                return {{"reward": 1.0}}
            if solution_str == "5":
                raise ZeroDivisionError
            return None if solution_str == "8" else float("nan") if solution_str == "9" else False
    """
    reward, _ = load("verl_function", source)
    with pytest.raises(PartlyScored) as raised:
        reward(prompts=[*PROMPTS, "p", "p"], completions=[*COMPLETIONS, "8", "9"], ground_truth=[*ANSWERS, "", ""])
    said = [outcome.reason if isinstance(outcome, RewardFailure) else outcome for outcome in raised.value.outcomes]
    assert said[0] == "the function returned no 'score', but reward"
    assert said[1].startswith("ZeroDivisionError (")
    assert said[2:] == [0.0, None, "the score is nan"]


def test_verl_async_rows_run_together(load):
    source = """
        import asyncio

        arrived = []

        async def compute_score(solution_str, ground_truth):
            arrived.append(solution_str)
            while len(arrived) < 3:  # until the others are here, too
                await asyncio.sleep(0.001)
            return 1.0
    """
    reward, _ = load("verl_function", source)
    assert reward(prompts=PROMPTS, completions=COMPLETIONS, ground_truth=ANSWERS) == [1.0] * 3


def test_verl_rows_never_share_their_extra_info(load):
    source = """
        def compute_score(solution_str, extra_info):
            extra_info["seen"] = extra_info.get("seen", 0) + 1
            return extra_info["seen"]
    """
    reward, _ = load("verl_function", source)
    row = {"index": 0}
    assert reward(prompts=PROMPTS, completions=COMPLETIONS, extra_info=[row] * 3) == [1.0] * 3
    assert reward(prompts=PROMPTS, completions=COMPLETIONS) == [1.0] * 3
    assert row == {"index": 0}


def test_verl_says_what_is_missing(load):
    reward, _ = load("verl_function", "def compute_score(solution_str, ground_truth): return 1.0")
    with pytest.raises(ValueError, match="no column 'ground_truth', did you mean 'ground_truths'"):
        reward(prompts=PROMPTS, completions=COMPLETIONS, ground_truths=ANSWERS)
    with pytest.raises(ValueError, match="`reward_model` of row 1 has no 'ground_truth'"):
        reward(prompts=PROMPTS, completions=COMPLETIONS, reward_model=[{"ground_truth": "2"}, None, None])
    with pytest.raises(RecipeError, match="missing a required argument: 'judge'"):
        load("verl_function", "def f(solution_str, ground_truth, judge): return 1.0", "f")
    with pytest.raises(RecipeError, match=r"takes \(data_source\); expected"):
        load("verl_function", "def g(data_source): return 1.0", "g")


# finding the function

KINDS = {"trl_function": None, "openrlhf_function": "reward_func", "verl_function": "compute_score"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_that_leads_nowhere(kind, write, tmp_path, monkeypatch):
    file = write("mine.py", "LIMIT = 3\nclass Score: ...\ndef accuracy(*args, **kwargs): return [0.0]\n")
    load = schema.load_reward
    for path, message in {
        str(tmp_path / "mien.py"): r"there is no file .*mien\.py, did you mean 'mine\.py'\?",
        f"{file}:acuracy": r"mine\.py has no 'acuracy', did you mean 'accuracy'\?",
        f"{file}:LIMIT": "expected a function, but 'LIMIT' in .* is of type int",
        f"{file}:Score": "expected a function, but 'Score' in .* is a class",
        "accuracy": r"expected file\.py:name or my\.module\.name, got 'accuracy'",
        "no_such_folder.mine.accuracy": "there is no module 'no_such_folder' in the current folder",
        "statistics.meen": r"statistics\.py has no 'meen', did you mean 'mean'\?",
    }.items():
        with pytest.raises(
            RecipeError,
            match=f"{kind}: .*{message}" if "file" not in message and "statistics" not in path else message,
        ):
            load({"kind": kind, "path": path})
    monkeypatch.chdir(tmp_path)
    default = KINDS[kind]
    message = f"has no '{default}' .*write mine.py:NAME" if default else "name the function in it: mine.py:NAME"
    with pytest.raises(RecipeError, match=message):
        load({"kind": kind, "path": "mine.py"})


def test_a_file_is_loaded_like_a_module(write, tmp_path, monkeypatch):
    (tmp_path / "shelf").mkdir()
    write("shelf/beside_it.py", "VALUE = 0.25\n")
    write("shelf/mine.py", "from beside_it import VALUE\ndef constant(completions, **kwargs): return [VALUE]\n")
    monkeypatch.setenv("HOME", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    call = {"prompts": ["p"], "completions": ["c"]}
    rewards = [
        schema.load_reward({"kind": "trl_function", "path": path})
        for path in ("shelf/mine.py:constant", "~/mine.py:constant", "shelf.mine.constant")
    ]
    assert [reward(**call) for reward in rewards] == [[0.25]] * 3
    assert rewards[0]._function is rewards[1]._function
    assert pickle.loads(pickle.dumps(rewards[0]))(**call) == [0.25]


def test_what_a_file_raises_is_not_hidden(write):
    file = write("broken.py", "import a_package_that_is_not_here\n")
    for _ in range(2):  # a half-loaded module is not kept
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_here"):
            schema.load_reward({"kind": "verl_function", "path": file})


class Marking:
    """A tokenizer of words that puts a mark in front where it is asked for special tokens."""

    eos_token = "</s>"

    def __call__(self, said, add_special_tokens=True):
        return {"input_ids": [*(["<s>"] if add_special_tokens else []), *said.split()]}

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(word for word in ids if not (skip_special_tokens and word.startswith("<")))


@pytest.mark.parametrize(("prompt_ids", "completion_ids", "query"), [
    (None, ["b", "</s>"], "say a b </s>"),  # the prompt as it is, with no mark of its own
    (["<s>", "say", "a"], ["b"], "<s> say a b"),  # the prompt as it was asked
    (None, None, "say ab</s>"),
])  # fmt: skip
def test_openrlhf_queries_are_the_tokens_that_the_policy_has_seen(prompt_ids, completion_ids, query, load):
    reward, _ = load("openrlhf_function", "def reward_func(queries, prompts, labels): return 0.0", tokenizer="a model")
    reward.__dict__["_tokenizer"] = Marking()
    assert reward._texts("say a", "b", prompt_ids, completion_ids, {})[1] == query


def test_advice_on_the_default_name_is_for_those_who_gave_none(tmp_path):
    (tmp_path / "mine.py").write_text("def score(prompts): ...\n")
    file = str(tmp_path / "mine.py")
    with pytest.raises(ValueError, match=r"has no 'reward' \(for a function of another name, write .*mine.py:NAME\)"):
        _function.load("trl_function", file, "reward")
    with pytest.raises(ValueError, match=r"has no 'zzz'$"):
        _function.load("trl_function", f"{file}:zzz", "reward")
    with pytest.raises(ValueError, match=r"has no 'scor', did you mean 'score'\?$"):
        _function.load("trl_function", f"{file}:scor", "scor")
