"""BSS Eval: the batched version against museval, and its edge cases."""

import math

import numpy as np
import pytest
import torch

from sep.errors import OptionError
from sep.metrics import bss, bss_torch
from sep.metrics.bss_speed import against_museval

LENGTH = 6000


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def coloured(seed: int, *shape: int) -> np.ndarray:
    """Correlated noise with a decaying envelope on 16-bit steps, like a recording."""
    kernel = 0.95 ** np.arange(80)
    wave = np.apply_along_axis(lambda x: np.convolve(x, kernel)[: x.size], -1, noise(seed, *shape))
    wave *= np.exp(-np.linspace(0, 6, shape[-1]))
    return np.round(wave / np.abs(wave).max() * 0.4 * 32768) / 32768


def cases():
    white, interferer = noise(0, LENGTH), noise(1, LENGTH)
    yield "white noise", white, interferer, white + 0.3 * interferer + 0.1 * noise(2, LENGTH)
    yield "correlated sources", white, 0.6 * white + interferer, 0.7 * white + 0.4 * interferer
    ring, hum = coloured(3, LENGTH), coloured(4, LENGTH)
    filtered = np.convolve(ring + hum, [0.4, 0.3, -0.2])[:LENGTH] + 1e-3 * noise(5, LENGTH)
    yield "like a recording", ring, hum, filtered
    yield "the mixture itself", ring, hum, ring + hum
    left_right = noise(6, 2, LENGTH // 2), noise(7, 2, LENGTH // 2)
    yield "stereo", *left_right, left_right[0] + 0.2 * left_right[1][::-1]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case[0])
def test_batched_scores_agree_with_museval(case):
    _, target, interferer, estimate = case
    expected = bss.bss_eval(target, interferer, estimate)
    waves = [torch.from_numpy(np.atleast_2d(x)) for x in (target, interferer, estimate)]
    scores = bss_torch.bss_eval(torch.stack(waves[:2])[None], waves[2][None, None])
    for name in bss.NAMES:
        if expected[name] > 100:  # no measurable error: rounding noise in both
            assert float(scores[name]) > 100
        else:
            assert float(scores[name]) == pytest.approx(expected[name], abs=1e-3), name


@pytest.mark.parametrize("framewise", [False, True], ids=["v4", "v3"])
@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_windows_are_those_of_museval(channels, sources, framewise):
    waves = noise(21, sources, channels, 5000)
    estimate = 0.5 * waves.sum(0) + 0.2 * np.roll(waves[0], 3, -1) + 0.1 * noise(22, channels, 5000)
    windows = bss.Windows(2000, 1300, framewise)
    other = waves[1] if sources > 1 else None
    expected = bss.bss_eval(waves[0], other, estimate, windows)
    references, estimates = torch.from_numpy(waves)[None], torch.from_numpy(estimate)[None, None]
    scores = bss_torch.bss_eval(references, estimates, windows=windows)
    for name in bss.NAMES:
        found = scores[name][0, 0].numpy()
        np.testing.assert_allclose(found, expected[name], atol=1e-3, rtol=0, err_msg=name)


def test_a_silent_window_has_no_score_and_leaves_the_others():
    waves = noise(23, 2, 1, 6000)
    waves[1, :, 2000:4000] = 0
    estimate, windows = waves.sum(0) + 0.1 * noise(24, 1, 6000), bss.Windows(2000, 2000)
    expected = bss.bss_eval(*waves, estimate, windows)
    scores = bss_torch.bss_eval(
        torch.from_numpy(waves)[None], torch.from_numpy(estimate)[None, None], windows=windows
    )
    for name in bss.NAMES:
        found = scores[name][0, 0].numpy()
        assert np.isnan(found).tolist() == [False, True, False]
        np.testing.assert_allclose(found, expected[name], atol=1e-3, rtol=0, err_msg=name)


def test_windows_by_hand():
    # 10 samples: 0-3, 3-6, 6-9; what is left is not scored; a longer window is the whole clip
    starts = [(part.start, part.stop) for part in bss.Windows(4, 3).slices(10)]
    assert starts == [(0, 4), (3, 7), (6, 10)]
    assert len(bss.Windows(4, 3).slices(9)) == 2
    assert bss.Windows(11, 3).slices(10) == [slice(0, 10)]
    with pytest.raises(OptionError, match="both must be 1 or more"):
        bss.Windows(0, 3)


