"""Parallel execution on torch's own threads, or on those of a pool."""

import os
import threading

import pytest

from affekt.models.layers import threads


@pytest.fixture(params=["torch", "pool"])
def backend(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("torch does not use GNU OpenMP on this system")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_task_runs_once(count):
    done = []
    threads.run_in_parallel(done.append, list(range(count)))
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("backend")
def test_tasks_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=20)
    threads.run_in_parallel(lambda _: barrier.wait(), [0, 1])


@pytest.mark.usefixtures("backend")
def test_an_error_in_one_task_is_raised_and_the_others_run():
    done = []

    def run(task):
        if task == 1:
            raise ValueError("task 1")
        done.append(task)

    with pytest.raises(ValueError, match="task 1"):
        threads.run_in_parallel(run, [0, 1, 2])
    assert sorted(done) == [0, 2]


@pytest.mark.usefixtures("backend")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
# Newer Pythons warn of a fork with threads, which is tested here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_threads():
    threads.run_in_parallel(lambda _: None, [0, 1])
    child = os.fork()
    if child == 0:
        done = []
        threads.run_in_parallel(done.append, [0, 1, 2])
        os._exit(0 if done == [0, 1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("backend")
def test_an_interrupted_task_raises_keyboard_interrupt(monkeypatch):
    monkeypatch.setattr(threads, "_openmp", lambda: lambda _work, _threads: None)
    with pytest.raises(KeyboardInterrupt):
        threads.run_in_parallel(print, [0, 1])
