"""The front ends, window by window and pixel by pixel."""

import pytest
import torch
from PIL import Image
from toys import RATE, tone

from encoders.preprocess import LogMel, load_image, tile, windows


def test_a_tone_is_loudest_in_the_mel_bin_of_its_pitch():
    front = LogMel(RATE, mels=64)
    patch = front(tone(1000, 1.0)[None])
    centre = (front.bank * torch.linspace(0, 8000, 513)[:, None]).sum(0) / front.bank.sum(0)
    loudest = int(patch[0].mean(-1).argmax())
    assert patch.shape == (1, 64, 16_000 // 320 + 1)
    assert abs(float(centre[loudest]) - 1000) < 60


def test_gain_and_a_faint_hum_leave_the_patch_as_it_is():
    front = LogMel(RATE)
    wave = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(front(wave), front(0.01 * wave), atol=1e-3)
    assert (front(wave) - front(wave + 1e-5 * tone(100, 1.0))).abs().max() < 0.05


def test_silence_gives_finite_patches():
    assert torch.isfinite(LogMel(RATE)(torch.zeros(1, 8_000))).all()


def test_tile_repeats_up_to_the_length():
    assert tile(torch.tensor([[1.0, 2.0, 3.0]]), 7).tolist() == [[1, 2, 3, 1, 2, 3, 1]]
    assert tile(torch.ones(1, 9), 7).shape == (1, 9)


def test_windows_cover_a_long_clip_from_start_to_end():
    wave = torch.arange(10.0)[None]
    blocks = list(windows(wave, 4, batch=2))
    assert [steps for steps, _ in blocks] == [2, 1]
    rows = torch.cat([block for _, block in blocks])
    assert rows.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


def test_windows_keep_the_clips_of_a_batch_together():
    wave = torch.arange(16.0).reshape(2, 8)
    ((steps, block),) = windows(wave, 4)
    assert steps == 2
    assert block.reshape(2, 2, 4)[:, 1].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


def test_images_are_padded_white_and_their_transparent_parts_are_white():
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    assert load_image(clear, 32) == pytest.approx(torch.ones(3, 32, 32), abs=1e-5)
    black = load_image(torch.zeros(3, 10, 20), 32)
    assert black.shape == (3, 32, 32)
    assert black[:, 16, 16].tolist() == [-1, -1, -1]
    assert black[:, 0, 0].tolist() == [1, 1, 1]


def test_a_picture_and_its_tensor_give_the_same_input():
    picture = Image.effect_noise((50, 30), 80).convert("RGB")
    pixels = torch.tensor(list(picture.getdata())).reshape(30, 50, 3).permute(2, 0, 1)
    a, b = load_image(picture), load_image(pixels.to(torch.uint8))
    assert torch.allclose(a, b)
    assert torch.allclose(a, load_image(pixels / 255), atol=1e-5)
