"""The server of the page: its token, its cookie, hosts, and answers that are on the disk when it says so."""

import http.client
import json
import threading

import pytest
from labelling.sheets import kept, said

from trimtab.pipelines.labelling.server import LARGEST, Server


@pytest.fixture
def server(tmp_path):
    serving = Server(kept(tmp_path, gold=1))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def ask(server, method, path, body=None, **headers):
    """The status, the headers and the body of an answer."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        line.request(method, path, body, headers)
        answer = line.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        line.close()


def cookie(server):
    status, headers, _ = ask(server, "GET", f"/?token={server.token}")
    assert status == 303
    assert headers["Location"] == "/"
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    return {"Cookie": headers["Set-Cookie"].split(";")[0]}


def test_without_the_token_nothing_is_told_and_nothing_is_taken(server):
    for path in ("/", "/?token=", "/?token=wrong", "/answers/ann"):
        status, _, body = ask(server, "GET", path)
        assert status == 403, path
        assert "Question" not in body
    status, _, _ = ask(server, "POST", "/answers/ann", "{}", **{"Content-Type": "application/json"})
    assert status == 403
    assert not (server.folder.path / "answers").exists()


def test_a_browser_that_was_led_here_under_another_name_is_refused(server):
    known = cookie(server)
    status, _, body = ask(server, "GET", "/", Host=f"evil.example:{server.server_port}", **known)
    assert (status, json.loads(body)["error"]) == (403, "this is no server of 'evil.example'")
    assert ask(server, "GET", "/", Host=f"localhost:{server.server_port}", **known)[0] == 200


def test_an_answer_is_on_the_disk_and_comes_back(server):
    known, question = cookie(server), server.folder.sheet.questions[0]
    body = json.dumps({"judgements": [said(question, "somebody else", order=[1]).values()]})
    status, _, text = ask(server, "POST", "/answers/ann%20b", body, **known, **{"Content-Type": "application/json"})
    assert (status, json.loads(text)) == (200, {"judgements": 1})
    [kept_answer] = server.folder.judgements()
    assert (kept_answer.rater, kept_answer.order) == ("ann b", (1,)), "the address says who it is"
    there = json.loads(ask(server, "GET", "/answers/ann%20b", **known)[2])
    assert [one["question"] for one in there["judgements"]] == [question.id]
    body = json.dumps({"judgements": [], "undone": [question.id]})
    ask(server, "POST", "/answers/ann%20b", body, **known, **{"Content-Type": "application/json"})
    assert server.folder.judgements() == []


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/answers/", "{}", {}, 404),
        ("/answers/" + "x" * 41, "{}", {}, 404),
        ("/other/ann", "{}", {}, 404),
        ("/answers/ann", "{}", {"Content-Type": "text/plain"}, 415),
        ("/answers/ann", "{", {}, 422),
        ("/answers/ann", '{"judgements": 3}', {}, 422),
        ("/answers/ann", '{"judgements": [{"question": "x"}]}', {}, 422),
        ("/answers/ann", None, {"Content-Length": str(LARGEST + 1)}, 413),
    ],
)
def test_a_wrong_request_is_told_and_changes_nothing(server, path, body, headers, status):
    sent = {"Content-Type": "application/json", **cookie(server), **headers}
    got, _, text = ask(server, "POST", path, body, **sent)
    assert got == status
    assert json.loads(text)["error"]
    assert not (server.folder.path / "answers").exists()
