"""A bundle's card, README.md: written from its config and results, never by hand."""

from __future__ import annotations

from typing import Any

from affekt.bundle.folder import DEFAULT, Bundle
from affekt.protocols import INDEPENDENT
from affekt.protocols.split import UNKNOWN
from affekt.tables import table

TEMPLATE = """\
# {name}: the emotion in a voice

`{id}`, made by affekt {version}. {about}

One ONNX file: {inputs} in, probabilities of {emotions} out.

    {use}

## Scores

{untouched}

- Protocol: {protocol}.
- Selection: {selection}.
- Scored: the ONNX file, as a user runs it.
- UA is mean recall, WA accuracy, WF1 support-weighted F1, ECE expected calibration error, all in percent.

{scores}
{intervals}

{recalls}
{probes}
## Data and licences

{data}

{encoder}The head and all else in this bundle are affekt's, under the MIT licence.
{alterations}
## Limits

{limits}

## How it was made

{command}; every setting stands in config.toml.
{optimisation}
{members}, seed {seed}, {epochs}, {utterances} utterances; weights rounded to 16 bits before anything was scored.
Bit-identical on one type of machine and number of threads; these were: {processor}, {threads} threads, torch {torch},
Python {python}. ONNX and torch agree to {agreement:.0e} in probability.
"""

PROBES = """
## Beside linear probes

Mean and standard deviation over time, standardised, logistic regression, trained and scored on the same people. The
difference of UA is the model's minus the probe's, with its 95 % bootstrap interval over speakers (none below ten speakers).
"only model" and "only probe" count the utterances that one alone gets right; p is McNemar's exact two-sided test of those
two counts, which takes utterances as independent.

{table}
{verdicts}
"""

WHISPER = """\
The encoder is Whisper's ({weights}front end, convolutions and the first {blocks} blocks, {state}), copyright OpenAI,
under the MIT licence; its notice stands in LICENSE.whisper beside this card.
"""

LANGUAGES = {"de": "German", "en": "English"}


def card(bundle: Bundle) -> str:
    """The card's Markdown."""
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
        untouched=_untouched(config["protocol"]),
        protocol=results["protocol"],
        selection=results["selection"],
        scores=_scores(scores),
        intervals="\n".join(f"- {_title(entry)}: {entry['model']['intervals']}." for entry in scores.values()),
        recalls=_recalls(scores, bundle.emotions),
        probes=_probes(scores),
        data="\n".join(_data(entry) for entry in results["data"]),
        encoder=_encoder(config),
        alterations=alterations,
        limits="\n".join(f"- {limit}" for limit in _limits(scores, bundle.emotions, config.get("lengths", {}))),
        command=_command(config),
        optimisation=_optimisation(recipe),
        members=f"{config['members']} models, their probabilities averaged" if config["members"] > 1 else "One model",
        seed=recipe["seed"],
        epochs=_epochs(config),
        utterances=sum(entry["utterances"] for entry in results["data"] if not entry["by"]),
        processor=machine["processor"],
        threads=machine["threads"],
        torch=machine["torch"],
        python=machine["python"],
        agreement=results["agreement"],
    )


def _inputs(config: dict[str, Any]) -> str:
    """What the graph takes, in words."""
    streams = dict(config.get("streams", {}))
    text = streams.pop("text", None)
    sound = ["raw 16 kHz waveform of any length from 0.1 s"] if "encoder" in config or streams else []
    words = [f"the words as tokens of {text['name']} (batch, tokens, features) with their mask"] if text else []
    return " and ".join([*sound, *words])


def _use(bundle: Bundle) -> str:
    place = bundle.name if bundle.name == DEFAULT else "FOLDER_OF_THIS_CARD"
    if "text" in bundle.config.get("streams", {}):
        return f"affekt evaluate {place} CORPUS ROOT"
    return f"affekt recognize --model {place} hello.wav"


def _untouched(protocol: dict[str, Any]) -> str:
    if protocol["selection"] == "paper":
        return "On people by whose scores the epoch was chosen: these figures are optimistic."
    if protocol["verdict"] == UNKNOWN:
        return "On utterances that were not trained on. Who speaks is not known of all: new voices will fare worse."
    if protocol["verdict"] != INDEPENDENT:
        return "On utterances whose speakers were also trained on: new voices will fare worse."
    return "On speakers held out from training and from the choice of the epoch."


