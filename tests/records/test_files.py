"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from vcr1.records.files import replacing, write_whole


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "text.txt", "größer\n")
    write_whole(tmp_path / "new" / "bytes.bin", b"\x00\r\n")
    assert (tmp_path / "new" / "text.txt").read_bytes() == "größer\n".encode()
    assert (tmp_path / "new" / "bytes.bin").read_bytes() == b"\x00\r\n"


def test_a_failure_leaves_the_older_file_and_no_remainder(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_whole(path, "old")

    def fail() -> None:
        with replacing(path) as scratch:
            scratch.write_text("half of the n")
            raise KeyError(path)

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert [one.name for one in tmp_path.iterdir()] == ["report.md"]
    assert path.read_text() == "old"
