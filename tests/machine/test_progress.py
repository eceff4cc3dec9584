from __future__ import annotations

import io

import pytest

from o2o.machine import progress
from o2o.machine.progress import Agenda, Part, Progress, following

LABELS = ["finetune td3_c empty regen-hopper-medium seed 0", "finetune td3_c empty seed 0", "td3_c empty"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved: `clock[0] += 1`."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def halfway(clock, **settings) -> Progress:
    shown = Progress(LABELS, 4000, "steps", **settings)
    clock[0] += 60  # compiling, and the evaluation at the switch
    for step in range(100, 2100, 100):
        shown.at(step)
        clock[0] += 1
    shown.at(2000, "score 36.2")
    return shown


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 20])
def test_a_line_fits_the_terminal(clock, width):
    agenda = Agenda([[Part("a", ("finetune",), 4000)], [Part("b", ("finetune",), 4000)]], {})
    with following(agenda):
        before, after = halfway(clock, place="a").line(width)
    assert len(f"{before} || {after}") + progress.SHORTEST_BAR <= width


def test_a_line_of_eighty_columns_says_run_rate_time_and_score(clock):
    kind = ("finetune", "td3_c")
    agenda = Agenda([[Part("a", kind, 4000)], *([Part(str(i), kind, 4000)] for i in range(11))], {})
    with following(agenda):
        before, after = halfway(clock, place="a").line(80)
    assert before == "run 1/12 td3_c empty"
    assert after == "2000/4000 95/s 00:21 left score 36.2 all 08:04"


def test_the_remaining_time_is_that_of_the_steps_alone(clock):
    """And not of what came before them: a run of 100 steps a second whose start took a minute."""
    _, after = halfway(clock).line(80)
    assert "00:21 left" in after


def test_steps_that_learn_nothing_say_nothing_of_the_time(clock):
    shown = Progress(LABELS, 4000, "steps", begins=1000)
    for step in range(100, 1100, 100):
        shown.at(step)
        clock[0] += 0.01
    assert "left" not in shown.line(80)[1]
    clock[0] += 10
    shown.at(1100)
    clock[0] += 2
    shown.at(1300)
    assert "100/s 00:27 left" in shown.line(80)[1]


def test_what_is_still_to_be_done_is_guessed_from_what_is_alike():
    kinds = ("pretrain", "td3_bc"), ("finetune", "td3"), ("finetune", "td3_c")
    jobs = [[Part("p", kinds[0], 100), Part("a", kinds[1], 10)], [Part("b", kinds[2], 10)]]
    agenda = Agenda(jobs, {})
    assert agenda.seconds_after("p") is None
    agenda.learn("p", 0.5)
    assert agenda.seconds_after("p") == 2 * 10 * 0.5
    agenda.learn("a", 2.0)
    assert agenda.seconds_after("p") == 2 * 10 * 2.0
    assert agenda.seconds_after("b") == 0
    assert (agenda.title("p"), agenda.title("b"), agenda.title("c")) == ("run 1/2", "run 2/2", "")


def test_where_nobody_watches_a_line_is_printed_every_now_and_then(clock, capsys):
    shown = halfway(clock)
    shown.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == f"{LABELS[0]}: 100/4000 steps"
    assert lines[-1] == f"{LABELS[0]}: 2000/4000 steps, 95/s, 00:21 left, score 36.2"


def test_a_terminal_is_drawn_to_by_itself(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    shown = Progress(LABELS, 10, "steps", note="evaluating {the} start")
    while terminal.getvalue().count("\r") < 3:
        progress.time.sleep(0.01)
    shown.at(10, "score 1.0")
    shown.close()
    assert "evaluating {the} start 00:00" in terminal.getvalue()
    assert "10/10 score 1.0" in terminal.getvalue().rpartition("\r")[2]
