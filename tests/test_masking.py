"""Masks of several queries share what there is."""

import torch

from sep.commands.values import MOST
from sep.masking import VARIANTS, Masking, Variant, shared, variants


def test_masks_that_want_too_much_share_it_and_others_stay():
    masks = torch.tensor([[[0.9, 0.2], [0.6, 0.3]]])[..., None]  # (1, 2, 2, 1)
    expected = torch.tensor([[[0.6, 0.2], [0.4, 0.3]]])[..., None]
    torch.testing.assert_close(shared(masks), expected)
    one = torch.rand(2, 1, 5, 7)
    assert torch.equal(shared(one), one)


def test_variants_start_from_the_sharpness_given():
    assert variants(1) == [Variant(1.0, 0.0)]
    assert variants(3, 2.0) == [(2.0, 0.0), (2.5, 0.0), (1.6, 0.5)]
    assert len(set(VARIANTS)) == len(VARIANTS) == MOST


@torch.no_grad()
def test_a_variant_scales_the_logits_and_moves_them(separator):
    query, grid = separator.query(text="rain"), separator.model.spectrogram
    wave = 0.1 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    spectrum = grid.stft(wave[0])
    logits = separator.model.logits(spectrum.abs(), query)
    by_hand = grid.istft(spectrum * grid.unwarp(torch.sigmoid(2 * logits - 0.5)), 8000)
    results = Masking(separator.model, query[None], [Variant(2.0, -0.5)]).whole(wave)
    torch.testing.assert_close(results[0, 0, 0], by_hand, atol=5e-4, rtol=0)


@torch.no_grad()
def test_each_query_of_several_is_masked_as_it_would_be_alone(separator):
    queries = torch.stack([separator.query(text=text) for text in ("a bell", "rain", "wind")])
    wave = 0.1 * torch.randn(1, 1, 20_000, generator=torch.Generator().manual_seed(0))
    grid, model = separator.model.spectrogram, separator.model
    spectrum = grid.stft(wave[0])
    alone = torch.cat([model.mask(spectrum.abs(), query) for query in queries])
    expected = alone / alone.sum(0).clamp(min=1)
    results = Masking(model, queries, [Variant(), Variant(2.0)]).whole(wave)
    assert results.shape == (1, 1, 2, 3, 20_000)
    # bfloat16 where the processor has it
    torch.testing.assert_close(
        results[0, 0, 0], grid.istft(spectrum * expected, 20_000), atol=5e-4, rtol=0
    )
