"""Clips in memory, training mixtures and query mix-up."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sep.data.bank import ClipBank, MixtureSampler, QueryBank, kin, known
from sep.data.kaldi import DataDir
from sep.data.mixing import active_rms, colour, level
from sep.data.scene import Scene
from sep.errors import DataError
from sep.query import subtract
from sep.spectrogram import Spectrogram
from sep.train.batch import draw_batch
from sep.train.losses import ideal_masks


def test_segments_start_inside_a_clip_or_after_silence(corpus):
    data = DataDir(corpus / "data")
    bank = ClipBank(data)
    whole = bank.segments(torch.tensor([0]), torch.tensor([0]), 20_000)[0]
    later = bank.segments(torch.tensor([0]), torch.tensor([100]), 50)[0]
    after = bank.segments(torch.tensor([0]), torch.tensor([-30]), 50)[0]
    assert torch.equal(later, whole[100:150])
    assert after[:30].abs().max() == 0
    assert torch.equal(after[30:], whole[:20])
    assert whole[bank.length[0] :].abs().max() == 0  # no sample of the next clip


def test_a_mixture_never_holds_one_label_twice(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    sampler = MixtureSampler(bank, batch=200, samples=512)
    clip, sources = sampler.draw(sampler.generator(0))
    assert (bank.label[clip[:, 0]] != bank.label[clip[:, 1]]).all()
    assert len(clip.flatten().unique()) == len(bank.ids)  # every clip is drawn
    assert sources.shape == (200, 2, 512)


def test_a_step_alone_decides_the_mixtures(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    sampler = MixtureSampler(bank, batch=8, samples=512, seed=1)
    clip, sources = sampler.draw(sampler.generator(7))
    again = MixtureSampler(bank, batch=8, samples=512, seed=1)
    assert torch.equal(again.draw(again.generator(7))[1], sources)
    assert not torch.equal(again.draw(again.generator(8))[0], clip)
    other_rank = MixtureSampler(bank, batch=8, samples=512, seed=1, rank=1)
    assert not torch.equal(other_rank.draw(other_rank.generator(7))[0], clip)


def test_an_absent_source_is_silent_and_never_the_first(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    sampler = MixtureSampler(bank, batch=400, samples=512, sources=3, absent=0.4)
    _, sources = sampler.draw(sampler.generator(0))
    heard = sources.abs().amax(-1) > 0
    assert heard[:, 0].all()
    assert heard[:, 1:].float().mean() == pytest.approx(0.6, abs=0.05)


def test_levels_by_hand():
    # half silence, half a constant 0.5: active RMS 0.5, brought to -25 dB + 5 dB = 0.1
    wave = torch.cat([torch.zeros(640), torch.full((640,), 0.5)])[None, None]
    assert active_rms(wave).item() == pytest.approx(0.5)
    levelled = level(wave, torch.tensor([[5.0]]))
    assert levelled.abs().max().item() == pytest.approx(0.1, rel=1e-4)
    assert level(torch.zeros(1, 1, 640), torch.zeros(1, 1)).abs().max() == 0


def test_queries_are_unit_vectors_of_the_clips_label(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    queries = QueryBank(corpus / "queries.safetensors", bank)
    clip = torch.arange(12).reshape(6, 2)
    for mixed in (0.0, 1.0):
        drawn = queries.draw(clip, torch.Generator().manual_seed(0), mixed)
        torch.testing.assert_close(drawn, queries.audio[clip])  # all kinds are equal here


def test_queries_of_other_data_are_refused(corpus, tmp_path):
    bank = ClipBank(DataDir(corpus / "data"))
    bank.ids = bank.ids[::-1]
    with pytest.raises(DataError, match="stage 3"):
        QueryBank(corpus / "queries.safetensors", bank)
    with pytest.raises(DataError, match="missing"):
        QueryBank(tmp_path / "none.safetensors")


def test_more_audio_than_the_limit_is_refused_by_name(corpus):
    with pytest.raises(DataError, match="bank_gb"):
        ClipBank(DataDir(corpus / "data"), limit_gb=1e-5)


def test_negative_queries_follow_the_rule_of_inference(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    sampler = MixtureSampler(bank, batch=64, samples=512)
    queries = QueryBank(corpus / "queries.safetensors", bank)
    grid = Spectrogram(n_fft=64, hop=16, log_bins=32)
    plain = draw_batch(sampler, queries, grid, 3, 0.0)
    turned = draw_batch(sampler, queries, grid, 3, 0.0, negative=1.0)
    assert torch.equal(plain.sources, turned.sources)
    expected = torch.stack(
        [
            subtract(plain.query[:, 0], plain.query[:, 1]),
            subtract(plain.query[:, 1], plain.query[:, 0]),
        ],
        1,
    )
    torch.testing.assert_close(turned.query, expected)
    some = draw_batch(sampler, queries, grid, 3, 0.0, negative=0.25).query
    changed = (some != plain.query).any(-1).float().mean().item()
    assert 0.15 < changed < 0.35


def test_speed_plays_the_same_sound_faster(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    start, two = torch.tensor([0]), torch.tensor([2.0])
    whole = bank.segments(start, start, 400)[0]
    assert torch.equal(bank.segments(start, start, 200, two)[0], whole[::2])
    between = bank.segments(start, start, 3, torch.tensor([0.5]))[0, 1]
    assert between.item() == pytest.approx((whole[0] + whole[1]).item() / 2, abs=1e-6)


def test_colour_changes_tone_as_much_as_asked():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 16_384, generator=generator)
    toned = colour(noise, 3.0, generator)
    assert toned.shape == noise.shape
    change = torch.fft.rfft(toned).abs() / torch.fft.rfft(noise).abs()
    middle_db = 20 * change[:, 900:1000].log10().mean(1)  # below 1 kHz, where nothing is cut
    assert 1.5 < middle_db.std().item() < 3.5
    top_db = 20 * change[:, 8100:8150].log10().mean(1)
    assert 0.1 < (top_db < -15).float().mean().item() < 0.4  # the low-passed quarter
    kept = colour(noise[:50], 0.0, generator)
    same = (kept - noise[:50]).abs().amax(1) < 1e-3
    assert 0.5 < same.float().mean().item() < 1
    again = [colour(noise[:4], 3.0, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again)


def test_a_varied_sampler_is_still_a_function_of_the_step(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    plain = MixtureSampler(bank, batch=4, samples=4_096)
    varied = MixtureSampler(bank, batch=4, samples=4_096, speed=0.1, colour_db=3.0)
    clip, sources = varied.draw(varied.generator(5))
    assert torch.equal(clip, plain.draw(plain.generator(5))[0])
    assert torch.equal(sources, varied.draw(varied.generator(5))[1])
    assert not torch.equal(sources, plain.draw(plain.generator(5))[1])


def test_a_class_is_mixed_with_the_one_that_its_texts_are_nearest_to(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    queries = QueryBank(corpus / "queries.safetensors", bank)
    corner = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.8, 0.6]])  # by label
    queries.text = corner[bank.label][:, None].repeat(1, 3, 1)  # cosines .6, 0 and .64
    near = kin(queries, count=1)
    assert near[:, 0].tolist() == [1, 2, 1]
    sampler = MixtureSampler(bank, batch=300, samples=64, scene=Scene(family=0.5), kin=near)
    label = bank.label[sampler.choose(sampler.generator(0))]
    assert (label[:, 0] != label[:, 1]).all()
    # half of them, and half of the others by chance
    met = (label[:, 1] == near[label[:, 0], 0]).float().mean()
    assert met.item() == pytest.approx(0.75, abs=0.07)
    assert label[:, 0].bincount().min() > 70
    three = MixtureSampler(bank, 300, 64, sources=3, scene=Scene(family=1.0), kin=near)
    label = bank.label[three.choose(three.generator(0))]
    assert (label.sort(1).values == torch.arange(3)).all()
    assert torch.equal(label[:, 1], near[label[:, 0], 0])


def test_a_source_in_company_is_two_clips_of_its_class(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    options = {"batch": 200, "samples": 2_048, "gain_db": 0.0}
    alone = MixtureSampler(bank, **options)
    some = MixtureSampler(bank, **options, scene=Scene(company=0.3))
    (clip, before), (same, after) = (s.draw(s.generator(0)) for s in (alone, some))
    assert torch.equal(clip, same)
    before, after, clip = before.flatten(0, 1), after.flatten(0, 1), clip.flatten()
    row = torch.nonzero((before - after).abs().amax(1) > 1e-4).flatten()
    assert len(row) / len(clip) == pytest.approx(0.3, abs=0.07)
    # what was added is a tone of the same class: both classes of tones stay on their side of 1 kHz
    spectrum = torch.fft.rfft(after[row]).abs().square()
    low = spectrum[:, :128].sum(1) / spectrum.sum(1)
    for name, share in (("low tone", 1.0), ("high tone", 0.0)):
        mine = low[bank.label[clip[row]] == bank.labels.index(name)]
        assert len(mine) > 10 and (mine - share).abs().max() < 0.05
    # and no louder than the first: that is left over when the first is fitted to the sum
    first, both = before[row], after[row]
    fit = (first * both).sum(1, keepdim=True) / first.square().sum(1, keepdim=True)
    noise = bank.label[clip[row]] == bank.labels.index(
        "hiss"
    )  # unlike tones, clips do not correlate
    left = ((both - fit * first).square().sum(1) / (fit * first).square().sum(1))[noise]
    assert 0.08 < left.min() and left.max() < 1.5


def test_a_picture_is_any_of_the_class_where_all_are_listed(corpus, tmp_path):
    bank = ClipBank(DataDir(corpus / "data"))
    tensors = load_file(corpus / "queries.safetensors")
    tensors["image"][:], tensors["has_image"][:] = torch.eye(16)[0], 1
    tensors["pictures"] = torch.eye(16)[1:5]
    names = [bank.labels[0], bank.labels[1], bank.labels[0], "no class of these"]
    metadata = {"ids": json.dumps(bank.ids), "pictures": json.dumps(names)}
    save_file(tensors, tmp_path / "queries.safetensors", metadata)
    queries = QueryBank(tmp_path / "queries.safetensors", bank)
    queries.text[:], queries.audio[:] = 0, 0  # what is drawn is nothing or a picture
    clip = bank.member[:, :1].repeat(1, 600)
    drawn = queries.draw(clip, torch.Generator().manual_seed(0), mixed=0.0)
    share = (drawn > 0.5).float().mean(1)[:, :6]  # of labels, in each direction
    third = pytest.approx(1 / 3, abs=0.06)
    assert share[0].tolist() == [
        0,
        pytest.approx(1 / 6, abs=0.05),
        0,
        pytest.approx(1 / 6, abs=0.05),
        0,
        0,
    ]
    assert share[1].tolist() == [0, 0, third, 0, 0, 0]
    assert share[2].tolist() == [third, 0, 0, 0, 0, 0]  # a label without a list: the clip's own


def test_a_noise_floor_is_in_the_mixture_and_in_no_mask(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    queries = QueryBank(corpus / "queries.safetensors", bank)
    grid = Spectrogram(n_fft=64, hop=16, log_bins=32)
    plain = MixtureSampler(bank, batch=4, samples=4_096)
    noisy = MixtureSampler(bank, batch=4, samples=4_096, scene=Scene(noise=1.0))
    quiet, loud = (draw_batch(s, queries, grid, 3, 0.5) for s in (plain, noisy))
    assert torch.equal(quiet.sources, loud.sources)
    torch.testing.assert_close(loud.spectrum, quiet.spectrum + grid.stft(loud.noise))
    assert ideal_masks(quiet).sum(1).amax() == pytest.approx(1, abs=1e-5)
    share = loud.warped.sum(1) / (loud.warped.sum(1) + grid.warp(grid.stft(loud.noise).abs()))
    torch.testing.assert_close(ideal_masks(loud).sum(1), share)
    assert share.min() < 0.5


def test_what_is_known_of_a_label_is_the_mean_of_its_sounds_and_that_of_its_texts(corpus):
    bank = ClipBank(DataDir(corpus / "data"))
    queries = QueryBank(corpus / "queries.safetensors", bank)
    found = known(queries)
    assert found.shape == (len(bank.labels), queries.dim)
    rows = bank.label == 1
    sound, text = queries.audio[rows].mean(0), queries.text[rows].mean((0, 1))
    torch.testing.assert_close(found[1], sound / sound.norm() / 2 + text / text.norm() / 2)
