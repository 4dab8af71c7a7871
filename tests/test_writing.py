"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tubelet.writing import write_json, write_text, written_beside


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with written_beside(path) as beside:
        assert (beside.parent, beside.suffix) == (tmp_path, ".csv")
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    write_json(path, {"a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_is_as_it_was(error: BaseException, tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")

    def fails() -> None:
        with written_beside(tmp_path / "a.json") as beside:
            beside.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        fails()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    with written_beside(tmp_path / "folder") as beside:
        (beside / "inner").mkdir(parents=True)
        (beside / "inner" / "file").write_text("x")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inner" / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"
