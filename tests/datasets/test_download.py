"""The downloader against a real HTTP server on the loopback, which misbehaves as it is told."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import os
import queue
import shutil
import signal
import socket
import struct
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from o2o.datasets import __main__ as command
from o2o.datasets import d4rl
from o2o.datasets.files import download
from o2o.errors import ConfigError
from o2o.machine.signals import Interruption

SIZE = 300_000
DATA = download.HDF5_SIGNATURE + np.random.default_rng(0).bytes(SIZE - 8)
SHA256 = hashlib.sha256(DATA).hexdigest()
PAGE = b"<html><title>Sign in to the network</title></html>"

Answer = Callable[[Any], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers the n-th request as the n-th of `script` does, and all after its end as its last one does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = [in_ranges]
        self.ranges: list[str | None] = []
        """What each request asked for."""
        self.paths: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/set.hdf5"
        self._lock = threading.Lock()

    def next_answer(self, handler: Any) -> Answer:
        with self._lock:
            self.ranges.append(handler.headers["Range"])
            self.paths.append(handler.path)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may hang up; that is its right."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.next_answer(self)(self)

    def log_message(self, *arguments: Any) -> None:
        """Not of interest."""

    def head(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def start(self) -> int:
        """The first byte that was asked for."""
        asked = self.headers["Range"]
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0

    def hang_up(self) -> None:
        """Breaks the connection, as a cable does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def whole(handler: Handler) -> None:
    """All of it, whatever was asked for: a server without ranges."""
    handler.head(200, Content_Length=SIZE)
    handler.wfile.write(DATA)


def in_ranges(handler: Handler, until: int = SIZE, data: bytes = DATA) -> None:
    """What was asked for."""
    start = handler.start()
    if start:
        handler.head(206, Content_Length=SIZE - start, Content_Range=f"bytes {start}-{SIZE - 1}/{SIZE}")
    else:
        handler.head(200, Content_Length=SIZE)
    handler.wfile.write(data[start:until])


def breaks_after(count: int) -> Answer:
    """Gives so many bytes more than were there, then the connection is reset."""

    def answer(handler: Handler) -> None:
        in_ranges(handler, until=handler.start() + count)
        handler.hang_up()

    return answer


def ends_after(count: int) -> Answer:
    """Announces everything, gives so many bytes, and closes politely."""
    return lambda handler: in_ranges(handler, until=handler.start() + count)


def corrupted(handler: Handler) -> None:
    in_ranges(handler, data=DATA[:1000] + b"\0" + DATA[1001:])


def announces(size: int) -> Answer:
    """Lies about the file's length."""

    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=size)
        handler.wfile.write((DATA + DATA)[:size])

    return answer


def endless(handler: Handler) -> None:
    """Announces nothing, and sends more than there is."""
    handler.head(200)
    handler.wfile.write(DATA + DATA)


def of_another_length(handler: Handler) -> None:
    """A range of a file that is not the published one."""
    start = handler.start()
    handler.head(206, Content_Length=10, Content_Range=f"bytes {start}-{start + 9}/{start + 10}")
    handler.wfile.write(b"0123456789")


def another_range(handler: Handler) -> None:
    """Not what was asked for."""
    handler.head(206, Content_Length=SIZE - 5, Content_Range=f"bytes 5-{SIZE - 1}/{SIZE}")
    handler.wfile.write(DATA[5:])


def page(handler: Handler) -> None:
    """A proxy's page, with a status of success."""
    handler.head(200, Content_Type="text/html; charset=utf-8", Content_Length=len(PAGE))
    handler.wfile.write(PAGE)


def page_of_unknown_length(handler: Handler) -> None:
    handler.head(200, Content_Type="text/html")
    handler.wfile.write(PAGE)


def status(code: int) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0)


def silent(handler: Handler) -> None:
    """Begins, and then says nothing more."""
    handler.head(200, Content_Length=SIZE)
    handler.wfile.write(DATA[:1000])
    handler.wfile.flush()
    threading.Event().wait(2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download, "PROGRESS_BYTES", 50_000)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "set.hdf5"


def fetch(server: Server, path: Path, *script: Answer) -> None:
    server.script = list(script)
    download.download([server.url], path, SIZE, SHA256)


def refusal(server: Server, path: Path, *script: Answer) -> str:
    """The one message with which it ends; nothing of the file is there then."""
    with pytest.raises(ConfigError) as caught:
        fetch(server, path, *script)
    (problem,) = caught.value.problems
    assert not path.exists()
    return problem


def files(path: Path) -> set[str]:
    """What lies beside it and is not empty."""
    return {p.name for p in path.parent.iterdir() if p.stat().st_size}


