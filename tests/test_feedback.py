"""Queries that hear what they have found."""

import copy

import pytest
import torch
from torch.nn.functional import normalize

from sep import audio, feedback
from sep.chunk import Chunking
from sep.separator import Separator
from sep.stream import Rest


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def separator(separator):
    """One whose masks turn on what it is asked."""
    model = copy.deepcopy(separator.model)
    model.amp = False
    with torch.no_grad():
        model.frame_net.weight.mul_(30)
    cuts = Chunking(segment=65_535, context=8192, align=8192)
    return Separator(model, separator.encoder, "cpu", cuts)


@pytest.fixture(scope="module")
def queries(separator):
    """Two that are somewhat like what noise leaves behind the untrained model."""
    noisy = separator.query(audio=(noise(16_000, seed=3), 16_000))
    return normalize(separator.queries(["a bell", "a dog"]) + noisy, dim=-1)


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


def test_the_rest_is_heard_as_targets_come():
    class Ear:
        def __init__(self):
            self.heard = torch.zeros(0)

        def push(self, wave):
            self.heard = torch.cat([self.heard, wave])

    ear, mixture, target = Ear(), noise(100), noise(100, seed=1)
    rest = Rest(ear)
    rest.push(mixture[:40])
    rest.target.push(target[:0])
    rest.push(mixture[40:])
    rest.target.push(target[:70])
    assert len(ear.heard) == 70
    rest.target.push(target[70:])
    assert torch.equal(ear.heard, mixture - target)


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
    for second, target in zip(wanted.targets, made.targets, strict=True):
        torch.testing.assert_close(target, second, atol=2e-3, rtol=0)  # windows are cut otherwise
    change = torch.stack(made.targets) - torch.stack(plain.targets)
    assert change.abs().max() > 0.01
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


def test_silence_stays_silent(separator):
    made = separator.separate(torch.zeros(8_000), 16_000, text="a bell", refine=True)
    assert not made.target.any()


def test_refined_queries_have_norm_1(queries):
    found, rest = normalize(torch.randn(2, 2, queries.shape[-1]), dim=-1)
    norms = feedback.refined(queries, found, rest).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(2))
