"""`affekt calibrate`: predictions for labeled clips, and the error rate that they promise."""

import soundfile

from affekt import Recognizer
from affekt.bundle.predictions import LabeledPredictions
from tests.commands import affekt
from tests.conftest import write_tiny_bundle
from tests.sounds import noise

EMOTIONS = ("angry", "happy", "sad")


def test_labeled_clips_calibrate_the_sets_of_emotions(tmp_path):
    write_tiny_bundle(tmp_path / "tiny", EMOTIONS)
    for number, emotion in enumerate(("angry", "happy", "sad", "bored")):
        (tmp_path / "corpus" / emotion).mkdir(parents=True)
        for take in range(4):
            waveform = 0.1 * (1 + take) * noise(16_000, 10 * number + take)
            soundfile.write(tmp_path / "corpus" / emotion / f"{take}.wav", waveform, 16_000)
    (tmp_path / "corpus" / "sad" / "4.wav").write_bytes(b"no audio")
    arguments = (
        "calibrate",
        "folder",
        tmp_path / "corpus",
        "--model",
        tmp_path / "tiny",
        "--output",
        tmp_path / "mine.json",
    )
    done = affekt(*arguments)
    assert (done.returncode, "with 12 clips" in done.stdout) == (0, True), done.stderr
    assert "4 of 17 clips left out" in done.stderr
    assert affekt(*arguments).returncode == 2  # nothing is overwritten
    predictions = LabeledPredictions.read(tmp_path / "mine.json")
    true = sorted(predictions.probabilities[range(12), predictions.labels])
    options = {"error_rate": 0.2, "calibration": tmp_path / "mine.json"}
    assert Recognizer.load(tmp_path / "tiny", **options).decision.min_probability == true[1]
    assert (
        affekt("calibrate", "folder", tmp_path / "tiny", "--model", tmp_path / "tiny", "--output", "x").returncode == 2
    )
