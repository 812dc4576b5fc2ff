"""A manifest is recognized on a Ray cluster of several nodes: nothing is lost and nothing done twice if one is killed."""

import time
from collections import Counter

import pytest

from affekt.ray_cluster import QUIET, connect
from affekt.workflows.recognize_manifest import recognize_manifest
from tests.sounds import encode_audio, noise
from tests.workflows.test_recognize_manifest import manifest_of, table

NUM_CLIPS = 2000
SHARD_ROWS = 50
MEMORY = 100_000_000
"""Bytes of each node's object store."""


@pytest.fixture(scope="module")
def cluster():
    """A cluster of three nodes on this machine, to which this process is connected."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=options)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            with connect(cluster.address):
                yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed in range(5):
        (folder / f"{seed}.wav").write_bytes(encode_audio(noise(1600, seed=seed)))
    (folder / "bad.wav").write_bytes(b"no audio")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own processes and sockets
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray")
def test_nothing_is_lost_or_done_twice_if_a_node_is_killed(cluster, clips, recognizer, tmp_path):
    names = ["0.wav", "1.wav", "bad.wav", "2.wav", "3.wav", "4.wav", "missing.wav"]
    manifest = manifest_of(clips, [names[index % len(names)] for index in range(NUM_CLIPS)])
    node, killed, calls = cluster.list_all_nodes()[-1], [], []

    def kill(*call):
        calls.append(call)
        if not killed and len(list((tmp_path / "ray").glob("*.parquet"))) >= 5:
            cluster.remove_node(node, allow_graceful=False)
            killed.append(len(list((tmp_path / "ray").glob("*.parquet"))))

    options = {"recognizer": recognizer, "shard_rows": SHARD_ROWS}
    start = time.monotonic()
    summary = recognize_manifest(manifest, str(tmp_path / "ray"), ray=cluster.address, progress=kill, **options)
    assert killed
    assert 5 <= killed[0] < NUM_CLIPS / SHARD_ROWS
    rows = table(tmp_path / "ray")
    assert Counter(row["id"] for row in rows) == Counter(str(index) for index in range(NUM_CLIPS))
    assert summary.rows == NUM_CLIPS
    assert summary.failed == sum(row["status"] == "error" for row in rows)
    assert time.monotonic() - start < 90
