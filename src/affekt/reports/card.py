"""A bundle's card, README.md: written from its config and results, never by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affekt.bundle import Bundle

TEMPLATE = """\
# {name}: the emotion in a voice

`{id}`, made by affekt {version}. {about}

One ONNX file: raw 16 kHz waveform in, probabilities of {emotions} out, any length from 0.1 s.

    affekt recognize --model {name} hello.wav

## Scores

On people whom neither training nor selection ever saw. {protocol}. Selection: {selection}. Scored: the ONNX file, as a
user runs it. {intervals}. UA is mean recall, WA accuracy, WF1 support-weighted F1, ECE expected calibration error, all in
percent.

{scores}
{recalls}

## Beside linear probes

Mean and standard deviation over time, standardised, logistic regression, trained and scored on the same people. The
difference of UA is the model's minus the probe's, with its 95 % interval from drawing whole speakers; "only model" and
"only probe" count the utterances that one alone gets right, p is McNemar's exact two-sided test.

{probes}

## Data and licences

{data}

{encoder}The head and all else in this bundle are affekt's, under the MIT licence.
{odbl}
## Limits

- Acted speech, by actors in a studio. Spontaneous emotion is weaker and mixed; expect less there.
- {languages} only; nothing is known of other languages.
- Six classes: whatever else a voice holds is pressed into one of them. Probabilities are not certainties.
{rebuilt}- The people scored are few ({people}); the intervals above say what that means.
- Where it fits worst, the table of recalls says so.
- Inferring emotions of people at work or in education is prohibited in the European Union (AI Act, Article 5(1)(f)), save
  for medical or safety reasons. Do not use it to decide about people.

## How it was made

`affekt train {recipe} --bundle FOLDER` with AFFEKT_DATA and AFFEKT_MODELS set. {optimisation}
Seed {seed}, {epochs} epochs, {utterances} utterances; the weights of epoch {epoch}, rounded to 16 bits before anything was
scored. Bit-identical on one type of machine and number of threads; these were: {processor}, {threads} threads, torch
{torch}, Python {python}. ONNX and torch agree to {agreement:.0e} in probability.
"""

WHISPER = """\
The encoder is Whisper's ({folder}: front end, convolutions and the first {blocks} blocks, frozen), copyright OpenAI,
under the MIT licence; its notice stands in LICENSE.whisper beside this card.
"""

ODBL = """
CREMA-D is made available under the Open Database License 1.0 (opendatacommons.org/licenses/odbl/1.0), any rights in its
contents under the Database Contents License 1.0. The copy trained on was altered: its clips were rebuilt from log-mel
spectrograms (16 kHz, first 3 s, 128 mels, 80 dB, 8 bits) by mel inversion and Griffin-Lim, peak set to 0.6, Opus; so
absolute level, true phase and all after 3 s are lost.
"""


def card(bundle: Bundle) -> str:
    """The card's Markdown."""
    config, results = bundle.config, bundle.results
    recipe, scores = config["recipe"], results["scores"]
    machine = results["machine"]
    rebuilt = [entry["title"] for entry in scores.values() if entry["note"]]
    languages = {"cremad": "English", "emodb": "German"}
    return TEMPLATE.format(
        name=bundle.name,
        id=results["model"],
        version=config["version"],
        about=recipe.get("about", ""),
        emotions=", ".join(bundle.emotions),
        protocol=_sentence(results["protocol"]),
        selection=results["selection"],
        intervals=results["intervals"],
        scores=_scores(scores),
        recalls=_recalls(scores, bundle.emotions),
        probes=_probes(scores),
        data=_data(scores),
        encoder=_encoder(config),
        odbl=ODBL if "cremad" in scores else "",
        languages=" and ".join(languages.get(name, name) for name in scores),
        rebuilt=f"- {' and '.join(rebuilt)} was heard as rebuilt audio, in training and in the scores.\n"
        if rebuilt
        else "",
        people=", ".join(f"{entry['people']} of {entry['title']}" for entry in scores.values()),
        recipe=recipe["name"],
        optimisation=_optimisation(recipe),
        seed=recipe["seed"],
        epochs=recipe["training"]["epochs"],
        utterances=sum(entry["trained_on"]["utterances"] for entry in scores.values()),
        epoch=config["protocol"]["epoch"],
        processor=machine["processor"],
        threads=machine["threads"],
        torch=machine["torch"],
        python=machine["python"],
        agreement=results["agreement"],
    )


def _encoder(config: dict[str, Any]) -> str:
    if config["encoder"]["name"] != "whisper":
        return ""
    return WHISPER.format(
        folder=Path(config["recipe"]["encoder"]["folder"]).name, blocks=max(config["encoder"]["blocks"])
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _title(entry: dict[str, Any]) -> str:
    note = f", {entry['note']}" if entry["note"] else ""
    return f"{entry['title']}{note}"


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        [
            _title(entry),
            f"{entry['people']} people, {entry['model']['utterances']} utterances",
            *(percent(entry["model"][name]) for name in ("UA", "WA", "WF1")),
            f"{100 * entry['model']['ece']:.1f}",
        ]
        for entry in scores.values()
    ]
    return table(["corpus", "untouched", "UA", "WA", "WF1", "ECE"], rows)


def _recalls(scores: dict[str, Any], emotions: tuple[str, ...]) -> str:
    rows = [
        [
            _title(entry),
            *(percent(entry["model"]["recall"][e]) if e in entry["model"]["recall"] else "-" for e in emotions),
        ]
        for entry in scores.values()
    ]
    return table(["recall", *emotions], rows)


def _probes(scores: dict[str, Any]) -> str:
    rows = []
    for entry in scores.values():
        rows.append([_title(entry), "this model", percent(entry["model"]["UA"]), "", "", "", ""])
        for name, probe in entry["probes"].items():
            against = probe["against"]
            rows.append(
                [
                    _title(entry),
                    name,
                    percent(probe["UA"]),
                    percent(against["difference"]),
                    str(against["better"]),
                    str(against["worse"]),
                    f"{against['p']:.2g}",
                ]
            )
    return table(["corpus", "system", "UA", "difference", "only model", "only probe", "p"], rows)


def _data(scores: dict[str, Any]) -> str:
    lines = []
    for entry in scores.values():
        trained = entry["trained_on"]
        lines.append(
            f"- {_title(entry)} ({entry['source']}): {trained['utterances']} utterances of {trained['people']} people to "
            f"train on. {entry['licence']}."
        )
    return "\n".join(lines)


def _optimisation(recipe: dict[str, Any]) -> str:
    settings = {name: value for name, value in recipe["training"]["optimisation"].items() if value}
    words = ["Settings: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()) + "."]
    augmentation = recipe["training"]["augmentation"]
    if augmentation["copies"]:
        words.append(
            f"{augmentation['copies']} altered copies (speed, colour, noise) of every training utterance stand for it in "
            f"{augmentation['share']:.0%} of the cases."
        )
    if augmentation["crop"]:
        words.append(f"Up to {augmentation['crop']:.0%} of an utterance is cropped.")
    return " ".join(words)
