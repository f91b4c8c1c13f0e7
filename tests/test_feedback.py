"""Queries that hear what they have found."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from encoders import precision
from sep import audio, feedback, hub, rivals
from sep.chunk import Chunking
from sep.separator import Separator


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def separator(separator):
    """One whose masks turn on what it is asked; all in float32, to compare queries by little."""
    model = copy.deepcopy(separator.model)
    model.amp = False
    with torch.no_grad():
        model.frame_net.weight.mul_(30)
    cuts = Chunking(segment=65_535, context=8192, align=8192)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "half_precision", lambda device: False)
        yield Separator(model, separator.encoder, "cpu", cuts)


@pytest.fixture(scope="module")
def queries(separator):
    """Two that are somewhat like what noise leaves behind the untrained model."""
    noisy = separator.query(audio=(noise(16_000, seed=3), 16_000))
    return normalize(separator.queries(["a bell", "a dog"]) + noisy, dim=-1)


def recalling(separator):
    """Its network with a memory of three classes."""
    model = hub.extend(separator.model, "query", recall={"count": 3, "beta": 7.0})
    model.amp = False
    model.recall.known.copy_(separator.encoder.embed_text(["a dog", "rain", "a bell"]))
    return model.eval()


def test_a_query_is_drawn_to_what_it_found_and_away_from_the_rest():
    query, found = torch.tensor([1.0, 0, 0]), torch.tensor([0.6, 0.8, 0])
    rest = torch.tensor([0.0, 0, 1])
    # weight 3 * .6 = 1.8: (1 + 1.08, 1.44, -.8 * 1.8)
    wanted = torch.tensor([2.08, 1.44, -1.44]) / (2.08**2 + 2 * 1.44**2) ** 0.5
    torch.testing.assert_close(feedback.refined(query, found, rest), wanted)


def test_what_is_silent_or_unlike_the_query_does_not_move_it():
    query = torch.tensor([1.0, 0, 0]).expand(2, 3)
    found = torch.tensor([[0.0, 0, 0], [-0.6, 0.8, 0]])
    rest = torch.tensor([0.0, 1, 0]).expand(2, 3)
    assert torch.equal(feedback.refined(query, found, rest), query)


@torch.no_grad()
def test_separating_with_feedback_is_separating_twice(separator, queries):
    model, encoder = separator.model, separator.encoder
    wave, asked = noise(2, 20_000), torch.stack([queries, queries.flip(0)])
    wave[1] = 0  # silence is left alone
    first = model.separate(wave, asked)
    rest = (wave[:1, None] - first[:1]).flatten(0, 1)
    vectors = [encoder.embed_audio(sound, 16_000) for sound in (first[0], rest)]
    again = feedback.refined(queries, *vectors)
    assert (again - queries).norm(dim=-1).min() > 0.01
    wanted = model.separate(wave, torch.stack([again, queries.flip(0)]))
    found = feedback.separate(model, encoder, wave, asked)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert (found[0] - first[0]).abs().max() > 0.01


def test_windows_go_over_linearly():
    assert feedback._edges(100, 40.0) == [0, 40, 100]  # the last is longer or shorter by half
    assert feedback._edges(95, 38.0) == [0, 38, 95] and feedback._edges(10, 40.0) == [0, 10]
    # middles at 20 and 70, frames at 0, 10, 20, ...
    found = feedback._shares([0, 40, 100], 10, 10)
    wanted = [1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0]
    torch.testing.assert_close(found[0], torch.tensor(wanted))
    torch.testing.assert_close(found.sum(0), torch.ones(10))
    assert torch.equal(feedback._shares([0, 10], 5, 10), torch.ones(1, 5))
    torch.testing.assert_close(feedback._shares([0, 7, 14, 30], 4, 10).sum(0), torch.ones(4))


@torch.no_grad()
def test_each_window_of_a_long_recording_has_a_query_of_its_own(separator, queries):
    model, encoder = separator.model, separator.encoder
    size = encoder.window  # at the rate of both
    wave = torch.cat([noise(1, size), torch.zeros(1, 2 * size)], 1)
    found = feedback.logits(model, encoder, wave, queries[None])
    grid = model.spectrogram
    maps = model.maps(grid.stft(wave).abs())
    plain = model.combine(maps, queries[None])
    first = model.separate(wave, queries[None])[0, :, :size]
    vectors = [encoder.embed_audio(part, 16_000) for part in (first, wave[:, :size] - first)]
    asked = model.combine(maps, feedback.refined(queries, *vectors)[None])
    sixth = found.shape[-1] // 6 - 1
    torch.testing.assert_close(found[..., :sixth], asked[..., :sixth], atol=1e-3, rtol=1e-3)
    assert (found - plain)[..., :sixth].abs().max() > 0.01
    silent = slice(found.shape[-1] - sixth, None)
    torch.testing.assert_close(found[..., silent], plain[..., silent], atol=1e-3, rtol=1e-3)


def test_windows_are_heard_together_as_one_by_one(separator):
    encoder, waves = separator.encoder, noise(2, 1, 40_000)
    windows = [(0, 16_000), (16_000, 32_000), (32_000, 40_000)]  # the last is shorter
    together = feedback._embedded_by_window(encoder, waves, windows, 16_000)
    for found, (begin, end) in zip(together, windows, strict=True):
        alone = feedback.embedded(encoder, waves[:, 0, begin:end], 16_000)
        torch.testing.assert_close(found, alone[:, None], atol=1e-5, rtol=1e-4)


def test_streams_are_refined_and_add_up(separator, queries):
    wave = noise(1, 160_000)
    pairs = {
        refine: torch.cat([*map(torch.stack, separator.stream(
            wave.split(8_000, -1), 16_000, query=queries[0], refine=refine
        ))], -1)
        for refine in (False, True)
    }  # fmt: skip
    torch.testing.assert_close(pairs[True].sum(0), wave, atol=1e-6, rtol=0)
    assert (pairs[True][0] - pairs[False][0]).abs().max() > 0.01


def test_the_second_result_is_that_of_the_refined_query(separator, queries):
    mixture = noise(40_000)
    plain = separator.split(mixture, 16_000, queries=list(queries))
    vectors = []
    for target in plain.targets:
        pair = torch.stack([target, mixture - target])
        vectors.append(feedback.embedded(separator.encoder, pair[:, None].flatten(0, 1), 16_000))
    found, rest = torch.stack(vectors, 1)
    asked = feedback.refined(queries, found, rest)
    wanted = separator.split(mixture, 16_000, queries=list(asked))
    made = separator.split(mixture, 16_000, queries=list(queries), refine=True)
    change = torch.stack(made.targets) - torch.stack(plain.targets)
    assert change.abs().max() > 0.01
    missed = torch.stack(made.targets) - torch.stack(wanted.targets)  # the bins that both want
    assert missed.square().mean() < 0.05 * change.square().mean()
    wanted = [separator.similarity(t, q) for t, q in zip(made.targets, queries, strict=True)]
    assert made.similarities == pytest.approx(wanted, abs=1e-3)  # to the queries themselves


def test_files_and_waveforms_are_refined_alike(separator, queries, tmp_path):
    mixture = noise(1, 150_000)
    audio.write(tmp_path / "x.wav", mixture, 16_000, "FLOAT")
    names = [tmp_path / "a.wav", tmp_path / "b.wav"]
    separator.split_file(tmp_path / "x.wav", names, queries=list(queries), refine=True)
    made = separator.split(mixture, 16_000, queries=list(queries), refine=True)
    for name, target in zip(names, made.targets, strict=True):
        torch.testing.assert_close(audio.read(name)[0], target, atol=1e-4, rtol=0)


@torch.no_grad()
def test_with_a_memory_each_window_says_what_is_meant_in_it(separator, queries):
    model = recalling(separator)
    encoder, size = separator.encoder, separator.encoder.window
    wave = torch.cat([noise(1, size), 0.5 * noise(1, 2 * size, seed=4).cumsum(1).sin()], 1)
    maps = model.maps(model.spectrogram.stft(wave).abs())
    sixth = maps.shape[-1] // 6 - 1  # frames up to the middle of the first of three windows
    wanted = []
    for begin, end in ((0, size), (2 * size, 3 * size)):
        heard = encoder.embed_audio(wave[:, begin:end], 16_000)[:, None]
        asked = model.in_context(queries[None], heard)
        first = model.separate(wave, asked)[..., begin:end]
        vectors = [
            encoder.embed_audio(part, 16_000) for part in (first[0], wave[:, begin:end] - first[0])
        ]
        again = model.combine(maps, feedback.refined(asked, *(v[None] for v in vectors)))
        shift = model.evidence(vectors[0], queries)
        wanted.append(model.against_rivals(again, maps) + shift[None, :, None, None])
    found = feedback.logits(model, encoder, wave, queries[None])
    reach = sixth - rivals.FRAMES // 2  # rivals hear that far into the next window
    for part, expected in ((slice(reach), wanted[0]), (slice(-reach, None), wanted[1])):
        torch.testing.assert_close(found[..., part], expected[..., part], atol=2e-3, rtol=2e-3)


def test_what_has_a_memory_refines_unless_told_otherwise(separator, queries, tmp_path):
    encoder, mixture = separator.encoder, noise(1, 20_000)
    remembering = Separator(recalling(separator), encoder, "cpu", separator.chunking)
    audio.write(tmp_path / "x.wav", mixture, 16_000, "FLOAT")
    for each, refines in ((separator, False), (remembering, True)):
        assert each.refines is refines
        plain, refined, found = (
            each.separate(mixture, 16_000, query=queries[0], refine=refine).target
            for refine in (False, True, None)
        )
        assert (plain - refined).abs().max() > 1e-3
        torch.testing.assert_close(found, refined if refines else plain)
        each.separate_file(tmp_path / "x.wav", tmp_path / "y.wav", query=queries[0])
        torch.testing.assert_close(audio.read(tmp_path / "y.wav")[0], found, atol=1e-5, rtol=0)


def test_silence_stays_silent(separator):
    made = separator.separate(torch.zeros(8_000), 16_000, text="a bell", refine=True)
    assert not made.target.any()


def test_refined_queries_have_norm_1(queries):
    found, rest = normalize(torch.randn(2, 2, queries.shape[-1]), dim=-1)
    norms = feedback.refined(queries, found, rest).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(2))
