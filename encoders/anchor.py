"""The fused anchor of the reward: what a separated sound should be close to (MARS-Sep's MLBP)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class FusedAnchor(nn.Module):
    """Low-rank multiplicative fusion of the embeddings of a sound, a text and a picture.

    z = norm(mean(present) + gamma W [(U_a a) * (U_t t) * (U_v v)]), where a modality that is
    missing has the factor 1. gamma starts at 0: an untrained product would make the cosine with it
    meaningless, so the untrained anchor is the normalised mean.

    MARS-Sep (arXiv 2510.10509) names the aggregation and gives no formula; this is the standard
    low-rank trilinear form with a residual.

    Args:
        dim: D.
        rank: of the product.
    """

    def __init__(self, dim: int, rank: int = 64):
        super().__init__()
        self.into = nn.ModuleDict(
            {kind: nn.Linear(dim, rank, bias=False) for kind in ("audio", "text", "image")}
        )
        self.out = nn.Linear(rank, dim, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))
        generator = torch.Generator().manual_seed(rank)  # untrained anchors are alike
        for layer in self.into.values():  # factors of about unit size for unit vectors
            nn.init.normal_(layer.weight, generator=generator)
        nn.init.normal_(self.out.weight, std=rank**-0.5, generator=generator)

    def forward(
        self,
        audio: Tensor | None = None,
        text: Tensor | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Fuse unit vectors (..., D), at least one of them, to (..., D)."""
        given = {"audio": audio, "text": text, "image": image}
        given = {kind: vector for kind, vector in given.items() if vector is not None}
        if not given:
            raise ValueError("the anchor needs a sound, a text or a picture")
        mean = torch.stack(list(given.values())).mean(0)
        product = 1.0
        for kind, vector in given.items():
            product = product * self.into[kind](vector)
        return normalize(mean + self.gamma * self.out(product), dim=-1)
