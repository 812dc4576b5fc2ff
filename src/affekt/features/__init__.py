"""The features, by name. A new one is a file beside these and a line here."""

from affekt.registry import Registry

features = Registry(
    "feature",
    {
        "log-mel": "affekt.features.whisper:LogMelFrames",
        "whisper": "affekt.features.whisper:WhisperStates",
    },
)