@pytest.mark.parametrize("answer", [in_ranges, whole])
def test_a_file_is_downloaded_and_nothing_else_is_left(server: Server, path: Path, answer: Answer):
    fetch(server, path, answer)
    assert path.read_bytes() == DATA
    assert files(path) == {"set.hdf5"}
    assert server.ranges == [None]


def test_a_file_that_is_there_is_not_asked_for(server: Server, path: Path):
    path.parent.mkdir()
    path.write_bytes(b"whatever it is")
    fetch(server, path, in_ranges)
    assert server.ranges == []


@pytest.mark.parametrize("stop", [breaks_after, ends_after])
def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, path: Path, stop: Any):
    fetch(server, path, stop(100_000), stop(60_000), stop(80_000), in_ranges)
    assert path.read_bytes() == DATA
    assert files(path) == {"set.hdf5"}
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0 for asked in server.ranges]
    assert starts[0] == 0
    assert starts == sorted(set(starts))  # each connection went on from where the last one had come
    assert len(starts) == 4


def test_a_server_without_ranges_is_asked_for_everything_again(server: Server, path: Path):
    fetch(server, path, ends_after(100_000), whole)
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-"]


def test_failures_are_forgiven_as_long_as_there_is_progress_between_them(server: Server, path: Path):
    fetch(server, path, *[status(503), status(503), ends_after(60_000)] * 4, in_ranges)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(503), "HTTP 503"),
        (ends_after(10), "the connection ended after 40 of 300000 bytes"),
        (silent, "timed out"),
    ],
)
def test_without_progress_it_gives_up_and_the_next_command_goes_on(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    problem = refusal(server, path, ends_after(100_000) if answer is silent else answer, answer)
    assert reason in problem
    assert len(server.ranges) >= 4
    kept = files(path)
    assert kept <= {"set.hdf5.partial"}
    assert ("are kept, and the same command goes on from there" in problem) == bool(kept)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 30)
    asked = len(server.ranges)
    fetch(server, path, in_ranges)
    assert path.read_bytes() == DATA
    assert bool(server.ranges[asked]) == bool(kept)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status(403), "HTTP 403 Forbidden"),
        (status(404), "HTTP 404 Not Found"),
        (status(407), "HTTP 407"),
        (page, f"{len(PAGE)} bytes of text/html instead of the 300000 that were published"),
        (page_of_unknown_length, "not an HDF5 file, but one that begins with '<html>"),
        (announces(1000), "1000 bytes of text/plain instead of the 300000"),
        (announces(300_001), "300001 bytes of text/plain instead of the 300000"),
        (endless, "more than the 300000 bytes that were published"),
        (corrupted, "do not have the published SHA-256"),
    ],
)
def test_what_is_not_the_published_file_is_refused_with_the_reason_and_nothing_is_left(
    server: Server, path: Path, answer: Answer, reason: str
):
    problem = refusal(server, path, answer)
    assert reason in problem
    for part in (server.url, "O2O_MIRRORS", "paths.mirrors", str(path)):
        assert part in problem
    assert len(problem.splitlines()) <= 6
    assert files(path) == set()
    assert len(server.ranges) == 1  # trying again would not help


@pytest.mark.parametrize("answer", [of_another_length, another_range])
def test_a_server_that_sends_another_range_is_refused(server: Server, path: Path, answer: Answer):
    problem = refusal(server, path, ends_after(100_000), answer)
    assert "for the bytes from 100000 on of 300000" in problem


def test_what_was_begun_from_other_bytes_is_downloaded_once_more_from_the_beginning(
    server: Server, path: Path
):
    path.parent.mkdir()
    path.with_name("set.hdf5.partial").write_bytes(b"other bytes")
    fetch(server, path, in_ranges)
    assert path.read_bytes() == DATA
    assert server.ranges == ["bytes=11-", None]


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_a_leftover_that_is_too_long_or_wrong_is_replaced(server: Server, path: Path, size: int):
    path.parent.mkdir()
    path.with_name("set.hdf5.partial").write_bytes(bytes(size))
    fetch(server, path, in_ranges)
    assert path.read_bytes() == DATA


def test_a_mirror_is_tried_first_and_the_next_place_goes_on_with_what_it_gave(server: Server, path: Path):
    server.script = [ends_after(100_000), status(403), in_ranges]
    download.download([server.url + "?mirror", server.url], path, SIZE, SHA256)
    assert path.read_bytes() == DATA
    assert server.paths == ["/set.hdf5?mirror", "/set.hdf5?mirror", "/set.hdf5"]
    assert server.ranges[-1] == "bytes=100000-"


