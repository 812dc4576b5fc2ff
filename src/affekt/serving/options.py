"""The options of a recognition, as query parameters of HTTP and WebSocket."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from affekt.audio.mono import HIGHEST_RATE, LOWEST_RATE


class SharedOptions(BaseModel):
    """The options that decide which emotion a row has."""

    model_config = ConfigDict(extra="forbid")

    threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Name no emotion, with the status `unknown`, if the largest probability is below it.",
        ),
    ] = None
    emotions: Annotated[
        str,
        Field(
            max_length=2000,
            examples=["angry,happy,neutral"],
            description="Choose from these emotions only, separated by commas; their probabilities then sum to 1.",
        ),
    ] = ""
    vad: Annotated[
        Literal["off", "auto", "on"],
        Field(description="What decides whether there is speech, as the option `--vad` of `affekt recognize`."),
    ] = "auto"
    profile: Annotated[
        str, Field(max_length=200, description="The id of a profile that the operator of the service registered.")
    ] = ""


class RecognizeOptions(SharedOptions):
    """The options of `POST /v1/recognize`."""

    timeline: Annotated[
        bool, Field(description="Divide recordings into segments of speech, with a row for each segment.")
    ] = False
    channels: Annotated[
        Literal["mix", "separate"],
        Field(description="With `timeline`: recognize the mean of the channels, or each channel on its own."),
    ] = "mix"
    top: Annotated[
        int | None, Field(ge=1, le=1000, description="Return only the most probable emotions, at most so many.")
    ] = None
    lenient: Annotated[bool, Field(description="Read as much as possible of damaged or cut-off files.")] = False


class StreamOptions(SharedOptions):
    """The options of `WS /v1/stream`."""

    rate: Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE, description="Sample rate of the samples, in Hz.")] = (
        16_000
    )
    channels: Annotated[int, Field(ge=1, le=8, description="Channels of the samples; their mean is recognized.")] = 1
    format: Annotated[
        Literal["s16le", "opus"],
        Field(
            description="The content of a binary message: interleaved samples, 16-bit little-endian, or one packet of Opus."
        ),
    ] = "s16le"
    update: Annotated[
        float, Field(ge=0, le=60, description="Seconds between results of a segment that still grows; 0 for none.")
    ] = 1.0
