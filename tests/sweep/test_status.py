from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from following import ENV_STEPS, UPDATES, launch, write

from o2o.runs.directory import layout
from o2o.sweep.__main__ import main
from o2o.sweep.following.status_table import text
from o2o.sweep.following.summary import rows_of
from o2o.sweep.ledger import manifest, slurm
from o2o.sweep.surveying.survey import survey

OLD = timedelta(hours=2)


@pytest.fixture(autouse=True)
def no_real_slurm(monkeypatch):
    monkeypatch.setattr(slurm, "present", lambda: False)


@pytest.fixture
def status(tmp_path, capsys):
    """What `status` says of the runs in `tmp_path`, as its JSON, by cell; and its exit code."""

    def ask(*filters):
        code = main(["status", "--json", "--runs", str(tmp_path), *filters])
        content = json.loads(capsys.readouterr().out)
        return code, {cell["path"].split("/")[1]: cell for cell in content["cells"]}

    return ask


def test_a_cell_counts_its_seeds_by_state(tmp_path, status):
    write(tmp_path, "td3", 0, steps=[500, ENV_STEPS], end="DONE")
    write(tmp_path, "td3", 1, steps=[500])
    write(tmp_path, "td3", 2, steps=[500], end="INTERRUPTED")
    code, cells = status()
    assert code == 0
    assert cells["td3"]["states"] == {"DONE": 1, "RUNNING": 1, "INTERRUPTED": 1}
    assert (cells["td3"]["done"], cells["td3"]["seeds"]) == (1, 3)


def test_a_failed_run_makes_the_exit_code_1_and_names_its_class(tmp_path, status):
    write(tmp_path, "td3", 0, steps=[500], end="DONE")
    assert status()[0] == 0
    write(tmp_path, "td3", 1, steps=[500], end="FAILED", error="FloatingPointError: critic_loss not finite")
    code, cells = status()
    assert code == 1
    assert cells["td3"]["runs"][1]["failure"] == "non-finite"
    assert "critic_loss not finite" in cells["td3"]["runs"][1]["note"]


def test_a_run_without_a_sign_of_life_is_not_said_to_run(tmp_path, status, capsys):
    write(tmp_path, "td3", 0, steps=[500], quiet=OLD)
    write(tmp_path, "td3", 1, steps=[500])
    _, cells = status()
    assert [run["state"] for run in cells["td3"]["runs"]] == ["STALLED", "RUNNING"]
    main(["status", "--runs", str(tmp_path)])
    assert "seed 0 STALLED since 20" in capsys.readouterr().out


def test_a_copy_says_what_the_original_says(tmp_path, capsys):
    write(tmp_path / "there", "td3", 0, steps=[500], quiet=OLD)
    shutil.copytree(tmp_path / "there", tmp_path / "here")  # with new modification times
    said = []
    for place in ("there", "here"):
        main(["status", "--json", "--runs", str(tmp_path / place)])
        said.append(json.loads(capsys.readouterr().out)["cells"])
    assert said[0] == said[1]


def test_scores_are_compared_at_the_largest_step_that_all_seeds_have(tmp_path, status):
    write(tmp_path, "td3", 0, steps=range(500, ENV_STEPS + 1, 500), end="DONE")
    write(tmp_path, "td3", 1, steps=[500, 1000])
    write(tmp_path, "td3", 2, steps=[])
    score = status()[1]["td3"]["score"]
    assert (score["step"], score["seeds"]) == (UPDATES + 1000, 2)
    assert score["mean"] == pytest.approx((2.0 + 12.0) / 2)


def test_a_step_that_one_seed_skipped_is_not_compared_at(tmp_path, status):
    write(tmp_path, "td3", 0, steps=[500, 1000])
    write(tmp_path, "td3", 1, steps=[500, 750])
    score = status()[1]["td3"]["score"]
    assert (score["step"], score["seeds"]) == (UPDATES + 500, 2)


def test_a_step_far_from_the_end_of_a_long_file_is_found(tmp_path, status):
    write(tmp_path, "td3", 0, steps=range(5, 5000, 5))
    write(tmp_path, "td3", 1, steps=[5, 10])
    score = status()[1]["td3"]["score"]
    assert (score["step"], score["seeds"]) == (UPDATES + 10, 2)


def test_rate_and_remaining_time_come_from_the_clock(tmp_path, status):
    write(tmp_path, "td3", 0, steps=[1000, 2000])  # 10 s of training and 1 s of evaluation apart
    cell = status()[1]["td3"]
    assert cell["rate"] == pytest.approx(1000 / 11)
    assert cell["remaining_seconds"] == pytest.approx((ENV_STEPS - 2000) / (1000 / 11))


