"""Systems by name: a trained model, or with `+refine` after it one that refines its queries."""

from pathlib import Path

from torch import Tensor

from encoders.base import Encoder
from sep import feedback
from sep.model import QueryNet

REFINE = "+refine"


def best(exp: Path, system: str) -> Path:
    """The model folder of a system under `exp`."""
    return exp / system.removesuffix(REFINE) / "best"


def is_refined(system: str) -> bool:
    """Whether a system's queries are refined by what it finds (`sep.feedback`)."""
    return system.endswith(REFINE)


def estimates(model: QueryNet, encoder: Encoder | None, wave: Tensor, query: Tensor) -> Tensor:
    """Estimates (B, Q, N) of mixtures (B, N) for queries (B, Q, D), refined where an encoder is."""
    if encoder is None:
        return model.separate(wave, query)
    return feedback.separate(model, encoder, wave, query)
