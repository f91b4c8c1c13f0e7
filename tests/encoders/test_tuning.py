"""What each tuning moves, and that alignment works on every encoder it is offered for."""

import pytest
import torch
from test_clap import build as clap_folder
from toys import tone

import encoders
from encoders.aligner import AlignConfig, Aligner, Stage
from encoders.bank import ClipBank
from encoders.clap import ClapEncoder
from encoders.tuning import Tuning

TINY = {f"{k}_embed_dim": 32 for k in ("out", "vision", "text", "audio")}
TINY |= {f"{k}_num_blocks": 1 for k in ("vision", "text", "audio")}
TINY |= {f"{k}_num_heads": 2 for k in ("vision", "text", "audio")}


def make(name: str, tmp_path) -> encoders.Encoder:
    torch.manual_seed(0)
    if name == "imagebind":
        pytest.importorskip("einops", reason="needs the imagebind extra")
        return encoders.get(name, **TINY)
    if name == "clap":
        return ClapEncoder(clap_folder(tmp_path / "clap", False))
    return encoders.get(name, dim=32, mels=32, hop=640, window_s=0.512)


def aligner_of(encoder, tune: str) -> Aligner:
    waves = [tone(200, 0.4, 5), tone(300, 0.4, 5), tone(2000, 0.4), tone(1500, 0.4)]
    if encoder.sample_rate != 16_000:
        waves = [wave.repeat(3) for wave in waves]
    bank = ClipBank(waves, ["hum", "hum", "ping", "ping"])
    images = None
    if "image" in encoder.heads:
        pictures = [torch.rand(3, 40, 40), torch.rand(3, 40, 40)]
        images = encoder.image_features(pictures), torch.tensor([0, 1])
    encoder.fit_text(["a low hum", "a ping", "hiss"])
    config = AlignConfig(batch=8, crop_s=0.512, tune=tune, rank=4)
    aligner = Aligner(encoder, bank, [["a low hum"], ["a ping"]], images, config)
    aligner.begin(Stage("all", 2, 1e-2, 1e-2, rank=1.0, audio=0.5, image=0.5, anchor=0.5))
    return aligner


@pytest.mark.parametrize("tune", ["queries", "heads", "lora", "full"])
@pytest.mark.parametrize("name", ["small", "imagebind", "clap"])
def test_a_step_moves_what_is_tuned_and_nothing_else(name, tune, tmp_path):
    if tune == "lora":
        pytest.importorskip("peft", reason="needs peft")
    encoder = make(name, tmp_path)
    before = {key: value.clone() for key, value in encoder.named_parameters()}
    aligner = aligner_of(encoder, tune)
    for _ in range(2):
        assert torch.isfinite(torch.tensor(list(aligner.step().values()))).all()
    assert encoder is aligner.finish()
    after = dict(encoder.named_parameters())
    assert after.keys() == before.keys()
    moved = {id(p) for key, p in after.items() if not torch.equal(p, before[key])}
    backbone = dict(encoder.backbone.named_parameters())
    targets = {k for k in backbone if any(f"{t}." in f".{k}" for t in encoder.lora_targets)}
    moved_below = {key for key, p in backbone.items() if id(p) in moved}
    if tune in ("queries", "heads"):
        assert not moved_below
    elif tune == "lora":
        assert moved_below and moved_below <= targets
    else:
        assert len(moved_below) > len(targets) / 2 and moved_below - targets
    for modality, head in encoder.heads.items():
        stays = tune == "queries" and modality == "audio"
        assert any(id(p) in moved for p in head.parameters()) != stays
    assert id(encoder.logit_scale) in moved
    inside = {id(p) for part in (encoder.backbone, encoder.anchor, *encoder.heads.values())
              for p in part.parameters()} | {id(encoder.logit_scale)}  # fmt: skip
    assert moved <= inside
    assert not any(p.requires_grad for p in after.values())


@pytest.mark.parametrize("name", ["small", "imagebind"])
def test_folding_the_adapters_in_changes_no_embedding(name, tmp_path):
    pytest.importorskip("peft", reason="needs peft")
    encoder = make(name, tmp_path)
    aligner = aligner_of(encoder, "lora")
    aligner.step()
    aligner.step()
    wave = torch.stack([tone(220, 2.0, 5), tone(1700, 2.0)])
    copy = aligner.tuning.merged().eval()
    adapted = encoder.eval().embed_audio(wave, 16_000)
    assert any("lora" in key for key in encoder.state_dict())
    aligner.tuning.merge()
    merged = encoder.embed_audio(wave, 16_000)
    assert not any("lora" in key for key in encoder.state_dict())
    torch.testing.assert_close(merged, adapted, atol=2e-2, rtol=0)  # bf16 on some processors
    torch.testing.assert_close(copy.embed_audio(wave, 16_000), merged)


def test_a_state_restores_what_alignment_moved(tmp_path):
    encoder = make("small", tmp_path)
    aligner = aligner_of(encoder, "full")
    state = aligner.state()
    before = encoder.fingerprint
    aligner.step()
    assert encoder.fingerprint != before
    aligner.restore(state)
    assert encoder.fingerprint == before


@pytest.mark.parametrize("name", ["small", "imagebind", "clap"])
def test_an_aligned_encoder_is_saved_and_read_back(name, tmp_path):
    encoder = make(name, tmp_path)
    aligner = aligner_of(encoder, "heads")
    aligner.step()
    aligner.finish()
    encoder.save(tmp_path / "saved", {"data": "toys"})
    again = (ClapEncoder if name == "clap" else type(encoder)).load(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint
    assert torch.equal(again.logit_scale, encoder.logit_scale)
    assert torch.equal(again.embed_text(["a ping"]), encoder.embed_text(["a ping"]))


def test_an_unknown_tuning_is_refused(small):
    with pytest.raises(encoders.EncoderError, match="heads, lora, full"):
        Tuning(small, "half")