def test_only_what_differs_is_said_of_a_setting(tmp_path, capsys):
    for i, discount in enumerate((0.9, 0.99)):
        write(tmp_path, "td3", 0, cell=f"offline-uniform-0000000{i}", discount=discount, end="DONE")
    assert main(["status", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "discount=0.9 " in said
    assert "discount=0.99" in said
    assert "policy_delay" not in said


def test_a_table_fits_into_a_narrow_terminal(tmp_path):
    for i, discount in enumerate((0.9, 0.99)):
        write(tmp_path, "td3", 0, cell=f"offline-uniform-0000000{i}", discount=discount, end="DONE")
    rows = rows_of([run for cell in survey(tmp_path, []) for run in cell.runs])
    wide = text(tmp_path, rows, [], 200).splitlines()
    narrow = text(tmp_path, rows, [], 50).splitlines()[-4:]
    assert "rate" not in wide[-3]  # nothing runs
    assert len(wide[-1]) > 50 >= max(map(len, narrow[1:]))
    assert narrow[0].startswith("in all rows: ")
    assert "discount=0.9" in "".join(narrow)


@pytest.mark.parametrize("file", [layout.STATUS, layout.CONFIG, layout.EVAL, layout.TIMING])
@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x01", '{"state": "GONE"}', '{"step": "x"}\n'])
def test_damaged_files_are_no_traceback(tmp_path, capsys, file, content):
    path = write(tmp_path, "td3", 0, steps=[500])
    write(tmp_path, "td3", 1, steps=[500], end="DONE")
    (path / file).write_text(content)
    for options in ([], ["--json"]):
        assert main(["status", "--runs", str(tmp_path), *options]) == int(file == layout.STATUS)
        said = capsys.readouterr()
        assert ("DAMAGED" in said.out) == (file == layout.STATUS)
        assert said.err == ""


def test_a_torn_last_row_leaves_the_one_before(tmp_path, status):
    path = write(tmp_path, "td3", 0, steps=[500, 1000])
    with (path / layout.EVAL).open("a") as stream:
        stream.write('{"phase": "finetune", "step": 25')
    assert status()[1]["td3"]["score"]["step"] == UPDATES + 1000


def test_filters_choose_runs(tmp_path, status):
    for seed in range(4):
        write(tmp_path, "td3", seed, steps=[500], end="DONE")
        write(tmp_path, "td3_bc", seed, steps=[500], end="FAILED" if seed == 2 else "DONE")

    def chosen(*filters):
        return {name: [run["seed"] for run in cell["runs"]] for name, cell in status(*filters)[1].items()}

    assert chosen("algorithm=td3") == {"td3": [0, 1, 2, 3]}
    assert chosen("algorithm=TD3_*", "seed=0,2-3") == {"td3_bc": [0, 2, 3]}
    assert chosen("state=failed") == {"td3_bc": [2]}
    assert chosen("state!=done") == {"td3_bc": [2]}
    assert chosen("algorithm.policy_delay=2.0", "seed=1") == {"td3": [1], "td3_bc": [1]}
    assert chosen("regen-hopper-medium/td3/offline-uniform-0000aaaa/seed-3") == {"td3": [3]}
    assert chosen(str(tmp_path / "regen-hopper-medium" / "td3")) == {"td3": [0, 1, 2, 3]}
    assert chosen("state=stalled") == {}


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "often"])
def test_an_interval_is_positive(tmp_path, seconds):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--watch", f"--interval={seconds}", "--runs", str(tmp_path)])
    assert ended.value.code == 2


def test_a_list_is_a_value_of_a_filter(tmp_path, status):
    for seed, sizes in enumerate(([8, 8], [8], [256, 256])):
        cell = f"offline-uniform-{seed:08d}"
        write(tmp_path, "td3", seed, end="DONE", cell=cell, network={"hidden_sizes": sizes})
    (only,) = status("network.hidden_sizes=[8,8]")[1].values()
    assert [run["seed"] for run in only["runs"]] == [0]
    (other,) = status('network.hidden_sizes!=[8,8],["256", 256]')[1].values()
    assert [run["seed"] for run in other["runs"]] == [1]
    (wide,) = status("network.hidden_sizes=*256*")[1].values()
    assert [run["seed"] for run in wide["runs"]] == [2]


def test_a_list_of_nested_ones_is_one_value_and_no_list_of_seeds(tmp_path, status, capsys):
    for seed in range(3):
        write(
            tmp_path, "td3", seed, end="DONE", evaluation={"online_intervals": [[4000, 500], [10000, 1000]]}
        )
    (cell,) = status("evaluation.online_intervals=[[4000,500],[10000,1000]]")[1].values()
    assert len(cell["runs"]) == 3
    assert main(["status", "--runs", str(tmp_path), "seed=[0,12]"]) == 2
    assert "no run has seed=[0,12]" in capsys.readouterr().err


