"""The process that runs a command: signals, streams, and the sentence with which it ends.

It imports the standard library alone: Ctrl-C is heard before the rest of Steppe, and JAX with it, are there.
"""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

SIGNALS = {"SIGINT": "Interrupted.", "SIGTERM": "Terminated.", "SIGHUP": "The terminal was closed."}
"""Signals that end a command, and what it says then; Windows lacks the last."""

PATIENCE = 0.2
"""Seconds after which the process ends although its main thread is still inside compiled code."""

_ending = threading.RLock()  # two signals in a row may find the same thread here
_listening: dict[str, int] = {}
_promise: list[tuple[str, Path | None]] = []
_half_written: set[Path] = set()


class UnsupportedSystem(ImportError):
    """A part of Steppe needs what this system lacks; the message says what, and what to do."""


def begin() -> None:
    """Hear signals from now on, write to any terminal, and promise nothing yet."""
    _promise.clear()
    _half_written.clear()
    _open_streams()
    _listen()


def require_unix() -> None:
    """Fail on Windows.

    Raises
    ------
    Unsupported : there is no `fcntl`, which keeps two processes from writing to one folder.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        raise UnsupportedSystem(
            "Studies need Linux or macOS, because Windows cannot lock their folders. Use the Windows Subsystem for "
            "Linux (WSL); curvature, methods, sharpness and losses work on Windows from Python."
        ) from None


def promise(words: str, proof: Path | None = None) -> None:
    """Set the sentence that an early end says of what was done so far; only where the file `proof` exists, if given."""
    _promise[:] = [(words, proof)]


def promised() -> str:
    """The sentence of `promise` with a blank before it, or nothing where it is not true."""
    return "".join(f" {words}" for words, proof in _promise if proof is None or os.path.exists(proof))


@contextlib.contextmanager
def unfinished_file(path: Path) -> Iterator[None]:
    """Within this context, `path` is half written: a signal that ends the process removes it."""
    _half_written.add(path)
    try:
        yield
    finally:
        _half_written.discard(path)


# --- signals


def _listen() -> None:
    """End at once at a signal, whatever the process is doing, but for signals that whoever started it ignores.

    Nothing is raised, so nothing can swallow it: no parser of the command's words, no callback, no finaliser.
    The handler runs in the main thread, between two steps of Python. Where that thread is inside a long compilation, a
    second thread ends the process.
    """
    if _listening.get("process") == os.getpid() or threading.current_thread() is not threading.main_thread():
        return
    _listening["process"] = os.getpid()
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_end_for_a_busy_main_thread, args=(heard,), daemon=True, name="signals").start()


def _end_for_a_busy_main_thread(heard: int) -> None:
    while number := os.read(heard, 1):
        if signal.Signals(number[0]).name in SIGNALS:
            time.sleep(PATIENCE)
            _end(number[0])


def _end(number: int, _frame: FrameType | None = None) -> None:
    """Say one sentence, remove what is half written, and end with the status of a signal."""
    if os.getpid() != _listening.get("process"):  # a fork inherits handlers, not the command
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    with _ending:
        _write_error(f"{SIGNALS[signal.Signals(number).name]}{promised()}")
        for path in list(_half_written):
            with contextlib.suppress(OSError):
                path.unlink()
        os._exit(128 + number)


# --- streams


class OutputError(OSError):
    """Standard output or standard error could not be written."""


class _Output(io.FileIO):
    """A standard stream, whose errors can be told from those of files."""

    def write(self, data: Any, /) -> int:
        """See `io.FileIO`."""
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None


def _open_streams() -> None:
    """Open what whoever started the process has closed, so that no file takes its place; write in any encoding."""
    codecs.register_error("steppe.plain", _plain)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):  # not one that somebody put in its place
            raw = _Output(descriptor, "w", closefd=False)
            encoding = stream.encoding if stream else "utf-8"
            buffered = io.TextIOWrapper(
                io.BufferedWriter(raw), encoding, errors="steppe.plain", line_buffering=raw.isatty()
            )
            setattr(sys, name, buffered)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="steppe.plain")


PLAIN = {"λ": "lambda", "μ": "mu", "σ": "sigma", "ρ": "rho", "η": "eta", "α": "alpha", "⁄": "/",
         "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "…": "...", "’": "'", "‘": "'", "“": '"', "”": '"',
         "→": "->", "≥": ">=", "≤": "<=", "≈": "~", "±": "+-", "∞": "inf", "√": "sqrt", "•": "*"}  # fmt: skip
"""What a terminal without a character shows instead."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands in for characters that an encoding lacks: words, letters without their marks, or question marks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


