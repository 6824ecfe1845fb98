"""Files that are there whole or not at all, and that are what was written.

A file that is read back has a checksum beside it, ``<name>.sha256``, or one for several files in a folder, both as the
command ``sha256sum --check`` reads them. Files of older versions have none, and are read as they are.
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import jax.numpy as jnp
import numpy as np

from steppe.core import checks, process, programs

T = TypeVar("T")
Content = str | bytes | Callable[[BinaryIO], object]
"""Text, bytes, or a function that writes into a file."""

TRANSIENT = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
"""Why a file may not be read although it is whole."""


class ContentError(ValueError):
    """A file can be read, and is not what is looked for; the message says what it is instead."""


class DamagedFile(checks.InputError):
    """A file is not what was written there.

    Attributes
    ----------
    path : Path
        the file.
    why : str
        what is wrong with it, in words.
    todo : str
        what to do about it, a sentence.
    """

    def __init__(self, path: Path, why: str, todo: str = ""):
        self.path, self.why, self.todo = path, why, todo
        super().__init__(f"study: {path} must be what was written there, got {why}.{' ' + todo if todo else ''}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors of workers come from other processes."""
        return type(self), (self.path, self.why, self.todo)


def write(path: Path, content: Content) -> Path:
    """Write a file; the name changes hands when every byte is on disk.

    What a killed process leaves is called ``.<name>.<8 hexadecimal digits>.partial``, see `sweep`. A link under the
    name is replaced, never followed.
    """
    with _partial(path, content) as partial:
        partial.replace(path)
    sync(path.parent)
    return path


def write_checked(path: Path, content: Content) -> Path:
    """Write a file and its checksum; whenever this is interrupted, the file that is there has one."""
    sums = _sums_of(path)
    with _partial(path, content) as partial:
        before = checksums(sums, path.name)
        if before is None and path.is_file():
            before = {digest(path)}
        new = digest(partial)
        write(sums, listed([(known, path.name) for known in (*sorted(before or ()), new)]))
        partial.replace(path)
    sync(path.parent)
    if before:
        write(sums, listed([(new, path.name)]))
    return path


