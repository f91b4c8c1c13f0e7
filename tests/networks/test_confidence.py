"""The separator that says how good it expects its mask to be."""

import torch

from sep import hub
from sep.model import QueryNet
from sep.networks.confidence import ConfidentNet


def tiny():
    torch.manual_seed(0)
    model = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8)
    model.amp = False
    return model.eval()


def test_masks_are_those_of_the_network_it_extends(tmp_path):
    base = tiny()
    model = hub.extend(base, "confident")
    magnitude, query = torch.rand(2, 513, 20), torch.randn(2, 3, 8)
    with torch.no_grad():
        for q in (query, query[:, 0], query[0, 0]):
            assert torch.equal(model.logits(magnitude, q), base.logits(magnitude, q))
    hub.save_pretrained(model, tmp_path / "model")
    assert isinstance(hub.from_pretrained(tmp_path / "model"), ConfidentNet)


def test_confidence_starts_at_one_half_and_teaches_the_head_alone():
    model = hub.extend(tiny(), "confident")
    magnitude, query = torch.rand(2, 513, 20), torch.randn(2, 3, 8)
    maps = model.maps(magnitude)
    logits = model.combine(maps, query)
    expected = model.confidence(maps, query, logits)
    assert torch.equal(expected, torch.full((2, 3), 0.5))
    one = model.confidence(maps, query[:, 0], logits[:, 0])
    torch.testing.assert_close(one, expected[:, 0])
    (expected - 0.9).square().mean().backward()
    learning = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learning == {n for n, _ in model.named_parameters() if n.startswith("confidence_head")}
