"""A separator that says how good it expects its mask to be."""

from typing import Any

import torch
from torch import Tensor, nn

from sep.model import QueryNet


class ConfidentNet(QueryNet):
    """A separator with a head that predicts the IoU of its mask with the ideal one.

    The mask-confidence calibration of VideoSEG-O3 (arXiv 2606.06819) carried over to masks of
    sounds. The head looks at the network without changing it: what it reads is detached, and masks
    are those of `QueryNet`. It starts at 1/2 everywhere.

    Args:
        options: those of `QueryNet`.
    """

    kind = "confident"

    def __init__(self, **options: Any):
        super().__init__(**options)
        channels = self.config["mask_channels"]
        self.confidence_head = nn.Sequential(
            nn.Linear(2 * channels + 3, 32), nn.ReLU(), nn.Linear(32, 1)
        )
        nn.init.zeros_(self.confidence_head[-1].weight)
        nn.init.zeros_(self.confidence_head[-1].bias)

    def confidence(self, maps: Tensor, query: Tensor, logits: Tensor) -> Tensor:
        """Expected IoU in (0, 1) of masks with the ideal ratio masks.

        Args:
            maps: (B, K, H, T); query: (B, D) or (B, Q, D); logits: (B, H, T) or (B, Q, H, T).

        Returns:
            (B,) or (B, Q).
        """
        several = query.dim() == 3
        logits = (logits if several else logits[:, None]).detach()
        prompt = self.prompt(query if several else query[:, None]).detach()  # (B, Q, K)
        level = maps.detach().mean((-2, -1))[:, None] * prompt
        mask = torch.sigmoid(logits)
        sure = [(2 * mask - 1).abs(), mask, logits.abs().log1p()]
        seen = torch.stack([part.mean((-2, -1)) for part in sure], -1)  # (B, Q, 3)
        expected = self.confidence_head(torch.cat([level, prompt, seen], -1))[..., 0].sigmoid()
        return expected if several else expected[:, 0]
