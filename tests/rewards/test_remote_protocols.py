"""What the reward `remote` sends and reads: OpenRLHF's, LLaMA-Factory's and vLLM's requests, and special tokens."""

import chat_templates
import pytest
from reward_servers import CHAT, PROMPTS, fine, reason, remote, says, score

pytestmark = pytest.mark.usefixtures("clock")


def test_openrlhfs_request_and_logs(serve):
    def logging(handler, body):
        count = len(body["query"])
        logs = {"length": [len(query) for query in body["query"]], "step": 7, "odd": [1] * (count + 1)}
        handler.reply({"rewards": [0.8] * count, "scores": [0.5] * count, "extra_logs": logs})

    server, logged = serve(logging), {}
    columns = {"answer": ["one", 2, None, {"four": 4}], "log_extra": logged.__setitem__}
    assert score(remote(server.url, label="answer", batch_size=3), **columns) == [0.8] * 4
    assert sorted(server.seen, key=lambda seen: -len(seen[2]["query"]))[0][2] == {
        "query": ["pdddd", "pbbb", "pcc"],
        "prompts": ["p"] * 3,
        "labels": [{"four": 4}, 2, None],
    }
    assert logged == {"length": [2, 4, 3, 5], "step": [7] * 4, "scores": [0.5] * 4}
    assert "there is no column 'gone'" in reason(score(remote(server.url, label="gone"), **columns))


def test_llamafactorys_request(serve):
    server = serve(says({"scores": [1, 2, 3, 4]}))
    assert score(remote(server.url, protocol="llamafactory")) == [4.0, 2.0, 3.0, 1.0]
    assert server.seen[0][2] == {"model": "model", "messages": ["pdddd", "pbbb", "pcc", "pa"]}
    score(remote(server.url, protocol="llamafactory", model="rm"))
    assert server.seen[1][2]["model"] == "rm"


VLLM = {"model": "rm", "use_activation": False}
TEXTS = ["pdddd", "pbbb", "pcc", "pa"]


@pytest.mark.parametrize(
    ("protocol", "asked", "item"),
    [
        ("vllm_classify", {**VLLM, "input": TEXTS, "add_special_tokens": False},
         lambda value: {"label": "LABEL_0", "probs": [value], "num_classes": 1}),
        ("vllm_pooling", {**VLLM, "input": TEXTS, "add_special_tokens": False, "task": "classify"},
         lambda value: {"object": "pooling", "data": [value]}),
        ("vllm_score", {**VLLM, "text_1": PROMPTS, "text_2": ["dddd", "bbb", "cc", "a"]},
         lambda value: {"object": "score", "score": value}),
    ],
)  # fmt: skip
def test_vllms_requests_and_indices(serve, protocol, asked, item):
    server = serve(says({"data": [{"index": i, **item(i / 2)} for i in (2, 0, 3, 1)]}))
    assert score(remote(server.url, protocol=protocol, model="rm")) == [1.5, 0.5, 1.0, 0.0]
    assert server.seen[0][2] == asked
    twice = serve(says({"data": [{"index": i, **item(0.5)} for i in (0, 0, 1, 2)]}))
    assert "the indices are not those of 4" in reason(score(remote(twice.url, protocol=protocol, model="rm")))


def test_more_than_one_class_is_no_reward(serve):
    server = serve(says({"data": [{"index": i, "probs": [0.1, 0.9]} for i in range(4)]}))
    why = reason(score(remote(server.url, protocol="vllm_classify", model="rm")))
    assert "2 classes per completion, but a reward model has one output (num_classes: 1)" in why


def test_vllm_renders_a_conversation_alone(serve):
    def classify(handler, body):
        handler.reply({"data": [{"index": 0, "probs": [len(body["messages"][-1]["content"])]}]})

    server = serve(classify)
    answers = [[{"role": "assistant", "content": said}] for said in ("a", "bb", "ccc")]
    assert score(remote(server.url, protocol="vllm_classify", model="rm"), [CHAT] * 3, answers) == [1.0, 2.0, 3.0]
    assert {"messages": CHAT + answers[0], **VLLM, "add_special_tokens": False} in [body for *_, body in server.seen]
    pair = serve(says({"data": [{"index": 0, "score": 0.5}]}))
    assert score(remote(pair.url, protocol="vllm_score", model="rm"), [CHAT], answers[:1]) == [0.5]
    assert pair.seen[0][2] == {**VLLM, "text_1": ["hi"], "text_2": ["a"]}


def test_the_tools_of_a_row_reach_whoever_renders_it(serve, tmp_path):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    chat_templates.tokenizer("tools").save_pretrained(tmp_path)
    columns = {"tools": [tools, None], "chat_template_kwargs": [{"mode": "brief"}, None]}
    server = serve(fine)
    score(remote(server.url, tokenizer=str(tmp_path), batch_size=1), [CHAT] * 2, ["yes", "no"], **columns)
    assert sorted("weather" in body["query"][0] for *_, body in server.seen) == [False, True]
    vllm = serve(says({"data": [{"index": 0, "probs": [0.5]}]}))
    score(remote(vllm.url, protocol="vllm_classify", model="rm"), [CHAT] * 2, ["yes", "no"], **columns)
    settings = [body.get("chat_template_kwargs") for *_, body in vllm.seen]
    assert {"tools": tools, "mode": "brief"} in settings
    assert None in settings


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer that adds <s> by itself, with a chat template, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "[UNK]": 2, "x": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="[UNK]"
    )
    whole.chat_template = (
        "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    whole.save_pretrained(folder)
    return folder


def test_the_tokenizer_renders_with_the_special_tokens_once(serve, tokenizer):
    server = serve(fine)
    reward = remote(server.url, tokenizer=tokenizer, batch_size=1)
    score(reward, [CHAT], [[{"role": "assistant", "content": "yes"}]])
    score(reward, [CHAT], ["yes"])
    score(reward, ["say yes:"], ["yes"])
    score(reward, ["<s>say yes:"], ["yes</s>"])
    chat = {"query": ["<s>[user] hi</s>[assistant] yes</s>"], "prompts": ["<s>[user] hi</s>[assistant] "]}
    text = {"query": ["<s>say yes:yes</s>"], "prompts": ["<s>say yes:"]}
    assert [body for *_, body in server.seen] == [{**body, "labels": [""]} for body in (chat, chat, text, text)]


@pytest.mark.parametrize("protocol", ["openrlhf", "llamafactory"])
def test_a_conversation_needs_a_tokenizer(serve, protocol):
    server = serve(fine)
    why = reason(score(remote(server.url, protocol=protocol), [CHAT], ["yes"]))
    assert "name the reward model's tokenizer" in why
    assert "`tokenizer: $helpful`" in why
    assert server.seen == []
