"""The model card of a bundle, README.md, generated from its config, its results and its scores on other corpora."""

from __future__ import annotations

from typing import Any

from affekt.bundle.folder import DEFAULT, Bundle
from affekt.bundle.predictions import LabeledPredictions
from affekt.protocols import INDEPENDENT
from affekt.protocols.split import UNKNOWN
from affekt.reports.across import across_section, percent
from affekt.reports.confidence import confidence_section
from affekt.reports.languages import language_name
from affekt.reports.refusals import refusals_section
from affekt.reports.shifts import shifts_section
from affekt.tables import table

TEMPLATE = """\
# {name}: speech emotion recognition

`{id}`, made with affekt {version}. {about}

One ONNX file. Input: {inputs}. Output: probabilities of {emotions}.

    {use}

## Scores

{held_out}

- Protocol: {protocol}.
- Model selection: {selection}.
- The scores are those of the ONNX file.
- UA is mean recall, WA is accuracy, WF1 is support-weighted F1, ECE is the expected calibration error, all in percent.

{scores}
{intervals}

{recalls}
{probes}
## Scores on corpora that it was not trained on

{across}{shifts}{refusals}{confidence}
## Data and licenses

{data}

{encoder}Everything else in this bundle is under affekt's MIT license.
{alterations}
## Limits

{limits}

## Emotions in voices

{general}
## How it was made

{command}; config.toml has every setting. `sha256sum -c SHA256SUMS` verifies every file of the bundle.
{optimization}
{members}, seed {seed}, {epochs}, {utterances} utterances; the weights were rounded to 16 bits before scoring.
Training is bit-identical on the same type of machine with the same number of threads. Here: {processor}, {threads},
torch {torch}, Python {python}. Probabilities from ONNX and torch agree to {agreement:.0e}.
"""

PROBES = """
## Comparison with linear probes

A linear probe is a logistic regression on the standardized mean and standard deviation of features over time, trained and
scored on the same utterances as the model. The difference is the model's UA minus the probe's, with its 95 % bootstrap
interval over speakers (none below ten speakers). "only model" and "only probe" count the utterances that only one of them
classifies correctly; p is from McNemar's exact two-sided test of these counts, which treats utterances as independent.

{table}
{verdicts}
"""

WHISPER = """\
The encoder is from Whisper ({weights}front end, convolutions and the first {blocks} blocks, {state}), copyright OpenAI,
under the MIT license; see LICENSE.whisper beside this card.
"""

SAMPLING = {
    "balanced": ("emotion", "equally often"),
    "corpora": ("corpus", "in proportion to the square root of its number of utterances"),
}
"""The setting `sampling` in words: what is sampled, and how often."""

GENERAL = """\
- Emotions that actors play for a corpus are stronger, purer and more evenly distributed than those that people feel. A score
  on acted speech says little about a call or a meeting.
- People do not agree on the emotion in a voice either. CREMA-D's labels are what the actors meant to express; of the answers
  of people who heard the audio alone, 41 % agreed with that (Cao et al. 2014). EmoDB's clips were selected: at least 80 % of
  the listeners recognized each of them (Burkhardt et al. 2005). A score far above that partly shows how a corpus is made.
- On natural speech (podcasts, eight classes), systems near the top of the Interspeech 2025 challenge reached a macro-F1 of
  about 0.41, with much larger models, most of which also read the words. Do not expect more of this model.
- The answer is what a voice resembles, not what a person feels. Moods, illness, age, accent, culture, irony and microphones
  change voices too.
- In the European Union, Article 5(1)(f) of the AI Act prohibits inferring the emotions of people at work and in education,
  except for medical or safety reasons. Since August 2026, Article 50(3) obliges those who use an emotion recognition system
  to tell the people who are exposed to it. Other laws may apply too. Do not use it to make decisions about people.
"""