def test_all_that_is_wrong_with_filters_is_said_with_what_is_near(tmp_path, capsys):
    write(tmp_path, "td3", 0, end="DONE")
    words = ["algoritm=td3", "algorithm=td4", "state=faild", "td3", "seed="]
    assert main(["status", "--runs", str(tmp_path), *words]) == 2
    said = capsys.readouterr().err
    for near in ("algorithm?", "td3?", "failed?", "algorithm=td3?", "say seed=…"):
        assert near in said


def test_an_empty_and_a_missing_directory_are_told_apart(tmp_path, capsys):
    assert main(["status", "--runs", str(tmp_path)]) == 0
    assert "no runs yet" in capsys.readouterr().out
    assert main(["status", "--runs", str(tmp_path / "none")]) == 2
    assert "is no directory" in capsys.readouterr().err


def test_what_was_launched_and_has_not_begun_is_there(tmp_path, status):
    paths = [
        tmp_path / "regen-hopper-medium/td3/offline-uniform-0000aaaa" / f"seed-{seed}" for seed in (0, 1)
    ]
    launch(tmp_path, {"77_0": [paths[0]], "77_1": [paths[1]]})
    manifest.note_attempt(tmp_path, "77_1", "started", attempt=1, node="n1", pid=1, steps=0, log_size=0)
    _, cells = status("sweep=small", "discount=0.99")
    assert [run["state"] for run in cells["td3"]["runs"]] == ["QUEUED", "WAITING"]
    for place in (str(paths[0]), str(paths[0].relative_to(tmp_path)), "ratio=null"):
        chosen = status(place)[1]["td3"]["runs"]
        assert [run["seed"] for run in chosen][:1] == [0]
        assert len(chosen) == (2 if place == "ratio=null" else 1)


def test_the_working_directory_is_a_directory_of_runs_like_any_other(tmp_path, status, monkeypatch, capsys):
    path = write(tmp_path, "td3", 0, end="DONE")
    launch(tmp_path, {"77_0": [path]})
    monkeypatch.chdir(tmp_path)
    assert main(["status", "--runs", "."]) == 0
    assert "1 run in 1 cell: DONE 1" in capsys.readouterr().out


def test_a_job_that_ended_before_its_run_began_is_a_failure(tmp_path, status):
    path = tmp_path / "regen-hopper-medium/td3/offline-uniform-0000aaaa/seed-0"
    launch(tmp_path, {"77_0": [path]})
    ending = {"failure": "code", "failed": {}, "reason": "it would end the same way"}
    manifest.note_attempt(tmp_path, "77_0", "ended", exit_code=2, decision="given up", **ending)
    code, cells = status()
    assert code == 1
    assert cells["td3"]["runs"][0]["state"] == "FAILED"
    assert cells["td3"]["runs"][0]["failure"] == "code"


def test_what_is_requeued_is_queued(tmp_path, status):
    path = write(tmp_path, "td3", 0, steps=[500], end="INTERRUPTED")
    launch(tmp_path, {"77_0": [path]})
    manifest.note_attempt(tmp_path, "77_0", "ended", exit_code=140, decision="requeued", failure="time")
    assert status()[1]["td3"]["states"] == {"QUEUED": 1}


def test_looking_imports_nothing_heavy(tmp_path):
    write(tmp_path, "td3", 0, steps=[500], end="DONE")
    code = (
        "import sys; from o2o.sweep.__main__ import main; "
        f"main(['status', '--runs', {str(tmp_path)!r}]); "
        "print([m for m in ('jax', 'numpy', 'wandb', 'hydra', 'omegaconf', 'rich', 'submitit') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_ten_thousand_runs_are_listed_in_seconds(tmp_path, capsys):
    from benchmarks.following import write_runs

    write_runs(tmp_path, cells=1000, seeds=10)
    start = time.process_time()
    main(["status", "--runs", str(tmp_path)])
    assert "10000 runs in 1000 cells" in capsys.readouterr().out
    assert time.process_time() - start < 5.0


def test_settings_are_those_that_identity_json_tells(tmp_path, status):
    path = write(tmp_path, "td3", 0, steps=[500], end="DONE")
    told = {"settings": {"dataset.task": "ant", "algorithm.name": "of its own", "replay_init.preload": False}}
    (path / layout.IDENTITY).write_text(json.dumps({"identity": "a"} | told))
    keys = status("replay=empty", "dataset=ant")[1]["td3"]["keys"]
    assert keys["algorithm.name"] == "of its own"
