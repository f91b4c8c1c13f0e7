"""Tables, CSV and JSON of a handful of rows."""

import csv
import json
import math

from sep.metrics import figures, report


def rows():
    """Three clips, two systems; the second is 1 dB better on each, one clip is undefined."""
    scores = {"control": [1.0, 3.0, 5.0], "rl": [2.0, 4.0, math.nan]}
    return [
        {"id": f"m{i}", "system": system, "query": "text", "label": "ab"[i % 2], "si_sdri": value}
        for system, values in scores.items()
        for i, value in enumerate(values)
    ]


def test_summary_and_comparison_by_hand():
    found = report.summary(rows())["text"]
    assert found["control"]["si_sdri"]["mean"] == 3
    assert found["rl"]["si_sdri"]["mean"] == 3 and found["rl"]["si_sdri"]["undefined"] == 1
    difference = report.compare(rows(), "rl", "control")["si_sdri"]
    assert (difference["mean"], difference["n"], difference["wins"]) == (1, 2, 1)


def test_scores_of_a_class_by_hand():
    found = {(r["system"], r["label"]): r for r in report.class_rows(rows())}
    assert len(found) == 4 and {r["metric"] for r in found.values()} == {"si_sdri"}
    a = found["control", "a"]  # 1 and 5
    assert (a["query"], a["n"], a["mean"], a["median"], a["sem"]) == ("text", 2, 3, 3, 2)
    assert 1 <= a["low"] <= a["mean"] <= a["high"] <= 5
    alone = found["rl", "a"]  # 2, and one that is undefined
    assert (alone["n"], alone["undefined"], alone["mean"]) == (1, 1, 2)


def test_errors_are_over_recordings_where_they_are_known():
    known = [row | {"recording": "ab"[row["id"] == "m2"]} for row in rows()]
    # recordings of m0 and m1, and of m2: sums of deviations -2 + 0 and 2, sqrt(2 (4 + 4)) / 3
    found = report.summary(known)["text"]["control"]["si_sdri"]
    assert (found["n"], found["groups"]) == (3, 2) and math.isclose(found["sem"], 4 / 3)
    difference = report.compare(known, "rl", "control")["si_sdri"]
    assert (difference["n"], difference["groups"]) == (2, 1)


def test_order_of_rows_does_not_matter():
    backwards = list(reversed(rows()))
    assert report.compare(backwards, "rl", "control") == report.compare(rows(), "rl", "control")


def test_tables_show_mean_error_and_interval():
    found = report.summary(rows())
    table = report.score_table(found["text"])
    assert "| SI-SDRi dB | 3.00 ± 1.15 | 3.00 ± 1.00 |" in table
    assert "- median" in table and "- 95 % interval" in table
    assert "text/rl: 1" in report.undefined_note(found)
    paired = report.paired_table(report.compare(rows(), "rl", "control"), "rl", "control")
    assert "+1.000 ± 0.000" in paired and "100 %" in paired
    assert "| text (3 clips) |" in report.kinds_table(found)


def test_a_ratio_of_rounding_noise_is_not_printed_as_a_number():
    entry = {"sar": {"n": 2, "mean": 240.0, "sem": 3.0, "median": 240.0, "low": 1, "high": 2}}
    assert "| SAR dB | >100 |" in report.score_table({"mixture": entry})


def test_files_hold_what_the_rows_say(tmp_path):
    report.write_csv(tmp_path / "rows.csv", rows())
    with open(tmp_path / "rows.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == 6 and read[3]["si_sdri"] == "2" and read[5]["si_sdri"] == "nan"
    report.write_json(tmp_path / "sub" / "summary.json", {"x": math.nan, "y": [1.0, math.inf]})
    assert json.loads((tmp_path / "sub" / "summary.json").read_text()) == {
        "x": None,
        "y": [1, None],
    }
    assert not list(tmp_path.rglob(".*"))


def test_figures_are_drawn(tmp_path):
    drawn = {
        "spread": figures.spread(rows(), ["control", "rl"]),
        "scatter": figures.scatter(rows(), "control", "rl"),
        "by_class": figures.by_class(rows(), ["control", "rl"]),
    }
    for name, figure in drawn.items():
        figures.save(figure, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
