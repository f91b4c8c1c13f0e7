"""The published tables and their place beside our scores."""

import math

import pytest

from sep.errors import OptionError
from sep.metrics import literature


def entry(mean, sem=0.5):
    return {"mean": mean, "sem": sem}


SUMMARIES = {
    "text": {
        "rl": {
            "sdr_images": entry(4.4),
            "sir": entry(8.35),
            "sar": entry(240.0),
            "si_sdri": entry(3.26, math.nan),
            "clap_text": entry(0.1234, 0.005),
        }
    },
    "negative": {"rl": {"si_sdri": entry(3.5)}},
}


def test_gains_over_omnisep_are_those_that_the_paper_states():
    # stated apart from the tables: +.21 text, +.27 image, +.18 audio, +.14 omni; +.54, +.61
    stated = {
        "vggsound_clean": {"text": 0.21, "image": 0.27, "audio": 0.18, "omni": 0.14},
        "music_clean": {"text": 0.54, "image": 0.61},
    }
    for name, gains in stated.items():
        lines = {(x.query, x.system): x for x in literature.published(name)[1]}
        assert len(lines) == len(literature.published(name)[1])
        for query, gain in gains.items():
            means = [lines[query, system].sdr for system in ("MARS-Sep", "OmniSep")]
            means = [x[0] if isinstance(x, tuple) else x for x in means]
            assert means[0] - means[1] == pytest.approx(gain)


def test_published_lines_stand_before_ours_and_say_so():
    title, lines = literature.published("vggsound_clean")
    table = literature.layout(SUMMARIES, lines).splitlines()
    assert title == "VGGSOUND-clean+"
    assert table[0].startswith("| query | system | from | SDR dB | SIR dB | SAR dB | SI-SDRi dB |")
    assert "| text | MARS-Sep | published | 6.91 ± 0.68 | 9.14 | 13.73 | 4.55 | 9.03 |" in table
    ours = "| text | rl | here | 4.40 ± 0.50 | 8.35 ± 0.50 | >100 | 3.26 | 12.34 ± 0.50 |"
    assert table.index(ours) == 2 + 6  # after the six lines by text
    assert [line.split(" | ")[0][2:] for line in table[2:]] == (
        ["text"] * 7 + ["image"] * 5 + ["audio"] * 2 + ["omni"] * 2 + ["negative"]
    )
    assert table[-1] == "| negative | rl | here | - | - | - | 3.50 ± 0.50 | - |"


def test_without_a_published_table_only_ours_is_shown():
    table = literature.layout(SUMMARIES, literature.published(None)[1])
    assert "published" not in table and len(table.splitlines()) == 4


def test_a_table_that_the_paper_does_not_have_is_refused():
    with pytest.raises(OptionError, match="published 'esc50' is unknown; use vggsound_clean, mus"):
        literature.published("esc50")
