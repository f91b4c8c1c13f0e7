"""A page to listen to: what a separator makes of test mixtures that a seed chose, not their scores.

    python local/examples.py --data data/final --esc50 DIR --mini ../mini_sounds/data

Writes a folder with index.html, sounds and pictures, which needs no network.
"""

import sep.interrupt  # noqa: F401, first, for Ctrl-C during the imports below

# isort: split

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import torch
from credits import Credits
from torch import Tensor

from sep import audio, hub
from sep.data import mixtures
from sep.data.kaldi import MIXTURES, SAMPLE_RATE, DataDir
from sep.errors import SepError
from sep.figure import Pool
from sep.metrics.sisdr import si_sdr
from sep.program import guarded, say
from sep.separator import Separator
from sep.train.picture import draw_separation
from sep.web.examples import RATE, sounds

HERE = Path(__file__).resolve().parent
PEAK = 0.95
PARTS = {  # of an example: what the page calls them
    "mixture": "mixture",
    "target": "target, as separated",
    "residual": "residual",
    "reference": "true target",
}
MADE = (  # wanted, other, words: the examples of `sep serve`
    ("bell", "rain", "a bell ringing"),
    ("rain", "bell", "rain"),
    ("bird", "drums", "a bird singing"),
    ("drums", "bird", "drums"),
)


@dataclass
class Asked:
    """A mixture of `sources` (S, N) in which `text` names the first; credits go with sources."""

    id: str
    text: str
    names: list[str]
    credits: list[str]
    sources: Tensor
    sample_rate: int


@dataclass
class Answer:
    """What came of it: `waves` by the names of `PARTS`, SI-SDR, and similarity to the text."""

    asked: Asked
    waves: dict[str, Tensor]
    before_db: float
    after_db: float
    similarity: float
    mixture_similarity: float

    @property
    def gain_db(self) -> float:
        """SI-SDRi."""
        return self.after_db - self.before_db


def chosen(data: DataDir, count: int, seed: int, credits: Credits) -> tuple[list[Asked], int]:
    """So many of the split's fixed mixtures, by seed alone, and how many there are."""
    every = mixtures.load(Path(data.path) / MIXTURES)
    found = []
    for mixture in random.Random(seed).sample(every, min(count, len(every))):
        ids = [mixture.target, *mixture.interferers]
        names = [mixture.label, *mixture.interferer_labels]
        sources = mixtures.render(mixture, data)
        credit = [credits.of(id_) for id_ in ids]
        found.append(Asked(mixture.id, mixture.text, names, credit, sources, SAMPLE_RATE))
    return found, len(every)


def made() -> Iterator[Asked]:
    """Mixtures of sounds that were made by formula."""
    lone = {name: torch.from_numpy(wave).float() for name, wave in sounds().items()}
    credit = "made by a formula of this toolkit, MIT"
    for wanted, other, text in MADE:
        both = torch.stack([lone[wanted], lone[other]])
        yield Asked(f"made-{wanted}-{other}", text, [wanted, other], [credit] * 2, both, RATE)


def separated(separator: Separator, asked: Asked) -> Answer:
    """Ask the separator as `sep separate` does."""
    mixture, reference = asked.sources.sum(0), asked.sources[0]
    result = separator.separate(mixture, asked.sample_rate, text=asked.text)
    waves = dict(zip(PARTS, (mixture, result.target, result.residual, reference), strict=True))
    ratios = [float(si_sdr(wave, reference)) for wave in (mixture, result.target)]
    return Answer(asked, waves, *ratios, result.similarity, result.mixture_similarity)


def write_files(folder: Path, answer: Answer, separator: Separator) -> None:
    """Sounds, all with one gain, and their spectrograms."""
    folder.mkdir()
    grid, rate = separator.model.spectrogram, answer.asked.sample_rate
    gain = PEAK / max(PEAK, *(float(wave.abs().max()) for wave in answer.waves.values()))
    panels = {}
    for name, wave in answer.waves.items():
        audio.write(folder / f"{name}.wav", wave * gain, rate, "PCM_16")
        low = audio.resample(wave, rate, grid.sample_rate)
        pool = Pool(grid, low.shape[-1])
        pool.push(low)
        panels[PARTS[name]] = pool.picture()
    hop = grid.hop * pool.frames / pool.columns
    draw_separation(folder / "picture.png", panels, grid.sample_rate, hop)


def number(value: float, sign: str = "") -> str:
    """One digit after the point, and no -0.0."""
    return f"{round(value, 1) + 0.0:{sign}.1f}"


