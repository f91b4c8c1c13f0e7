"""Published CLIPSep and OmniSep checkpoints: the same numbers, and nothing executed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sep import hub
from sep.errors import ModelError
from sep.networks.published import PublishedNet, SampledSpectrogram
from sep.spectrogram import Spectrogram

REFERENCE = np.load(Path(__file__).parent / "omnisep_parity.npz")


def reference_state(prefix: str = ""):
    """The state dict of the reference network, under the names that published files have."""
    names = [name for name in REFERENCE.files if name.startswith("w:")]
    return {prefix + name[2:]: torch.from_numpy(REFERENCE[name]) for name in names}


def logits_of(model):
    with torch.no_grad():
        return model(torch.from_numpy(REFERENCE["mag"]), torch.from_numpy(REFERENCE["query"]))


def test_logits_are_those_of_the_reference_network():
    logits = logits_of(hub.load_omnisep(reference_state("module.")))
    assert logits.shape == (2, 1, 256, 128)
    mask = torch.from_numpy(REFERENCE["mask"])
    assert (torch.sigmoid(logits) - mask).abs().max() < 1e-5
    assert (logits - torch.logit(mask.double())).abs().max() < 1e-5


@pytest.mark.parametrize("geometry", [(2, 5, 3, 6), (3, 7, 32, 16), (2, 6, 4, 512)])
def test_the_geometry_is_read_off_the_shapes(geometry):
    names = ("width", "levels", "mask_channels", "embed_dim")
    options = dict(zip(names, geometry, strict=True))
    model = hub.load_omnisep(PublishedNet(**options).state_dict())
    assert {name: model.config[name] for name in names} == options
    assert model.query_gain == 1 and model.floor == 1e-10 and not model.training


def test_every_file_format_gives_the_same_network(tmp_path):
    expected, state = logits_of(hub.load_omnisep(reference_state())), reference_state("module.")
    torch.save(state, tmp_path / "best_model.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "model.safetensors")
    for path in tmp_path.iterdir():
        assert torch.equal(logits_of(hub.load_omnisep(path)), expected), path.name
    torch.save({**state, "module.pit_nets.0.weight": torch.zeros(8, 16)}, tmp_path / "nit.pt")
    assert torch.equal(logits_of(hub.load_omnisep(str(tmp_path / "nit.pt"))), expected)


def test_it_separates_waveforms_and_survives_a_model_folder(tmp_path):
    model = hub.load_omnisep(reference_state())
    wave, query = torch.randn(2, 9_000), torch.from_numpy(REFERENCE["query"])
    with torch.no_grad():
        estimate = model.separate(wave, query)
        mask = model.mask(model.spectrogram.stft(wave).abs(), query)
    assert estimate.shape == wave.shape and 0 < mask.min() and mask.max() < 1
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    assert torch.equal(logits_of(loaded), logits_of(model))
    with torch.no_grad():
        assert torch.equal(loaded.separate(wave, query), estimate)


@pytest.mark.parametrize("frames", [1, 7, 300])
def test_sampling_is_the_plain_warp_but_for_rounding(frames):
    draw = torch.Generator().manual_seed(0)
    magnitude = torch.rand(2, 3, 513, frames, generator=draw)
    sampled, plain = SampledSpectrogram(), Spectrogram()
    for name in ("warp", "unwarp"):
        values = magnitude if name == "warp" else magnitude[..., :256, :]
        found, expected = getattr(sampled, name)(values), getattr(plain, name)(values)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


class Trap:
    """What a hostile checkpoint holds: a command that runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({**reference_state(), "x": Trap(tmp_path / "sprung")}, tmp_path / "best_model.pt")
    with pytest.raises(ModelError, match=r"best_model.pt: holds more than tensors") as error:
        hub.load_omnisep(tmp_path / "best_model.pt")
    assert "\n" not in str(error.value) and not (tmp_path / "sprung").exists()


def without(name):
    return {k: v for k, v in reference_state().items() if k != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("frame_net.weight"), "has no tensor frame_net.weight"),
        (without("sound_net.bn0.running_var"), "has no tensor sound_net.bn0.running_var"),
        (reference_state() | {"frame_net.bias": torch.zeros(9)}, r"frame_net.bias is \(9,\), not"),
        (reference_state() | {"cond_net.weight": torch.zeros(9)}, "cond_net.weight is no part"),
        (reference_state() | {"synth_net.scale": torch.ones(1, 8)}, "other shapes"),
        (reference_state() | {"epoch": 3}, "not a state dict"),
        ({}, "has no tensor"),
        ([1], "not a state dict"),
    ],
)
def test_another_network_is_refused_in_one_line(tmp_path, state, message):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=message) as error:
        hub.load_omnisep(tmp_path / "x.pt")
    assert "\n" not in str(error.value) and str(tmp_path / "x.pt") in str(error.value)


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_a_damaged_or_missing_file_is_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ModelError, match="cannot be read"):
        hub.load_omnisep(path)
    if name.endswith("pt"):
        torch.save(reference_state(), path)
    else:
        save_file(reference_state(), path)
    whole = path.read_bytes()
    for content in (b"", b"hello world" * 9, whole[:100], whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=name) as error:
            hub.load_omnisep(path)
        assert "\n" not in str(error.value)
