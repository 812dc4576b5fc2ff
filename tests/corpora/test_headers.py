"""All audio files are checked by their headers before features are computed."""

import numpy as np
import pytest
import soundfile

from affekt.corpora.headers import check_headers
from affekt.errors import BadCorpus
from affekt.utterance import Utterance


def utterance(folder, name, seconds, **times):
    path = folder / f"{name}.wav"
    soundfile.write(path, np.zeros(round(16_000 * seconds), np.float32), 16_000)
    return Utterance(name, "made", path, "sad", **times)


def test_all_unusable_files_are_listed_with_the_setting_that_leaves_them_out(tmp_path):
    broken = utterance(tmp_path, "broken", 1.0)
    broken.audio.write_bytes(b"not audio")
    missing = Utterance("missing", "made", tmp_path / "missing.wav", "sad")
    short, late = utterance(tmp_path, "short", 0.05), utterance(tmp_path, "late", 1.0, start=0.5, end=1.5)
    cut = utterance(tmp_path, "cut", 1.0)
    cut.audio.write_bytes(cut.audio.read_bytes()[:16_000])
    with pytest.raises(BadCorpus, match="5 of 6 utterances have no usable audio") as error:
        check_headers([utterance(tmp_path, "good", 1.0), broken, missing, short, late, cut])
    message = str(error.value)
    assert "without = ['broken', 'missing', 'short', 'late', 'cut']" in message
    assert "its header declares 32000 bytes of audio, but only 15956 exist)" in message
    assert "short (0.05 s, shorter than 0.1 s)" in message
    assert "late (ends at 1.50 s, its file at 1.00 s)" in message


def test_usable_files_and_utterances_without_audio_are_accepted(tmp_path):
    segment = utterance(tmp_path, "segment", 1.0, start=0.2, end=1.05)  # within the tolerance
    check_headers([utterance(tmp_path, "shortest", 0.1), segment, Utterance("text", "made", None, "sad")])
