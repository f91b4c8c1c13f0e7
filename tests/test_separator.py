"""The Python face: every kind of recording in, two that add up to it out."""

import json
import math
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import sep
from sep import audio
from sep.candidates import alone, blend, variants
from sep.chunk import Chunking
from sep.errors import AudioFileError, ModelError, OptionError, QueryError, SepError
from sep.masking import Masking
from sep.model import QueryNet
from sep.separator import Separator, default_model


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def query(separator):
    return separator.query(text="a bell")


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("frames", [1, 100, 12_347])
def test_any_rate_and_length_come_back_and_add_up(separator, query, rate, frames):
    # On 16-bit steps, as a recording is, the sum is exact.
    mixture = (noise(2, frames) * 32768).round() / 32768
    result = separator.separate(mixture, rate, query=query)
    assert result.sample_rate == rate
    assert result.target.shape == result.residual.shape == mixture.shape
    assert torch.equal(result.target + result.residual, mixture)
    assert result.target.isfinite().all()


def test_floating_point_recordings_add_up_within_a_rounding(separator, query):
    for level in (1e-4, 1.0, 37.0):
        mixture = level * noise(9000)
        result = separator.separate(mixture, 16_000, query=query)
        error = (result.target + result.residual - mixture).abs().max()
        assert error <= 2**-23 * mixture.abs().max()


def test_output_is_of_the_kind_of_the_input(separator, query, make_wav):
    mono, stereo = noise(5000), noise(2, 5000)
    for given in (mono, stereo, mono.double(), mono.numpy(), stereo.numpy().astype(np.float64)):
        result = separator.separate(given, 16_000, query=query)
        for out in (result.target, result.residual):
            assert (
                type(out) is type(given) and out.shape == given.shape and out.dtype == given.dtype
            )
    path = make_wav(channels=2, rate=44_100, seconds=0.3)
    from_path = separator.separate(path, query=query)
    from_array = separator.separate(*audio.read(path), query=query)
    assert from_path.sample_rate == 44_100 and torch.equal(from_path.target, from_array.target)


def test_target_is_the_masked_spectrogram_and_similarity_its_cosine(separator, query):
    mixture = noise(16_000)
    result = separator.separate(mixture, 16_000, query=query)
    grid = separator.model.spectrogram
    spectrum = grid.stft(mixture[None])
    assert result.mask.shape == spectrum.shape[1:]
    assert result.mask.min() >= 0 and result.mask.max() <= 1
    masked = grid.istft(spectrum * result.mask.float(), 16_000)[0]
    torch.testing.assert_close(result.target, masked, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        result.target,
        separator.model.separate(mixture[None], query)[0].detach(),
        atol=1e-5,
        rtol=0,
    )
    vector = separator.encoder.embed_audio(result.target[None], 16_000)[0].detach()
    assert result.similarity == pytest.approx(float(vector @ query), abs=1e-4)
    before = separator.encoder.embed_audio(mixture[None], 16_000)[0].detach()
    assert result.mixture_similarity == pytest.approx(float(before @ query), abs=1e-4)


def test_one_mask_serves_both_channels(separator, query):
    sound = noise(16_000)
    panned = torch.stack([sound, 0.25 * sound])
    result = separator.separate(panned, 16_000, query=query)
    torch.testing.assert_close(result.target[1], 0.25 * result.target[0], atol=1e-6, rtol=0)
    alone = separator.separate(0.625 * sound, 16_000, query=query)
    torch.testing.assert_close(result.target.mean(0), alone.target, atol=1e-5, rtol=0)


def test_opposed_channels_are_heard(separator, query):
    sound = noise(16_000)
    result = separator.separate(torch.stack([sound, -sound]), 16_000, query=query)
    assert not math.isnan(result.similarity) and result.target.abs().max() > 0
    torch.testing.assert_close(result.target[0], -result.target[1])


def test_what_the_model_cannot_hear_stays_in_the_residual(separator, query):
    time = torch.arange(48_000) / 48_000
    high = 0.3 * torch.sin(2 * torch.pi * 15_000 * time)
    result = separator.separate(high, 48_000, query=query)
    assert result.target[2000:-2000].abs().max() < 1e-3
    torch.testing.assert_close(result.residual[2000:-2000], high[2000:-2000], atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(1,), (9000,), (2, 400_000)])
