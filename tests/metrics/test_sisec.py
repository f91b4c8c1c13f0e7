"""Medians over windows and songs, by hand."""

import math

import torch

from sep.metrics import sisec

NAN, INF = math.nan, math.inf
STEMS = ("vocals", "drums")


def rows(system, songs):
    """Rows whose four metrics are the SDR given, +1, +2, +3."""
    return [
        row
        for song, values in songs.items()
        for row in sisec.rows_of(
            song, system, STEMS,
            {name: [v + k for v in values] for k, name in enumerate(sisec.TITLES)},
        )
    ]  # fmt: skip


def line(text, title):
    (found,) = [row for row in text.splitlines() if row.startswith(f"| {title} |")]
    return [cell.strip() for cell in found.split("|")[2:-1]]


def test_a_song_counts_by_the_median_of_its_defined_windows():
    windows = {"sir": torch.tensor([[1.0, 3.0, NAN, 100.0], [5.0, 7.0, INF, NAN], [NAN] * 4])}
    first, second, third = sisec.window_medians(windows)["sir"]
    assert (first, second) == (3.0, 6.0) and math.isnan(third)  # 1, 3, 100 and 5, 7


def test_a_stem_counts_by_the_median_of_its_songs():
    # vocals: 2, 4, 9 -> 4; drums: 1 and 2, the third has none -> 1.5; together 2.75
    found = rows("rl", {"a": (2.0, 1.0), "b": (4.0, 2.0), "c": (9.0, NAN)})
    text = sisec.table([*found, *rows("control", {"a": (0.0, NAN)})], STEMS)
    assert line(text, "dB") == ["rl", "control"]
    assert line(text, "SDR vocals") == ["4.00", "0.00"]
    assert line(text, "SDR drums") == ["1.50", "-"]
    assert line(text, "SDR, mean of the stems") == ["2.75", "-"]
    assert line(text, "ISR drums")[0] == "4.50" and line(text, "SIR vocals")[0] == "5.00"
    assert "mean over songs" not in text


def test_whole_songs_have_their_mean_beside_the_median():
    found = rows("rl", {"a": (1.0, 0.0), "b": (2.0, 0.0), "c": (6.0, 0.0)})
    text = sisec.table(found, STEMS, mean=True)
    assert line(text, "SDR vocals") == ["2.00"]
    assert "| - mean over songs | 3.00 ± 1.53 |" in text  # sqrt(14 / 2) / sqrt 3


def test_pairs_compare_songs_not_stems():
    first = rows("rl", {"a": (1.0, 3.0), "b": (2.0, 2.0), "c": (NAN, 2.0)})
    second = rows("control", {"a": (1.0, 1.0), "b": (0.0, 0.0), "c": (0.0, 0.0)})
    text = sisec.pairs_table([*first, *second], [("rl", "control")])
    assert "| rl - control, SDR (images) dB | +1.50 ± 0.50 | [1.00, 2.00] |" in text