def _title(entry: dict[str, Any]) -> str:
    return f"{entry['title']}, {entry['note']}" if entry["note"] else str(entry["title"])


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        [
            _title(entry),
            (f"{_people(entry['people'])}, " if entry["people"] else "") + f"{entry['model']['utterances']} utterances",
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
    if interval["value"] == 1.0:  # a bootstrap of what is always right has no width, and that is no certainty
        return f"all of {count}"
    return f"{percent(interval)}, n = {count}"


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _probes(scores: dict[str, Any]) -> str:
    """The section on probes; empty where there are none."""
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
    """A sentence per corpus: whether the model is shown to beat the best of the probes."""
    lines = []
    for entry in scores.values():
        if not entry["probes"]:
            continue
        name, best = max(entry["probes"].items(), key=lambda item: item[1]["UA"]["value"])
        against = best["against"]
        shown = against["p"] < 0.05
        verb = "is ahead of" if against["value"] > 0 else "is behind"
        doubt = "" if shown else ", which may be chance: neither is shown to be better"
        lines.append(
            f"{_title(entry)}: the model {verb} the best probe ({name}) by {100 * abs(against['value']):.1f} points of UA, "
            f"p = {against['p']:.2g}{doubt}."
        )
    return lines


def _data(entry: dict[str, Any]) -> str:
    """A corpus that was trained on, by this model or by the one that it started from."""
    source = f" ({entry['source']})" if entry["source"] else ""
    people = f" of {_people(entry['people'])}" if entry["people"] else ""
    licence = (
        f" {entry['licence']}." if entry["licence"] else " Whose they are, and what they may be used for, you know."
    )
    by = f", by {entry['by']}, from which this model was fine-tuned" if entry["by"] else ""
    return f"- {_title(entry)}{source}: {entry['utterances']} utterances{people} to train on{by}.{licence}"


def _encoder(config: dict[str, Any]) -> str:
    if config.get("encoder", {}).get("name") != "whisper":
        return ""
    return WHISPER.format(
        weights=f"{config['weights']}: " if config["weights"] else "",
        blocks=max(config["encoder"]["blocks"]),
        state="trained further" if config["recipe"]["training"]["tune"] == "all" else "not trained here",
    )


def _limits(scores: dict[str, Any], emotions: tuple[str, ...], lengths: dict[str, int]) -> list[str]:
    entries = list(scores.values())
    languages = sorted({LANGUAGES.get(entry["language"], entry["language"]) for entry in entries} - {""})
    limits = []
    if all(entry["style"] == "acted" for entry in entries):
        limits.append(
            "Acted speech, by actors in a studio. Spontaneous emotion is weaker and mixed; expect less there."
        )
    if languages:
        limits.append(f"{' and '.join(languages)} only; nothing is known of other languages.")
    else:
        limits.append("Nothing is known of other languages than the data's, nor of other ways to speak.")
    limits.append(
        f"{len(emotions)} classes: whatever else a voice holds is pressed into them, and a probability is no certainty."
    )
    limits += [
        f"Of the stream {stream} it takes {frames} frames: the tail of more is cut off, and less is filled up."
        for stream, frames in lengths.items()
    ]
    limits.append("It does not detect speech: music, tones and noise are given an emotion too, often sad.")
    limits += [
        f"{entry['title']} was heard as {entry['note']}, in training and in the scores."
        for entry in entries
        if entry["note"]
    ]
    limits += [
        f"{entry['title']}: no utterance that was scored is {', '.join(missing)}; nothing is known of how it does there."
        for entry in entries
        if (missing := [emotion for emotion in emotions if emotion not in entry["model"]["recall"]])
    ]
    if all(entry["people"] for entry in entries):
        people = ", ".join(f"{entry['people']} of {entry['title']}" for entry in entries)
        limits.append(f"The people scored are few ({people}); other people, rooms and microphones will differ by more.")
    limits.append(
        "Inferring emotions of people at work or in education is prohibited in the European Union (AI Act, Article "
        "5(1)(f)), save for medical or safety reasons. Do not use it to decide about people."
    )
    return limits


def _command(config: dict[str, Any]) -> str:
    """How the model can be made again."""
    recipe = config["recipe"]
    if "command" in config:
        return f"`{config['command']}` with AFFEKT_DATA and AFFEKT_MODELS set"
    if not recipe["start"]:
        return f"`affekt train {recipe['name']} --output FOLDER` with AFFEKT_DATA and AFFEKT_MODELS set"
    names = [one if isinstance(one, str) else one["name"] for one in recipe["corpora"]]
    corpora = "".join(f" --corpus {name.partition(':')[0]}:PATH" for name in names)
    return f"`affekt train --from {config['start']['name']}{corpora} --output FOLDER`, from {config['start']['id']}"


def _epochs(config: dict[str, Any]) -> str:
    """How long was trained, and which epoch was chosen where it is not the last."""
    asked, chosen = config["recipe"]["training"]["epochs"], config["protocol"]["epochs"]
    if set(chosen) == {asked}:
        return f"{asked} epochs"
    return f"epoch {', '.join(map(str, chosen))} of {asked}"


def _optimisation(recipe: dict[str, Any]) -> str:
    training = recipe["training"]
    settings = {
        name: value
        for name, value in training.get("strategy", training.get("optimisation", {})).items()
        if value and name != "name"
    }
    if training["tune"] == "head":
        settings = {name: value for name, value in settings.items() if not name.startswith("encoder_")}
    if not training.get("teacher"):
        settings.pop("imitation", None)
    said = [name if value is True else f"{name} {value}" for name, value in settings.items()]
    words = [f"Settings: {', '.join(said).replace('_', ' ')}."]
    augmentation = training["augmentation"]
    if training.get("teacher"):
        words.append(f"Taught by {training['teacher'].get('folder', 'a larger encoder')}, heard in training alone.")
    if augmentation["copies"]:
        words.append(
            f"In an epoch each utterance is heard, with probability {augmentation['copy_probability']}, as one of its "
            f"{augmentation['copies']} altered copies ({_alterations(augmentation['alteration'])})."
        )
    if augmentation["crop"]:
        words.append(f"Up to {augmentation['crop']:.0%} of an utterance is cropped.")
    return " ".join(words)


def _alterations(settings: dict[str, Any]) -> str:
    """What the copies differ in."""
    kinds = ["speed"] if settings["speed"] else []
    kinds += [
        kind for kind in ("equalizer", "reverb", "noise", "lowpass", "codec") if settings.get(f"{kind}_probability")
    ]
    return ", ".join(kinds + (["gain"] if any(settings.get("gain", ())) else []))
