"""Settings against their controls, worked out by hand on a few clips."""

import math

import pytest

from sep.metrics import ablation, figures
from sep.train.log import RunLog


def run(*values, query="text"):
    """Scores of one evaluated model: a clip a value, all measures alike."""
    names = ("judge_similarity", "si_sdri", "encoder_similarity", "level_db")
    return [
        {"id": f"mix{k}", "system": "model", "query": query} | dict.fromkeys(names, value)
        for k, value in enumerate(values)
    ]


def test_clips_are_averaged_over_seeds_before_they_are_compared():
    first, second = [run(1.0, 2.0), run(3.0, 2.0)], [run(0.0, 1.0), run(1.0, 2.0)]
    found = ablation.difference(first, second, "text", "si_sdri")
    # means over seeds: (2, 2) and (.5, 1.5), so the clips differ by 1.5 and .5
    assert found.mean == pytest.approx(1.0)
    assert 0.5 <= found.low <= found.high <= 1.5
    # the seeds' own means: (1 + 1) / 2 = 1 and (2 + 0) / 2 = 1
    assert found.seeds == pytest.approx(0.0)
    one = ablation.difference(first[:1], second[:1], "text", "si_sdri")
    assert math.isnan(one.seeds) and one.text(1) == "+1.0 [+1.0, +1.0]"


def test_clips_are_matched_by_id_whatever_their_order():
    shuffled = list(reversed(run(1.0, 5.0)))
    assert ablation.difference([shuffled], [run(1.0, 5.0)], "text", "si_sdri").mean == 0


def rows():
    better, base, control = run(0.3, 0.5), run(0.2, 0.2), run(0.1, 0.1)
    return {
        "base": ablation.Row(8, [], [10.0], [base], [12.5], [control]),
        "better": ablation.Row(8, [], [10.0], [better], [10.0], [control]),
    }


def test_the_table_sets_rows_against_control_and_base():
    lines = ablation.table(rows(), gap=0.5).splitlines()
    base, better = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert base[:5] == ["base", "10", "0.80", "+0.1000 [+0.1000, +0.1000]", "+20.0"]
    assert base[7] == ""  # nothing to compare with
    assert better[3].startswith("+0.3000 [") and better[4] == "+60.0"
    assert better[7].startswith("+0.2000 [")


def test_other_kinds_have_a_table_of_their_own():
    row = ablation.Row(8, [], [1.0], [run(0.3, query="audio")], [1.0], [run(0.1, query="audio")])
    lines = ablation.kinds_table({"base": row}, ["audio"]).splitlines()
    assert lines[2] == "| base | +0.2000 [+0.2000, +0.2000] | +0.200 [+0.200, +0.200] |"


def test_rows_and_controls_are_set_against_where_they_started():
    row = ablation.Row(8, [], [1.0, 1.0], [run(0.3, 0.3), run(0.5, 0.5)], [1.0, 1.0])
    row.control_scores, row.start = [run(0.1, 0.1), run(0.1, 0.1)], run(0.2, 0.2)
    cells = [cell.strip() for cell in ablation.start_table({"r": row}).splitlines()[2].split("|")]
    # the row's mean over seeds is .4, its control's .1
    assert cells[1:4] == ["r", "+0.2000 [+0.2000, +0.2000]", "+0.200 [+0.200, +0.200]"]
    assert cells[4:6] == ["-0.1000 [-0.1000, -0.1000]", "-0.100 [-0.100, -0.100]"]


def test_curves_count_masks_and_average_runs(tmp_path):
    row = ablation.Row(32)
    for seed, last in enumerate((0.3, 0.5)):
        log = RunLog(tmp_path / str(seed))
        log.write(0, {"valid/similarity": 0.1, "train/similarity": 9.0})
        log.write(4, {"valid/similarity": last})
        if seed:
            log.write(8, {"valid/similarity": 1.0})  # the other run has not come so far
        log.close()
        row.folders.append(tmp_path / str(seed))
    masks, values = ablation.efficiency(row, "similarity")
    assert masks == [0, 128]
    assert values == pytest.approx([0.1, 0.4])
    curves = {"similarity": {"base": (masks, values)}}
    figures.save(ablation.draw_curves(curves), tmp_path / "curves.png")
    points = {
        name: (row.gain("text", "judge_similarity"), row.gain("text", "si_sdri"))
        for name, row in rows().items()
    }
    figures.save(ablation.draw_trade(points), tmp_path / "trade.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("curves.png", "trade.png"))


def test_sample_efficiency_counts_masks_until_the_end_of_base():
    steps = [0, 32, 64]
    curves = {
        "held_out": {"base": (steps, [0.1, 0.2, 0.3]), "fast": (steps, [0.1, 0.4, 0.2])},
        "si_sdri": {"base": (steps, [1.0, 3.0, 2.0]), "fast": (steps, [1.0, 1.5, 1.9])},
    }
    lines = ablation.efficiency_table(curves).splitlines()
    assert lines[0] == "| row | masks to base's held_out | masks to base's si_sdri |"
    assert lines[2:] == ["| base | 64 | 32 |", "| fast | 32 | above 64 |"]
