"""Installed distributions, beside what importlib.metadata finds."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata

import pytest

from kbitlint.runtime import distributions


def installed(folder, name, version="1.0", **files):
    """Write the metadata of a distribution into a folder, as an installer does."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: 9 of the prose\n")
    for file, text in files.items():
        (info / f"{file}.txt").write_text(text)
    return info


def metadata_values(group):
    return sorted({entry.value for entry in metadata.entry_points(group=group)})


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Let two folders alone be the path of imports, and return them."""
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setattr(sys, "path", [*map(str, folders), str(tmp_path / "missing"), ""])
    monkeypatch.chdir(tmp_path)
    return folders


def test_every_installed_version_is_that_of_importlib_metadata():
    names = sorted({one.name for one in metadata.distributions()})

    assert {"pytest", "torch"} <= set(names)
    assert {name: distributions.version(name) for name in names} == {name: metadata.version(name) for name in names}


def test_every_group_of_entry_points_is_that_of_importlib_metadata():
    groups = sorted(metadata.entry_points().groups)

    assert "console_scripts" in groups
    assert {group: distributions.entry_points(group) for group in groups} == {group: metadata_values(group) for group in groups}


def test_names_are_equal_in_every_spelling_and_the_first_on_the_path_counts(path):
    first, second = path
    installed(first, "My_Pack.age", "2.0+cpu")
    installed(second, "my_pack_age", "1.0", entry_points="[kbitlint.rules]\nold = old_rules\n")

    assert [distributions.version(name) for name in ("my-pack-age", "My.Pack_Age", "other")] == ["2.0+cpu", "2.0+cpu", None]
    assert distributions.entry_points("kbitlint.rules") == metadata_values("kbitlint.rules") == []


def test_entry_points_are_read_as_importlib_metadata_reads_them(path):
    first, second = path
    installed(
        first,
        "one",
        entry_points="# a note\n[other]\nx = y\n[kbitlint.rules]\n a=b_rules \n# c = d\n\nb = b_rules\ne = f.g:h\n",
    )
    installed(second, "two", entry_points="[kbitlint.rules]\r\nz = a_rules\r\n[kbitlint.rules.more]\nq = r\n")
    installed(second, "three")
    (second / "four-1.dist-info").touch()

    assert distributions.entry_points("kbitlint.rules") == metadata_values("kbitlint.rules") == ["a_rules", "b_rules", "f.g:h"]
    assert distributions.entry_points("kbitlint") == []
    assert distributions.version("four") is None


def test_text_that_is_no_utf_8_hides_no_other_distribution(path):
    installed(path[0], "broken", entry_points="").joinpath("entry_points.txt").write_bytes(b"[kbitlint.rules]\n\xff = \xfe\n")
    installed(path[1], "whole", entry_points="[kbitlint.rules]\na = b\n")

    assert distributions.entry_points("kbitlint.rules") == ["b", "\N{REPLACEMENT CHARACTER}"]


def test_an_archive_on_the_path_is_read_by_importlib_metadata(path, monkeypatch):
    info = installed(path[0], "packed", "3.1", entry_points="[kbitlint.rules]\na = packed_rules\n")
    archive = path[0] / "site.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for text in info.iterdir():
            file.write(text, f"{info.name}/{text.name}")
    monkeypatch.setattr(sys, "path", [str(archive)])

    assert distributions.version("packed") == "3.1"
    assert distributions.version("other") is None
    assert distributions.entry_points("kbitlint.rules") == ["packed_rules"]


def test_entries_of_the_path_that_are_no_strings_are_ignored_as_python_does(path, monkeypatch):
    installed(path[0], "one", "1.5")
    installed(path[1], "two", "2.5")
    monkeypatch.setattr(sys, "path", [None, path[0], b"/", str(path[1])])

    assert (distributions.version("one"), distributions.version("two")) == (None, "2.5")