def test_silence_gives_silence(separator, query, shape):
    result = separator.separate(torch.zeros(shape), 16_000, query=query)
    assert result.target.eq(0).all() and result.residual.eq(0).all()
    assert math.isnan(result.similarity) and math.isnan(result.mixture_similarity)


def test_long_recordings_in_pieces_are_close_to_one_piece(separator, query):
    mixture = noise(200_003)
    short = Chunking(segment=384 * 256 - 1, context=64 * 256, align=128 * 256)
    pieces = Separator(separator.model, separator.encoder, "cpu", short)
    assert len(short.starts(200_003)) > 2
    whole, cut = (s.separate(mixture, 16_000, query=query) for s in (separator, pieces))
    assert whole.mask.shape == cut.mask.shape
    # The network looks further than this context, so the two agree closely but not exactly.
    difference = (whole.target - cut.target).square().mean() / whole.target.square().mean()
    assert 10 * math.log10(difference) < -30
    jumps = cut.target.diff().abs()
    seams = [start + 64 * 256 for start in short.starts(200_003)[1:]]
    assert max(float(jumps[s]) for s in seams) < 5 * float(jumps.mean())


def test_where_memory_runs_out_shorter_segments_give_the_same_as_if_asked_for(
    separator, query, monkeypatch
):
    mixture, logits = noise(200_003), QueryNet.logits
    short = Chunking(segment=384 * 256 - 1, context=64 * 256, align=128 * 256)
    expected = Separator(separator.model, separator.encoder, "cpu", short).separate(
        mixture, 16_000, query=query
    )

    def narrow(self, magnitude, query):
        if magnitude.shape[-1] > 384:
            raise torch.OutOfMemoryError("out of memory")
        return logits(self, magnitude, query)

    monkeypatch.setattr(QueryNet, "logits", narrow)
    long = Chunking(segment=768 * 256 - 1, context=64 * 256, align=128 * 256)
    small = Separator(separator.model, separator.encoder, "cpu", long)
    with pytest.warns(UserWarning, match="out of memory: going on with segments of 98303 samples"):
        found = small.separate(mixture, 16_000, query=query)
    assert torch.equal(found.target, expected.target) and torch.equal(found.mask, expected.mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once: the separator remembers
        again = small.separate(mixture, 16_000, query=query)
    assert torch.equal(again.target, expected.target)


def test_chunks_off_the_frame_grid_are_refused(separator):
    odd = Chunking(segment=100_000, context=1000, align=100)
    with pytest.raises(SepError, match="multiples of the hop: align=256"):
        Separator(separator.model, separator.encoder, "cpu", odd)


def test_candidates_are_blended_by_their_similarity(separator, query):
    mixture, tried = noise(30_000), variants(4)
    with torch.no_grad():
        masking = Masking(separator.model, query[None], [alone(v) for v in tried])
        results = masking.whole(mixture[None, None])[0, 0, :, 0]
    heard = [separator.similarity(result, query) for result in results]
    shares = torch.tensor([weight for weight, _ in blend(tried, [[s] for s in heard])])
    made = separator.separate(mixture, 16_000, query=query, candidates=4)
    torch.testing.assert_close(made.target, shares @ results, atol=1e-4, rtol=0)
    assert made.similarity >= separator.separate(mixture, 16_000, query=query).similarity


def test_queries_are_taken_as_keywords(separator, make_wav):
    mixture = noise(8000)
    direct = separator.separate(mixture, 16_000, text="a dog", negative="rain")
    vector = separator.query(text="a dog", negative="rain")
    embedded = separator.separate(mixture, 16_000, query=vector)
    assert torch.equal(direct.target, embedded.target)
    by_sound = separator.separate(mixture, 16_000, audio_query=make_wav("other.wav"))
    assert not torch.equal(by_sound.target, direct.target)


def test_results_can_be_used_in_training(separator, query):
    result = separator.separate(noise(4000), 16_000, query=query)
    gain = torch.ones((), requires_grad=True)
    (gain * result.target).sum().backward()
    assert gain.grad is not None


def test_unusable_recordings_are_refused_with_the_fix(separator, query):
    faults = [
        (noise(100), None, "pass sample_rate"),
        (noise(100), 0, "give a number from 100"),
        (torch.zeros(0), 16_000, "give samples"),
        (noise(2, 2, 100), 16_000, "give samples"),
        (noise(100, 2), 16_000, "transpose"),
        (torch.zeros(100, dtype=torch.int16), 16_000, "scale them to floats"),
        (torch.full((100,), torch.inf), 16_000, "NaN or infinite"),
        ([0.0, 0.1], 16_000, "a path, a numpy array or a tensor"),
    ]
    for wave, rate, reason in faults:
        with pytest.raises(AudioFileError, match=reason):
            separator.separate(wave, rate, query=query)
    with pytest.raises(QueryError, match="nothing to look for"):
        separator.separate(noise(100), 16_000)
    with pytest.raises(OptionError, match="candidates 0"):
        separator.separate(noise(100), 16_000, query=query, candidates=0)


def test_model_is_found_or_its_absence_told(model_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SEP_MODEL", str(model_dir))
    assert default_model() == model_dir
    monkeypatch.delenv("SEP_MODEL")
    assert (default_model() / "model.safetensors").is_file()  # the one that ships
    with pytest.raises(ModelError, match="no such model folder"):
        Separator.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"format": 1, "model": {}}))
    with pytest.raises(ModelError, match="encoder: missing"):
        Separator.from_pretrained(tmp_path)
    with pytest.raises(SepError, match="device 'abacus' is unknown"):
        Separator.from_pretrained(model_dir, device="abacus")


