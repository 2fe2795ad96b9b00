"""`sample` with `engine: server`, on HTTP servers that speak OpenAI's completions with a real model behind them."""

import threading

import pytest
import torch
from outputs import rows_of
from reward_servers import Server, closed_port, reset, says
from run_steps import refused, run_recipe, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import runner
from trimtab.pipelines.sampling import sampler, shards
from trimtab.rewards import _http

LENGTH = 12
GENERATE = {"max_new_tokens": LENGTH}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Parts of nine completions, and retries that wait for hundredths of a second."""
    monkeypatch.setattr(shards, "LEAST", 9)
    monkeypatch.setattr(_http, "BACKOFF", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def served(model):
    """What a server does with a request: the completion of the model, by the request's seed, in vLLM's words."""
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    lock = threading.Lock()

    def answer(handler, body, apart=0.0):
        prompt, ends = list(map(int, body["prompt"])), body.get("stop_token_ids", [tokenizer.eos_token_id])
        config = GenerationConfig(max_new_tokens=body["max_tokens"], do_sample=True, top_k=0, eos_token_id=ends,
                                  pad_token_id=0)  # fmt: skip
        with lock:
            (said,) = sampler.sample(policy, [sampler.Request(prompt, (body["seed"],))], config, 1)
        choice = {"text": tokenizer.decode(said.ids, skip_special_tokens=True),
                  "finish_reason": "stop" if said.ids[-1] in ends else "length"}  # fmt: skip
        if body.get("return_token_ids"):
            choice |= {
                "token_ids": said.ids,
                "logprobs": {"token_logprobs": [value + apart for value in said.logprobs]},
            }
        handler.reply({"choices": [choice]})

    return answer


@pytest.fixture
def serve():
    """Starts servers, which are closed after the test."""
    servers = []

    def serve(*steps):
        servers.append(Server(*steps))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def address(server):
    return server.url.replace("/get_reward", "/v1")


def block(model, prompts, *servers, generate=GENERATE, **options):
    asked = {"urls": [address(server) for server in servers], "concurrency": 4, **options}
    return {"kind": "sample", "model": {"model_name_or_path": model}, "prompts": prompts, "num_generations": 3,
            "generate": generate, "engine": "server", "server": asked}  # fmt: skip


def test_completions_are_the_servers_and_log_probabilities_the_policys(served, serve, model, prompts, tmp_path):
    server = serve(served)
    step = run_recipe(tmp_path, {"sample": block(model, prompts, server)})["sample"]
    rows = rows_of(step)
    places = [(row["prompt_index"], row["sample_index"]) for row in rows]
    assert places == [(i, k) for i in range(10) for k in range(3)]
    assert len({body["seed"] for _, _, body in server.seen}) == len(rows) == len(server.seen)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for row in rows[:5]:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        with torch.no_grad():
            logps = policy(input_ids=ids).logits.log_softmax(-1)[0, len(row["prompt_ids"]) - 1 : -1]
        of_tokens = logps.gather(1, torch.tensor(row["completion_ids"])[:, None])[:, 0]
        assert row["logprobs"] == pytest.approx(of_tokens.tolist(), abs=1e-4)
    assert {path for path, _, _ in server.seen} == {"/v1/completions"}


def test_failures_in_the_middle_lose_and_repeat_nothing(served, serve, model, prompts, tmp_path, capsys):
    whole = run_recipe(tmp_path, {"sample": block(model, prompts, serve(served))})["sample"]
    folder = tmp_path / "again"
    folder.mkdir()
    limping = serve(served, says({}, 503), reset, served, served, says({}, 429), *[served] * 12, says({}, 400))
    stages = {"sample": block(model, prompts, limping, concurrency=1)}
    (step,) = Recipe.load(str(write_recipe(folder, stages, wandb=False))).steps
    assert runner.train(str(folder / "recipe.yaml")) == 2
    said = capsys.readouterr().err
    assert "stages.sample.server: " in said
    assert "status 400" in said
    assert "1 of 4 parts are kept: the same command goes on from there" in said
    sound = serve(served)
    run_recipe(folder, {"sample": block(model, prompts, sound)})  # other servers: the same step
    assert len(sound.seen) == 30 - 9
    assert rows_of(step) == rows_of(whole)


def test_a_server_that_is_down_is_passed_over(served, serve, model, prompts, tmp_path):
    sampling = block(model, prompts, serve(served))
    sampling["server"]["urls"].append(f"http://127.0.0.1:{closed_port()}/v1")
    assert len(rows_of(run_recipe(tmp_path, {"sample": sampling})["sample"])) == 30


def test_a_server_of_another_policy_is_found_out(served, serve, model, prompts, tmp_path, capsys):
    def other(handler, body):
        served(handler, body, apart=0.4)

    stages = {"sample": block(model, prompts, serve(other))}
    said = refused(tmp_path, stages, capsys)
    assert "stages.sample.server: the server says log-probabilities that are 0.4 nats a token from" in said
    stages["sample"]["server"]["tolerance"] = None
    run_recipe(tmp_path, stages)


def test_the_servers_own_log_probabilities_need_no_model_here(served, serve, model, prompts, tmp_path, monkeypatch):
    from trimtab.pipelines.sampling import transformers_engine

    ours = run_recipe(tmp_path, {"sample": block(model, prompts, serve(served))})["sample"]
    monkeypatch.setattr(transformers_engine, "load", lambda model: pytest.fail("the policy was loaded"))
    theirs = run_recipe(tmp_path, {"sample": block(model, prompts, serve(served), logprobs="server")})["sample"]
    for mine, other in zip(rows_of(ours), rows_of(theirs), strict=True):
        assert mine["completion_ids"] == other["completion_ids"]
        assert mine["logprobs"] == pytest.approx(other["logprobs"], abs=1e-4)


def test_a_server_without_token_ids_has_its_text_tokenised(serve, model, prompts, tmp_path):
    server = serve(says({"choices": [{"text": "a b", "finish_reason": "stop"}]}))
    step = run_recipe(tmp_path, {"sample": block(model, prompts, server, dialect="openai")})["sample"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = [*tokenizer.encode("a b", add_special_tokens=False), tokenizer.eos_token_id]
    assert all(row["completion_ids"] == ids and not row["truncated"] for row in rows_of(step))
    assert not {"top_k", "stop_token_ids", "return_token_ids"} & set(server.seen[0][2])


def test_servers_take_the_policy_of_a_round_first(served, serve, model, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("SAMPLING_TOKEN", "open-sesame")
    servers = [serve(says({}), served), serve(says({}), served)]
    reload = {"route": "/collective_rpc", "body": {"method": "reload_weights", "kwargs": {"weights_path": "{model}"}}}
    sampling = block(model, prompts, *servers, reload=reload)
    sampling["server"]["model"] = "policy"
    run_recipe(tmp_path, {"sample": sampling})
    for server in servers:
        path, headers, body = server.seen[0]
        assert (path, body["kwargs"]["weights_path"]) == ("/collective_rpc", model)
        assert headers["Authorization"] == "Bearer open-sesame"
        assert {asked["model"] for _, _, asked in server.seen[1:]} == {"policy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server": None}, "stages.sample.server: name the servers"),
        ({"server": {"urls": ["localhost:8000"]}}, "expected a base address such as http://host:8000/v1"),
        ({"server": {"urls": ["http://a/v1"], "tires": 3}}, "stages.sample.server.tires: unknown key"),
        ({"generate": {"top_k": 5}, "server": {"urls": ["http://a/v1"], "dialect": "openai"}},
         "stages.sample.generate.top_k: is not among the keys that a server of `dialect: openai` knows"),
        ({"engine": "transformers", "server": {"urls": ["http://a/v1"]}},
         "stages.sample.server: is for `engine: server`, and the engine is transformers"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_a_launch(options, message, model, prompts, tmp_path, capsys):
    assert message in refused(tmp_path, {"sample": {**block(model, prompts), **options}}, capsys)
