"""Corpora in an object store, which are copied to the cache."""

import uuid

import pytest

from affekt.corpora.remote import fetch_corpus
from affekt.corpora.source import Source
from affekt.errors import BadCorpus
from tests.logs import logged
from tests.synthetic import make_folder

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def url(tmp_path, monkeypatch):
    """The URL of a folder of six clips in memory."""
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    local = make_folder(
        tmp_path / "calls", [f"{emotion}/{number}.wav" for emotion in ("angry", "sad") for number in "123"]
    )
    url = f"memory://{uuid.uuid4().hex}/calls"
    fsspec.filesystem("memory").put(str(local), url, recursive=True)
    fetch_corpus.cache_clear()
    return url


def test_a_corpus_in_an_object_store_is_copied_once_and_read_as_a_folder(url, tmp_path):
    with logged() as messages:
        source = Source.parse(f"folder:{url}")
        utterances = source.read()
        fetch_corpus.cache_clear()
        assert source.read() == utterances
    assert [message for message in messages if "copying 6 files" in message] == messages
    assert source.id == "calls"
    copies = [(utterance.audio, tmp_path / "calls" / utterance.id) for utterance in utterances]
    assert len(copies) == 6
    assert all(copy.read_bytes() == original.with_suffix(".wav").read_bytes() for copy, original in copies)


def test_a_corpus_that_has_changed_is_copied_again(url):
    before = fetch_corpus(url)
    fsspec.filesystem("memory").pipe(f"{url}/sad/1.wav", b"changed")
    assert fetch_corpus(url) == before  # for the rest of the process
    fetch_corpus.cache_clear()
    after = fetch_corpus(url)
    assert (after / "sad" / "1.wav").read_bytes() == b"changed"
    assert (before / "sad" / "1.wav").read_bytes() != b"changed"


def test_urls_below_the_data_root(url, monkeypatch):
    monkeypatch.setenv("AFFEKT_DATA", url.rpartition("/")[0])
    fsspec.filesystem("memory").put(str(fetch_corpus(url)), url.replace("calls", "cremad"), recursive=True)
    assert Source.parse("cremad").path.name == "cremad"


def test_what_cannot_be_copied_is_named(url, monkeypatch):
    with pytest.raises(BadCorpus, match=f"{url}/nothing (has no files|cannot be read)"):
        fetch_corpus(f"{url}/nothing")
    with pytest.raises(BadCorpus, match="a table must be a local file"):
        Source.parse(f"table:{url}/calls.csv").read()

    def fail(*_, **__):
        raise PermissionError("access denied")

    monkeypatch.setattr(fsspec.filesystem("memory"), "get_file", fail)
    with pytest.raises(BadCorpus, match=r"cannot be copied to .* \(PermissionError: access denied\)"):
        fetch_corpus(url)
