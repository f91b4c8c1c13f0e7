"""Stage 7, after the excerpts: BSS Eval of the whole test songs, as SiSEC does.

Writes `scores/songs.csv` and `scores/songs.md`, and RESULTS.md with the excerpts' tables below.
`--other NAME=DIR` adds another system's outputs, DIR/test/<song>/<stem>.wav.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from separate_songs import SYSTEMS, songs
from torch import Tensor

from sep import audio, hub
from sep.data import musdb
from sep.errors import DataError, OptionError
from sep.metrics import report, results, sisec
from sep.metrics.bss_song import SongScorer
from sep.program import guarded, say
from sep.spectrogram import Spectrogram
from sep.train.losses import target_masks

WINDOW_S = 1.0
PAIRS = (("rl", "control"), ("rl", "supervised"))


def ideal(mixture: Tensor, stems: Tensor, rate: int, grid: Spectrogram) -> Tensor:
    """Stems (S, C, N) by ideal ratio masks of the mid signals, on the separator's path."""
    narrow = audio.resample(torch.cat([stems.mean(1), mixture]), rate, grid.sample_rate)
    spectra = grid.stft(narrow)
    mids, channels = spectra[: len(stems)], spectra[len(stems) :]
    masks = target_masks(mids.abs()[None], mids.sum(0).abs()[None], "ratio")[0]
    waves = grid.istft(masks[:, None] * channels, narrow.shape[-1])  # (S, C, n)
    return audio.resample(waves, grid.sample_rate, rate, length=mixture.shape[-1])


def read(folder: Path, song: musdb.Song, like: Tensor, rate: int) -> Tensor:
    """A system's stems of a song as (S, C, N), cut or padded by a few samples to those `like`."""
    waves = []
    for stem in musdb.STEMS:
        path = folder / "test" / song.name / f"{stem}.wav"
        wave, own = audio.read(path)
        off = abs(wave.shape[-1] - like.shape[-1])
        if (len(wave), own) != (like.shape[1], rate) or off > musdb.SLACK:
            raise DataError(
                f"{path}: {len(wave)} channels of {wave.shape[-1]} samples at {own} Hz, the song "
                f"has {like.shape[1]} of {like.shape[-1]} at {rate} Hz; separate it again"
            )
        waves.append(audio.fit_length(wave, like.shape[-1]))
    return torch.stack(waves)


def score(
    song: musdb.Song, folders: dict[str, Path], grid: Spectrogram
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of one song: medians over windows, and the song in one window."""
    mixture, stems, rate = musdb.parts(song)
    scorer = SongScorer(stems, round(WINDOW_S * rate))
    framed, whole = [], []
    for system in ("mixture", "ideal", *folders):
        if system == "mixture":
            estimates = mixture.expand_as(stems)
        elif system == "ideal":
            estimates = ideal(mixture, stems, rate, grid)
        else:
            estimates = read(folders[system], song, stems, rate)
        windows, full = scorer.score(estimates)
        medians = sisec.window_medians(windows)
        framed += sisec.rows_of(song.name, system, musdb.STEMS, medians)
        whole += sisec.rows_of(song.name, system, musdb.STEMS, full)
    return framed, whole


def notes(wanted: list[musdb.Song], framed: list[dict[str, Any]]) -> str:
    """What the numbers are of."""
    undefined = {row["song"] for row in framed if row["sdr_images"] != row["sdr_images"]}
    left = f" {len(undefined)} songs in which a stem is silent have none." if undefined else ""
    return f"""\
{len(wanted)} whole songs of MUSDB18's 50 for testing, at their rate and channels; BSS Eval v4 as in
museval (images, 512 taps, filters of the whole song).{left}

- mixture: the song itself as each stem. ideal: ideal ratio masks |S| / sum |S| on the separator's
  STFT. control: the supervised model trained on, supervised, for the time that rl had.
- The separator hears 16 kHz: nothing above 8 kHz is in an estimate, nor in ideal. One mask, from
  the mid signal, serves both channels.
- A window in which a stem or an estimate is silent has no score, as in museval.
"""


def run(arguments: argparse.Namespace) -> None:
    """Score song by song, then write the tables."""
    exp, since = arguments.exp, time.perf_counter()
    home = exp / "separated" / "songs"
    folders = {system: home / system for system in SYSTEMS if (home / system).is_dir()}
    if not folders:
        raise DataError(f"{home}: holds no results; run stage 6 first")
    grid = hub.from_pretrained(exp / next(iter(folders)) / "best").spectrogram
    for word in arguments.other:
        name, _, folder = word.partition("=")
        if not Path(folder).is_dir() or name in ("", "mixture", "ideal", *folders):
            raise OptionError(f"--other {word}: give NAME=DIR, a new name and a folder")
        folders[name] = Path(folder)
    framed: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    wanted = songs(arguments.data)
    for k, song in enumerate(wanted, 1):
        rows = score(song, folders, grid)
        framed += rows[0]
        whole += rows[1]
        took = time.perf_counter() - since
        say(f"scored song {k} of {len(wanted)}, {took:.0f} s: {song.name}")
    pairs = [pair for pair in PAIRS if set(pair) <= folders.keys()]
    page = "\n\n".join(
        [
            f"Windows of {WINDOW_S:g} s, median over windows, then over songs (SiSEC 2018):",
            sisec.table(framed, musdb.STEMS),
            sisec.pairs_table(framed, pairs),
            "The whole song as one window, median over songs:",
            sisec.table(whole, musdb.STEMS, mean=True),
            notes(wanted, framed),
        ]
    )
    out = exp / "scores"
    rows = [{**r, "window": f"{WINDOW_S:g} s"} for r in framed]
    report.write_csv(out / "songs.csv", [*rows, *({**r, "window": "song"} for r in whole)])
    report.write_text(out / "songs.md", page)
    excerpts = out / "table.md"
    below = f"\n## Excerpts, mono at 16 kHz\n\n{excerpts.read_text(encoding='utf-8')}"
    text = results.page(page + below, exp, arguments.command)
    report.write_text(exp / "RESULTS.md", text)
    say(f"\n{page}\n{out}/songs.csv: written after {time.perf_counter() - since:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--exp", type=Path, default=Path("exp/main"))
    parser.add_argument("--other", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--command", default="egs/musdb18/run.sh", help="what made the run")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