def _ascii(character: str) -> str:
    """What stands in for one character.

    Examples
    --------
    >>> "".join(map(_ascii, "tr(H²) ≥ ⅓ × 10⁻⁶, é, ☃"))
    'tr(H^2) >= 1/3 x 10^-^6, e, ?'
    """
    if character in PLAIN or character.isascii():
        return PLAIN.get(character, character)
    kind, _, _ = unicodedata.decomposition(character).rpartition("> ")
    parts = [part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part)]
    if not parts or parts == [character]:
        return "?"
    return ("^" if kind == "<super" else "") + "".join(map(_ascii, parts))


def flush() -> None:
    """Write what is still held back.

    Raises
    ------
    Unwritten : it cannot be; it is thrown away, and so is what comes later.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OutputError:
            silence(stream)
            raise


def silence(stream: TextIO) -> None:
    """Throw away what is written to a stream from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def printable(text: str) -> str:
    """A text on one line, with whatever a terminal would act upon or could not show written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(message: str) -> None:
    """Write one sentence to standard error, on one line, without codes that a terminal obeys."""
    with _ending:  # not between a signal's sentence and the end
        try:
            print(f"steppe: {printable(message)}", file=sys.stderr, flush=True)
        except OutputError:
            silence(sys.stderr)


def _write_error(message: str) -> None:
    """Write a sentence past all buffers, which another thread may hold; take a bar away and show the cursor again."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    bar = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{bar}steppe: {message}\n".encode(encoding, "steppe.plain"))


# --- errors of the system

NO_LOCKS = ("The file system lacks something that Steppe needs, such as locks", "Choose a folder on a local disk.")

REASONS = {
    "ENOSPC": ("The disk is full", "Free some space."),
    "EDQUOT": ("Your disk quota is exhausted", "Free some space."),
    "EFBIG": ("The disk is full, or the file is larger than the system allows", "Free some space, or raise ulimit -f."),
    "EROFS": ("The file system is read-only", "Choose a folder that can be written."),
    "EACCES": ("Permission is denied", "Change the permissions, or choose another folder."),
    "EPERM": ("Permission is denied", "Change the permissions, or choose another folder."),
    "ENAMETOOLONG": ("The path is too long for this file system", "Choose a shorter folder or shorter names."),
    "ENOTDIR": ("A file is where a folder should be", "Move it away, or choose another folder."),
    "EEXIST": ("Something is where a file should be", "Move it away, or choose another folder."),
    "EISDIR": ("A folder is where a file should be", "Move it away, or choose another folder."),
    "ENOTEMPTY": ("A folder is where a file should be", "Move it away, or choose another folder."),
    "ELOOP": ("A symbolic link is where a file should be", "Remove it, or choose another folder."),
    "ENOENT": ("A file or folder is not there", "Was it moved or removed meanwhile? Put it back, or begin anew."),
    "ESTALE": ("A file or folder is not there any more", "Mount the file system again."),
    "EMFILE": ("Too many files are open", "Raise the limit by ulimit -n."),
    "ENFILE": ("Too many files are open on this machine", "End other programs."),
    "ENOLCK": NO_LOCKS,
    "ENOTSUP": NO_LOCKS,
    "EOPNOTSUPP": NO_LOCKS,
    "ENOSYS": NO_LOCKS,
    "EIO": ("The disk failed", "Check the disk, or choose a folder on another one."),
    "ENOMEM": ("There is too little memory", "End other programs, or ask for less."),
    "ECONNRESET": ("The connection was lost", "Repeat the command."),
    "ETIMEDOUT": ("The connection or the file system did not answer", "Repeat the command."),
}
"""What an error of the system means, and what to do, by its name in `errno`."""


def _short(path: str, most: int = 200) -> str:
    """A path of which the middle is left out where it is long."""
    return path if len(path) <= most else f"{path[: most // 2]}...{path[-most // 2 :]}"


def cause(error: OSError) -> tuple[str, str]:
    """What happened, without a full stop, and what to do, a sentence or nothing.

    Examples
    --------
    >>> cause(OSError(errno.EROFS, "Read-only file system", "out/a"))
    ('The file system is read-only', 'Choose a folder that can be written.')
    """
    message = (str(error.strerror or error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return REASONS.get(errno.errorcode.get(error.errno or 0, ""), (message, ""))


def explanation(error: OSError) -> str:
    """What happened, where, and what to do, in two sentences or one.

    Examples
    --------
    >>> explanation(OSError(errno.EROFS, "Read-only file system", "out/a"))
    "The file system is read-only ('out/a'). Choose a folder that can be written."
    """
    what, remedy = cause(error)
    places = [
        _short(repr(os.fsdecode(name))) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    ]
    where = f" ({', '.join(dict.fromkeys(places))})" if places else ""
    return f"{what}{where}.{' ' + remedy if remedy else ''}"
