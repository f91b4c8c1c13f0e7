"""Who hears the outputs in a score run: the encoder, the judge, and guests with other weights."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from encoders.base import Encoder
from encoders.judge import Judge
from sep.metrics import semantic
from sep.metrics.evaluation import EvaluationSet

CLASS_WORDING = "the sound of {}"


class Panel:
    """Listens to outputs for the mixtures of a set, whatever they were asked for by.

    Similarities are to the caption of the target, so that those of all kinds of query compare.

    Args:
        clips: the n mixtures.
        encoder: the one that queries and rewards come from.
        judge: the held-out judge; left out where it does not know every class.
        guests: further encoders by name, such as clap: each gives `<name>_text`, the similarity
            to the target's caption, and `<name>_audio`, that to the true target.
        sample_rate: of the outputs, in Hz.
        device: where they are heard.
        labels: classes of the whole set, where `clips` are a part of it.
        referee: another judge, of other recordings; left out like the first.
    """

    def __init__(
        self,
        clips: EvaluationSet,
        encoder: Encoder,
        judge: Judge | None,
        guests: Mapping[str, Encoder],
        sample_rate: int,
        device: torch.device,
        labels: Collection[str] = (),
        referee: Judge | None = None,
    ):
        self.encoder, self.sample_rate, self.device = encoder, sample_rate, device
        self.labels = clips.labels
        known = set(judge.labels) if judge else set()
        labels = {*clips.labels, *labels}
        self.unknown = sorted(labels - known)
        asked = {"judge": judge, "referee": referee}
        self.judges = {n: j for n, j in asked.items() if j and labels <= set(j.labels)}
        names = sorted(labels | known)
        self.label = torch.tensor([names.index(name) for name in clips.labels])
        self.query, _ = clips.queries("text")
        self.guests = {}
        with torch.no_grad():
            self.classes = encoder.embed_text([CLASS_WORDING.format(n) for n in names]).cpu()
            for name, guest in guests.items():
                text = guest.embed_text([m.text for m in clips.mixtures]).cpu()
                targets = (part.sources[:, 0].to(device) for _, part in clips.parts())
                audio = [semantic.embed(guest, wave, sample_rate).cpu() for wave in targets]
                self.guests[name] = guest, {"text": text, "audio": torch.cat(audio)}

    def hear(self, wave: Tensor, rows: list[int]) -> tuple[dict[str, Tensor], Tensor]:
        """Scores of outputs for some of the mixtures.

        Args:
            wave: (B, N); rows: the B mixtures they are for.

        Returns:
            (B,) by name, NaN for silence, and the encoder's embeddings (B, D).
        """
        wave = wave.to(self.device)
        embedding = semantic.embed(self.encoder, wave, self.sample_rate).cpu()
        found = semantic.encoder_scores(embedding, self.query[rows], self.classes, self.label[rows])
        labels = [self.labels[i] for i in rows]
        for name, judge in self.judges.items():
            found |= semantic.judge_scores(judge, wave, self.sample_rate, labels, name)
        for name, (guest, wanted) in self.guests.items():
            heard = semantic.embed(guest, wave, self.sample_rate).cpu()
            found |= {f"{name}_{k}": (heard * v[rows]).sum(-1) for k, v in wanted.items()}
        return {name: values.cpu() for name, values in found.items()}, embedding
