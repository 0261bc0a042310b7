"""The entry point: runs a command, and turns a user's error into one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from gradsim.cli.errors import UserError

__all__ = ["main"]

_NEEDED = {"typer", "click", "rich", "babel", "scipy", "sklearn", "matplotlib", "jinja2"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `gradsim` with `arguments` (those of the process for None) and return the exit code.

    0: done; 2: an error of the user's, told in one line on stderr; 130: interrupted. An error of ours is raised.
    """
    try:
        from gradsim.cli.app import run

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _NEEDED:
            raise
        return _fail(f"this command needs {package}: pip install 'gradsim-kernels[demo]'")
    except ImportError as error:
        if "pip install" not in str(error):  # ours say how to get what is missing
            raise
        return _fail(str(error))
    except UserError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except KeyboardInterrupt:
        print("gradsim: interrupted", file=sys.stderr)
        return 130


def _fail(message: str) -> int:
    print("gradsim: " + " ".join(message.split()), file=sys.stderr)
    return 2
