"""Write small corpora to disk, in their published layouts."""

from tests.sounds import encode_audio, noise, tone

SPEAKERS_4 = {
    "Ses01F": 528, "Ses01M": 557, "Ses02F": 481, "Ses02M": 542, "Ses03F": 522,
    "Ses03M": 629, "Ses04F": 528, "Ses04M": 503, "Ses05F": 590, "Ses05M": 651,
}  # fmt: skip
SPEAKERS_IMPROVISED = {
    "Ses01F": 217, "Ses01M": 205, "Ses02F": 185, "Ses02M": 208, "Ses03F": 264,
    "Ses03M": 274, "Ses04F": 149, "Ses04M": 221, "Ses05F": 298, "Ses05M": 259,
}  # fmt: skip


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


def write_noise(path, seed=0, seconds=0.5):
    """Write noise, a different one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_audio(noise(round(seconds * 16_000), seed), format=path.suffix[1:].upper()))
    return path


def write_tone(path, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_audio(tone(seconds)))
    return path


def iemocap_turn(root, utterance, emotion, text="Excuse me."):
    """Add an utterance to the labels and the transcripts, followed by lines of single annotators."""
    dialogue, session = utterance.rpartition("_")[0], f"Session{int(utterance[3:5])}"
    labels = root / session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    texts = root / session / "dialog" / "transcriptions" / f"{dialogue}.txt"
    for path in (labels, texts):
        path.parent.mkdir(parents=True, exist_ok=True)
    with labels.open("a") as stream:
        stream.write(f"{_turn(utterance, emotion)}C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n")
    with texts.open("a") as stream:
        stream.write(f"{utterance} [006.2901-008.2357]: {text}\n")


def _turn(utterance, emotion):
    return f"[6.2901 - 8.2357]\t{utterance}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"


def whole_iemocap(root):
    """Write all of IEMOCAP's labels, with the published number of utterances per emotion, speaker and label set."""
    counts_by_dialogue = {
        "impro01": (SPEAKERS_IMPROVISED, {"ang": 289, "hap": 284, "sad": 608, "neu": 1099}),
        "script01_1": (
            {speaker: count - SPEAKERS_IMPROVISED[speaker] for speaker, count in SPEAKERS_4.items()},
            {"ang": 814, "hap": 311, "exc": 1041, "sad": 476, "neu": 609},
        ),
        "script02_1": ({"Ses01F": 4508}, {"fru": 1849, "sur": 107, "fea": 40, "dis": 2, "oth": 3, "xxx": 2507}),
    }
    for kind, (speakers, emotions) in counts_by_dialogue.items():
        labels = iter([label for label, count in emotions.items() for _ in range(count)])
        for speaker, count in speakers.items():
            dialogue = f"{speaker[:5]}F_{kind}"
            lines = [_turn(f"{dialogue}_{speaker[5]}{n:04}", next(labels)) for n in range(count)]
            path = root / f"Session{speaker[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as stream:
                stream.write("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n" + "".join(lines))
        assert next(labels, None) is None


def meld_table(root, split, *rows):
    """Write a subset's table from rows of (utterance, speaker, emotion, dialogue, number)."""
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    lines = [
        f'{n},"{text}",{speaker},{emotion},neutral,{dialogue},{utterance},4,7,"00:20:57,256","00:21:00,049"'
        for n, (text, speaker, emotion, dialogue, utterance) in enumerate(rows, start=1)
    ]
    write(root / f"{split}_sent_emo.csv", "\n".join([header, *lines]) + "\n")
