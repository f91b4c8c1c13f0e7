"""BSS Eval of songs: museval's numbers over windows and over the whole."""

import numpy as np
import pytest
import torch

from sep.metrics.bss import museval_metrics
from sep.metrics.bss_song import NAMES, SongScorer

WINDOW, TAPS = 4000, 48  # the filters' length is 512 outside of tests


def song(channels: int, seed: int = 0, length: int = 4 * WINDOW + 700):
    """Coloured sources of different levels, and estimates with leaks, filters and noise."""
    draw = torch.Generator().manual_seed(seed)
    white = torch.randn(4, channels, length, generator=draw)
    sources = white.cumsum(-1) * 0.02 + white * torch.tensor([1.0, 0.5, 2.0, 0.1])[:, None, None]
    leak = torch.eye(4) + 0.1 * torch.rand(4, 4, generator=draw)
    mixed = torch.einsum("st,tcn->scn", leak, sources)
    estimates = mixed + 0.3 * mixed.roll(3, -1) + 0.05 * torch.randn(mixed.shape, generator=draw)
    return sources, estimates


def museval(sources, estimates, window):
    reference, estimate = (x.transpose(1, 2).double().numpy() for x in (sources, estimates))
    settings = {"window": window, "hop": window, "filters_len": TAPS}
    found = museval_metrics().bss_eval(reference, estimate, **settings)
    return dict(zip(NAMES, found[:4], strict=True))


@pytest.mark.parametrize("channels", [1, 2])
def test_windows_and_the_whole_song_agree_with_museval(channels):
    sources, estimates = song(channels)
    windows, whole = SongScorer(sources, WINDOW, TAPS).score(estimates)
    framed, full = (museval(sources, estimates, w) for w in (WINDOW, np.inf))
    for name in NAMES:
        assert windows[name].shape == (4, 4)
        assert np.abs(windows[name].numpy() - framed[name]).max() < 1e-3, name
        assert np.abs(whole[name].numpy() - full[name][:, 0]).max() < 1e-3, name


def test_a_window_in_which_a_stem_is_silent_has_no_score_for_any():
    sources, estimates = song(2, seed=1)
    sources[2, :, WINDOW : 2 * WINDOW] = 0
    sources[3, 0], sources[3, 1] = 0.1, -0.1  # museval sums the channels
    sources[3, :, : 3 * WINDOW] = estimates[3, :, : 3 * WINDOW] * 0.9
    windows, whole = SongScorer(sources, WINDOW, TAPS).score(estimates)
    expected = museval(sources, estimates, WINDOW)
    for name in NAMES:
        assert torch.equal(windows[name].isnan()[0], torch.tensor([False, True, False, True]))
        assert np.allclose(windows[name].numpy(), expected[name], atol=1e-3, equal_nan=True)
        assert whole[name].isfinite().all()


def test_channels_that_are_alike_do_not_spoil_the_scores():
    sources, estimates = song(2, seed=2)
    nearly = sources.clone()
    sources[1, 1] = sources[1, 0]  # a bass in the middle: its filters are not determined
    nearly[1, 1] = sources[1, 0] + 1e-4 * torch.randn(sources.shape[-1])
    windows, _ = SongScorer(sources, WINDOW, TAPS).score(estimates)
    expected = museval(nearly, estimates, WINDOW)
    for name in NAMES:
        assert np.abs(windows[name].numpy() - expected[name]).max() < 0.2, name


def test_an_error_of_a_tenth_is_20_db_and_of_another_source_all_interference():
    draw = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, 1, 2 * WINDOW, generator=draw)
    second = second * (first.norm() / second.norm())
    sources = torch.stack([first, second])
    _, whole = SongScorer(sources, WINDOW, TAPS).score(torch.stack([first + 0.1 * second, second]))
    assert float(whole["sdr_images"][0]) == pytest.approx(20, abs=1e-4)
    assert float(whole["sir"][0]) == pytest.approx(20, abs=0.5)
    assert whole["sar"][0] > 80


def test_a_song_shorter_than_a_window_is_one_window():
    sources, estimates = song(1, length=3000)
    windows, whole = SongScorer(sources, 44_100, TAPS).score(estimates)
    assert windows["sir"].shape == (4, 1)
    assert torch.allclose(windows["sir"][:, 0], whole["sir"])


def test_a_silent_song_has_no_scores():
    sources, estimates = song(1, length=3000)
    sources[0] = 0
    windows, whole = SongScorer(sources, WINDOW, TAPS).score(estimates)
    assert all(x.isnan().all() for found in (windows, whole) for x in found.values())
