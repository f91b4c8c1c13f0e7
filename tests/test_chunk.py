"""Overlap-add: seams that cannot be heard, last pieces, refusals."""

import pytest
import torch

from sep.chunk import Chunking, OverlapAdd, live, overlap_add
from sep.errors import SepError
from sep.spectrogram import Spectrogram


def snr_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    noise = (reference - estimate).square().mean()
    return float(10 * torch.log10(reference.square().mean() / noise.clamp_min(1e-30)))


@pytest.mark.parametrize("length", [1, 99, 100, 101, 163, 164, 165, 1000, 1237])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.9])
def test_identity_comes_back_unchanged_at_any_length(length, overlap):
    wave = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    chunking = Chunking(segment=100, context=10, overlap=overlap, batch=3)
    torch.testing.assert_close(overlap_add(OverlapAdd(lambda x: x, chunking), wave), wave)


def test_segments_start_where_counted_by_hand():
    # 100 read, 10 + 10 thrown away, 80 kept, of which 20 % (16) are given twice: a step of 64.
    chunking = Chunking(segment=100, context=10, overlap=0.2)
    assert chunking.stride == 64 and chunking.shared == 16
    assert list(chunking.starts(100)) == [0]
    assert list(chunking.starts(101)) == [0, 64]
    assert list(chunking.starts(164)) == [0, 64]
    assert list(chunking.starts(165)) == [0, 64, 128]
    # Starts at multiples of 25 leave a step of 50 and a longer cross-fade.
    aligned = Chunking(segment=100, context=10, overlap=0.2, align=25)
    assert aligned.stride == 50 and aligned.shared == 30


def test_neighbours_are_cross_faded_linearly():
    # Each segment gives its own number; 0 to 1 over the 16 shared samples from 64 + 10.
    numbers = iter([0.0, 1.0])
    chunking = Chunking(segment=100, context=10, overlap=0.2)
    result = overlap_add(
        OverlapAdd(lambda x: torch.full_like(x, next(numbers)), chunking), torch.ones(164)
    )
    assert result[:74].eq(0).all() and result[90:].eq(1).all()
    torch.testing.assert_close(result[74:90], (torch.arange(16) + 0.5) / 16)


def test_filter_in_the_stft_domain_is_the_same_in_pieces_as_in_one():
    spectrogram = Spectrogram()
    gain = torch.rand(513, 1, generator=torch.Generator().manual_seed(1))
    wave = torch.randn(2, 100_003, generator=torch.Generator().manual_seed(2))

    def masked(x: torch.Tensor) -> torch.Tensor:
        return spectrogram.istft(spectrogram.stft(x) * gain, x.shape[-1])

    chunking = Chunking(segment=20_000, context=2_048, align=256, batch=2)
    assert snr_db(masked(wave), overlap_add(OverlapAdd(masked, chunking), wave)) > 60


def test_errors_near_a_segment_edge_are_thrown_away():
    def spoiled(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., 1:10] = 9
        x[..., -10:-1] = 9
        return x

    wave = torch.zeros(1000)
    result = overlap_add(OverlapAdd(spoiled, Chunking(segment=100, context=10)), wave)
    assert result[10:-10].eq(0).all()


def test_batches_are_bounded_and_in_order():
    seen = []

    def remember(x: torch.Tensor) -> torch.Tensor:
        seen.append((len(x), float(x[0, 0])))
        return x

    done = []
    wave = torch.arange(1000.0)
    chunking = Chunking(segment=100, context=10, overlap=0.0, batch=4)
    overlap_add(OverlapAdd(remember, chunking), wave, progress=lambda now, n: done.append((now, n)))
    assert max(size for size, _ in seen) == 4
    assert [first for _, first in seen] == sorted(first for _, first in seen)
    assert done[-1] == (1000, 1000) and done == sorted(done)


def test_batch_is_halved_when_memory_runs_out():
    sizes = []

    def narrow(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return x

    wave = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="out of memory"):
        result = overlap_add(OverlapAdd(narrow, Chunking(segment=100, context=10, batch=8)), wave)
    torch.testing.assert_close(result, wave)
    assert sizes[:3] == [8, 4, 2]


def bent(x: torch.Tensor) -> torch.Tensor:
    """Depends on where the segment begins and ends."""
    return x * torch.hann_window(x.shape[-1])


def with_room_for(samples: int, calls: int = 0):
    """`bent`, with a memory that holds that many samples after the first `calls` calls."""
    seen = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.numel())
        if len(seen) > calls and x.numel() > samples:
            raise torch.OutOfMemoryError("out of memory")
        return bent(x)

    return function


