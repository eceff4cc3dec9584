"""What happens to the terminal ends nothing: closed pipes, full disks, closed descriptors, narrow encodings."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from following import launch, write
from synthetic_runs import steady, write_run

from o2o.machine import terminal
from o2o.runs import job
from o2o.runs.directory import layout
from o2o.runs.identity import run_directory
from o2o.sweep.following import logs

ROOT = Path(__file__).parents[2]
SAYING = """
import sys
from o2o.machine import terminal

def main():
    for _ in range(5000):
        print("±")
        print("told", file=sys.stderr)
    open("done", "w").close()
    return 3

sys.exit(terminal.run(main))
"""


def closed_pipe() -> int:
    """The writing end of a pipe whose reader is gone, as `| head` leaves it."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.fixture
def called(tmp_path):
    """Runs a command in `tmp_path`: its exit code and what it said on standard error, and on standard output."""

    def call(command, **streams):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        environment = os.environ | {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, text=True, errors="replace", check=False, **options
        )
        for stream in options.values():
            if isinstance(stream, int) and stream > 2:
                os.close(stream)
        return done

    return call


@pytest.mark.parametrize("unbuffered", [[], ["-u"]], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [
        ({"stdout": closed_pipe}, 3, "told\n" * 5000),
        ({"stderr": closed_pipe}, 3, None),
        ({"stdout": full_disk}, 3, "told\n" * 5000 + "standard output could not be written: No space left on device\n"),
        ({"stderr": full_disk}, 3, None),
        ({"stdout": full_disk, "stderr": full_disk}, 3, None),
    ],
    ids=["reader gone", "stderr's reader gone", "disk full", "stderr's disk full", "both full"],
)  # fmt: skip
def test_a_program_whose_output_is_lost_goes_on_to_its_end(streams, code, told, unbuffered, called, tmp_path):
    opened = {name: opener() for name, opener in streams.items()}
    done = called([sys.executable, *unbuffered, "-c", SAYING], **opened)
    assert done.returncode == code
    assert (tmp_path / "done").exists()
    assert done.stderr == told


def test_success_whose_output_is_lost_to_a_full_disk_is_none(called):
    done = called([sys.executable, "-c", SAYING.replace("return 3", "return 0")], stdout=full_disk())
    assert done.returncode == 1


def test_what_was_closed_before_the_start_is_not_taken_by_the_next_file(called, tmp_path):
    prints = 'import os; print("lost"); os.write(1, b"lost"); subprocess.run(["echo", "lost"])'
    opens = f"from o2o.machine import terminal; import subprocess; terminal.forgive(); f = open('own', 'w'); {prints}"
    done = called(["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", opens])
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "own").read_text() == ""


def test_an_encoding_that_lacks_a_character_stops_nothing(called):
    done = called([sys.executable, "-c", SAYING], env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3
    assert done.stdout.startswith("\\xb1\n")


def test_a_stream_that_does_not_block_is_waited_for(called):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(["sleep 1; wc -l"], shell=True, stdin=reading, stdout=subprocess.PIPE) as reader:
        os.close(reading)
        many = "from o2o.machine import terminal; terminal.forgive(); print('line\\n' * 99999)"
        done = called([sys.executable, "-c", many], stdout=writing)
        assert (done.returncode, done.stderr) == (0, "")
        assert reader.communicate()[0].strip() == b"100000"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_end_between_words_where_a_terminal_is_narrower(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    said = "short\n  a line that is  longer\n\n/a/path/that/is/longer/than/that"
    assert terminal.fitted(said, Terminal()).split("\n") == [
        "short", "  a line that is", "    longer", "", "/a/path/that/is/longer/than/that",
    ]  # fmt: skip
    assert terminal.fitted(said, io.StringIO()) == said


@pytest.fixture
def printing_to(monkeypatch):
    """Makes a descriptor the terminal of this process."""
    opened = []

    def replace(descriptor):
        opened.append(io.FileIO(descriptor, "wb"))
        for name in ("stdout", "stderr"):
            stream = io.TextIOWrapper(opened[-1], write_through=True)
            monkeypatch.setattr(sys, name, stream)
            monkeypatch.setattr(sys, f"__{name}__", stream)

    yield replace
    for device in opened:
        device.close()


@pytest.mark.parametrize("opener", [full_disk, closed_pipe])
def test_a_run_whose_terminal_fails_is_done(opener, configure, tmp_path, printing_to):
    config = configure(tmp_path, "algorithm=td3", "replay_init=empty")
    printing_to(opener())
    with pytest.raises(OSError, match=r"No space|Broken pipe"):
        sys.stderr.write("as it would be")
    job.run(config)
    assert layout.read_state(run_directory(config)) == layout.RunState.DONE


def test_following_ends_where_nobody_reads(tmp_path, monkeypatch, printing_to):
    path = write(tmp_path, steps=[500])
    launch(tmp_path, {"77_0": [path]})
    log = tmp_path / ".jobs/77_0/stdout"
    log.unlink()
    log.write_text("said\n")
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    printing_to(closed_pipe())
    terminal.forgive()
    assert not terminal.unread()
    logs.run_logs(tmp_path, [], 30, follow=True)
    assert terminal.unread()


@pytest.mark.parametrize(
    "words",
    [
        ["launch.py", "--help"],
        ["-m", "o2o.sweep", "status", "--runs", "runs"],
        ["-m", "o2o.datasets", "list"],
        ["-m", "o2o.runs.evaluate", "--help"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_commands_survive_their_output_being_closed(words, called, tmp_path):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    script = [str(ROOT / words[0])] if words[0].endswith(".py") else [words[0]]
    done = called([sys.executable, *script, *words[1:]], stdout=closed_pipe())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_report_is_written_though_nobody_reads_the_tables(called, tmp_path):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    own = {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    (tmp_path / "matplotlibrc").write_bytes(b"lines.linewidth: \xff\n")
    done = called(
        [sys.executable, "-m", "analysis", "runs", "--out", "report"], stdout=closed_pipe(), env=own
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report/index.html").is_file()
    assert list((tmp_path / "report/figures").glob("*.png"))
