"""The colors of emotions, the same in all pictures and files of timelines."""

from __future__ import annotations

from collections.abc import Sequence

from affekt.reports.figures.base import CATEGORIES

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, GRAY, YELLOW = CATEGORIES
USUAL = {
    "angry": VERMILION,
    "happy": ORANGE,
    "sad": BLUE,
    "neutral": GRAY,
    "fear": PINK,
    "disgust": GREEN,
    "surprise": YELLOW,
    "calm": SKY,
    "bored": SKY,
    "excited": YELLOW,
    "frustrated": PINK,
}
"""Emotion -> its color of the palette, as far as no other emotion of the model has it."""


def emotion_colors(emotions: Sequence[str]) -> dict[str, str]:
    """Return the color of each emotion: its usual one, or else the next of the palette; with over 8 emotions, colors
    repeat."""
    colors: dict[str, str] = {}
    for emotion in emotions:
        if (color := USUAL.get(emotion)) and color not in colors.values():
            colors[emotion] = color
    free = [color for color in CATEGORIES if color not in colors.values()]
    for index, emotion in enumerate(emotion for emotion in emotions if emotion not in colors):
        colors[emotion] = free[index] if index < len(free) else CATEGORIES[index % len(CATEGORIES)]
    return {emotion: colors[emotion] for emotion in emotions}
