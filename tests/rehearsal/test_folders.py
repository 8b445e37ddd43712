"""The mirror shows the user's files at their paths, and keeps every write to itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kbitlint.rehearsal.inside.folders import Mirror


@pytest.fixture
def user(tmp_path):
    folder = tmp_path / "user"
    (folder / "data").mkdir(parents=True)
    (folder / "train.py").write_text("print()")
    (folder / "data" / "rows.txt").write_text("one")
    return folder


@pytest.fixture
def mirror(tmp_path):
    return Mirror(tmp_path / "stage")


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_folder_is_seen_with_all_of_its_files_and_those_beside_it(mirror, user):
    (user.parent / "beside.txt").write_text("two")

    made = mirror.open_up(user)

    assert sorted(path.name for path in Path(made).iterdir()) == ["data", "train.py"]
    assert Path(f"{made}/data/rows.txt").read_text() == "one"
    assert Path(f"{made}/../beside.txt").read_text() == "two"
    assert mirror.real(made) == str(user)


@pytest.mark.parametrize(("keep", "left"), [(True, "one"), (False, None)])
def test_a_file_is_a_copy_once_it_is_written(mirror, user, keep, left):
    before = tree(user)
    made = mirror.open_up(user)

    place = mirror.for_writing(f"{made}/data/rows.txt", keep=keep)

    assert (Path(place).read_text() if os.path.lexists(place) else None) == left
    Path(place).write_text("changed")
    assert tree(user) == before
    assert Path(mirror.for_reading(str(user / "data" / "rows.txt"))).read_text() == "changed"


def test_an_absolute_path_of_the_users_is_written_in_the_mirror(mirror, user):
    place = mirror.for_writing(str(user / "log.txt"))

    assert place.startswith(mirror.root)
    assert mirror.for_reading(str(user / "log.txt")) == str(user / "log.txt"), "nothing was written yet"


def test_a_folder_that_is_not_there_is_missing_as_in_a_real_run(mirror, user):
    mirror.open_up(user)

    with pytest.raises(FileNotFoundError):
        Path(mirror.for_writing(str(user / "nowhere" / "log.txt"))).write_text("")


def test_native_code_finds_no_link_to_follow(mirror, user):
    made = mirror.own_entries(mirror.open_up(user) + "/data")

    assert [entry.name for entry in os.scandir(made) if entry.is_symlink()] == []
    assert Path(f"{made}/rows.txt").read_text() == "one"
