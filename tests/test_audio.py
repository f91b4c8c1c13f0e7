"""Reading, writing and resampling: nothing lost, every fault named in one line."""

import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch

from sep import audio
from sep.errors import AudioFileError

RATES = (8000, 11_025, 44_100, 48_000, 44_099)


def tone(rate: int, samples: int, hz: float = 440.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(samples) / rate)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_file_read_and_written_has_the_same_samples(tmp_path, subtype, channels):
    first, second = tmp_path / "first.wav", tmp_path / "second.wav"
    wave = np.random.default_rng(0).uniform(-1, 1, (501, channels))
    soundfile.write(first, wave, 11_025, subtype)
    samples, rate = audio.read(first)
    assert samples.shape == (channels, 501) and samples.dtype == torch.float32 and rate == 11_025
    audio.write(second, samples, rate, audio.info(first).subtype)
    assert audio.info(second) == audio.info(first)
    np.testing.assert_array_equal(
        soundfile.read(first, dtype="float32")[0], soundfile.read(second, dtype="float32")[0]
    )


def test_recordings_longer_than_a_block_are_whole(tmp_path):
    frames = audio.BLOCK + 5
    wave = torch.arange(frames).remainder(30_011)[None] / 32_768
    audio.write(tmp_path / "x.wav", wave, 48_000, "PCM_16")
    assert torch.equal(audio.read(tmp_path / "x.wav")[0], wave)
    part, rest = audio.exact_parts(wave, wave.flip(-1), "PCM_16")
    assert torch.equal(part + rest, wave) and torch.equal(part, wave.flip(-1))


def test_a_truncated_file_gives_what_is_there_and_says_what_is_missing(tmp_path):
    path = tmp_path / "x.wav"
    audio.write(path, tone(8000, 2000), 8000, "PCM_16")
    whole = path.read_bytes()
    path.write_bytes(whole[:1044])
    with pytest.warns(UserWarning, match=r"x.wav: ends 0.2 s before its header says"):
        assert audio.read(path)[0].shape == (1, 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path.write_bytes(whole)
        assert audio.read(path)[0].shape == (1, 2000)
        # a program that writes into a pipe cannot go back, and leaves the length open
        path.write_bytes(whole[:40] + b"\xff" * 4 + whole[44:])
        assert audio.read(path)[0].shape == (1, 2000)


def test_an_mp3_is_the_same_in_blocks_and_ends_where_it_was_cut(tmp_path):
    path = tmp_path / "x.mp3"
    audio.write(path, torch.randn(1, 400_000, generator=torch.Generator().manual_seed(0)), 16_000)
    whole, _ = audio.read(path)
    assert torch.equal(torch.cat(list(audio.blocks(path, size=2**17)), -1), whole)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="x.mp3: ends 1[23].. s before"):
        cut = torch.cat(list(audio.blocks(path, size=50_000)), -1)
    assert 190_000 < cut.shape[-1] < 210_000
    assert torch.equal(cut[:, :190_000], whole[:, :190_000])


def test_integer_samples_are_those_computed_by_hand(tmp_path):
    # 16 bit: 0.5 * 32768 = 16384; 1.0 becomes the largest sample, 32767.
    audio.write(tmp_path / "x.wav", torch.tensor([0.5, -1.0, 1.0, 1 / 32768]), 8000, "PCM_16")
    samples, _ = soundfile.read(tmp_path / "x.wav", dtype="int16")
    assert samples.tolist() == [16384, -32768, 32767, 1]


def test_default_sample_type_is_the_deepest_of_the_container(tmp_path):
    wave = tone(8000, 100)
    for name, subtype in (("x.wav", "FLOAT"), ("x.flac", "PCM_24"), ("x.aiff", "FLOAT")):
        audio.write(tmp_path / name, wave, 8000)
        assert audio.info(tmp_path / name).subtype == subtype


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [1, 100, 4411])
def test_resampling_gives_the_rounded_length_and_back_the_original(rate, samples):
    wave = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    there = audio.resample(wave, rate, 16_000)
    assert there.shape == (2, max(1, round(samples * 16_000 / rate)))
    assert audio.resample(there, 16_000, rate, length=samples).shape == wave.shape


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_survives_resampling_unshifted(rate):
    resampled = audio.resample(tone(rate, rate), rate, 16_000)
    expected = tone(16_000, len(resampled))
    inner = slice(800, -800)
    assert (resampled[inner] - expected[inner]).abs().max() < 1e-3


