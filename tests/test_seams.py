"""A long recording in segments and in a single pass: the shipped model, and plain U-Nets."""

import math

import pytest
import torch

from sep.candidates import Variant, alone
from sep.chunk import OverlapAdd, overlap_add
from sep.model import QueryNet
from sep.separator import SHIPPED, Separator
from sep.unet import steady
from sep.web.examples import sounds

WINDOW = 1600  # 100 ms


@pytest.fixture(scope="module")
def shipped():
    separator = Separator.from_pretrained(SHIPPED, device="cpu")
    separator.model.amp = False
    return separator


@pytest.fixture(scope="module")
def recording():
    """60 s in which the sounds take turns, two at a time; cut into three segments."""
    waves = [torch.from_numpy(wave).float() for wave in sounds().values()]
    turns = [waves[k % len(waves)] + waves[(k + 1) % len(waves)] for k in range(36)]
    return torch.cat(turns)[None, : 60 * 16_000]


def loudest_db(difference, reference) -> float:
    """Loudest 100 ms of a difference against the mean level of a reference (N,), in dB."""
    count = len(difference) // WINDOW * WINDOW
    levels = difference[:count].view(-1, WINDOW).square().mean(-1)
    return 10 * math.log10(levels.max() / reference.square().mean())


@pytest.mark.parametrize("amp", [False, True])  # True is bfloat16 where the processor has it
@pytest.mark.parametrize("refine", [False, True])
@torch.no_grad()
def test_no_seam_is_louder_than_60_db_below_the_target(
    shipped, recording, amp, refine, monkeypatch
):
    monkeypatch.setattr(shipped.model, "amp", amp)
    queries = shipped.queries(["a bell ringing", "rain"])
    masking = shipped._masking(queries, [alone(Variant())], refine)
    adder = OverlapAdd(masking, shipped.chunking)
    pieces = overlap_add(adder, recording)[0, 0]
    assert len(adder.seams) == 3
    single = masking(recording[None])[0, 0, 0]
    for piece, target in zip(pieces, single, strict=True):
        assert loudest_db(piece - target, target) < -60


@torch.no_grad()
def test_a_recording_of_one_segment_goes_through_the_network_as_trained(shipped, recording):
    short, query = recording[0, : 10 * 16_000], shipped.query(text="rain")
    trained = shipped.model.separate(short[None], query[None])[0]
    target = shipped.separate(short, 16_000, query=query, refine=False).target
    torch.testing.assert_close(target, trained, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_steady_network_gives_the_same_wherever_the_recording_begins():
    torch.manual_seed(0)
    trained = QueryNet(width=4, levels=7, mask_channels=4, embed_dim=8).eval()
    trained.amp = False
    magnitude, query = torch.rand(1, 513, 2048), torch.randn(8)
    network = steady(trained)
    whole, part = (network.logits(x, query) for x in (magnitude, magnitude[..., 512:]))
    inner = slice(640, 900)  # 571 frames away nothing is heard of an edge
    torch.testing.assert_close(part[..., inner], whole[..., 512:][..., inner], atol=1e-3, rtol=0)
    moved = trained.logits(magnitude[..., 512:], query)
    assert (moved[..., inner] - whole[..., 512:][..., inner]).abs().max() > 0.01
    assert all(a is b for a, b in zip(network.parameters(), trained.parameters(), strict=True))


def test_a_steady_network_counted_by_hand():
    from sep.unet import _Up

    up = _Up()
    up.steady = True
    found = up(torch.tensor([[[[0.0, 4.0, 8.0]]]]))  # quarters and three quarters of neighbours
    assert found[0, 0, 0].tolist() == [0, 1, 3, 5, 7, 8]
    up.steady = False
    torch.testing.assert_close(
        up(torch.tensor([[[[0.0, 5.0]]]]))[0, 0, 0], torch.tensor([0, 5 / 3, 10 / 3, 5])
    )
