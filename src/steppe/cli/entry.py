"""The command ``steppe``: every way in which it ends is a status and, if it is no success, one sentence.

The commands themselves are in `steppe.cli.app`, which is imported when signals are already heard.
"""

import errno
import importlib.metadata
import os
import signal
import sys

from steppe.core import extras, process


def main() -> None:
    """Run the command that the process was started with; return, or exit with a status that is not 0."""
    process.begin()
    status = _status(sys.argv[1:])
    if status:
        sys.exit(status)


def _status(arguments: list[str]) -> int:
    """Run a command; say what went wrong, if anything, and return the status."""
    try:
        process.require_unix()
        if arguments == ["--version"]:  # also where the command's own packages are missing
            sys.stdout.write(f"steppe {importlib.metadata.version('steppe')}\n")
            status = 0
        else:
            extras.require("The command steppe", "study", "report", "cli")
            from steppe.cli import app

            status = app.invoke(arguments)
        process.flush()
        return status
    except (process.UnsupportedSystem, extras.MissingExtra) as error:
        process.say(str(error))
        return 2
    except KeyboardInterrupt:  # raised by a function of somebody else; the system's signal never comes so far
        process.say(f"{process.SIGNALS['SIGINT']}{process.promised()}")
        return 128 + signal.SIGINT
    except MemoryError:
        process.say(f"There is too little memory. End other programs, or ask for less.{process.promised()}")
        return 1
    except process.OutputError as error:
        process.silence(sys.stdout)
        return _unwritten(error)
    except OSError as error:
        process.say(process.explanation(error) + process.promised())
        return 1


def _unwritten(error: process.OutputError) -> int:
    """The status where output cannot be written; silent where its reader has read enough, as ``head`` does."""
    if error.errno == errno.EPIPE:
        return 128 + getattr(signal, "SIGPIPE", 13)
    process.say(f"Standard output cannot be written: {os.strerror(error.errno or errno.EIO)}.")
    return 1


if __name__ == "__main__":
    main()
