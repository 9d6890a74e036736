"""SIGTERM and SIGINT end a run at once where nothing is lost by it, and never lose more than the step in hand."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from draws import every
from processes import at_call, run_in_child, send

import stfit.commands.train as train_module
from stfit.commands.train import train
from stfit.errors import InterruptedRun
from stfit.events import Evaluated, StepInfo
from stfit.recipe.load import load_recipe
from stfit.runtime import signals
from stfit.training import checkpoint, gradients
from stfit.workflows.train import batches, session

NOT_STRUCK = 77
"""Exit code of a run whose last evaluation was over before its signal came."""
OFTEN = {"max_steps": 8, "save_every_steps": 3, "eval_every_steps": 2, "best": "scores/spearman_cosine"}


def struck_before(function, number, call=1):
    """The function, but its call of that number is preceded by a signal."""
    calls = 0

    def wrapped(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            send(number)
        return function(*arguments, **options)

    return wrapped


def weights(runs):
    return (runs / "tiny" / "model" / "model.safetensors").read_bytes()


def steps_of(runs, event="step"):
    path = runs / "tiny" / "metrics.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [entry["step"] for entry in entries if entry["event"] == event]


def saved_step(runs):
    names = [path.name for path in (runs / "tiny" / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


PLACES = {
    "data preparation": (train_module, "load_and_validate", 1),
    "building the model": (train_module, "build_encoder", 1),
    "tokenising": (batches, "tokenize_examples", 1),
    "the first evaluation": (session, "measure", 1),
    "an evaluation": (session, "measure", 2),
    "saving": (checkpoint, "write_manifest", 1),
    "rotation": (session, "delete_old_checkpoints", 2),
    "writing the best model": (session, "save_encoder", 1),
    "the last evaluation": (session, "load_encoder", 1),
}


@pytest.mark.parametrize(("module", "name", "call"), every(3, PLACES.values()), ids=PLACES)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, id="TERM"),
        pytest.param(signal.SIGINT, 130, id="INT", marks=pytest.mark.slow),
    ],
)
def test_signal_anywhere_ends_the_run_and_loses_nothing(tmp_path, write, similarity, number, code, module, name, call):
    recipe, runs = write(eval=[similarity], train=OFTEN), tmp_path / "struck"
    list(train(load_recipe(recipe), tmp_path / "whole"))

    def strike():
        setattr(module, name, struck_before(getattr(module, name), number, call))
        list(train(load_recipe(recipe), runs))

    output = tmp_path / "output"
    assert run_in_child(strike, output) == code, output.read_text()
    assert saved_step(runs) == max(steps_of(runs), default=0)
    list(train(load_recipe(recipe), runs))
    assert weights(runs) == weights(tmp_path / "whole")
    assert steps_of(runs) == list(range(1, 9))
    assert steps_of(runs, "eval") == [0, 2, 4, 6, 8]


def test_second_signal_leaves_at_once(tmp_path, write):
    def strike():
        for event in train(load_recipe(write()), tmp_path / "runs"):
            if isinstance(event, StepInfo) and event.step == 3:
                send(signal.SIGINT)
                send(signal.SIGINT)

    assert run_in_child(strike) == 130
    assert saved_step(tmp_path / "runs") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("first", "number"), [(4, 0), (1, 5)], ids=["without a graph", "with its gradient"])
def test_step_that_takes_too_long_is_given_up_between_mini_batches(tmp_path, write, similarity, first, number):
    """Four rows in mini-batches of one are eight calls a step: `first` is the step that the signal comes in."""
    recipe, runs = write(eval=[similarity], train=OFTEN | {"mini_batch_size": 1}), tmp_path / "runs"
    list(train(load_recipe(recipe), tmp_path / "whole"))

    def strike():
        signals.SIGNAL_PATIENCE = 0.0
        gradients.embed = struck_before(gradients.embed, signal.SIGTERM, 8 * (first - 1) + number + 1)
        list(train(load_recipe(recipe), runs))

    output = tmp_path / "output"
    assert run_in_child(strike, output) == 143, output.read_text()
    assert f"step {first - 1} is saved" in output.read_text()
    assert (steps_of(runs), saved_step(runs)) == (list(range(1, first)), first - 1)
    list(train(load_recipe(recipe), runs))
    assert weights(runs) == weights(tmp_path / "whole")
    assert steps_of(runs) == list(range(1, 9))
    assert steps_of(runs, "eval") == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("module", "name", "steps"),
    [(train_module, "load_and_validate", []), (session, "load_encoder", list(range(1, 9)))],
    ids=["preparation", "the last evaluation"],
)
def test_signal_whose_exception_is_lost_is_remembered(tmp_path, write, similarity, module, name, steps):
    """Python drops what is raised while it clears an object away."""

    class Struck:
        def __del__(self):
            send(signal.SIGTERM)

    def losing(function):
        def wrapped(*arguments):
            Struck()
            return function(*arguments)

        return wrapped

    def strike():
        setattr(module, name, losing(getattr(module, name)))
        sys.unraisablehook = lambda lost: None
        list(train(load_recipe(write(eval=[similarity], train=OFTEN)), tmp_path / "runs"))

    output = tmp_path / "output"
    assert run_in_child(strike, output) == 143, output.read_text()
    assert steps_of(tmp_path / "runs") == steps
    assert saved_step(tmp_path / "runs") == len(steps)


def test_library_that_waits_for_its_threads_does_not_hold_a_signal_up(tmp_path, write):
    """As a download does, while its server says nothing."""

    def strike():
        signals.SIGNAL_PATIENCE = 0.1

        def stuck(*arguments):
            with ThreadPoolExecutor() as pool:
                pool.submit(threading.Event().wait)
                send(signal.SIGTERM)

        train_module.load_and_validate = stuck
        list(train(load_recipe(write()), tmp_path / "runs"))

    assert run_in_child(strike) == 143


def test_interruption_is_no_failure_that_a_library_would_catch():
    assert not issubclass(InterruptedRun, Exception)


def test_ignored_hangup_stays_ignored_and_another_one_stops(tmp_path, write):
    def strike(handler):
        signal.signal(signal.SIGHUP, handler)
        for event in train(load_recipe(write()), tmp_path / handler.name):
            if isinstance(event, StepInfo) and event.step == 3:
                send(signal.SIGHUP)

    assert run_in_child(lambda: strike(signal.SIG_IGN)) == 0
    assert run_in_child(lambda: strike(signal.SIG_DFL)) == 129
    assert saved_step(tmp_path / "SIG_DFL") == 3


@pytest.mark.slow
def test_signal_during_a_download_ends_the_run_in_time(tmp_path, write):
    """The server takes the request, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "stfit", "train", str(write(model={"base": "me/base"}))]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as child:
            held, _ = server.accept()
            start = time.monotonic()
            child.send_signal(signal.SIGTERM)
            _, errors = child.communicate(timeout=60)
            held.close()
    assert child.returncode == 143, errors
    assert "Traceback" not in errors
    assert time.monotonic() - start < 30  # 10 s are promised, on a machine that does nothing else


