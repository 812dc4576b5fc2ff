"""The type of the callback to which long-running functions report their progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(task, done, total)`: the task's name, how many of its steps are done, and how many there are."""
