"""`stfit generate --method endpoint`: every answer is asked for once, whatever the server does."""

import json
import sqlite3
import time
from contextlib import closing
from random import Random

import pytest
from generation.chat_server import completion, failure
from processes import at_call, run_in_child

from stfit.errors import EndpointError, RecipeError
from stfit.generation import chat as chat_module
from stfit.generation.chat import seconds_to_wait
from stfit.generation.endpoint import PROMPT, parse

TEXTS = [" ".join(f"w{Random(12 * number + place).randrange(10**6)}" for place in range(8)) for number in range(12)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def ask(make, chat, corpus, monkeypatch):
    """Generate from the corpus, with the passage as the whole prompt."""
    monkeypatch.setattr(chat_module, "PAUSES", (0.01,) * 5)
    common = {"endpoint": chat.address, "generator": "tiny", "prompt": "{passage}", "requests": 3}
    return lambda **settings: make(corpus, "endpoint", **(common | settings))


def test_questions_come_in_the_order_of_passages_with_their_source(ask, chat):
    result = ask()
    assert [row["anchor"] for row in result["pairs"]] == [f"what about {text}?" for text in TEXTS]
    assert [row["positive"] for row in result["pairs"]] == TEXTS
    assert {row["generated_by"] for row in result["pairs"]} == {"endpoint tiny"}
    assert result["answers"]["requests"] == len(TEXTS)
    assert result["answers"]["prompt_tokens"] == 10 * len(TEXTS)
    assert {body["path"] for body in chat.requests} == {"/v1/chat/completions"}
    assert {(body["model"], body["seed"]) for body in chat.requests} == {("tiny", 42)}


def test_an_answer_is_never_asked_for_twice(ask, chat, tmp_path):
    first = ask()
    chat.requests.clear()
    assert ask()["pairs"] == first["pairs"]
    assert chat.requests == []
    ask(temperature=0.2)
    assert len(chat.requests) == len(TEXTS)  # another setting is another question


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([failure(500), failure(503)], id="500"),
        pytest.param([None], id="cut in the middle"),
        pytest.param([failure(429, "slow down", Retry_After="0.05")], id="429"),
        pytest.param([failure(429, "slow down")], id="429 without a time"),
        pytest.param([(200, {}, b"<html>busy</html>")], id="nonsense"),
        pytest.param([(200, {}, b'{"choices": []}')], id="no answer"),
        pytest.param([(200, {"Content-Type": "application/json"}, b'"\xff\xfe"')], id="no UTF-8"),
        pytest.param([(200, {"Content-Type": "application/json; charset=klingon"}, b"{}")], id="unknown encoding"),
    ],
)
def test_a_fault_is_overcome(ask, chat, faults):
    chat.faults = [*faults]
    result = ask()
    assert len(result["pairs"]) == len(TEXTS)
    assert result["answers"]["requests"] == len(TEXTS) + len(faults)


def test_an_answer_in_another_encoding_is_read(ask, chat):
    chat.answer = lambda body: json.dumps(["Wo liegt München?"], ensure_ascii=False)
    chat.faults = [completion('["Où est la forêt ?"]', "latin-1")]
    assert {"Où est la forêt ?", "Wo liegt München?"} == {row["anchor"] for row in ask(requests=1)["pairs"]}


def test_a_limit_is_obeyed_by_all_requests(ask, chat, monkeypatch):
    times = []
    answer = chat.answer
    chat.answer = lambda body: times.append(time.monotonic()) or answer(body)
    chat.faults = [failure(429, "later", Retry_After="0.3")]
    start = time.monotonic()
    ask(requests=1)
    assert times[0] - start >= 0.3


def test_a_server_that_is_down_ends_the_command_and_the_next_one_goes_on(ask, chat):
    chat.faults = [completion('["one question"]')] * 4 + [failure(500, "broken")] * 100
    with pytest.raises(EndpointError, match=r"answers with status 500: broken") as caught:
        ask(requests=1)
    assert caught.value.exit_code == 5
    chat.faults.clear()
    chat.requests.clear()
    ask()
    assert sorted(chat.asked) == sorted(TEXTS[4:])


def test_nobody_listens(ask):
    with pytest.raises(EndpointError, match="can't be reached"):
        ask(endpoint="http://127.0.0.1:9/v1")


def test_a_slow_server_is_not_waited_for(ask, chat):
    def slowly(body):
        time.sleep(0.5)
        return "[]"

    chat.answer = slowly
    with pytest.raises(EndpointError, match=r"does not answer within 0\.1 s"):
        ask(timeout=0.1)


def test_what_is_no_list_is_asked_for_once_more(ask, chat):
    chat.answer = lambda body: "Sure! Here you are." if len(body["messages"]) == 1 else '["a better one?"]'
    result = ask(requests=1)
    assert result["answers"]["asked again"] == len(TEXTS)
    again = [body["messages"] for body in chat.requests if len(body["messages"]) == 3]
    assert len(again) == len(TEXTS)
    assert again[0][1] == {"role": "assistant", "content": "Sure! Here you are."}


