"""Checksums of files: each file is read once, and whatever was written to it since is seen."""

import hashlib
import os
import time

import pytest

from steppe.storage import files


@pytest.fixture
def reads(monkeypatch):
    """The names of the files whose bytes are looked at; clocks that say an hour has passed."""
    found = []
    whole = hashlib.file_digest

    def counted(stream, kind):
        found.append(os.path.basename(stream.name))
        return whole(stream, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    later = time.time() + 3600
    monkeypatch.setattr(files.time, "time", lambda: later)
    return found


def test_a_file_that_nobody_wrote_to_is_read_once(tmp_path, reads):
    (tmp_path / "a").write_bytes(b"1234")
    assert files.digest(tmp_path / "a") == files.digest(tmp_path / "a") == hashlib.sha256(b"1234").hexdigest()
    assert reads == ["a"]


def test_a_write_is_seen_whatever_the_file_says_of_its_time(tmp_path, reads):
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    before, known = files.digest(path), path.stat()
    time.sleep(0.02)  # a tick of the file system's clock
    with path.open("r+b") as stream:
        stream.write(b"1235")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert files.digest(path) == hashlib.sha256(b"1235").hexdigest() != before


def test_what_was_written_just_now_is_read_again(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(files.time, "time", lambda: (tmp_path / "a").stat().st_ctime)
    (tmp_path / "a").write_bytes(b"1234")
    files.digest(tmp_path / "a"), files.digest(tmp_path / "a")
    assert reads == ["a", "a"]