def test_the_median_of_windows_by_hand():
    values = np.array([[1.0, math.nan, 4.0, 2.0], [1.0, 2.0, math.inf, 5.0]])
    assert bss.median(values).tolist() == [2, 3.5]
    assert bss.median(np.array([math.inf])) == math.inf
    assert np.isnan(bss.median(np.array([math.nan])))


def test_a_single_reference_has_no_interference():
    target = noise(25, LENGTH)
    estimate = target + 0.1 * noise(26, LENGTH)
    expected = bss.bss_eval(target, None, estimate)
    references = torch.from_numpy(target)[None, None, None]
    scores = bss_torch.bss_eval(references, torch.from_numpy(estimate)[None, None, None])
    assert expected["sir"] == math.inf and float(scores["sir"]) == math.inf
    for name in ("sdr_images", "isr_images", "sdr_sources", "sar"):
        assert float(scores[name]) == pytest.approx(expected[name], abs=1e-3), name


def test_a_filtered_target_costs_the_images_definition_only():
    # e = s delayed by one sample: within the 512-tap filter, so no distortion for `sources`;
    # for white noise |s - e|^2 = 2 |s|^2, so -3 dB for `images`
    target, interferer = noise(8, LENGTH), noise(9, LENGTH)
    estimate = np.concatenate([[0.0], target[:-1]])
    references = torch.from_numpy(np.stack([target, interferer]))[None, :, None]
    scores = bss_torch.bss_eval(references, torch.from_numpy(estimate)[None, None, None])
    assert float(scores["sdr_images"]) == pytest.approx(-10 * math.log10(2), abs=0.2)
    assert float(scores["sdr_sources"]) > 30


def test_mono_images_sdr_is_the_plain_ratio():
    target, interferer = noise(10, LENGTH), noise(11, LENGTH)
    estimate = target + 0.1 * interferer
    expected = 10 * np.log10((target**2).sum() / ((target - estimate) ** 2).sum())
    references = torch.from_numpy(np.stack([target, interferer]))[None, :, None]
    scores = bss_torch.bss_eval(references, torch.from_numpy(estimate)[None, None, None])
    assert float(scores["sdr_images"]) == pytest.approx(expected, abs=1e-9)


def test_scores_do_not_depend_on_neighbours_or_jobs():
    references = torch.from_numpy(noise(12, 3, 2, 1, 2000))
    estimates = torch.from_numpy(noise(13, 3, 2, 1, 2000))
    alone = bss_torch.bss_eval_many(references, estimates, jobs=1)
    together = bss_torch.bss_eval_many(references, estimates, jobs=3)
    fewer = bss_torch.bss_eval_many(references[1:2], estimates[1:2, :1])
    for name in bss.NAMES:
        assert torch.equal(alone[name], together[name])
        assert alone[name].shape == (3, 2)
        torch.testing.assert_close(fewer[name][0, 0], alone[name][1, 0], rtol=0, atol=1e-8)


def test_silence_gives_nan_and_leaves_the_rest():
    references = torch.from_numpy(noise(14, 2, 2, 1, 2000))
    estimates = torch.from_numpy(noise(15, 2, 2, 1, 2000))
    references[0, 1] = 0
    estimates[1, 0] = 0
    for name, score in bss_torch.bss_eval(references, estimates).items():
        assert torch.isnan(score).tolist() == [[True, True], [True, False]], name
    nothing = bss.bss_eval(noise(16, 2000), np.zeros(2000), noise(17, 2000))
    assert all(math.isnan(value) for value in nothing.values())


def test_sources_without_any_energy_in_a_band_stay_close_to_museval():
    # an ideal low-pass leaves the Gram matrix singular: museval's own numbers are then uncertain
    spectrum = np.fft.rfft(noise(19, 2, 4096))
    spectrum[:, 300:] = 0
    target, interferer = np.fft.irfft(spectrum)
    estimate = target + 0.2 * interferer + 0.01 * noise(20, 4096)
    expected = bss.bss_eval(target, interferer, estimate)
    references = torch.from_numpy(np.stack([target, interferer]))[None, :, None]
    scores = bss_torch.bss_eval(references, torch.from_numpy(estimate)[None, None, None])
    for name in bss.NAMES:
        assert float(scores[name]) == pytest.approx(expected[name], abs=0.5), name


def test_the_comparison_with_museval_counts_and_agrees():
    found = against_museval(2, 2, 4000, jobs=1, repeats=1, device=torch.device("cpu"))
    assert found["largest_db"] < 1e-3
    assert found["ratio"] == pytest.approx(found["museval_seconds"] / found["seconds"])