def test_a_model_that_answers_in_prose_only_is_counted_and_not_asked_forever(ask, chat):
    lists = {TEXTS[0]}
    chat.answer = lambda body: '["one of ships?"]' if body["messages"][0]["content"] in lists else "I like ships."
    result = ask()
    assert result["answers"]["not a list"] == len(TEXTS) - 1
    assert len(chat.requests) == 2 * len(TEXTS) - 1
    assert [row["positive"] for row in result["pairs"]] == [TEXTS[0]]


@pytest.mark.parametrize(
    ("answer", "questions"),
    [
        ('["a b", "c"]', ["a b", "c"]),
        ('  ["a",\n "a", " "]\n', ["a"]),
        ('```json\n["a"]\n```', ["a"]),
        ("[]", []),
        ('{"questions": ["a"]}', None),
        ('["a", 1]', None),
        ("1. a\n2. b", None),
        ('Here: ["a"]', None),
    ],
)
def test_only_a_list_of_texts_is_an_answer(answer, questions):
    assert parse(answer) == questions


def test_one_passage_that_is_refused_does_not_end_the_others(ask, chat):
    chat.faults = [failure(400, "too many tokens")]
    result = ask(requests=1)
    assert len(result["pairs"]) == len(TEXTS) - 1
    assert result["answers"]["refused"] == 1


def test_a_server_that_refuses_everything_ends_the_command(ask, chat):
    chat.faults = [failure(404, "no model `tiny`")] * len(TEXTS)
    with pytest.raises(EndpointError, match="refuses every request: status 404: no model `tiny`"):
        ask()


def test_a_missing_key_is_named(ask, chat):
    chat.faults = [failure(401, "You did not provide an API key")] * 99
    with pytest.raises(EndpointError, match="set OPENAI_API_KEY in the environment"):
        ask()


def test_the_key_is_in_no_message_and_no_file(ask, chat, monkeypatch, tmp_path, caplog):
    secret = "sk-a-secret-of-mine"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    ask()
    assert {body["key"] for body in chat.requests} == {f"Bearer {secret}"}
    chat.faults = [failure(401, f"Incorrect API key provided: {secret}")] * 99
    with pytest.raises(EndpointError, match="check OPENAI_API_KEY") as caught:
        ask(temperature=0.1)
    assert secret not in str(caught.value)
    assert secret not in caplog.text
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_prompt_holds_title_count_and_examples(make, chat, tmp_path):
    (tmp_path / "titled.jsonl").write_text(json.dumps({"text": "All of {title}.", "title": "Ships"}) + "\n")
    examples = [{"anchor": "who sails?", "positive": "A sailor sails."}]
    common = {"endpoint": chat.address, "generator": "tiny", "per_passage": 2}
    prompt = "{count} for {title}: {passage}{examples}"
    make(tmp_path / "titled.jsonl", "endpoint", prompt=prompt, examples=examples, **common)
    assert chat.asked == ['2 for Ships: All of {title}.\nA sailor sails.\n["who sails?"]\n']
    assert "{passage}" in PROMPT


def test_killed_anywhere_no_request_is_made_twice_and_the_file_is_the_same(ask, chat, tmp_path):
    whole = ask(requests=1)["pairs"]
    calls = tmp_path / "calls"
    (tmp_path / "pairs.jsonl.answers.sqlite").unlink()
    assert run_in_child(lambda: calls.write_text(str(at_call(lambda: ask(requests=1), -1)))) == 0
    for share in (0.4, 0.6, 0.8):
        (tmp_path / "pairs.jsonl.answers.sqlite").unlink(missing_ok=True)
        (tmp_path / "pairs.jsonl").unlink(missing_ok=True)
        chat.requests.clear()
        place = int(share * int(calls.read_text()))
        run_in_child(lambda place=place: at_call(lambda: ask(requests=1), place))
        kept = _answers(tmp_path / "pairs.jsonl.answers.sqlite")
        before = len(chat.requests)
        assert ask(requests=1)["pairs"] == whole
        assert len(chat.requests) - before == len(TEXTS) - kept
        assert before - kept <= 1  # the one that was under way


def _answers(path):
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return database.execute("SELECT count(*) FROM answers").fetchone()[0] if tables else 0


@pytest.mark.parametrize("wrong", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port/v1"])
def test_an_address_that_is_none_is_refused(ask, wrong):
    with pytest.raises(RecipeError, match="--endpoint: expected an address, such as"):
        ask(endpoint=wrong)


def test_retry_after_is_seconds_or_a_date():
    assert seconds_to_wait({"Retry-After": "7"}) == 7
    assert seconds_to_wait({}) == 0
    assert seconds_to_wait({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert seconds_to_wait({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}) > 1e9
    assert seconds_to_wait({"Retry-After": "soon"}) == 0