def test_an_encoder_of_another_separator_is_refused(model_dir, tmp_path):
    from encoders.small import SmallEncoder

    shutil.copytree(model_dir, tmp_path / "model")
    torch.manual_seed(5)
    SmallEncoder(dim=32, mels=64).save(tmp_path / "model" / "encoder")
    with pytest.raises(ModelError, match="is not the one that the separator was trained with"):
        Separator.from_pretrained(tmp_path / "model", device="cpu")


LONG = {  # cut into several segments, so that files of a few seconds have seams
    "chunking": Chunking(segment=65_535, context=4_096, align=32_768),
}


@pytest.fixture
def short_cuts(separator):
    """The separator with segments of 4 s."""
    return Separator(separator.model, separator.encoder, "cpu", **LONG)


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"),
    [(16_000, 1, "PCM_16"), (44_100, 2, "PCM_24"), (8_000, 1, "FLOAT")],
)
def test_a_file_separated_in_blocks_is_what_it_is_in_memory(
    short_cuts, query, make_wav, tmp_path, rate, channels, subtype
):
    source = make_wav("x.wav", 13.0, rate, channels=channels, subtype=subtype)
    whole = short_cuts.separate(source, query=query)
    seen = []
    made = short_cuts.separate_file(
        source, tmp_path / "t.wav", tmp_path / "r.wav", query=query,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    target, residual = (audio.read(tmp_path / name)[0] for name in ("t.wav", "r.wav"))
    mixture, _ = audio.read(source)
    assert torch.equal(target + residual, mixture) or subtype == "FLOAT"
    torch.testing.assert_close(target + residual, mixture)
    error = (target - whole.target).square().sum() / target.square().sum()
    assert error < 1e-6  # -60 dB
    assert audio.info(tmp_path / "t.wav").subtype == subtype
    assert (made.sample_rate, made.channels, made.frames) == (rate, channels, mixture.shape[-1])
    assert seen[-1] == (mixture.shape[-1],) * 2 and seen == sorted(seen)
    assert made.similarity == pytest.approx(whole.similarity, abs=2e-3)
    assert made.mixture_similarity == pytest.approx(whole.mixture_similarity, abs=2e-3)


def test_a_stream_adds_up_and_does_not_depend_on_the_size_of_its_blocks(separator, query):
    mixture, found = noise(2, 300_000), []
    for size in (1_000, 77_777):
        parts = list(separator.stream(mixture.split(size, -1), 24_000, query=query))
        target, residual = (torch.cat(waves, -1) for waves in zip(*parts, strict=True))
        torch.testing.assert_close(target + residual, mixture, atol=1e-6, rtol=0)
        assert len(parts) == len(mixture.split(size, -1))
        found.append(target)
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
    whole = separator.separate(mixture, 24_000, query=query).target[:, 48_000:]
    error = (found[0][:, 48_000:] - whole).square().sum() / whole.square().sum()
    assert error < 1e-3
    assert list(separator.stream([], 24_000, query=query)) == []
    with pytest.raises(AudioFileError, match="1 channels after 2"):
        list(separator.stream([noise(2, 100), noise(1, 100)], 24_000, query=query))


@pytest.mark.parametrize("lag_s", [0.3, 4.3])
def test_a_stream_is_never_farther_behind_than_it_says(separator, query, lag_s):
    blocks, came, given = noise(1, 24_000 * 9).split(2_400, -1), [], 0

    def arriving():
        for block in blocks:
            came.append(block.shape[-1])
            yield block

    for target, _ in separator.stream(arriving(), 24_000, query=query, lag_s=lag_s):
        behind = (sum(came) - given) / 24_000
        assert behind < lag_s + 0.35 or len(came) == len(blocks)  # two blocks, two resamplers
        given += target.shape[-1]
    assert given == 24_000 * 9
    with pytest.raises(SepError, match="lag of 1600 samples is too short; give at least 4096"):
        next(separator.stream(blocks, 24_000, query=query, lag_s=0.1))


def test_candidates_and_one_gain_for_both_parts_of_a_file(short_cuts, query, tmp_path):
    mixture = 4 * noise(1, 150_000)
    audio.write(tmp_path / "x.wav", mixture, 16_000, "FLOAT")
    names = tmp_path / "t.wav", tmp_path / "r.wav"
    made = short_cuts.separate_file(
        tmp_path / "x.wav", *names, query=query, candidates=3, clip="rescale", subtype="PCM_16"
    )
    assert len(made.weights) == 3 and sum(made.weights) == pytest.approx(1)
    target, residual = (audio.read(name)[0] for name in names)
    assert max(float(target.abs().max()), float(residual.abs().max())) == pytest.approx(1, abs=1e-3)
    gain = float((target + residual).norm() / mixture.norm())
    torch.testing.assert_close(target + residual, gain * mixture, atol=1e-4, rtol=0)


def test_a_fault_on_the_way_leaves_no_file(short_cuts, query, tmp_path, monkeypatch):
    audio.write(tmp_path / "x.wav", noise(1, 400_000), 16_000)
    calls = []

    def stop(wave, *rest):
        calls.append(wave)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return logits(wave, *rest)

    logits = short_cuts.model.logits
    monkeypatch.setattr(short_cuts.model, "logits", stop)
    with pytest.raises(KeyboardInterrupt):
        short_cuts.separate_file(tmp_path / "x.wav", tmp_path / "t.wav", query=query)
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]