DOWN = {
    "nobody listens": "http://127.0.0.1:9/set.hdf5",
    "no such host": "http://sets.invalid/set.hdf5",
    "HTTP 500": status(500),
    "HTTP 503": status(503),
    "HTTP 404": status(404),
    "HTTP 403": status(403),
    "other bytes": corrupted,
    "another file": announces(1000),
    "a page": page,
    "silence": lambda handler: threading.Event().wait(1),
    "a hang-up": lambda handler: handler.hang_up(),
}


@pytest.mark.parametrize("how", DOWN)
def test_a_second_place_is_tried_at_once_when_the_first_is_down(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
):
    monkeypatch.setattr(download, "WAITS", (60.0,))
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.5)
    first = DOWN[how]
    url = first if isinstance(first, str) else server.url + "?first"
    server.script = [in_ranges] if isinstance(first, str) else [first, in_ranges]
    download.download([url, server.url], path, SIZE, SHA256)
    assert path.read_bytes() == DATA
    assert files(path) == {"set.hdf5"}
    assert server.paths == ["/set.hdf5?first"] * (not isinstance(first, str)) + ["/set.hdf5"]
    assert f"; trying {server.url}\n" in capsys.readouterr().err


def test_places_whose_failure_may_pass_are_asked_again_when_none_had_it(server: Server, path: Path):
    server.script = [status(503), status(404), status(503), in_ranges]
    download.download([server.url + "?first", server.url], path, SIZE, SHA256)
    assert path.read_bytes() == DATA
    assert server.paths == ["/set.hdf5?first", "/set.hdf5", "/set.hdf5?first", "/set.hdf5?first"]


def test_when_both_are_down_both_are_named_and_what_was_received_is_kept(server: Server, path: Path):
    server.script = [ends_after(100_000), *[status(503)] * 4, status(502)]
    with pytest.raises(ConfigError) as caught:
        download.download([server.url + "?first", server.url], path, SIZE, SHA256)
    told = str(caught.value)
    assert f"  {server.url}?first: HTTP 502" in told
    assert f"  {server.url}: HTTP 502" in told
    assert "0.1 MB are kept" in told
    assert path.with_name("set.hdf5.partial").read_bytes() == DATA[:100_000]


def test_what_one_place_began_with_other_bytes_is_downloaded_anew_from_the_next(server: Server, path: Path):
    def spoiled(handler: Handler) -> None:
        in_ranges(handler, until=100_000, data=DATA[:1000] + b"\0" + DATA[1001:])

    server.script = [spoiled, status(404), in_ranges]
    download.download([server.url + "?first", server.url], path, SIZE, SHA256)
    assert path.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=100000-", None]


def test_a_place_that_sends_one_on_is_followed_to_where_the_rest_of_the_file_is(server: Server, path: Path):
    def elsewhere(handler: Handler) -> None:
        handler.head(302, Location="/store/set.hdf5", Content_Length=0)

    path.parent.mkdir()
    path.with_name("set.hdf5.partial").write_bytes(DATA[:100_000])
    fetch(server, path, elsewhere, in_ranges)
    assert path.read_bytes() == DATA
    assert server.paths == ["/set.hdf5", "/store/set.hdf5"]
    assert server.ranges == ["bytes=100000-", "bytes=100000-"]


def test_all_places_are_named_when_none_has_it(server: Server, path: Path):
    server.script = [status(403), corrupted]
    with pytest.raises(ConfigError) as caught:
        download.download([server.url + "?mirror", server.url], path, SIZE, SHA256)
    text = str(caught.value)
    assert f"{server.url}?mirror: HTTP 403" in text
    assert f"{server.url}: its bytes do not have" in text


