"""The entry of a worker process that dies or fails with the jobs of some seeds."""

import os
from unittest import mock

from affekt.errors import Diverged
from affekt.training import loop
from affekt.workflows import job_worker
from affekt.workflows.job_runner import JobRunner

DEADLY, DEADLY_ONCE, FAILING = "seed-2", "seed-1", "seed-3"


def work():
    """Work as any worker, except with some seeds: each worker dies with `DEADLY`, and one dies with `DEADLY_ONCE`, after its
    first epoch."""
    train, delete = JobRunner.train, loop._delete_weights

    def train_or_die(runner, prepared):
        seed = prepared.job.folder.name
        if seed == DEADLY:
            os._exit(3)
        if seed == FAILING:
            raise Diverged("the loss is infinite")
        train(runner, prepared)

    def delete_or_die(run, epoch):
        if run.folder.name == DEADLY_ONCE and epoch == 1:
            os._exit(3)
        delete(run, epoch)

    with mock.patch.object(JobRunner, "train", train_or_die), mock.patch.object(loop, "_delete_weights", delete_or_die):
        job_worker.work()
