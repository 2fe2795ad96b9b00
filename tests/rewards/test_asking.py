"""A bearer token is a secret wherever a server is named: also one that no header can hold is in no message."""

import pytest

from trimtab.pipelines.sampling import server_engine
from trimtab.pipelines.sampling.servers import Servers
from trimtab.pipelines.scoring.reflector import Reflector
from trimtab.rewards.code import Code
from trimtab.rewards.judge import Judge
from trimtab.rewards.remote import Remote

SERVER = {"url": "http://127.0.0.1:9/v1", "token_env": "MY_TOKEN"}
ASKING = {
    "remote": lambda: Remote(**SERVER)(prompts=["p"], completions=["c"]),
    "judge": lambda: Judge(model="m", **SERVER)(prompts=["p"], completions=["c"]),
    "code": lambda: Code(**SERVER)(prompts=["p"], completions=["c"], test_list=[["assert True"]]),
    "reflector": lambda: Reflector(model="m", **SERVER)("Why?"),
    "sample": lambda: server_engine.reached(
        None, None, Servers(urls=[SERVER["url"]], token_env="MY_TOKEN"), None
    ).__enter__(),
}


@pytest.mark.parametrize("token", ["two words", "se\ncret", "schlüssel"])
@pytest.mark.parametrize("kind", ASKING)
def test_a_token_that_no_header_can_hold_is_refused_by_the_name_of_its_variable(kind, token, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", token)
    with pytest.raises(
        ValueError, match=r"the token in \$MY_TOKEN has characters that a header cannot hold"
    ) as caught:
        ASKING[kind]()
    assert token not in str(caught.value)
