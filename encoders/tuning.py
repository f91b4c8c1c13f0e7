"""What alignment may move in an encoder: heads, adapters in its audio backbone, or all of that.

Text and picture backbones stay frozen, so their features are computed once.
"""

import copy

from torch import nn
from torch.nn import Parameter

from encoders.base import Alignable, EncoderError

TUNINGS = ("queries", "heads", "lora", "full")
_PIP = "run: pip install peft"


class Tuning:
    """Which parameters of an encoder train, and in which mode its parts run meanwhile.

    Freezes the encoder; `trainable` says what to unfreeze.

    Args:
        encoder: changed in place; with "lora" its backbone gets adapters.
        how: "queries" (projection heads of text and image, which leaves sounds where they are),
            "heads" (that of sounds, too), "lora" (and low-rank adapters, arXiv 2106.09685, in the
            audio backbone) or "full" (and the whole audio backbone).
        rank: of the adapters; their scale is 2.

    Raises:
        EncoderError: unknown `how`, or peft is missing.
    """

    def __init__(self, encoder: Alignable, how: str, rank: int = 8):
        if how not in TUNINGS:
            raise EncoderError(f"tune={how} is not known; give one of {', '.join(TUNINGS)}")
        self.encoder, self.how = encoder, how
        encoder.eval().requires_grad_(False)
        adapters: list[Parameter] = []
        if how == "lora":
            before = {id(p) for p in encoder.backbone.parameters()}
            _adapt(encoder.backbone, encoder.lora_targets, rank)
            adapters = [p for p in encoder.backbone.parameters() if id(p) not in before]
        elif how == "full":
            adapters = [*encoder.backbone.parameters()]
        self.tower = adapters

    def trainable(self, modality: str) -> list[Parameter]:
        """Parameters that train for "audio", "text" or "image"; none where it has no such head."""
        head = self.encoder.heads.get(modality)
        if self.how == "queries" and modality == "audio":
            return []
        own = [*head.parameters()] if head is not None else []
        return [*self.tower, *own] if modality == "audio" else own

    def train(self) -> None:
        """Put the parts that train into training mode, the rest into evaluation mode.

        A backbone that is adapted runs in training mode: its batch norms see the new sounds.
        """
        self.encoder.eval()
        for head in self.encoder.heads.values():
            head.train()
        if self.how == "queries":
            self.encoder.heads["audio"].eval()
        self.encoder.backbone.train(self.how in ("lora", "full"))

    def merged(self) -> Alignable:
        """A copy of the encoder with the adapters folded in; this one trains on."""
        encoder = copy.deepcopy(self.encoder)
        if self.how == "lora":
            _merge(encoder.backbone)
        return encoder

    def merge(self) -> None:
        """Fold the adapters into the weights they adapt; the encoder has its own layers again."""
        if self.how == "lora":
            _merge(self.encoder.backbone)
            self.how, self.tower = "heads", []


def _adapt(backbone: nn.Module, targets: tuple[str, ...], rank: int) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise EncoderError(f"tune=lora needs the peft package; {_PIP}") from None
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=[*targets])
    inject_adapter_in_model(config, backbone)


def _merge(backbone: nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(backbone.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(backbone.get_submodule(parent), leaf, layer.get_base_layer())