def card(bundle: Bundle) -> str:
    """Return the model card in Markdown."""
    config, results = bundle.config, bundle.results
    recipe, scores, machine = config["recipe"], results["scores"], results["machine"]
    alterations = "".join(f"\n{entry['alteration']}\n" for entry in results["data"] if entry["alteration"])
    return TEMPLATE.format(
        name=bundle.name,
        id=results["model"],
        inputs=_inputs(config),
        use=_use(bundle),
        version=config["version"],
        about=recipe["about"],
        emotions=", ".join(bundle.emotions),
        held_out=_held_out(config),
        protocol=_protocol(config, results),
        selection=results["selection"],
        scores=_scores(scores),
        intervals="\n".join(f"- {_title(entry)}: {entry['model']['intervals']}." for entry in scores.values()),
        recalls=_recalls(scores, bundle.emotions),
        probes=_probes(scores),
        data="\n".join([*map(_data, results["data"]), *_sounds(recipe)]),
        encoder=_encoder(config),
        alterations=alterations,
        across=across_section(bundle),
        shifts=shifts_section(bundle.shifts),
        refusals=refusals_section(config, results, bundle.refusals),
        confidence=confidence_section(
            LabeledPredictions.of_bundle(bundle), {name: _title(entry) for name, entry in scores.items()}
        ),
        general=GENERAL,
        limits="\n".join(f"- {limit}" for limit in _limits(bundle)),
        command=_command(config),
        optimization=_optimization(recipe),
        members=f"{config['members']} models, their probabilities averaged" if config["members"] > 1 else "One model",
        seed=recipe["seed"],
        epochs=_epochs(config),
        utterances=sum(entry["utterances"] for entry in results["data"] if not entry["by"]),
        processor=machine["processor"],
        threads="1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads",
        torch=machine["torch"],
        python=machine["python"],
        agreement=results["agreement"],
    )


def _inputs(config: dict[str, Any]) -> str:
    """Describe the inputs of the ONNX graph."""
    features = dict(config["features"])
    text = features.pop("text", None)
    audio = ["raw 16 kHz waveform of any length from 0.1 s"] if features else []
    tokens = [f"the transcript as tokens of {text['name']} (batch, tokens, features) with their mask"] if text else []
    return " and ".join([*audio, *tokens])


def _use(bundle: Bundle) -> str:
    source = bundle.name if bundle.name == DEFAULT else "FOLDER_OF_THIS_CARD"
    if "text" in bundle.config["features"]:
        return f"affekt evaluate {source} CORPUS ROOT"
    return f"affekt recognize --model {source} hello.wav"


