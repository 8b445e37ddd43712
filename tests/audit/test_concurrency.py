"""Processes that fix one folder, checks during a fix, and threads that audit at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import torch
from script_cases import SCRIPT

import kbitlint
from kbitlint.audit import sources
from kbitlint.files import manifest

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")}


def start(folder, *arguments):
    command = [sys.executable, "-W", "ignore", "-m", "kbitlint", *arguments]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes):
    return [(*process.communicate(timeout=240), process.returncode) for process in processes]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def copied(folder):
    import shutil

    return shutil.copytree(tiny.checkpoint(), folder)


@pytest.mark.usefixtures("preloaded")
@pytest.mark.slow
def test_processes_that_fix_one_checkpoint_leave_what_one_would(tmp_path):
    arguments = ("--fix", ".", "--quantize", "nf4", "--device", "cpu")
    alone, together = copied(tmp_path / "alone"), copied(tmp_path / "together")
    ((_, errors, code),) = finish([start(alone, *arguments)])
    assert code == 0, errors

    ended = finish([start(together, *arguments), start(together, *arguments), start(together, "check", ".")])

    assert contents(together) == contents(alone)
    assert 0 in [code for _, _, code in ended[:2]]
    line = "kbitlint: .: another kbitlint is fixing . at this moment; start again when it is done\n"
    for _, errors, code in ended[:2]:  # the second may come when the first is done
        assert (code, errors) in ((0, ""), (2, line))
    assert (ended[2][2] in (0, 1), ended[2][1]) == (True, "")  # before the fix or after it
    model = kbitlint.load_prepared(together, device="cpu")
    assert {v.code for v in kbitlint.check(model, trace=False).violations} == set()


@pytest.mark.usefixtures("preloaded")
@pytest.mark.slow
def test_processes_that_fix_and_check_a_tree_of_scripts_see_whole_files(tmp_path):
    for name in ("one", "both"):
        (tmp_path / name).mkdir()
        for number in range(60):
            (tmp_path / name / f"train_{number}.py").write_text(SCRIPT * 20)
    finish([start(tmp_path / "one", "--fix", ".")])
    folder, faults, done = tmp_path / "both", [], threading.Event()
    whole = {path.name: {(SCRIPT * 20).encode(), path.read_bytes()} for path in (tmp_path / "one").iterdir()}

    def watch():
        while not done.is_set():
            faults.extend(path.name for path in folder.glob("*.py") if path.read_bytes() not in whole[path.name])

    thread = threading.Thread(target=watch)
    thread.start()
    ended = finish(
        [start(folder, "--fix", "."), start(folder, "--fix", "."), start(folder, "check", "."), start(folder, "--fix", ".")]
    )
    done.set()
    thread.join()

    assert faults == []
    assert contents(folder) == contents(tmp_path / "one")
    assert all(errors.count("\n") == (code == 2) for _, errors, code in ended), ended
    assert "Traceback" not in "".join(errors for _, errors, _ in ended)


def same(results):
    return [result == results[0] for result in results] == [True] * len(results)


def test_threads_that_check_one_model_see_the_same_and_leave_it_as_it_was():
    model = tiny.with_lora(tiny.load())
    before, alone = tiny.state(model), kbitlint.check(model)
    randomness = torch.get_rng_state()

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: kbitlint.check(model), range(12)))

    assert same([alone, *results])
    assert tiny.state(model) == before
    assert torch.equal(torch.get_rng_state(), randomness)


def test_threads_that_check_different_things_do_not_disturb_each_other(tmp_path):
    from transformers import PreTrainedModel
    from transformers.utils import logging

    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "build.py").write_text(
        "from transformers import AutoModelForCausalLM\n"
        f"def build():\n    return AutoModelForCausalLM.from_pretrained({str(tiny.checkpoint())!r})\n"
    )
    model = tiny.load("phi3 (fused QKV)")
    jobs = [
        ((str(tiny.checkpoint()),), {"quantize": "nf4"}),
        ((f"{tmp_path}/build.py:build",), {"meta": True}),
        ((f"{tmp_path}/build.py:build",), {}),
        ((model,), {}),
        ((str(tmp_path / "train.py"),), {}),
        (("plants:unprepared",), {"trace": False}),
    ]
    alone = [kbitlint.check(*arguments, **options) for arguments, options in jobs]
    real, verbosity, dtype = PreTrainedModel.__dict__["from_pretrained"], logging.get_verbosity(), torch.get_default_dtype()

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(kbitlint.check, *arguments, **options) for _ in range(3) for arguments, options in jobs]
        results = [future.result() for future in futures]

    assert results == alone * 3
    assert [report.weights_read for report in alone[1:3]] == [False, True]  # one is built on meta, one is not
    assert PreTrainedModel.__dict__["from_pretrained"] is real
    assert (logging.get_verbosity(), torch.get_default_dtype()) == (verbosity, dtype)


def test_threads_that_fix_models_of_their_own_leave_what_one_does():
    expected = kbitlint.fix(tiny.load())
    models = [tiny.load() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(kbitlint.fix, models))

    assert [report == expected for report in reports] == [True] * 4
    assert len({kbitlint.undo(model) for model in models}) == 1
    assert [kbitlint.check(model) == kbitlint.check(tiny.load()) for model in models] == [True] * 4


def test_a_thread_that_checks_while_another_fixes_sees_the_model_before_or_after():
    model = tiny.load()
    before, seen = kbitlint.check(model), []

    with ThreadPoolExecutor(4) as pool:
        checks = [pool.submit(kbitlint.check, model) for _ in range(3)]
        fix = pool.submit(kbitlint.fix, model)
        checks += [pool.submit(kbitlint.check, model) for _ in range(3)]
        seen = [check.result() for check in checks]
        fix.result()
    after = kbitlint.check(model)

    assert before != after
    assert [report in (before, after) for report in seen] == [True] * 6


def test_a_process_with_threads_forks_none_beside_them(tmp_path, monkeypatch):
    for number in range(sources.MANY + 1):
        (tmp_path / f"t{number}.py").write_text(SCRIPT)
    alone = kbitlint.check(tmp_path)
    import concurrent.futures

    def forbidden(*_, **__):
        raise AssertionError("a process was forked beside threads")

    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", forbidden)
    monkeypatch.setattr(sources.os, "cpu_count", lambda: 4)

    with ThreadPoolExecutor(2) as pool:
        assert same([alone, *pool.map(lambda _: kbitlint.check(tmp_path), range(2))])


def test_a_manifest_is_read_whole_while_it_is_written(tmp_path):
    from kbitlint.violation import Edit

    versions = [manifest.Manifest(tuple(Edit("cast", f"layers.{n}", {"to": word}) for n in range(200))) for word in ("a", "b")]
    manifest.write(tmp_path / manifest.NAME, versions[0], {})
    done = threading.Event()

    def write():
        number = 0
        while not done.is_set():
            number += 1
            manifest.write(tmp_path / manifest.NAME, versions[number % 2], {})

    thread = threading.Thread(target=write)
    thread.start()
    seen = [manifest.read(tmp_path) for _ in range(300)]
    done.set()
    thread.join()

    assert [one in versions for one in seen] == [True] * 300
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]
    json.loads((tmp_path / manifest.NAME).read_text())
