"""The network alone, for other runtimes: magnitudes and a query in, mask logits out."""

import importlib.util
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sep.errors import ModelError, OptionError
from sep.model import QueryNet

FORMATS = {"onnx": ".onnx", "torchscript": ".pt"}
CHECKED_FRAMES = (128, 257, 1000)  # lengths that parity is checked at, other than that of the trace
TOLERANCE = 1e-3  # of logits
OPSET = 17


class Network(nn.Module):
    """`QueryNet.logits` for one query a mixture, in float32: (B, F, T), (B, D) to (B, H, T)."""

    def __init__(self, model: QueryNet):
        super().__init__()
        model.amp = False
        self.model = model

    def forward(self, magnitude: Tensor, query: Tensor) -> Tensor:
        return self.model.logits(magnitude, query)


def export(model: QueryNet, path: str | Path, kind: str) -> float:
    """Write the network for any number of mixtures B and frames T, and check what was written.

    The file has inputs `magnitude` (B, F, T) and `query` (B, D) and the output `logits`
    (B, H, T); it appears under its name only when its logits are those of the model at other
    lengths than it was traced with.

    Args:
        model: on the CPU, in eval mode.
        path: of the file.
        kind: `onnx` or `torchscript`.

    Returns:
        The largest difference of the logits.

    Raises:
        OptionError: an unknown kind, or a package that is missing.
        ModelError: what was written differs, or cannot be written.
    """
    if kind not in FORMATS:
        raise OptionError(f"format '{kind}' is unknown; use {', '.join(FORMATS)}")
    path, network = Path(path), Network(model).eval()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "onnx":
            other = _onnx(network, temporary)
        else:
            torch.jit.trace(network, _example(model, 2, 256), check_trace=False).save(temporary)
            other = torch.jit.load(temporary)
        difference = parity(network, other)
        if not difference <= TOLERANCE:
            raise ModelError(f"{path}: not kept, its logits differ by {difference:.2g}")
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch raises either
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ModelError(f"{path}: cannot be written ({reason})") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return difference


@torch.no_grad()
def parity(network: Network, other: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Largest difference of the logits of two networks over lengths and batches."""
    worst = 0.0
    for batch, frames in enumerate(CHECKED_FRAMES, start=1):
        inputs = _example(network.model, batch, frames)
        worst = max(worst, float((network(*inputs) - other(*inputs)).abs().max()))
    return worst


def _onnx(network: Network, path: Path) -> Callable[[Tensor, Tensor], Tensor]:
    """Write ONNX and return what onnxruntime makes of it."""
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise OptionError(f"{package} is missing; run: pip install onnx onnxruntime")
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that parity checks
        torch.onnx.export(
            network,
            _example(network.model, 2, 256),
            path,
            input_names=["magnitude", "query"],
            output_names=["logits"],
            dynamic_axes={
                "magnitude": {0: "batch", 2: "frames"},
                "query": {0: "batch"},
                "logits": {0: "batch", 2: "frames"},
            },
            opset_version=OPSET,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(magnitude: Tensor, query: Tensor) -> Tensor:
        inputs = {"magnitude": magnitude.numpy(), "query": query.numpy()}
        try:
            return torch.from_numpy(np.asarray(session.run(["logits"], inputs)[0]))
        except Exception as error:  # its errors share no class but this
            raise RuntimeError(str(error)) from None

    return run


def _example(model: QueryNet, batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """Seeded magnitudes (B, F, T) and queries (B, D)."""
    draw = torch.Generator().manual_seed(frames)
    bins = model.spectrogram.n_fft // 2 + 1
    query = torch.randn(batch, model.config["embed_dim"], generator=draw)
    magnitude = torch.rand(batch, bins, frames, generator=draw)
    return magnitude, nn.functional.normalize(query, dim=-1)