def _protocol(config: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the protocol, with the subsets if the data define them."""
    subsets = config["protocol"].get("subsets")
    return f"{results['protocol']}; subsets as in the data: {subsets}" if subsets else str(results["protocol"])


def _held_out(config: dict[str, Any]) -> str:
    protocol, start = config["protocol"], config.get("start", {})
    if known := start.get("known_test_utterances"):
        were = "was" if known == 1 else "were"
        return (
            f"On test utterances of which {known} {were} already in the training data of {start['id']}, from which this "
            "model was fine-tuned: these scores are too high. Expect lower scores on new recordings."
        )
    if protocol["selection"] == "paper":
        return "On speakers whose scores were also used to select the epoch: these scores are optimistic."
    if protocol["verdict"] == UNKNOWN:
        return "On utterances held out from training. Not all speakers are known: expect lower scores on new speakers."
    if protocol["verdict"] != INDEPENDENT:
        return "On utterances whose speakers are also in the training set: expect lower scores on new speakers."
    return "On speakers held out from training and from model selection."


def _title(entry: dict[str, Any]) -> str:
    return f"{entry['title']}, {entry['note']}" if entry["note"] else str(entry["title"])


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        [
            _title(entry),
            (f"{_count_speakers(entry['speakers'])}, " if entry["speakers"] else "")
            + f"{entry['model']['utterances']} utterances",
            *(percent(entry["model"][name]) for name in ("UA", "WA", "WF1")),
            f"{100 * entry['model']['ece']:.1f}",
        ]
        for entry in scores.values()
    ]
    return table(["corpus", "scored on", "UA", "WA", "WF1", "ECE"], rows)


def _recalls(scores: dict[str, Any], emotions: tuple[str, ...]) -> str:
    rows = []
    for entry in scores.values():
        recall = entry["model"]["recall"]
        cells = [_recall(recall[e], entry["counts"][e]) if e in recall else "-" for e in emotions]
        rows.append([_title(entry), *cells])
    return table(["recall", *emotions], rows)


def _recall(interval: dict[str, float], count: int) -> str:
    if interval["value"] == 1.0:
        # Every bootstrap draw has recall 1, and an interval without width would suggest certainty.
        return f"all of {count}"
    return f"{percent(interval)}, n = {count}"


def _count_speakers(count: int) -> str:
    return "1 speaker" if count == 1 else f"{count} speakers"


def _probes(scores: dict[str, Any]) -> str:
    """Return the section on linear probes, or "" without probes."""
    if not any(entry["probes"] for entry in scores.values()):
        return ""
    rows = []
    for entry in scores.values():
        rows.append([_title(entry), "this model", percent(entry["model"]["UA"]), "", "", "", ""])
        for name, probe in entry["probes"].items():
            against = probe["against"]
            difference = f"{100 * against['value']:+.1f}"
            if against["interval"]:
                difference += " ({:+.1f} to {:+.1f})".format(*(100 * end for end in against["interval"]))
            tests = [difference, str(against["better"]), str(against["worse"]), f"{against['p']:.2g}"]
            rows.append([_title(entry), f"probe, {name}", percent(probe["UA"]), *tests])
    compared = table(["corpus", "system", "UA", "difference", "only model", "only probe", "p"], rows)
    return PROBES.format(table=compared, verdicts="\n".join(f"- {line}" for line in _verdicts(scores)))


def _verdicts(scores: dict[str, Any]) -> list[str]:
    """Return a sentence per corpus that compares the model with the best probe."""
    lines = []
    for entry in scores.values():
        if not entry["probes"]:
            continue
        name, best = max(entry["probes"].items(), key=lambda item: item[1]["UA"]["value"])
        against = best["against"]
        significant = against["p"] < 0.05
        verb = "is ahead of" if against["value"] > 0 else "is behind"
        doubt = "" if significant else ", which is not significant"
        lines.append(
            f"{_title(entry)}: the model {verb} the best probe ({name}) by {100 * abs(against['value']):.1f} points of UA, "
            f"p = {against['p']:.2g}{doubt}."
        )
    return lines


def _data(entry: dict[str, Any]) -> str:
    """Return a line on a training corpus of this model, or of the model that it was fine-tuned from."""
    source = f" ({entry['source']})" if entry["source"] else ""
    speakers = f" of {_count_speakers(entry['speakers'])}" if entry["speakers"] else ""
    license = f" {entry['license']}." if entry["license"] else " Your own data, under your own license."
    by = f", used by {entry['by']}, from which this model was fine-tuned" if entry["by"] else ""
    return f"- {_title(entry)}{source}: {entry['utterances']} training utterances{speakers}{by}.{license}"


def _sounds(recipe: dict[str, Any]) -> list[str]:
    """Return a line on each source of sounds that the detector of speech was trained on, as the recipe credits it."""
    return [f"- For the detector of speech: {credit}" for credit in (recipe.get("detector") or {}).get("credits", [])]


def _encoder(config: dict[str, Any]) -> str:
    speech = config["features"].get("speech", {})
    if speech.get("name") != "whisper":
        return ""
    return WHISPER.format(
        weights=f"{config['weights']}: " if config["weights"] else "",
        blocks=max(speech["blocks"]),
        state="fine-tuned" if config["recipe"]["training"]["tune"] == "all" else "frozen",
    )


def _limits(bundle: Bundle) -> list[str]:
    scores, emotions = bundle.results["scores"], bundle.emotions
    lengths, detects_speech = bundle.config.get("lengths", {}), "detector" in bundle.config
    entries = list(scores.values())
    languages = sorted({language_name(entry["language"]) for entry in entries} - {""})
    limits = []
    if all(entry["style"] == "acted" for entry in entries):
        limits.append(
            "Acted speech, recorded in a studio. Spontaneous emotion is weaker and mixed; expect lower scores there."
        )
    if languages:
        limits.append(f"Trained on {' and '.join(languages)} only; expect lower scores in other languages.")
    else:
        limits.append("Languages and speaking styles that are not in the data are untested.")
    limits.append(
        f"{len(emotions)} classes: anything else is forced into one of them; probabilities are not certainties."
    )
    limits += [
        f"The stream {stream} has {frames} frames: longer inputs are cut off at the end, shorter ones are padded."
        for stream, frames in lengths.items()
    ]
    limits.append(
        "The detector of speech may refuse voices that are far from the microphone, as in meetings, and synthetic ones."
        if detects_speech
        else "It does not detect speech: music, tones and noise get an emotion too, often sad."
    )
    limits += [
        f"{entry['title']} was used as {entry['note']}, for training and for the scores."
        for entry in entries
        if entry["note"]
    ]
    limits += [
        f"{entry['title']}: the test set has no utterance of {', '.join(missing)}, so recognition of these is untested."
        for entry in entries
        if (missing := [emotion for emotion in emotions if emotion not in entry["model"]["recall"]])
    ]
    if all(entry["speakers"] for entry in entries):
        speakers = ", ".join(f"{entry['speakers']} of {entry['title']}" for entry in entries)
        limits.append(
            f"The test set has few speakers ({speakers}). Expect larger differences on other speakers, rooms and microphones."
        )
    return limits


def _command(config: dict[str, Any]) -> str:
    """Return the command that makes the model again."""
    recipe = config["recipe"]
    if "command" in config:
        return f"`{config['command']}` with AFFEKT_DATA and AFFEKT_MODELS set"
    if not recipe["start"]:
        return f"`affekt train {recipe['name']} --output FOLDER` with AFFEKT_DATA and AFFEKT_MODELS set"
    names = [entry if isinstance(entry, str) else entry["name"] for entry in recipe["corpora"]]
    corpora = "".join(f" --corpus {name.partition(':')[0]}:PATH" for name in names)
    return f"`affekt train --from {config['start']['name']}{corpora} --output FOLDER`, from {config['start']['id']}"


def _epochs(config: dict[str, Any]) -> str:
    """Return the number of epochs, and the selected epoch if it is not the last."""
    total, selected = config["recipe"]["training"]["epochs"], config["protocol"]["epochs"]
    if set(selected) == {total}:
        return f"{total} epochs"
    return f"epoch {', '.join(map(str, selected))} of {total}"


def _optimization(recipe: dict[str, Any]) -> str:
    training = recipe["training"]
    settings = {name: value for name, value in training["strategy"].items() if value and name != "name"}
    if training["tune"] == "head":
        settings = {name: value for name, value in settings.items() if not name.startswith("encoder_")}
    if not training.get("teacher"):
        settings.pop("distillation", None)
    listed = [name if value is True else f"{name} {value}" for name, value in settings.items()]
    sentences = [f"Settings: {', '.join(listed).replace('_', ' ')}."]
    augmentation = training["augmentation"]
    if training.get("teacher"):
        sentences.append(
            f"Distilled from {training['teacher'].get('folder', 'a larger encoder')}, a teacher used only during training."
        )
    if augmentation["copies"]:
        sentences.append(
            f"In each epoch an utterance is replaced, with probability {augmentation['copy_probability']}, by one of its "
            f"{augmentation['copies']} augmented copies ({_alterations(augmentation['alteration'])})."
        )
    if offsets := augmentation.get("offsets"):
        sentences += _offsets(offsets)
    if training.get("sampling", "plain") != "plain":
        unit, frequency = SAMPLING[training["sampling"]]
        sentences.append(f"An epoch samples every {unit} {frequency}.")
    if augmentation["crop"]:
        sentences.append(f"Up to {augmentation['crop']:.0%} of each utterance is cropped.")
    return " ".join(sentences)


def _offsets(offsets: dict[str, Any]) -> list[str]:
    """Return sentences on the offsets of features that varied in training."""
    sentences = []
    if offsets["center_probability"]:
        sentences.append(
            f"With probability {offsets['center_probability']}, its features are centered on its speaker or corpus."
        )
    if offsets["shift_probability"]:
        sentences.append(
            f"With probability {offsets['shift_probability']}, they are shifted by the difference of two speakers, "
            f"times up to {offsets['shift']}."
        )
    return sentences


def _alterations(settings: dict[str, Any]) -> str:
    """Return the kinds of augmentation that the copies have, such as "speed, noise"."""
    kinds = ["speed"] if settings["speed"] else []
    kinds += [
        kind.replace("pause_noise", "noise in pauses")
        for kind in ("pause", "pause_noise", "equalizer", "reverb", "noise", "lowpass", "codec")
        if settings.get(f"{kind}_probability")
    ]
    return ", ".join(kinds + (["gain"] if any(settings.get("gain", ())) else []))