def test_a_recording_is_never_overwritten_by_its_parts(short_cuts, query, make_wav):
    source = make_wav("x.wav", 0.5)
    before = source.read_bytes()
    with pytest.raises(AudioFileError, match="overwritten by its own result"):
        short_cuts.separate_file(source, source, query=query)
    assert source.read_bytes() == before


def test_several_sounds_share_the_recording_in_memory_and_in_files(short_cuts, tmp_path):
    mixture = (noise(2, 150_000) * 2**15).round() / 2**15
    audio.write(tmp_path / "x.wav", mixture, 24_000, "PCM_16")
    queries = ["a bell", {"text": "rain", "negative": "wind"}, short_cuts.query(text="wind")]
    made = short_cuts.split(mixture, 24_000, queries=queries)
    assert torch.equal(sum(made.targets) + made.residual, mixture)
    assert made.masks.shape[0] == 3 and made.masks.float().sum(0).max() <= 1.005
    alone = short_cuts.separate(mixture, 24_000, text="a bell")
    assert (made.masks[0].float() <= alone.mask.float() + 5e-3).all()
    names = [tmp_path / f"{k}.wav" for k in range(4)]
    told = short_cuts.split_file(tmp_path / "x.wav", names[:3], names[3], queries=queries)
    files = [audio.read(name)[0] for name in names]
    assert torch.equal(sum(files), mixture)
    for in_memory, in_file in zip(made.targets, files, strict=False):
        assert (in_memory - in_file).norm() < 2e-3 * in_memory.norm() + 0.01
    assert told.similarities == pytest.approx(made.similarities, abs=2e-3)
    with pytest.raises(SepError, match="2 target files for 3 queries"):
        short_cuts.split_file(tmp_path / "x.wav", names[:2], queries=queries)
    with pytest.raises(SepError, match="two parts would have this name"):
        short_cuts.split_file(tmp_path / "x.wav", [names[0]] * 3, queries=queries)
    with pytest.raises(QueryError, match="one query for each sound"):
        short_cuts.split(mixture, 24_000, queries="a bell")


