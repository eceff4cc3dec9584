"""`sync`: what it asks for, and with wandb's own command against a server on this machine that answers as wandb's."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import wandb
from following import write

from o2o.runs.recording.tracker import open_tracker


def tracked(path: Path, *names: str) -> list[Path]:
    found = []
    for name in names:
        part = path / "wandb" / "wandb" / f"offline-run-{name}-abc"
        part.mkdir(parents=True)
        (part / "run-abc.wandb").write_bytes(b"rows")
        found.append(part)
    return found


@pytest.fixture
def uploads(monkeypatch):
    """Somebody is logged in, and uploading succeeds; returns the calls."""
    from o2o.runs.recording import tracker

    calls = []

    def run(command, **options):
        paths = command[command.index("--yes") + 1 :]
        calls.append([Path(word).name for word in paths])
        for word in paths:
            (Path(word) / "run-abc.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tracker, "logged_in", lambda: True)
    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_sync_uploads_all_parts_of_runs_that_rest_once(tmp_path, say, uploads):
    tracked(write(tmp_path, seed=0, end="DONE"), "20260101_000000", "20260102_000000")
    tracked(write(tmp_path, seed=1, steps=[500]), "20260103_000000")
    code, said = say("sync")
    assert code == 0
    assert uploads == [["offline-run-20260101_000000-abc", "offline-run-20260102_000000-abc"]]
    assert "1 run under way" in said
    assert "nothing to upload" in say("sync")[1]
    assert len(uploads) == 1


def test_sync_without_a_login_is_bad_input(tmp_path, say, monkeypatch):
    from o2o.runs.recording import tracker

    monkeypatch.setattr(tracker, "logged_in", lambda: False)
    (part,) = tracked(write(tmp_path, end="DONE"), "20260101_000000")
    assert say("sync", "--dry-run")[0] == 0
    code, said = say("sync")
    assert code == 2
    assert "wandb login" in said
    assert not list(part.glob("*.synced"))


def test_sync_ends_when_the_network_does_not_answer(tmp_path, say, uploads, monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    tracked(write(tmp_path, end="DONE"), "20260101_000000")
    code, said = say("sync", "--timeout", "3")
    assert code == 1
    assert "within 3 s" in said
    assert "not uploaded" in said


class Server(http.server.ThreadingHTTPServer):
    """Takes what is uploaded; `rows` has the rows of every run's history, as they came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Requests)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.rows = {}

    def handle_error(self, request, client_address):
        """Nothing: wandb closes connections without a word."""


class Requests(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = {}
        if self.path == "/graphql":
            answer = {"data": self.answer(json.loads(body))}
        elif self.path.endswith("/file_stream"):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.rows.setdefault(self.path.split("/")[-2], []).extend(map(json.loads, lines))
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST  # noqa: N815

    def answer(self, asked):
        given = asked["variables"]
        if "upsertBucket" in asked["query"]:
            project = {"id": "p", "name": "project", "entity": {"id": "e", "name": "somebody"}}
            bucket = {"id": "b", "name": given["name"], "historyLineCount": 0, "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "createRunFiles" in asked["query"]:
            places = [{"name": name, "uploadUrl": f"{self.server.address}/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": places}}
        return {}


@pytest.fixture
def server():
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.mark.slow
def test_what_was_tracked_offline_arrives_at_the_server_once_and_what_is_under_way_waits(
    server, tmp_path, monkeypatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    runs = {
        "ended": write(tmp_path, seed=0, end="DONE"),
        "alive": write(tmp_path, seed=1, steps=[500]),
    }
    for name, path in runs.items():
        tracker = open_tracker("offline", "project", name, "group", [], {"seed": 0}, path / "wandb")
        for step in (0, 500, 1000):
            tracker.log({"phase": "finetune", "step": step, "score": step / 10})
        tracker.finish()
    wandb.teardown()  # as the end of the process does
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WANDB_BASE_URL": server.address,
        "WANDB_API_KEY": "0" * 40,
    }

    (tmp_path / "json.py").write_text("raise SystemExit('a file of the user')")

    def sync():
        command = [
            sys.executable,
            "-P",
            "-m",
            "o2o.sweep",
            "sync",
            "--runs",
            str(tmp_path),
            "--timeout",
            "200",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    code, said = sync()
    assert (code, "uploaded 1 of 1 part" in said) == (0, True), said
    assert "1 run under way" in said
    assert [(row["step"], row["finetune/score"]) for row in server.rows.pop("ended")] == [
        (0, 0.0), (500, 50.0), (1000, 100.0),
    ]  # fmt: skip
    assert server.rows == {}
    code, said = sync()
    assert (code, "nothing to upload" in said) == (0, True), said
    assert server.rows == {}