@pytest.mark.slow
def test_fifty_signals_at_random(tmp_path, write, similarity, promise):
    """Drawn from the calls up to the last evaluation: the card that is written after it makes half of all calls."""
    recipe = write(eval=[similarity], train=OFTEN)
    counted = tmp_path / "calls"

    def start(runs):
        return list(train(load_recipe(recipe), runs))

    def measure_last(runs):
        measured = (event for event in train(load_recipe(recipe), runs) if isinstance(event, Evaluated))
        while next(measured).step < OFTEN["max_steps"]:
            pass
        next(measured)  # of the best model

    start(tmp_path / "whole")
    assert run_in_child(lambda: counted.write_text(str(at_call(lambda: measure_last(tmp_path / "counted"), -1)))) == 0
    draw = random.Random(3)
    codes, lost, missed = [], 0, 0
    while len(codes) < 50:
        number = len(codes) + missed
        runs, call = tmp_path / f"struck{number}", draw.randrange(1, int(counted.read_text()))

        def strike(runs=runs, call=call):
            if at_call(partial(measure_last, runs), call, partial(send, signal.SIGTERM)) < call:
                sys.exit(NOT_STRUCK)  # waiting for a thread takes calls, on a busy machine more of them

        output = tmp_path / f"output{number}"
        code = run_in_child(strike, output)
        if code == NOT_STRUCK:
            missed += 1
            assert missed <= 5
            continue
        codes.append(code)
        assert codes[-1] in (143, -15), output.read_text()
        assert codes[-1] != -15 or not steps_of(runs)  # before anything began
        if codes[-1] == 143:
            lost += max(steps_of(runs), default=0) - saved_step(runs)
        assert run_in_child(partial(start, runs)) == 0
        assert weights(runs) == weights(tmp_path / "whole")
    struck = codes.count(143)
    promise("SIGTERM at any call: exit code 143", f"{struck}/50 ({50 - struck} before signals were handled)")
    promise("SIGTERM at any call: steps lost", f"{lost}")
    assert lost == 0
    assert struck > 45
