"""The entry of a worker process that dies with some files, for the tests of recognition in several processes."""

import os
from pathlib import Path
from unittest import mock

from affekt.inference import worker
from affekt.inference.recognizer import Recognizer

DEADLY = "dies"
"""Part of the name of a file with which each worker dies."""
ONCE = "once"
"""Part of the name of a file with which only the first worker dies; it leaves a file with the suffix .died."""


def work():
    """Work as any worker, except with the deadly files."""
    row = Recognizer.row

    def die_with_some(recognizer, source, **options):
        died = Path(f"{source}.died")
        if DEADLY in source or (ONCE in source and not died.exists()):
            died.touch()
            os._exit(3)
        return row(recognizer, source, **options)

    with mock.patch.object(Recognizer, "row", die_with_some):
        worker.work()


def never_ready():
    """End before the recognizer is loaded."""
    os._exit(4)