def article(answer: Answer) -> str:
    """One example in HTML."""
    asked = answer.asked
    credit = zip(asked.names, asked.credits, strict=True)
    players = "".join(
        f"<figure><figcaption>{title}</figcaption>"
        f'<audio controls preload="none" src="{asked.id}/{name}.wav"></audio></figure>\n'
        for name, title in PARTS.items()
    )
    names = escape(" and ".join(asked.names))
    fault = ' <span class="worse">worse than it went in</span>' if answer.gain_db < 0 else ""
    return f"""<article id="{asked.id}">
<h3>“{escape(asked.text)}”</h3>
<p class="facts">{names} · SI-SDR {number(answer.before_db)} → {number(answer.after_db)} dB
({number(answer.gain_db, "+")}){fault} · similarity to the words {answer.mixture_similarity:.2f} →
{answer.similarity:.2f} · {asked.id}</p>
<img src="{asked.id}/picture.png" alt="Spectrograms of mixture, target, residual and true target">
<div class="players">
{players}</div>
<ul class="credits">
{"".join(f"<li>{escape(name)}: {escape(line)}</li>" for name, line in credit)}
</ul>
</article>"""


def row(answer: Answer) -> str:
    """One line of the table in HTML."""
    asked = answer.asked
    worse = " worse" if answer.gain_db < 0 else ""
    return (
        f'<tr><td><a href="#{asked.id}">{escape(asked.text)}</a></td>'
        f"<td>{escape(', '.join(asked.names))}</td>"
        f'<td class="number">{number(answer.before_db)} dB</td>'
        f'<td class="number">{number(answer.after_db)} dB</td>'
        f'<td class="number{worse}">{number(answer.gain_db, "+")} dB</td></tr>'
    )


def page(
    tested: list[Answer], formula: list[Answer], every: int, split: str, seed: int, model: str
) -> str:
    """The whole of index.html."""
    gains = [answer.gain_db for answer in tested]
    worse = sum(gain < 0 for gain in gains)
    mean, low, high = statistics.fmean(gains), min(gains), max(gains)
    introduction = f"""<p>{len(tested)} of {every} mixtures of the {split} split, chosen by seed
{seed} and not by how they came out, and after them {len(formula)} of sounds made by formula; asked
for in words, and separated by {escape(model)}.</p>
<p>SI-SDR says by how much the sound asked for is above everything else that is left, SI-SDRi what
separating adds to it: {number(mean)} dB on average of the {len(tested)}, from {number(low)} to
{number(high)}; {worse} came out worse than they went in. Target and residual add up to the
mixture. Pictures show 0 to {SAMPLE_RATE // 2000} kHz, low sounds at the bottom, loud ones in
yellow.</p>"""
    sections = ["<h2>Test mixtures</h2>", *map(article, tested)]
    sections += ["<h2>Sounds made by formula</h2>", *map(article, formula)]
    return Template((HERE / "examples.html").read_text(encoding="utf-8")).substitute(
        title="Sounds taken out of mixtures by naming them",
        introduction=introduction,
        rows="\n".join(map(row, [*tested, *formula])),
        sections="\n".join(sections),
    )


def run(arguments: argparse.Namespace) -> None:
    """Separate, and write the folder when it is complete."""
    out: Path = arguments.out.absolute()
    if out.exists() and not (out / "index.html").is_file():
        raise SepError(f"{out}: is there and holds no examples; name another folder with --out")
    if arguments.count < 1:
        raise SepError(f"--count {arguments.count}: give 1 or more")
    separator = Separator.from_pretrained(arguments.model, arguments.device)
    data = DataDir(arguments.data / arguments.split)
    credits = Credits(arguments.esc50, arguments.mini)
    asked, every = chosen(data, arguments.count, arguments.seed, credits)
    tested = [separated(separator, each) for each in asked]
    formula = [separated(separator, each) for each in made()]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".examples.", dir=out.parent) as staging:
        home = Path(staging) / "examples"
        home.mkdir()
        for answer in [*tested, *formula]:
            write_files(home / answer.asked.id, answer, separator)
            say(f"{answer.asked.id}: {answer.asked.text}: {answer.gain_db:+.1f} dB")
        model = arguments.model.name if arguments.model else "the small model that ships"
        text = page(tested, formula, every, arguments.split, arguments.seed, model)
        (home / "index.html").write_text(text, encoding="utf-8")
        hub.replace_folder(home, out)
    say(f"the page: {out / 'index.html'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", type=Path, help="model folder instead of the one that ships")
    parser.add_argument("--esc50", type=Path, help="ESC-50 with meta.tsv, for authors and licences")
    parser.add_argument("--mini", type=Path, help="data directories of mini_sounds, for licences")
    parser.add_argument("--out", type=Path, default=Path("exp/examples"))
    parser.add_argument("--count", type=int, default=12, help="test mixtures")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--device", default="auto")
    guarded(run, parser.parse_args())


if __name__ == "__main__":
    main()
