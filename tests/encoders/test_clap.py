"""CLAP: our pre-processing against transformers' extractor, and the encoder's contract."""

import pytest
import torch

import encoders
from encoders.base import EncoderError
from encoders.clap import ClapEncoder

transformers = pytest.importorskip("transformers", reason="needs the clap extra")

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "rain", "barking", "falling"]


def build(folder, fused: bool):
    """Write a tiny random CLAP as transformers lays it out."""
    torch.manual_seed(0)
    audio = {
        "window_size": 4,
        "spec_size": 256,
        "patch_size": 16,
        "patch_stride": [16, 16],
        "hidden_size": 8,  # of the last stage: doubled by every stage but the first
        "patch_embeds_hidden_size": 4,
        "depths": [1, 1],
        "num_attention_heads": [1, 1],
        "num_mel_bins": 64,
        "enable_fusion": fused,
        "projection_dim": 16,
    }
    text = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 34,
        "projection_dim": 16,
        "pad_token_id": 1,
    }
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    transformers.ClapModel(config).save_pretrained(folder)
    truncation = "fusion" if fused else "rand_trunc"
    transformers.ClapFeatureExtractor(
        feature_size=64, frequency_min=50, frequency_max=14_000, truncation=truncation
    ).save_pretrained(folder)
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=77
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["unfused", "fused"])
def encoder(request, tmp_path_factory):
    return ClapEncoder(build(tmp_path_factory.mktemp("clap"), request.param))


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_patches_equal_the_feature_extractor(encoder):
    wave = noise(2, encoder.window)
    theirs = encoder.extractor(
        list(wave.numpy()), sampling_rate=encoder.sample_rate, return_tensors="pt"
    )["input_features"]
    torch.testing.assert_close(encoder.patches(wave), theirs.float(), atol=1e-4, rtol=1e-4)


def test_embeddings_equal_the_model(encoder):
    wave = noise(2, 5 * 48_000)  # fits twice: repeated, then nothing is padded
    inputs = encoder.extractor(list(wave.numpy()), sampling_rate=48_000, return_tensors="pt")
    longer = torch.zeros(2, 1, dtype=torch.bool)
    with torch.no_grad():
        theirs = encoder.net.get_audio_features(inputs["input_features"], is_longer=longer)
        tokens = encoder.tokenizer(["a dog barking"], return_tensors="pt")
        text = encoder.net.get_text_features(**tokens)
    cosine = (encoder.embed_audio(wave, 48_000) * theirs.pooler_output).sum(-1)
    torch.testing.assert_close(cosine, torch.ones(2), atol=2e-3, rtol=0)
    torch.testing.assert_close(encoder.embed_text(["a dog barking"]), text.pooler_output)


@pytest.mark.parametrize("seconds", [0.3, 10.0, 23.0])
@pytest.mark.parametrize("window_s", [None, 1.0])
def test_any_length_and_rate(encoder, seconds, window_s):
    vectors = encoder.embed_audio(noise(2, round(seconds * 16_000)), 16_000, window_s)
    assert vectors.shape == (2, 16) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(2))


def test_audio_is_differentiable_with_and_without_checkpointing(encoder):
    gradients = []
    for checkpointing in (False, True):
        wave = noise(1, 48_000).requires_grad_()
        encoder.checkpointing = checkpointing
        encoder.embed_audio(wave, 48_000)[0, 0].backward()
        gradients.append(wave.grad)
    encoder.checkpointing = False
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_a_long_text_is_cut_with_a_warning(encoder):
    with pytest.warns(UserWarning, match="only the first 32 are used"):
        vectors = encoder.embed_text(["dog " * 50, "rain falling"])
    assert vectors.shape == (2, 16)


def test_save_and_load(encoder, tmp_path):
    encoder.save(tmp_path / "copy")
    again = encoders.load(tmp_path / "copy")
    assert again.name == "clap" and again.fingerprint == encoder.fingerprint
    encoder.save(tmp_path / "copy")  # over an old one
    torch.testing.assert_close(again.embed_text(["rain"]), encoder.embed_text(["rain"]))


def test_what_clap_cannot_do_is_said(encoder, tmp_path):
    with pytest.raises(EncoderError, match="text and sound only"):
        encoder.embed_image(["picture.png"])
    with pytest.raises(EncoderError, match="silent"):
        encoder.embed_audio(torch.zeros(1, 100), 48_000)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match="no CLAP model could be read"):
        encoders.get("clap", weights=tmp_path)
