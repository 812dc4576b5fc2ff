"""Work on several threads: torch's own, or a pool's."""

import os
import threading

import pytest

from affekt.models.layers import threads


@pytest.fixture(params=["torch", "pool"])
def way(request, monkeypatch):
    if request.param == "pool":
        monkeypatch.setattr(threads, "_team", lambda: None)
    elif threads._team() is None:
        pytest.skip("torch's threads are not GNU OpenMP's here")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shares", [0, 1, 2, 5])
def test_every_share_is_done_once(shares):
    done = []
    threads.run_in_parallel(done.append, list(range(shares)))
    assert sorted(done) == list(range(shares))


@pytest.mark.usefixtures("way")
def test_shares_are_done_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    threads.run_in_parallel(lambda _: meeting.wait(), [0, 1])


@pytest.mark.usefixtures("way")
def test_a_fault_in_any_share_is_raised_and_the_others_are_done():
    done = []

    def run(share):
        if share == 1:
            raise ValueError("share 1")
        done.append(share)

    with pytest.raises(ValueError, match="share 1"):
        threads.run_in_parallel(run, [0, 1, 2])
    assert sorted(done) == [0, 2]


@pytest.mark.usefixtures("way")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of a fork beside threads: the very case
def test_a_child_process_does_not_wait_for_threads_that_it_has_not():
    threads.run_in_parallel(lambda _: None, [0, 1])
    child = os.fork()
    if child == 0:
        done = []
        threads.run_in_parallel(done.append, [0, 1, 2])
        os._exit(0 if done == [0, 1, 2] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("way")
def test_a_share_that_a_signal_kept_from_being_done_is_not_taken_for_done(monkeypatch):
    monkeypatch.setattr(threads, "_team", lambda: lambda _work, _threads: None)
    with pytest.raises(KeyboardInterrupt):
        threads.run_in_parallel(print, [0, 1])
