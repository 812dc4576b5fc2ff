"""What `affekt evaluate` prints, line by line."""

from rich.console import Console

from affekt.cli.scores import _print_recall_by_group


def interval(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_recall_is_printed_by_emotion_and_group(capsys):
    female = {"angry": interval(0.5, 0.25, 0.75), "sad": interval(1.0)}
    entry = {
        "attribute": "gender",
        "scores": {"female": {"recall": female}, "male": {"recall": {"angry": interval(0.125)}}},
    }
    _print_recall_by_group(Console(highlight=False, soft_wrap=True), entry)
    assert capsys.readouterr().out.splitlines() == [
        "Recall by emotion and gender:",
        "         female                   male",
        "  angry   50.0 %  (25.0 to 75.0)   12.5 %",
        "  sad    100.0 %                  -",
    ]