@pytest.mark.parametrize("length", [51, 70, 1000])
def test_segment_is_halved_when_memory_runs_out(length):
    wave = torch.randn(length, generator=torch.Generator().manual_seed(0))
    fits, told = Chunking(segment=50, context=10), []
    adder = OverlapAdd(with_room_for(50), Chunking(segment=100, context=10), smaller=told.append)
    with pytest.warns(UserWarning, match="out of memory: going on with segments of 50") as said:
        result = overlap_add(adder, wave)
    assert len(said) == 1 and told == [fits]
    assert torch.equal(result, overlap_add(OverlapAdd(bent, fits), wave))
    assert [start for start, _ in adder.seams] == list(fits.starts(length))


def test_the_batch_is_halved_before_the_segment_and_said_once_when_there_is_room():
    told, sizes = [], []
    wave = torch.ones(1000)
    room = with_room_for(30)

    def narrow(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.shape)
        return room(x)

    adder = OverlapAdd(narrow, Chunking(segment=100, context=20, batch=2), smaller=told.append)
    with pytest.warns(UserWarning, match="going on with segments of 25 samples") as said:
        overlap_add(adder, wave)
    assert sizes[:4] == [(2, 100), (1, 100), (1, 50), (1, 25)] and len(said) == 1
    # where the context is more than a quarter of a segment it is halved, too
    assert [(c.batch, c.segment, c.context) for c in told] == [(1, 25, 5)]


@pytest.mark.parametrize("align", [1, 8])
def test_memory_that_runs_out_half_way_leaves_no_gap(align):
    wave = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))

    def same(x: torch.Tensor, calls: list = []) -> torch.Tensor:  # noqa: B006
        calls.append(x)
        if len(calls) > 4 and x.shape[-1] > 50:
            raise torch.OutOfMemoryError("out of memory")
        return x

    adder = OverlapAdd(same, Chunking(segment=128, context=16, align=align))
    with pytest.warns(UserWarning, match="segments of 32"):
        result = overlap_add(adder, wave)
    torch.testing.assert_close(result, wave)
    starts, firsts = zip(*adder.seams, strict=True)
    assert all(start % align == 0 for start in starts) and list(firsts) == sorted(set(firsts))


def test_no_room_for_the_shortest_segment_is_an_error_that_names_the_way_out():
    with pytest.raises(SepError, match=r"no room .* --device cpu"):
        overlap_add(OverlapAdd(with_room_for(0), Chunking(segment=64, context=16)), torch.ones(500))


@pytest.mark.parametrize("size", [1, 7, 64, 300])
def test_blocks_of_any_size_give_what_the_whole_gives(size):
    wave = torch.randn(2, 1237, generator=torch.Generator().manual_seed(0))
    chunking = Chunking(segment=100, context=10, overlap=0.3, batch=2)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, x * torch.hann_window(x.shape[-1])], -2)

    whole = overlap_add(OverlapAdd(doubled, chunking), wave)
    adder = OverlapAdd(doubled, chunking)
    parts = [adder.push(block) for block in wave.split(size, -1)] + [adder.finish()]
    assert adder.finish().shape[-1] == 0
    most = max(len(adder.weights), *(part.shape[-1] for part in parts))
    assert most <= 3 * 100 + size
    parts = [part for part in parts if part.shape[-1]]
    torch.testing.assert_close(torch.cat(parts, -1), whole)


def test_cuts_for_a_lag_are_those_counted_by_hand():
    # Of 1000, 80 are cross-faded; the rest has room for 320 twice, not for 640: one is stride, one
    # context. Of 1400, 1320 are 640 twice.
    for lag, size in ((1000, 320), (1400, 640)):
        cuts = live(lag, hop=10, align=640)
        assert (cuts.stride, cuts.context, cuts.align, cuts.shared) == (size, size, size, 79)
        assert cuts.segment == 79 + 3 * size
    for lag in range(160, 3000, 7):
        cuts = live(lag, hop=10, align=640)
        assert cuts.segment - cuts.context < lag and cuts.context >= cuts.stride
        assert cuts.align % 10 == cuts.context % cuts.align == cuts.stride % cuts.align == 0
    with pytest.raises(SepError, match="lag of 159 samples is too short; give at least 160"):
        live(159, hop=10, align=640)


@pytest.mark.parametrize("overlap", [1.0, 1.5, -0.1])
def test_impossible_overlap_is_refused_with_the_reason(overlap):
    with pytest.raises(SepError, match=r"never reach the end; use"):
        Chunking(segment=100, context=10, overlap=overlap)


@pytest.mark.parametrize("odd", [{"batch": 0}, {"align": 0}])
def test_impossible_numbers_are_refused(odd):
    with pytest.raises(SepError, match="at least 1"):
        Chunking(segment=100, context=10, **odd)


def test_segment_without_room_to_move_is_refused():
    with pytest.raises(SepError, match="never move on"):
        Chunking(segment=20, context=10)