def test_mono_is_the_mean_of_the_channels_at_the_rate_asked_for(tmp_path):
    left = tone(48_000, 48_000)
    audio.write(tmp_path / "x.wav", torch.stack([left, torch.zeros_like(left)]), 48_000)
    mono = audio.load_mono(tmp_path / "x.wav", 16_000)
    assert mono.shape == (16_000,)
    torch.testing.assert_close(
        mono[800:-800], tone(16_000, 16_000)[800:-800] / 2, atol=1e-3, rtol=0
    )
    part = audio.load_mono(tmp_path / "x.wav", 16_000, start_s=0.25, duration_s=0.5)
    assert part.shape == (8000,)
    torch.testing.assert_close(part[800:-800], mono[4000:12_000][800:-800], atol=1e-3, rtol=0)
    assert audio.load_mono(tmp_path / "x.wav", 16_000, 0.75, 9).shape == (4000,)
    with pytest.raises(AudioFileError, match=r"lasts 1\.000 s"):
        audio.load_mono(tmp_path / "x.wav", 16_000, start_s=1.0)


def broken_files(folder):
    soundfile.write(folder / "none.wav", np.zeros(0), 16_000)
    (folder / "text.wav").write_text("hello\n")
    (folder / "zero.wav").touch()
    (folder / "data.raw").write_bytes(bytes(100))
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan]), 16_000, "FLOAT")
    soundfile.write(folder / "rate0.wav", np.zeros(100), 16_000)
    header = bytearray((folder / "rate0.wav").read_bytes())
    header[24:28] = struct.pack("<I", 0)
    (folder / "rate0.wav").write_bytes(header)
    return {
        "missing.wav": "no such file",
        "none.wav": "no samples",
        "text.wav": "not a readable recording.*convert",
        "zero.wav": "is empty",
        "data.raw": "not a readable recording",
        "nan.wav": "NaN or infinite",
        "rate0.wav": "says its sample rate or its number of channels is 0",
        ".": "is a folder",
    }


