"""Run the command line in the process of the tests."""

import contextlib
import io
import subprocess
import sys

import pytest

from affekt import cli


def affekt(*arguments):
    """Run the command here, without the second that a process of its own takes, and return what it would have returned."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
            patch.delenv(variable, raising=False)
        patch.setattr(sys, "argv", ["affekt", *map(str, arguments)])
        patch.setattr(cli, "_end_abandoned_decoders", lambda: None)  # ends the process if another test left one
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as exit:
            cli.main()
    return subprocess.CompletedProcess(arguments, exit.value.code or 0, output.getvalue(), errors.getvalue())