def test_nobody_listening_is_told_at_once(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(download, "WAITS", (60.0,))
    with pytest.raises(ConfigError, match="refused"):
        download.download(["http://127.0.0.1:9/set.hdf5"], path, SIZE, SHA256)


def test_a_proxys_error_page_is_told_as_such(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    server.script = [page]
    with pytest.raises(ConfigError, match="a proxy's page"):
        download.download(["http://sets.invalid/set.hdf5"], path, SIZE, SHA256)
    assert server.paths == ["http://sets.invalid/set.hdf5"]


def test_a_disk_without_room_is_told_before_anything_is_downloaded(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9, 100_000))
    problem = refusal(server, path, in_ranges)
    assert "needs 0.3 MB, but only 0.1 MB are free" in problem
    assert server.ranges == []


def test_a_disk_that_fills_up_is_told_and_nothing_is_left_on_it(server: Server, path: Path):
    path.parent.mkdir()
    path.with_name("set.hdf5.partial").symlink_to("/dev/full")
    problem = refusal(server, path, in_ranges)
    assert "No space left on device" in problem
    assert "O2O_DATA" in problem
    assert files(path) == set()


def test_a_directory_that_cannot_be_written_is_told(server: Server, tmp_path: Path):
    (tmp_path / "data").touch()
    assert "O2O_DATA" in refusal(server, tmp_path / "data" / "set.hdf5", in_ranges)


def test_an_address_that_is_none_is_told(path: Path):
    with pytest.raises(ConfigError, match="Invalid IPv6 URL"):
        download.download(["http://[sets/set.hdf5"], path, SIZE, SHA256)


def test_places_that_are_not_http_are_refused(path: Path):
    with pytest.raises(ConfigError, match=r"file:///etc/passwd: paths\.mirrors"):
        download.download(["file:///etc/passwd"], path, SIZE, SHA256)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_download_that_is_told_to_stop_does_so_at_once_and_the_next_command_goes_on(
    server: Server, path: Path, number: int, kind: type[BaseException]
):
    def interrupts(handler: Handler) -> None:
        in_ranges(handler, until=100_000)
        partial = path.parent / "set.hdf5.partial"
        # Not before the first bytes are there: a signal inside of open() leaves a file that nobody can close.
        while not partial.exists() or not partial.stat().st_size:
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        time.sleep(1)

    server.script = [interrupts]
    with Interruption() as stop, pytest.raises(kind):
        download.download([server.url], path, SIZE, SHA256)
    assert not stop.requested  # it was obeyed, not noted
    assert files(path) <= {"set.hdf5.partial"}
    fetch(server, path, in_ranges)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_of_two_that_want_a_file_one_downloads_it_and_the_other_waits(server: Server, path: Path, kind: str):
    started, go = threading.Event(), threading.Event()

    def slowly(handler: Handler) -> None:
        started.set()
        go.wait(60)
        in_ranges(handler)

    server.script = [slowly, status(500)]
    context: Any = threading if kind == "threads" else multiprocessing.get_context("spawn")
    ready = context.Barrier(3)
    results: Any = queue.Queue() if kind == "threads" else context.Queue()
    start = context.Thread if kind == "threads" else context.Process
    both = [start(target=download_elsewhere, args=(server.url, path, ready, results)) for _ in range(2)]
    for one in both:
        one.start()
    ready.wait(120)  # both have imported what they need
    assert started.wait(60)
    assert results.empty()
    go.set()
    assert [results.get(timeout=60) for _ in both] == [SHA256, SHA256]
    for one in both:
        one.join()
    assert server.ranges == [None]


def download_elsewhere(url: str, path: Path, ready: Any, results: Any) -> None:
    ready.wait(120)
    download.download([url], path, SIZE, SHA256)
    results.put(hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("by", ["key", "variable"])
def test_the_command_line_fetches_from_a_mirror(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    by: str,
):
    monkeypatch.setitem(d4rl.SETS, "ant-random-v2", d4rl.PublishedFile(SIZE, SHA256))
    monkeypatch.setattr(d4rl, "SOURCES", ("http://127.0.0.1:9/",))
    mirror = f"http://127.0.0.1:{server.server_port}/d4rl/"
    words = ["fetch", "ant-random-v2", f"paths.data={tmp_path}"]
    if by == "key":
        words.append(f"paths.mirrors={mirror}")
    else:
        monkeypatch.setenv("O2O_MIRRORS", f"http://127.0.0.1:9/none {mirror}")
    assert command.main(words) == 0
    assert server.paths == ["/d4rl/ant_random-v2.hdf5"]
    path = tmp_path / "d4rl" / "ant_random-v2.hdf5"
    assert str(path) in capsys.readouterr().out
    assert path.read_bytes() == DATA


def test_the_command_line_tells_what_went_wrong_in_a_few_lines(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    base = server.url.removesuffix("set.hdf5")
    monkeypatch.setattr(d4rl, "SOURCES", (base, f"{base}copy/"))
    server.script = [page]
    assert command.main(["fetch", "ant-random-v2", f"paths.data={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert "text/html" in told
    assert "Traceback" not in told
    told = told[told.index("could not be downloaded") :]
    assert f"{base}ant_random-v2.hdf5: " in told
    assert f"{base}copy/ant_random-v2.hdf5: " in told
    assert len(told.splitlines()) < 8


def test_the_command_line_fetches_from_the_second_source_when_the_first_is_down(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base = server.url.removesuffix("set.hdf5")
    monkeypatch.setattr(d4rl, "SOURCES", (f"{base}first/", f"{base}second/"))
    monkeypatch.setitem(d4rl.SETS, "ant-random-v2", d4rl.PublishedFile(SIZE, SHA256))
    server.script = [status(503), in_ranges]
    assert command.main(["fetch", "ant-random-v2", f"paths.data={tmp_path}"]) == 0
    assert server.paths == ["/first/ant_random-v2.hdf5", "/second/ant_random-v2.hdf5"]
    assert (tmp_path / "d4rl" / "ant_random-v2.hdf5").read_bytes() == DATA