def test_every_unusable_file_is_named_in_one_line(tmp_path):
    for name, reason in broken_files(tmp_path).items():
        with pytest.raises(AudioFileError, match=reason) as caught:
            audio.read(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name)) and "\n" not in message


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    wave = tone(8000, 100)
    faults = [
        ("x.xyz", wave, 8000, None, "no audio format"),
        ("x.sd2", wave, 8000, None, "no audio format"),
        ("x.wav", wave, 8000, "PCM_99", "cannot hold PCM_99"),
        ("x.flac", wave, 8000, "FLOAT", "cannot hold FLOAT; use one of"),
        ("x.wav", wave, 0, None, "rates must be positive"),
        ("x.wav", 3 * wave, 8000, "PCM_16", "beyond full scale.*--subtype FLOAT"),
        ("x.wav", wave * torch.nan, 8000, None, "NaN"),
    ]
    for name, samples, rate, subtype, reason in faults:
        with pytest.raises(AudioFileError, match=reason):
            audio.write(tmp_path / name, samples, rate, subtype)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path):
    target = tmp_path / "x.wav"
    audio.write(target, tone(8000, 100), 8000)
    before = target.read_bytes()
    # A limit on file sizes makes writes fall short, as a full disk does.
    program = f"""
import resource, signal, torch
from sep import audio
from sep.errors import AudioFileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    audio.write({str(target)!r}, torch.zeros(100_000), 8000)
except AudioFileError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "full; make room" in done.stdout, done
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]


def test_clip_rules_by_hand():
    waves = [torch.tensor([0.5, -2.0]), torch.tensor([1.0, 0.5])]
    clamped = audio.apply_clip(waves, "clamp")
    assert [w.tolist() for w in clamped] == [[0.5, -1.0], [1.0, 0.5]]
    rescaled = audio.apply_clip(waves, "rescale")  # one gain of 1/2 for both
    assert [w.tolist() for w in rescaled] == [[0.25, -1.0], [0.5, 0.25]]
    assert audio.apply_clip([waves[1]], "rescale")[0].tolist() == [1.0, 0.5]
    with pytest.raises(AudioFileError, match="unknown; use none, clamp, rescale"):
        audio.apply_clip(waves, "soft")


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24)])
def test_integer_parts_add_up_even_where_the_target_swings_against_the_mixture(subtype, bits):
    draw = torch.Generator().manual_seed(0)
    scale = 2 ** (bits - 1)
    mixture = torch.randint(-scale, scale, (2, 2000), generator=draw) / scale
    mixture[0, :3] = torch.tensor([-1.0, (scale - 1) / scale, 0.0])
    target = torch.empty(2, 2000).uniform_(-1, 1, generator=draw)
    part, rest = audio.exact_parts(mixture, target, subtype)
    steps = [(x.double() * scale) for x in (mixture, part, rest)]
    assert all(torch.equal(x, x.round()) for x in steps)
    assert torch.equal(steps[1] + steps[2], steps[0])
    for x in steps:
        assert x.min() >= -scale and x.max() <= scale - 1


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_100, 16_000), (16_000, 44_100), (8_000, 8_000)])
def test_blocks_are_resampled_as_the_whole_is(from_hz, to_hz):
    wave = 0.3 * torch.randn(2, 50_001, generator=torch.Generator().manual_seed(0))
    stream = audio.Resampler(2, from_hz, to_hz)
    blocks = wave.split(7_000, -1)
    parts = [stream.push(block, k == len(blocks) - 1) for k, block in enumerate(blocks)]
    whole = audio.resample(wave, from_hz, to_hz)
    pieces = audio.fit_length(torch.cat(parts, -1), whole.shape[-1])
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_a_writer_puts_nothing_in_place_before_it_is_left(tmp_path):
    path = tmp_path / "x.wav"
    with audio.Writer(path, 8_000, 1, "PCM_16") as writer:
        writer.write(torch.zeros(1, 10))
        writer.write(torch.ones(1, 5) / 2)
        writer.finish()
        assert not path.exists()
    assert audio.read(path)[0].shape == (1, 15)
    with pytest.raises(RuntimeError, match="stop"), audio.Writer(tmp_path / "y.wav", 8_000, 1) as w:
        w.write(torch.zeros(1, 10))
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == ["x.wav"]


def test_long_files_get_a_container_that_holds_them(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST_BYTES", 1000)
    wave = tone(8000, 501)
    audio.write(tmp_path / "short.wav", wave[:500], 8000, "PCM_16")
    audio.write(tmp_path / "long.wav", wave, 8000, "PCM_16")
    heads = [(tmp_path / name).read_bytes()[:4] for name in ("short.wav", "long.wav")]
    assert heads == [b"RIFF", b"RF64"]
    assert audio.read(tmp_path / "long.wav")[0].shape == (1, 501)
    audio.write(tmp_path / "long.w64", wave, 8000, "PCM_16")
    for name in ("x.aiff", "x.au"):
        with pytest.raises(AudioFileError, match=r"too long for this container; use \.w64"):
            audio.write(tmp_path / name, wave, 8000, "PCM_16")


def test_a_format_that_cannot_hold_rate_or_channels_is_named_as_the_cause(tmp_path):
    for name, channels, rate in (
        ("x.flac", 9, 8000),
        ("x.flac", 1, 900_000),
        ("x.mp3", 1, 96_000),
        ("x.ogg", 1, 300_000),
    ):
        held = rf"cannot hold its {rate} Hz .* channels \({channels}\); use .wav, or --format wav"
        with pytest.raises(AudioFileError, match=held):
            audio.write(tmp_path / name, torch.zeros(channels, 100), rate)
    assert not list(tmp_path.iterdir())


def test_opus_is_written_at_its_rates_and_others_are_told(tmp_path):
    path = tmp_path / "x.opus"
    for rate in audio.OPUS_HZ:
        wave = tone(rate, rate)
        audio.write(path, wave, rate)
        assert audio.info(path).subtype == "OPUS" and path.read_bytes()[28:36] == b"OpusHead"
        found = audio.read(path)[0][0]
        assert len(found) == rate and torch.corrcoef(torch.stack([found, wave]))[0, 1] > 0.99
    with pytest.raises(AudioFileError, match=r"x\.opus: Opus has .*48000 Hz, not 44100; use"):
        audio.write(path, wave, 44_100)
    with pytest.raises(AudioFileError, match=r"OPUS cannot hold VORBIS; use one of OPUS"):
        audio.write(path, wave, 48_000, "VORBIS")
    assert audio.kept_subtype("PCM_16", path) == "OPUS"
    assert audio.info(path).sample_rate == 48_000  # the one before


def test_the_sample_type_is_known_in_any_case_and_names_may_be_long(tmp_path):
    path = tmp_path / f"{'n' * 250}.wav"
    audio.write(path, torch.tensor([0.5]), 8000, "pcm_16")
    assert audio.info(path).subtype == "PCM_16"
