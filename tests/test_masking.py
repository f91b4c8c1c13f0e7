"""Masks of several queries share what there is."""

import pytest
import torch

from sep.candidates import Variant, alone
from sep.masking import Masking, shared


def test_masks_that_want_too_much_share_it_and_others_stay():
    masks = torch.tensor([[[0.9, 0.2], [0.6, 0.3]]])[..., None]  # (1, 2, 2, 1)
    expected = torch.tensor([[[0.6, 0.2], [0.4, 0.3]]])[..., None]
    torch.testing.assert_close(shared(masks), expected)
    one = torch.rand(2, 1, 5, 7)
    assert torch.equal(shared(one), one)


@torch.no_grad()
def test_a_reading_is_the_weighted_mean_of_its_variants(separator):
    query = separator.query(text="rain")
    wave = 0.1 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    both = [(0.3, Variant(2.0, -0.5)), (0.7, Variant())]
    readings = [both, *(alone(variant) for _, variant in both)]
    blended, first, second = Masking(separator.model, query[None], readings).whole(wave)[0, 0, :, 0]
    torch.testing.assert_close(blended, 0.3 * first + 0.7 * second, atol=1e-5, rtol=0)
    assert not torch.allclose(first, second, atol=1e-3)


@torch.no_grad()
def test_each_query_of_several_is_masked_as_it_would_be_alone(separator):
    queries = torch.stack([separator.query(text=text) for text in ("a bell", "rain", "wind")])
    wave = 0.1 * torch.randn(1, 1, 20_000, generator=torch.Generator().manual_seed(0))
    grid, model = separator.model.spectrogram, separator.model
    spectrum = grid.stft(wave[0])
    each = torch.cat([model.mask(spectrum.abs(), query) for query in queries])
    expected = each / each.sum(0).clamp(min=1)
    results = Masking(model, queries, [alone(Variant()), alone(Variant(2.0))]).whole(wave)
    assert results.shape == (1, 1, 2, 3, 20_000)
    # bfloat16 where the processor has it
    torch.testing.assert_close(
        results[0, 0, 0], grid.istft(spectrum * expected, 20_000), atol=5e-4, rtol=0
    )


@torch.no_grad()
@pytest.mark.parametrize("refine", [False, True])
def test_each_channel_is_masked_as_it_would_be_alone(separator, monkeypatch, refine):
    generator = torch.Generator().manual_seed(0)
    stereo = 0.1 * torch.randn(2, 20_000, generator=generator) * torch.tensor([[1.0], [0.2]])
    alone = [
        separator.separate(channel[None], separator.model.sample_rate, text="rain", refine=refine)
        for channel in stereo
    ]
    monkeypatch.setattr(separator, "each_channel", True)
    both = separator.separate(stereo, separator.model.sample_rate, text="rain", refine=refine)
    for row, one in zip(both.target, alone, strict=True):
        torch.testing.assert_close(row, one.target[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(both.target + both.residual, stereo)
    monkeypatch.setattr(separator, "each_channel", False)
    shared = separator.separate(stereo, separator.model.sample_rate, text="rain", refine=refine)
    assert not torch.allclose(shared.target, both.target, atol=1e-4)