def test_sharpness_moves_masks_towards_all_or_nothing(separator, query):
    mixture = noise(20_000)
    plain, sharp = (
        separator.separate(mixture, 16_000, query=query, sharpness=s).mask.float() for s in (1, 4)
    )
    assert (sharp - 0.5).abs().mean() > (plain - 0.5).abs().mean()
    with pytest.raises(SepError, match="sharpness 0"):
        separator.separate(mixture, 16_000, query=query, sharpness=0)


def test_threads_share_a_separator(separator):
    mixtures = [noise(12_000 + k, seed=k) for k in range(8)]
    texts = ["a bell", "rain"] * 4

    def work(k: int):
        return separator.separate(mixtures[k], 16_000, text=texts[k])

    serial = [work(k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for alone, together in zip(serial, pool.map(work, range(8)), strict=True):
            assert torch.equal(alone.target, together.target)
            assert alone.similarity == together.similarity


def test_queries_that_are_no_text_or_endless_are_no_fault(separator, query):
    with pytest.warns(UserWarning, match="longer than"):
        long = separator.query(text="dog " * 2500, negative="rain " * 2000)
    odd = separator.query(text="a bell \udcff")
    assert long.isfinite().all() and odd.isfinite().all()


def test_what_python_gives_is_checked_in_one_line(separator, query):
    wave, size = noise(2000), query.shape[0]
    odd = [
        ({"sample_rate": "16000"}, AudioFileError, "sample_rate '16000'"),
        ({"sample_rate": float("nan")}, AudioFileError, "sample_rate nan"),
        ({"sample_rate": 10}, AudioFileError, "from 100 to 10000000 Hz"),
        ({"query": query, "text": "a dog"}, QueryError, "in place of text"),
        ({"query": query * float("nan")}, QueryError, f"the {size} finite numbers"),
        ({"query": query[:-1]}, QueryError, rf"shape \({size - 1},\)"),
        ({"query": 0 * query}, QueryError, "finite numbers"),
        ({"text": "a", "weights": {"text": "x"}}, QueryError, "weight text=x"),
        ({"text": "a", "weights": [1.0]}, QueryError, "give a mapping"),
        ({"query": query, "candidates": 2.5}, OptionError, "candidates 2.5"),
        ({"query": query, "sharpness": "2"}, OptionError, "sharpness 2"),
    ]
    for arguments, kind, message in odd:
        with pytest.raises(kind, match=message):
            separator.separate(wave, **{"sample_rate": 16_000} | arguments)
    with pytest.raises(AudioFileError, match="scale them"):
        separator.separate(wave * 1e20, 16_000, query=query)
    with pytest.raises(QueryError, match="has no 'sound'; use audio"):
        separator.split(wave, 16_000, queries=[{"sound": "x.wav"}])
    with pytest.raises(QueryError, match="not 7"):
        separator.split(wave, 16_000, queries=[7])
    assert issubclass(sep.QueryError, sep.SepError) and sep.QueryError is QueryError


def test_what_python_gives_is_taken_where_it_is_clear(separator, query):
    wave = noise(2, 4000)
    plain = separator.separate(wave, 16_000, query=query)
    mirrored = separator.separate(wave.numpy()[::-1], 16_000, query=query)  # negative strides
    np.testing.assert_array_equal(mirrored.target[::-1], plain.target.numpy())
    texts = [separator.query(text=given) for given in (("a dog", "rain"), ["a dog", "rain"])]
    assert torch.equal(*texts)
    example = (noise(16_000), 16_000)
    asked = [separator.queries([{name: example}]) for name in ("audio", "audio_query")]
    assert torch.equal(*asked)


def test_a_stream_is_asked_in_words_and_may_pause(separator):
    blocks = [noise(16_000), noise(0), noise(16_000)]
    pairs = list(separator.stream(blocks, 16_000, query="a dog"))
    assert [target.shape[-1] for target, _ in pairs] == [16_000, 16_000]
    again = list(separator.stream(blocks[::2], 16_000, query=separator.query(text="a dog")))
    for pair, other in zip(pairs, again, strict=True):
        assert torch.equal(pair[0], other[0])
