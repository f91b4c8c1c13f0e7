"""The separator that says when, where and what."""

import torch

from sep import hub
from sep.model import QueryNet
from sep.networks.trace import Trace, TraceNet


def tiny():
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8)
    model.amp = False
    return model.eval()


def traced():
    model = hub.extend(tiny(), "trace")
    model.name_classes(["dog", "rain"], torch.eye(2, 8))
    return model


def test_masks_begin_as_those_of_the_network_it_extends():
    base, model = tiny(), traced()
    magnitude, query = torch.rand(2, 513, 21), torch.randn(2, 3, 8)
    with torch.no_grad():
        for q in (query, query[:, 0]):
            assert torch.equal(model.logits(magnitude, q), base.logits(magnitude, q))
        one = model.logits(magnitude, query[0, 0])
        torch.testing.assert_close(one, base.logits(magnitude, query[0, 0]), atol=1e-5, rtol=1e-4)


def test_a_model_folder_keeps_the_classes(tmp_path):
    model = traced()
    hub.save_pretrained(model, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    assert loaded.config["labels"] == ["dog", "rain"]
    assert torch.equal(loaded.prototypes, model.prototypes)
    assert isinstance(hub.extend(loaded, "trace"), TraceNet)


def test_logits_are_the_sum_of_the_parts():
    model = traced()
    maps, query = torch.randn(1, 3, 6, 4), torch.randn(1, 1, 8)
    trace = Trace(torch.randn(1, 1, 4), torch.randn(1, 1, 6), torch.tensor([[[0.25, 0.75]]]))
    with torch.no_grad():
        model.trace_gain.copy_(torch.tensor([2.0, -1.0, 0.5]))
        mixed = query.clone()
        mixed[..., :2] += 0.5 * torch.tensor([0.25, 0.75])  # the prototypes are unit vectors
        expected = QueryNet.combine(model, maps, mixed)[0, 0]
        expected = expected + 2 * trace.when[0, 0] - trace.where[0, 0, :, None]
        torch.testing.assert_close(model.combine(maps, query, trace)[0, 0], expected)


def test_the_trace_has_the_shapes_of_mixture_and_queries():
    trace = traced().trace(torch.randn(2, 3, 16, 20), torch.randn(2, 5, 8))
    assert trace.when.shape == (2, 5, 20)
    assert trace.where.shape == (2, 5, 16)
    assert trace.what.shape == (2, 5, 2)
    torch.testing.assert_close(trace.what.sum(-1), torch.ones(2, 5))
    model = hub.extend(tiny(), "trace")  # no classes: nothing is added to the query
    assert model.trace(torch.randn(2, 3, 16, 20), torch.randn(2, 5, 8)).what.shape == (2, 5, 0)


def test_when_shifted_by_half_a_second_the_sound_moves_with_it():
    model, rate, hop = traced(), 16_000, 256
    torch.manual_seed(1)
    wave, query = 0.1 * torch.randn(1, 4 * rate), torch.randn(1, 1, 8)
    grid = model.spectrogram
    spectrum = grid.stft(wave)
    shift = round(0.5 * rate / hop)
    with torch.no_grad():
        model.trace_gain[0] = 3.0
        maps = model.maps(spectrum.abs())
        trace = model.trace(maps, query)
        active = torch.full_like(trace.when, -4.0)
        active[..., 60:120] = 4.0
        centres = []
        for when in (active, active.roll(shift, -1)):
            moved = Trace(when, trace.where, trace.what)
            mask = grid.unwarp(torch.sigmoid(model.combine(maps, query, moved)[:, 0]))
            power = grid.istft(spectrum * mask, wave.shape[-1]).square()[0]
            time = torch.arange(len(power)) / rate
            centres.append(float((power * time).sum() / power.sum()))
    assert abs(centres[1] - centres[0] - 0.5) < 0.05
