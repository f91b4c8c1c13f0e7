"""What a second pass changes: SI-SDR and class of both passes on hard and on easy mixtures.

A mixture is hard where pass 1 gave a bad mask whose sound an encoder takes for another class
(`sep.train.reflection.mistaken`), and easy otherwise.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sep.metrics.sisdr import si_sdr
from sep.metrics.statistics import paired
from sep.networks.reflect import ReflectiveNet
from sep.rl.reward import ClassHit
from sep.train.batch import Batch
from sep.train.reflection import mistaken


@torch.inference_mode()
def compare(
    model: ReflectiveNet,
    sources: Tensor,
    query: Tensor,
    label: Tensor,
    classes: ClassHit,
    *,
    iou: float = 0.6,
    batch: int = 16,
) -> dict[str, Tensor]:
    """Both passes on mixtures of `sources` (n, S, N), the target first.

    Args:
        model: the network, on its device.
        query: (n, D); label: (n,) index of the target's class.
        classes: names the class of a sound.
        iou: of `mistaken`; batch: mixtures at once.

    Returns:
        (n,) each: `hard`; SI-SDR `first` and `second` in dB, NaN where a signal is silent; and
        whether the class is right, `first_class` and `second_class`.
    """
    grid, rows = model.spectrogram, []
    device = grid.window.device
    for start in range(0, len(sources), batch):
        part = slice(start, start + batch)
        asked, named = query[part, None].to(device), label[part, None]
        drawn = Batch.of(sources[part].to(device), asked, named, grid)
        maps = model.maps(drawn.magnitude)
        first = model.first(maps, asked)  # (b, 1, H, T)
        row = {"hard": mistaken(first, drawn, grid, classes, named, iou)[:, 0]}
        second = model.revised(first, maps[:, -1:], asked)
        for name, logits in (("first", first), ("second", second)):
            mask = grid.unwarp(torch.sigmoid(logits))
            wave = grid.istft(drawn.spectrum[:, None] * mask, sources.shape[-1])
            row[name] = si_sdr(wave, drawn.sources[:, :1])[:, 0]
            found = classes.nearest(wave, grid.sample_rate)
            row[f"{name}_class"] = (found == named.to(device))[:, 0]
        rows.append({name: value.cpu() for name, value in row.items()})
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def summarise(
    values: dict[str, Tensor], harm_db: float = 0.5, recordings: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """For hard, easy and all mixtures: SI-SDR, what pass 2 changes, and how often.

    `improved` and `harmed` are the shares of mixtures above 0 and below -`harm_db`. Errors are over
    the `recordings` of the mixtures' targets, where they are given.
    """
    hard = values["hard"]
    sets = {"hard": hard, "easy": ~hard, "all": torch.ones_like(hard)}
    found = {}
    for name, chosen in sets.items():
        first, second = values["first"][chosen], values["second"][chosen]
        own = None
        if recordings is not None:
            own = [name for name, kept in zip(recordings, chosen.tolist(), strict=True) if kept]
        change = paired(second.tolist(), first.tolist(), groups=own)
        gain = (second - first)[(second - first).isfinite()]
        found[name] = {
            "n": int(chosen.sum()),
            "first_db": first.nanmean().item(),
            **{f"change_{key}": change[key] for key in ("mean", "sem", "low", "high")},
            "improved": (gain > 0).double().mean().item(),
            "harmed": (gain < -harm_db).double().mean().item(),
            **{
                key: values[key][chosen].double().mean().item()
                for key in ("first_class", "second_class")
            },
        }
    return found


def markdown(found: dict[str, dict[str, float]], harm_db: float) -> str:
    """One row a set."""
    lines = [
        "| mixtures | n | pass 1, SI-SDR dB | pass 2 - pass 1, dB | 95 % interval | improved | "
        f"harmed > {harm_db:g} dB | right class, pass 1 | pass 2 |",
        "| --- |" + " ---: |" * 8,
    ]
    for name, row in found.items():
        shares = ("improved", "harmed", "first_class", "second_class")
        cells = [name, str(row["n"]), f"{row['first_db']:.2f}"]
        cells += [f"{row['change_mean']:+.2f} ± {row['change_sem']:.2f}"]
        cells += [f"[{row['change_low']:+.2f}, {row['change_high']:+.2f}]"]
        cells += [f"{100 * row[share]:.0f} %" for share in shares]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
