"""How much a device has room for, and memory that really runs out."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from sep.chunk import Chunking, OverlapAdd, overlap_add
from sep.device import AT_ONCE, out_of_memory, pieces, resolve, with_room
from sep.errors import SepError
from sep.separator import SHIPPED, Separator
from sep.web.examples import sounds

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def recording() -> torch.Tensor:
    """40 s at 16 kHz, two segments: a bell in the rain, again and again."""
    made = sounds()
    return torch.from_numpy(made["bell"] + made["rain"]).float()[::2].repeat(7)[: 40 * 16_000]


def snr_db(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    noise = (reference - estimate).square().sum().clamp_min(1e-30)
    return float(10 * torch.log10(reference.square().sum() / noise))


def test_pieces_are_those_counted_by_hand():
    # 80 % of 1000 bytes is 800: two pieces of 400, one of 401, and one where there is no room
    assert [pieces(1000, taken) for taken in (400, 401, 5000)] == [2, 1, 1]
    assert pieces(1000, 1) == pieces(1000, 0) == AT_ONCE


def test_a_processor_does_one_piece_at_a_time():
    result, count = with_room(lambda: torch.ones(3), torch.device("cpu"))
    assert torch.equal(result, torch.ones(3)) and count == 1
    seen = []

    def remember(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x

    adder = OverlapAdd(remember, Chunking(segment=100, context=10, batch=None))
    wave = torch.randn(500, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(overlap_add(adder, wave), wave)
    assert set(seen) == {1} and adder.chunking.batch == 1


def test_auto_prefers_cuda_then_mps_and_others_are_unknown(monkeypatch):
    has = {"cuda": True, "mps": True}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has["cuda"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has["mps"])
    assert resolve("auto").type == "cuda"
    has["cuda"] = False
    assert resolve("auto").type == "mps"
    has["mps"] = False
    assert resolve("auto").type == "cpu"
    for name in ("xpu", "meta", "vulkan", "gpu", ""):
        with pytest.raises(SepError, match="is unknown; use auto, cpu, cuda or mps"):
            resolve(name)


def test_faults_of_memory_are_told_from_others():
    with pytest.raises(RuntimeError) as large:
        torch.empty(2**60)
    assert out_of_memory(large.value) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shape mismatch")) and not out_of_memory(OSError())


LIMITED = """
import re, resource, warnings
import torch
from sep.chunk import Chunking, OverlapAdd, overlap_add

def bent(x):  # takes 4 kB a sample
    return (x[..., None] * torch.ones(1000)).mean(-1) * torch.hann_window(x.shape[-1])

with open("/proc/self/status") as status:
    used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status.read())[1])
resource.setrlimit(resource.RLIMIT_AS, (used + 180 * 10**6, resource.RLIM_INFINITY))
wave = torch.randn(1, 90_000)
adder = OverlapAdd(bent, Chunking(segment=60_000, context=5_000, batch=None))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    found = overlap_add(adder, wave)
print(*(warning.message for warning in said), sep="\\n")
assert torch.equal(found, overlap_add(OverlapAdd(bent, adder.chunking), wave))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_machine_that_is_full_gets_shorter_segments_and_says_so_once():
    lone = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # threads reserve memory of their own
    done = subprocess.run(
        [sys.executable, "-c", LIMITED],
        env={**os.environ, **lone},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out of memory: going on with segments of 30000 samples\n"


@needs_cuda
def test_a_gpu_does_as_many_segments_at_once_as_it_has_room_for():
    def work() -> torch.Tensor:
        return torch.ones(64 * 2**20, device="cuda").square().sum().cpu()  # 2 x 256 MiB

    device = torch.device("cuda")
    assert with_room(work, device)[1] == pieces(torch.cuda.mem_get_info(device)[0], 512 * 2**20)
    separator = Separator.from_pretrained(SHIPPED, device="cuda")
    wave, query = recording().repeat(10), separator.query(text="a bell ringing")
    found = separator.separate(wave, 16_000, query=query).target
    alone = Separator.from_pretrained(SHIPPED, device="cpu").separate(wave, 16_000, query=query)
    assert snr_db(alone.target, found) > 30  # bfloat16 on one of them


@needs_cuda
def test_a_gpu_that_is_full_gets_shorter_segments_and_says_so_once():
    separator = Separator.from_pretrained(SHIPPED, device="cuda")
    separator.model.amp = False
    wave, query = recording(), separator.query(text="a bell ringing")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = separator.separate(wave, 16_000, query=query).target
    taken = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((before + 0.7 * taken) / total)
    try:
        with pytest.warns(UserWarning) as said:
            found = separator.separate(wave, 16_000, query=query).target
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the separator remembers
            again = separator.separate(wave, 16_000, query=query).target
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [str(warning.message)[:27] for warning in said] == ["out of memory: going on with"[:27]]
    assert snr_db(expected, found) > 50 and torch.equal(again, found)