@contextlib.contextmanager
def _partial(path: Path, content: Content) -> Iterator[Path]:
    """A file under a fresh name, with all its bytes on disk; removed at the end if it still has that name."""
    if path.is_dir() and not path.is_symlink():
        checks.fail("study", str(path), "a file", "a folder", "Move it away.")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with process.unfinished_file(partial):
            fresh = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            with os.fdopen(fresh, "w+b") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            yield partial
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the fresh name, nor nothing, as writing has it
        raise
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def sweep(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left half written of the files of these names."""
    for path in partial_files(folder, names):
        path.unlink()


def partial_files(folder: Path, names: Collection[str]) -> list[Path]:
    """What is half written of the files of these names, by a process that was killed, or that writes just now."""
    ours = "|".join(map(re.escape, [*names, *(f"{name}.sha256" for name in names)]))
    left = re.compile(rf"\.(?:{ours})(?:\.[0-9a-f]{{8}})?\.partial")
    paths = [path for path in folder.iterdir() if left.fullmatch(path.name)] if folder.is_dir() else []
    return [path for path in paths if path.is_symlink() or not path.is_dir()]


_digests: dict[tuple[int, ...], str] = {}
"""The SHA-256 of files that were looked at in this process, by what the system changes with every write."""

SETTLED = 2.0
"""Seconds after which a file's time tells another write from the last one: clocks of file systems tick slowly."""


def digest(path: Path) -> str:
    """The SHA-256 of a file; one that nobody has written to since is read once in a process."""
    with path.open("rb") as stream:
        known = os.fstat(stream.fileno())
        key = (known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns)
        if key not in _digests:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            if abs(time.time() - known.st_ctime) < SETTLED or os.fstat(stream.fileno()) != known:
                return found
            _digests[key] = found
        return _digests[key]


def listed(digests: Collection[tuple[str, str]]) -> str:
    """Checksums and names as ``sha256sum`` writes them."""
    return "".join(f"{sha256}  {name}\n" for sha256, name in digests)


def checksums(sums: Path, name: str) -> set[str] | None:
    """The checksums that a file of checksums has for a name; None where nothing is there."""
    if not sums.is_file():
        return set() if os.path.lexists(sums) else None
    lines = sums.read_bytes().decode(errors="replace").splitlines()
    return {line.partition("  ")[0] for line in lines if line.partition("  ")[2] == name}


def is_altered(path: Path, sums: Path | None = None) -> bool | None:
    """Whether a file is not what its checksum says; None where it has none."""
    known = checksums(sums or _sums_of(path), path.name)
    return None if known is None else digest(path) not in known


def _sums_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def read(path: Path, parse: Callable[[BinaryIO], T], *, sums: Path | None = None, todo: str = "") -> T:
    """What `parse` makes of a file that is what was written.

    Parameters
    ----------
    path : Path
        the file.
    parse : callable
        reads the open file; whatever it raises is taken for damage.
    sums : Path, optional
        the file of checksums, ``<name>.sha256`` if none is given.
    todo : str
        what the user can do about damage, a sentence.

    Raises
    ------
    Damaged : the file is not there, does not have its checksum, or cannot be parsed.
    OSError : the system does not let it be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedFile(path, "something that is no file", todo)
        if is_altered(path, sums):
            raise DamagedFile(path, "a file with another checksum", todo)
        with path.open("rb") as stream:
            return parse(stream)
    except FileNotFoundError:
        raise DamagedFile(path, "nothing: it is missing", todo) from None
    except DamagedFile:
        raise
    except ContentError as error:
        raise DamagedFile(path, str(error), todo) from None
    except Exception as error:  # parsers have their own words for damage
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            raise
        raise DamagedFile(path, f"a file that cannot be read ({programs.line(error)})", todo) from error


def require_sums(path: Path, todo: str) -> None:
    """Fail where the checksum of a file is missing that was written with one.

    Raises
    ------
    Damaged : it is missing.
    """
    if not os.path.lexists(_sums_of(path)):
        raise DamagedFile(_sums_of(path), "nothing: it is missing", todo)


def arrays(path: Path, *, sums: Path | None = None, todo: str = "") -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names; pickled objects are never read.

    Raises
    ------
    Damaged : see `read`.
    """
    return read(path, read_arrays, sums=sums, todo=todo)


def read_arrays(stream: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of an open .npz file, see `array_content`."""
    with np.load(stream, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    arrays = {name: array for name, array in found.items() if BITS not in name}
    for name in found.keys() - arrays.keys():
        called, _, dtype = name.partition(BITS)
        arrays[called] = found[name].view(jnp.dtype(dtype))
    return arrays


BITS = "::bits of "
"""Stands between the name of an array and its dtype, where that is none of NumPy's, such as bfloat16."""


def array_content(arrays: Mapping[str, np.ndarray]) -> Content:
    """What writes an .npz file: bits of those whose dtype NumPy does not know, which it would not read again."""
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        array = np.asarray(values)
        if array.dtype.isbuiltin == 2:  # registered by another library
            found[f"{name}{BITS}{array.dtype.name}"] = array.view(f"u{array.dtype.itemsize}")
        else:
            found[name] = array
    return lambda file: np.savez(file, **found)


def begin(folder: Path, command: str) -> Path:
    """Make the folder that a user chose, and all that lead to it.

    Raises
    ------
    InputError : it cannot be made; `command` is named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # all that leads to it would have been made, were this a place for folders
        checks.fail(command, str(folder), "a folder that can be written", "a place where no folder can be made",
                    "Choose another folder.")  # fmt: skip
    except OSError as error:
        what, todo = process.cause(error)
        checks.fail(command, str(folder), "a folder that can be written", f"an error: {what}", todo)
    return folder


def make(folder: Path, within: Path) -> Path:
    """Make a folder and all that lead to it from `within`, which must be there.

    Raises
    ------
    InputError : one of them is a link, which would lead what is written elsewhere, or no folder.
    OSError : one of them cannot be made.
    """
    for path in itertools.accumulate(folder.relative_to(within).parts, Path.joinpath, initial=within):
        if path != within:
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                got = "a symbolic link" if path.is_symlink() else "something else"
                checks.fail("study", str(path), "a folder", got, "Move it away: nothing is written through links.")
            path.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def lock(path: Path, command: str, folder: Path, does: str, *, todo: str = "Wait for it to end.") -> Iterator[None]:
    """Keep other processes out of a folder by a lock on a file or on the folder itself, without a file in it.

    The system lets go if this process dies. `todo` says what to do where another one is there.

    Raises
    ------
    InputError : another process holds it, which `does` says (``"runs in"``); or the file is a link, or no file.
    OSError : the file system has no locks.
    """
    if path != folder and (path.is_symlink() or (path.exists() and not path.is_file())):
        got = "a symbolic link" if path.is_symlink() else "something else"
        checks.fail(command, str(path), "a file", got, "Move it away: nothing is written through links.")
    flags = os.O_RDONLY if path == folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            checks.fail(command, str(folder), "free", f"a folder that another process {does}", todo)
        yield
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
