"""`affekt recognize`: recognize the emotion in audio files."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.decision_options import CalibrationFile, ChosenEmotions, ErrorRate, Threshold, Top, parse_emotions
from affekt.cli.manifest_options import (
    ManifestColumns,
    ManifestName,
    ManifestOptions,
    RayAddress,
    RetryFailed,
    ShardRows,
    run,
)
from affekt.cli.profile_options import Expected, learn, summarize
from affekt.cli.recognition_options import Jobs, Lenient, Model, ProfileFile, Threads, Timeout, VadOption
from affekt.cli.source_options import Delimiter
from affekt.cli.text_options import Language, SpeechToText, Text, TextOptions, Transcribe
from affekt.cli.timeline_options import (
    ChannelMode,
    Exports,
    Hop,
    IsTimeline,
    MaxLength,
    MinSpeech,
    Plots,
    Rttm,
    Segments,
    Tiers,
    TimelineOptions,
    Transcript,
    Window,
    print_timelines,
)
from affekt.errors import BadConfig

ADAPTED = "these-recordings"
"""The name of the profile of --adapt."""


def recognize(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|FOLDER",
            help="Audio files; folders are searched recursively for audio files; - reads standard input.",
            show_default=False,
        ),
    ] = None,
    model: Model = "default",
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object per file, or per segment with --timeline, one per line."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the results to a .jsonl, .csv or .parquet file. Files already in it are skipped; failed and changed "
            "ones are recognized again. With .csv, the windows of long recordings are in NAME.windows.csv. With --manifest: "
            "the folder of the results, or its URL.",
        ),
    ] = None,
    threshold: Threshold = None,
    emotions: ChosenEmotions = "",
    error_rate: ErrorRate = None,
    calibration: CalibrationFile = None,
    top: Top = None,
    profile: ProfileFile = None,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="First adapt the model to these recordings, which are therefore read twice; see affekt adapt.",
        ),
    ] = False,
    expected: Expected = None,
    vad: VadOption = "auto",
    text: Text = None,
    transcribe: Transcribe = False,
    asr: SpeechToText = "base",
    language: Language = "",
    lenient: Lenient = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    timeout: Timeout = None,
    timeline: IsTimeline = False,
    window: Window = None,
    hop: Hop = None,
    transcript: Transcript = None,
    segments: Segments = None,
    tier: Tiers = None,
    min_speech: MinSpeech = None,
    max_length: MaxLength = None,
    channels: ChannelMode = "mix",
    rttm: Rttm = None,
    export: Exports = None,
    plot: Plots = None,
    manifest: ManifestName = None,
    ray: RayAddress = None,
    shard_rows: ShardRows = None,
    column: ManifestColumns = None,
    delimiter: Delimiter = "",
    retry_failed: RetryFailed = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of each error and the messages of the decoders.")
    ] = False,
) -> None:
    """Recognize the emotion in audio files.

    With --timeline, a recording is divided into segments, each with its emotion; see docs/timeline.md.

    With --manifest, which lists the files of a large collection, the results are a folder of Parquet files, one for each
    shard of the manifest; the same command skips the shards that are finished.

    Exit status: 0 if every file was recognized, 2 if any failed. A failure does not stop the recognition of other files.
    """
    from affekt.audio.folders import expand_folders
    from affekt.audio.read import name_of
    from affekt.audio.time_limit import TIMEOUT
    from affekt.cli.display import Display
    from affekt.inference.recognizer import Recognizer
    from affekt.workflows.recognize_files import recognize_files

    if debug:
        from affekt.cli.log import show_log

        show_log(debug=True)
    if adapt and profile:
        raise BadConfig(
            "--adapt learns a profile from these recordings, and --profile applies an existing one: use one or the other"
        )
    if expected and not adapt:
        raise BadConfig("--expected is a setting of --adapt and of `affekt adapt`")
    if top is not None and (json or output):
        raise BadConfig("--top is for results that are printed as text: those of --json and --output have all emotions")

    def load() -> Recognizer:
        return Recognizer.load(
            model,
            threads=threads,
            profile=profile,
            threshold=threshold,
            emotions=parse_emotions(emotions),
            error_rate=error_rate,
            calibration=calibration,
            vad=vad,
        )

    path = None if output is None else Path(output)
    timelines = TimelineOptions(
        timeline, window, hop, transcript, segments, tier, min_speech, max_length, channels, rttm, export, plot
    )
    excluded = {"--manifest": manifest, "--jobs": jobs, "--top": top}
    has_timelines = timelines.are_used(excluded)
    options = ManifestOptions(manifest, ray, shard_rows, column, delimiter, retry_failed)
    no_manifest: dict[str, object] = {"--json": json, "--adapt": adapt}
    no_manifest |= {"--text": text, "--transcript": transcript, "--transcribe": transcribe}
    if options.are_used(inputs, output, no_manifest):
        from affekt.workflows.recognize_manifest import recognize_manifest

        assert manifest
        recognizer = load()
        work = functools.partial(
            recognize_manifest,
            manifest,
            str(output),
            recognizer=recognizer,
            lenient=lenient,
            timeout=TIMEOUT if timeout is None else timeout,
            jobs=jobs,
            **options.arguments(),
        )
        sys.exit(run(lambda progress: work(progress=progress), str(output)))
    assert inputs
    files = expand_folders(inputs)
    names = list(dict.fromkeys(map(name_of, files)))
    recognizer = load()
    limit = TIMEOUT if timeout is None else timeout
    words = TextOptions(text, transcript, tier, transcribe, asr, language)
    texts = words.source(files, recognizer, output=path, lenient=lenient, is_timeline=has_timelines)
    if adapt:
        if path:
            from affekt.inference.results_file import check_path

            check_path(path)  # before the recordings are read twice
        learned = learn(files, recognizer, name=ADAPTED, expected=expected, lenient=lenient, timeout=limit, jobs=jobs)
        print(f"adapted: {summarize(learned)}", file=sys.stderr)
        recognizer = recognizer.adapt(learned)
    if has_timelines:
        status = print_timelines(
            files,
            names,
            recognizer,
            replace(timelines, texts=texts),
            output=path,
            json=json,
            lenient=lenient,
            timeout=limit,
        )
        sys.exit(status)
    with Display(names, recognizer.emotions, json=json, output=path, top=top) as display:
        rows = recognize_files(
            files,
            path,
            recognizer=recognizer,
            lenient=lenient,
            timeout=limit,
            jobs=jobs,
            progress=display.show_progress,
            on_window=display.show_window,
            texts=texts,
        )
        for row in rows:
            display.show(row)
    sys.exit(2 if display.failed else 0)
