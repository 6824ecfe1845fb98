"""Arrays from files that may be damaged, or made to do harm: no more memory than there is, and nothing unpickled."""

import contextlib
import math
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np

from steppe.core import checks


def npz(function: str, path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their names, in the file's order.

    What a file says of itself is compared before anything is read: the sizes with the memory there is, the shapes with
    the sizes.

    Parameters
    ----------
    function : str
        What is named in errors.
    path : Path
        Of the file.

    Returns
    -------
    dict[str, numpy.ndarray]
        Whatever kind of arrays they are, but for Python objects.

    Raises
    ------
    InputError
        More than fits into memory.
    Exception
        Of many kinds: a file that is no such archive, or a damaged one.
    """
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        name, count = Counter(member.filename for member in members).most_common(1)[0] if members else ("", 0)
        if count > 1:
            raise ValueError(f"{count} members called {name!r}")
        check_fits(function, path, sum(member.file_size for member in members))
        return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}


def npy_row(function: str, path: Path) -> list[np.ndarray]:
    """The arrays that ``numpy.save`` has written one after another into a file, perhaps after a line of JSON.

    Raises
    ------
    InputError
        More than fits into memory.
    Exception
        Of many kinds: a file that is no such row, or a damaged one.
    """
    size = path.stat().st_size
    check_fits(function, path, size)
    found = []
    with path.open("rb") as stream:
        if stream.peek(1)[:1] == b"{":
            stream.readline()
        while (start := stream.tell()) < size:
            _check_header(stream, size, str(path), is_last=False)
            stream.seek(start)
            found.append(np.lib.format.read_array(stream, allow_pickle=False))
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; its header is read first, for NumPy makes room for whatever it says."""
    if not member.filename.endswith(".npy"):
        raise ValueError(f"a member {member.filename!r}, which is no array")
    if member.flag_bits & 1:
        raise ValueError(f"a member {member.filename!r}, which is encrypted")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size, repr(member.filename))
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at the end, the checksum is compared
    return array


def _check_header(stream: IO[bytes], size: int, name: str, *, is_last: bool = True) -> None:
    """Fail where an array is one of objects, or is not as large as its header says: the last one ends where all does.

    Raises
    ------
    ValueError
        It is.
    """
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    left, needed = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or needed > left or (is_last and needed < left):
        raise ValueError(f"{left} bytes for a {dtype} array of shape {checks.shown(shape)} in {name}")


def mapped(path: Path) -> np.ndarray:
    """The array of an .npy file, read where and when it is used: it may be larger than the memory.

    Raises
    ------
    Exception
        Of many kinds: a file that is no such array, a damaged one, or one of Python objects.
    """
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # a plain view of the mapped file


def kind_of(path: Path) -> str:
    """What is at a path that is no file, in words."""
    kinds = {
        "a folder": path.is_dir(),
        "a FIFO": path.is_fifo(),
        "a socket": path.is_socket(),
        "a device": path.is_char_device() or path.is_block_device(),
        "a link that leads nowhere": path.is_symlink(),
    }
    return next((kind for kind, is_one in kinds.items() if is_one), "something else")


def check_fits(function: str, path: Path, size: int) -> None:
    """Fail where so many bytes of a file, once read, would leave no room to work with them; see `check_bytes`."""
    check_bytes(function, str(path), size, "Take a part of it, or a machine with more memory.")


def check_bytes(function: str, name: str, size: int, todo: str) -> None:
    """Fail where so many bytes would leave no room to work with them.

    Raises
    ------
    InputError
        More than half of the memory that is free.
    """
    free = available()
    if 2 * size > free:
        got = f"{_shown(size)} of data where {_shown(free)} of memory are free"
        checks.fail(function, name, "at most half as large as the memory that is free", got, todo)


def available() -> float:
    """The bytes of memory that this process may still take, as far as the system tells; infinity where it does not."""
    found = [math.inf]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # "max" where a container has no bound
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        found += [max(limit - taken, 0)] if limit != resource.RLIM_INFINITY else []
    return min(found)


def _shown(size: float) -> str:
    """Bytes in words."""
    power = min(max(int(math.log10(max(size, 1))) // 3, 0), 4)
    return f"{size / 1000**power:,.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
