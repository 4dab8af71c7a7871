"""A run and its data: what of the files a run remembers, and from where it finds them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from training_tiny import experiment
from tubelet.configs import ConfigError
from tubelet.training.experiment import Experiment, Source
from tubelet.training.resolve import check_same_run, resolve, run_tasks, write_run


def fill(folder: Path) -> list[Path]:
    """Files that nobody decodes here, of three classes."""
    files = [folder / split / label / f"{i}.mp4" for split in ("train", "val") for label in "abc" for i in range(3)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.parent} {file.name}")
    return files


def of(path: str | Path) -> Experiment:
    made = experiment()
    return replace(made, tasks={"motion": replace(made.tasks["motion"], source=Source(path=str(path)))})


def test_changed_files_are_noticed_and_touched_ones_are_not(tmp_path: Path) -> None:
    files = fill(tmp_path / "d")
    write_run(tmp_path / "run", resolve(of(tmp_path / "d")).resolved)
    os.utime(files[0])
    assert check_same_run(tmp_path / "run", resolve(of(tmp_path / "d")).resolved)
    before = files[0].read_text()
    for other in (before.upper(), before + " and more"):
        files[0].write_text(other)
        with pytest.raises(ConfigError) as caught:
            check_same_run(tmp_path / "run", resolve(of(tmp_path / "d")).resolved)
        said = str(caught.value)
        assert "the data changed: 1 of 9 training files" in said
        assert str(files[0]) in said
        assert "another --out" in said
        assert "\n" not in said
    files[0].write_text(before)
    assert check_same_run(tmp_path / "run", resolve(of(tmp_path / "d")).resolved)


def test_a_run_of_a_version_that_did_not_look_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "d")
    resolved = resolve(of(tmp_path / "d")).resolved
    old = {name: replace(data, contents="", place="") for name, data in resolved.data.items()}
    write_run(tmp_path / "run", replace(resolved, data=old))
    assert check_same_run(tmp_path / "run", resolved)
    assert run_tasks(tmp_path / "run")["motion"].source.path == str(tmp_path / "d")


def test_a_run_finds_its_data_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "d")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), resolve(of("d")).resolved)
    monkeypatch.chdir(tmp_path / "else")
    assert run_tasks("../run")["motion"].source.path == str(tmp_path / "d")
    for spelled in ("../d", "../d/", str(tmp_path / "d")):
        assert check_same_run(Path("../run"), resolve(of(spelled)).resolved)
    (tmp_path / "d").rename(tmp_path / "e")
    assert run_tasks("../run")["motion"].source.path == "d"
