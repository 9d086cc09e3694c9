"""A sweep of W&B's, against a stand-in that answers as the service does. The service itself was never asked."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from scripted import Scripted, ledger, quick, states  # noqa: F401

from genlab.config.overrides import parse
from genlab.errors import ConfigError, ResourceError
from genlab.sweep import wandb as ours
from genlab.sweep.loop import Sweep, TrialsFailed
from genlab.sweep.plan import read_plan

pytestmark = pytest.mark.usefixtures("quick")


class Service:
    """What the two mutations of an agent's answer: one command after the other, then that it is over."""

    def __init__(self) -> None:
        self.commands: list[list[dict[str, Any]]] = []
        self.asked: list[dict[str, Any]] = []
        self.logins: set[str] = set()
        self.sent: list[dict[str, Any]] = []  # by the processes that report

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(variables)
        if "createAgent" in query:
            return {"data": {"createAgent": {"agent": {"id": "agent-1"}}}}
        assert variables["id"] == "agent-1"
        commands = self.commands.pop(0) if self.commands else [{"type": "exit"}]
        return {"data": {"agentHeartbeat": {"agent": {"id": "agent-1"}, "commands": json.dumps(commands)}}}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    it = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/graphql"
            it.logins.add(self.headers["Authorization"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(it.answer(body["query"], body["variables"])).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: Any) -> None:
            pass

    class Process:
        def __init__(self, command: list[str], stdin: int, start_new_session: bool):
            assert command[1:] == ["-m", "genlab.sweep.wandb"]
            self.stdin = SimpleNamespace(write=lambda text: it.sent.append(json.loads(text)), close=lambda: None)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    config = {"metric": {"name": "fid", "goal": "minimize"}, "parameters": {"seed": {"values": [0, 1, 2]}}}
    api = SimpleNamespace(api_key="k" * 40, settings={"base_url": f"http://127.0.0.1:{server.server_port}"},
                          sweep=lambda path: SimpleNamespace(config=config))  # fmt: skip
    monkeypatch.setattr(wandb, "Api", lambda timeout: api)
    monkeypatch.setattr(ours, "_PAUSE", 0.0)
    monkeypatch.setattr(ours, "subprocess", SimpleNamespace(Popen=Process, PIPE=-1))
    monkeypatch.delenv("WANDB_MODE")
    yield it
    server.shutdown()
    server.server_close()


def proposed(run: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "run", "run_id": run, "args": {name: {"value": value} for name, value in arguments.items()}}


def run(launcher: Scripted, outputs: Path, *typed: str) -> None:
    own = ["sweep=wandb", "sweep.id=me/pictures/s1", "sweep.metric=fid", "sweep.direction=lower", "sweep.retries=0"]
    plan = read_plan([f"outputs={outputs}", "sweep.name=s", *own, *typed], None)
    Sweep(replace(plan, launcher=launcher)).run()


def test_what_the_service_proposes_is_run_and_sent_back(outputs: Path, service: Service) -> None:
    service.commands = [[proposed("r0", seed=0)], [], [proposed("r1", seed=1), proposed("r2", seed=2)]]
    launcher = Scripted({"seed=1": ["raise"]})
    with pytest.raises(TrialsFailed):
        run(launcher, outputs, "data=digits")
    assert [trial["overrides"] for trial in ledger(outputs)] == [["data=digits", f"seed={i}"] for i in range(3)]
    assert states(outputs) == ["finished", "failed", "finished"]
    assert service.asked[0]["sweep"] == "s1"
    assert (service.asked[0]["entityName"], service.asked[0]["projectName"]) == ("me", "pictures")
    assert service.logins == {"Basic " + base64.b64encode(b"api:" + b"k" * 40).decode()}
    told = [(sent["run"], sent["values"], sent["exit_code"], sent["config"]["seed"]) for sent in service.sent]
    assert told == [("r0", {"fid": 1.0}, 0, "0"), ("r1", {}, 1, "1"), ("r2", {"fid": 1.0}, 0, "2")]
    assert service.sent[0]["sweep"] == "s1"


def test_the_same_command_again_tells_of_the_same_run(outputs: Path, service: Service) -> None:
    service.commands = [[proposed("r0", seed=0)]]
    with pytest.raises(TrialsFailed):
        run(Scripted({"seed=0": ["save_and_die"]}), outputs)
    service.commands = [[proposed("r1", seed=1)]]
    run(Scripted(), outputs, "sweep.n_trials=2")
    assert states(outputs) == ["finished", "finished"]
    assert [(sent["run"], sent["exit_code"]) for sent in service.sent] == [("r0", -9), ("r0", 0), ("r1", 0)]


def test_an_agent_that_is_given_nothing_leaves(outputs: Path, service: Service) -> None:
    service.commands = [[], [], [], [proposed("late", seed=1)]]
    run(Scripted(), outputs)
    assert ledger(outputs) == []


def test_the_service_says_what_runs(outputs: Path, service: Service) -> None:
    service.commands = [[proposed("r0", seed=0)], [proposed("r1", seed=1)]]
    run(Scripted(slots=2), outputs, "sweep.n_trials=2")
    assert [json.loads(asked["runState"]) for asked in service.asked[1:3]] == [{}, {"r0": "running"}]


@pytest.mark.parametrize(
    "arguments",
    [
        {"folder": "/somewhere", "run": "/somewhere"},
        {"metrics.pass_at_k.allow_code": True},
        {"metrics.pass_at_k": {"problems": "p", "allow_code": True}},
    ],
)
def test_a_proposal_of_what_only_a_user_types_is_refused(
    arguments: dict[str, Any], outputs: Path, service: Service
) -> None:
    asked = {name: {"value": value} for name, value in arguments.items()}
    service.commands = [[{"type": "run", "run_id": "r0", "args": asked}]]
    launcher = Scripted()
    with pytest.raises(ConfigError, match=r"W&B proposes an invalid trial: .*Change its sweep"):
        run(launcher, outputs)
    assert not launcher.started


def test_values_are_as_they_would_be_typed() -> None:
    values = {"a": 1e-05, "b": True, "c": None, "d": "two words", "e": [1, "x"], "f": "it's", "g": {"h": 2}, "i": "a,b",
              "j": "${oc.env:HOME}", "k": "unet"}  # fmt: skip
    typed = ours.overrides_of({name: {"value": value} for name, value in values.items()})
    parsed = parse(typed)
    assert not any(override.is_sweep_override() for override in parsed)
    plain = {k: v for k, v in values.items() if k != "j"}
    read = {override.key_or_group: getattr(override.value(), "text", override.value()) for override in parsed}
    assert {name: read[name] for name in plain} == plain


def test_what_cannot_be_is_said_at_once(service: Service, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"sweep[.]id=s1 must be entity/project/sweep"):
        read_plan(["sweep=wandb", "sweep.id=s1"], None)
    with pytest.raises(ConfigError, match="seed has several values, but W&B chooses the values"):
        read_plan(["sweep=wandb", "sweep.id=a/b/c", "seed=0,1"], None)
    monkeypatch.setattr(service, "answer", lambda *asked: {"errors": [{"message": "sweep s1 is not running"}]})
    with pytest.raises(ResourceError, match=r"W&B does not answer what to run \(sweep s1 is not running\)"):
        run(Scripted(), outputs)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ConfigError, match="sweep=wandb needs the service, and WANDB_MODE=offline"):
        read_plan(["sweep=wandb", "sweep.id=a/b/c"], None)


def test_a_trial_is_a_run_of_that_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    run = SimpleNamespace(log=done.append, finish=lambda exit_code: done.append(exit_code))
    monkeypatch.setattr(wandb, "init", lambda **told: done.append(told) or run)
    ours.send({"entity": "me", "project": "p", "sweep": "s1", "run": "r0", "config": {"seed": "0"},
               "values": {"fid": 1.0}, "exit_code": 0})  # fmt: skip
    assert (done[0]["id"], done[0]["settings"].sweep_id, done[0]["resume"]) == ("r0", "s1", "allow")
    assert done[1:] == [{"fid": 1.0}, 0]
