"""A manifest is recognized on a Ray cluster of several nodes: nothing is lost and nothing done twice if one is killed."""

import pytest

from affekt import BadConfig
from affekt.ray_cluster import QUIET, connect
from affekt.workflows.recognize_manifest import recognize_manifest
from tests.sounds import encode_audio, noise
from tests.workflows.test_recognize_manifest import manifest_of, table

pytestmark = [
    pytest.mark.slow,
    # Warnings of Ray about its own processes, sockets and settings.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
NUM_CLIPS = 2000
SHARD_ROWS = 50
MEMORY = 100_000_000
"""Bytes of each node's object store."""


@pytest.fixture
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


def without_worker(row):
    """Return a row without the name of the worker, which only the message of a missing file has."""
    error = row["error"] and row["error"] | {"message": row["error"]["message"].partition(" (on the worker ")[0]}
    return row | {"error": error}


def test_an_address_without_a_cluster_is_refused():
    pytest.importorskip("ray")
    for address, message in (
        ("127.0.0.1:9", "nothing answers there .*refused"),
        ("ray://127.0.0.1:9", "expected auto, or HOST:PORT"),
        ("x", "expected auto, or HOST:PORT"),
    ):
        with pytest.raises(BadConfig, match=f"--ray {address}: {message}"), connect(address):
            pass


def test_nothing_is_lost_or_done_twice_if_a_node_is_killed(cluster, clips, recognizer, tmp_path):
    names = ["0.wav", "1.wav", "bad.wav", "2.wav", "3.wav", "4.wav", "missing.wav"]
    manifest = manifest_of(clips, [names[index % len(names)] for index in range(NUM_CLIPS)])
    node, parts = cluster.list_all_nodes()[-1], []

    def kill(*_):
        finished = len(list((tmp_path / "ray").glob("*.parquet")))
        if not parts and finished >= 5:
            cluster.remove_node(node, allow_graceful=False)
            parts.append(finished)

    options = {"recognizer": recognizer, "shard_rows": SHARD_ROWS}
    summary = recognize_manifest(manifest, str(tmp_path / "ray"), ray=cluster.address, progress=kill, **options)
    assert parts
    assert parts[0] < NUM_CLIPS / SHARD_ROWS
    rows = table(tmp_path / "ray")
    assert [row["id"] for row in rows] == [str(index) for index in range(NUM_CLIPS)]
    assert (summary.rows, summary.failed) == (NUM_CLIPS, sum(row["status"] == "error" for row in rows))
    missing = next(row for row in rows if row["file"] == "missing.wav")
    assert "missing.wav does not exist (on the worker " in missing["error"]["message"]
    recognize_manifest(manifest, str(tmp_path / "alone"), jobs=1, **options)
    assert list(map(without_worker, rows)) == table(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "ray").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
