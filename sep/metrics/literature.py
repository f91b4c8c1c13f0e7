"""Published scores beside ours, in the layout of MARS-Sep's tables (arXiv 2510.10509).

The numbers are those of the paper, for its own mixtures; nothing in them was measured here.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sep.errors import OptionError
from sep.metrics.report import cell, markdown

Value = float | tuple[float, float] | None  # mean, with its standard error where one is given


class Published(NamedTuple):
    """One line of a published table, in dB; CLAP in percent of a cosine."""

    query: str
    system: str
    sdr: Value = None
    sir: Value = None
    sar: Value = None
    si_sdri: Value = None
    clap: Value = None


VGGSOUND_CLEAN = (
    Published("text", "LASS-Net", (3.98, 1.02), 7.63, 4.24, 4.25, 5.12),
    Published("text", "CLIPSep-NIT", (2.71, 0.87), 4.58, 13.60, 2.41, 7.97),
    Published("text", "AudioSep", (6.26, 0.87), 8.69, 12.85, 4.01, 8.21),
    Published("text", "DAVIS-Flow", (6.60, 1.02), 8.99, 13.48, 4.32, 6.57),
    Published("text", "OmniSep", (6.70, 0.66), 9.04, 13.61, 4.38, 8.98),
    Published("text", "MARS-Sep", (6.91, 0.68), 9.14, 13.73, 4.55, 9.03),
    Published("image", "CLIPSep-NIT", 4.61, 8.11, 12.06, 3.48, 8.50),
    Published("image", "iQuery", 6.20, 9.59, 13.45, 3.77, 6.08),
    Published("image", "DAVIS-Flow", 6.52, 9.87, 13.54, 4.32, 8.89),
    Published("image", "OmniSep", (6.66, 0.65), 10.00, 13.73, 4.43, 8.79),
    Published("image", "MARS-Sep", (6.93, 0.67), 10.18, 13.41, 4.57, 9.19),
    Published("audio", "OmniSep", (7.15, 0.65), 11.65, 11.84, 4.35, 8.60),
    Published("audio", "MARS-Sep", (7.33, 0.67), 11.63, 12.00, 4.36, 8.91),
    Published("omni", "OmniSep", (7.79, 0.72), 10.76, 14.53, 5.16, 8.85),
    Published("omni", "MARS-Sep", (7.93, 0.75), 10.65, 14.49, 5.20, 9.22),
)
MUSIC_CLEAN = (
    Published("text", "LASS-Net", 9.98, 14.63, 12.24, 8.99, 4.92),
    Published("text", "CLIPSep-NIT", 11.03, 16.40, 17.37, 7.53, 5.29),
    Published("text", "AudioSep", 11.23, 16.90, 17.29, 8.56, 5.48),
    Published("text", "OmniSep", (12.37, 0.85), 17.51, 17.96, 9.18, 5.41),
    Published("text", "MARS-Sep", (12.91, 0.93), 17.61, 18.28, 9.85, (6.18, 0.93)),
    Published("text", "ZeroSep", clap=(20.02, 15.14)),
    Published("image", "OmniSep", 13.03, 18.97, 17.88, 10.21, 6.53),
    Published("image", "MARS-Sep", 13.64, 19.24, 18.05, 10.70, 6.94),
)
TABLES = {
    "vggsound_clean": ("VGGSOUND-clean+", VGGSOUND_CLEAN),
    "music_clean": ("MUSIC-clean+", MUSIC_CLEAN),
}
# AudioSep's README, audiosep_base_4M_steps.ckpt: SDRi and SI-SDR in dB on its own mixtures
AUDIOSEP = {
    "vggsound": (9.144, 9.043),
    "music": (10.508, 9.425),
    "esc50": (10.040, 8.810),
    "audioset": (7.739, 6.903),
    "audiocaps": (8.220, 7.189),
    "clotho": (6.850, 5.242),
}
ORDER = ("text", "image", "audio", "omni")  # of the paper; other kinds of query come after
# Column of the paper -> ours, and its factor
COLUMNS = {
    "SDR dB": ("sdr_images", 1),
    "SIR dB": ("sir", 1),
    "SAR dB": ("sar", 1),
    "SI-SDRi dB": ("si_sdri", 1),
    "CLAP, text %": ("clap_text", 100),
}


def published(name: str | None) -> tuple[str, Sequence[Published]]:
    """Title and lines of a published table; none for no name.

    Raises:
        OptionError: the paper has no such table.
    """
    if name is None:
        return "", ()
    if name not in TABLES:
        raise OptionError(f"published '{name}' is unknown; use {', '.join(TABLES)}, or null")
    return TABLES[name]


def layout(
    summaries: dict[str, dict[str, dict[str, dict[str, float]]]], lines: Sequence[Published] = ()
) -> str:
    """Markdown table, a line a query and system: what is published first, then ours.

    Columns and lines without a single score are left out.

    Args:
        summaries: `report.summary` of our scores.
        lines: of the paper.
    """
    ours = {query: summaries.get(query, {}) for query in (*ORDER, *summaries)}
    given = {name for entries in ours.values() for entry in entries.values() for name in entry}
    columns = {title: c for title, c in COLUMNS.items() if lines or c[0] in given}
    body = []
    for query, entries in ours.items():
        for line in lines:
            if line.query == query:
                values = (_entry(value) for value in line[2:])
                body.append([query, line.system, "published", *(cell(v, 2) for v in values)])
        for system, entry in entries.items():
            scores = [_scaled(entry.get(name), by) for name, by in columns.values()]
            if any(scores):
                body.append([query, system, "here", *(cell(score, 2) for score in scores)])
    return markdown(["query", "system", "from", *columns], body, left=3)


def note(title: str) -> str:
    """What has to be known to read the two kinds of lines together, as an item of a list."""
    return f"""\
- published: MARS-Sep's tables for {title} (arXiv 2510.10509), ± standard error where they give
  one. They are of the authors' mixtures, trained models and CLAP, so a difference to a line from
  here is no paired comparison. Their SDR, SIR and SAR are museval's default over whole clips, as
  SDR (images) is here with one window.
"""


def _entry(value: Value) -> dict[str, float] | None:
    if value is None:
        return None
    mean, error = value if isinstance(value, tuple) else (value, float("nan"))
    return {"mean": mean, "sem": error}


def _scaled(entry: dict[str, float] | None, factor: float) -> dict[str, float] | None:
    return entry and {name: factor * entry[name] for name in ("mean", "sem")}
