"""Published CLIPSep and OmniSep checkpoints: tensors in, a separator out, nothing executed."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sep.errors import ModelError
from sep.networks.published import PublishedNet

ENCODERS = {"omnisep": "imagebind", "clipsep": "clip-vit-b-32"}  # what made their queries
DOWN = "sound_net.unet_block.model.0.weight"
UNUSED = "pit_net"  # noise heads of CLIPSep-NIT, which the mask of a query does not need


def load_omnisep(source: str | Path | Mapping[str, Tensor]) -> PublishedNet:
    """The published CLIPSep or OmniSep network with the weights of a checkpoint, in eval mode.

    Its forward pass maps magnitudes (B, 1, 513, T) and queries (B, D) to the mask logits
    (B, 1, 256, T) of the original, T being a multiple of 2**levels there. The geometry is read off
    the shapes. As a `QueryNet` it also goes from waveforms to waveforms. OmniSep takes queries of
    norm 1, CLIPSep those of CLIP as they come.

    Args:
        source: a state dict, or its file: .safetensors, or what torch.save wrote. Names may
            begin with `module.`, as DataParallel has them.

    Raises:
        ModelError: a file that is missing, damaged or holds more than tensors, or the state of
            another network.
    """
    if isinstance(source, str | Path):
        return _filled(_read(Path(source)), str(source))
    return _filled(source, "state dict")


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file; of a pickle nothing but tensors and containers is made."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path}: holds more than tensors, which would have to be executed and was not; "
            "save the state_dict() alone by torch.save or as .safetensors"
        ) from None
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path}: damaged ({reason}); copy it again") from None
    except Exception:  # torch's reader of damaged pickles raises nearly anything
        raise ModelError(f"{path}: damaged or no checkpoint; copy it again") from None


def _filled(state: Mapping[str, Tensor], origin: str) -> PublishedNet:
    """A network of the state's geometry with its weights."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{origin}: not a state dict; give names and tensors, nothing else")
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    options = _geometry(state, origin)
    with torch.device("meta"):
        wanted = PublishedNet(**options).state_dict()
    for name, tensor in wanted.items():
        if _of(state, name, origin).shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, not {tuple(tensor.shape)}"
            raise ModelError(f"{origin}: {name} is {shapes}; this is another network")
    for name in state:
        if name not in wanted and not name.startswith(UNUSED):
            raise ModelError(f"{origin}: {name} is no part of CLIPSep or OmniSep")
    model = PublishedNet(**options)
    model.load_state_dict({name: state[name] for name in wanted})
    return model.eval()


def _geometry(state: Mapping[str, Tensor], origin: str) -> dict[str, int]:
    """Arguments of `QueryNet`, read off the shapes."""
    down, scale = _of(state, DOWN, origin), _of(state, "synth_net.scale", origin)
    query = _of(state, "frame_net.weight", origin)
    levels = sum(v.dim() == 4 and v.shape[-1] == 4 for v in state.values())
    if down.dim() != 4 or scale.dim() != 1 or query.dim() != 2 or levels < 2:
        raise ModelError(f"{origin}: its tensors have other shapes than CLIPSep's and OmniSep's")
    return {
        "width": len(down),
        "levels": levels,
        "mask_channels": len(scale),
        "embed_dim": query.shape[1],
    }


def _of(state: Mapping[str, Tensor], name: str, origin: str) -> Tensor:
    if name not in state:
        raise ModelError(f"{origin}: has no tensor {name}; this is another network")
    return state[name]
