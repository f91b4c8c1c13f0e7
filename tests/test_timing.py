"""The stopwatch counts each moment once and leaves what it timed as it was."""

import mmap
import time

import pytest
import torch

from sep.timing import Stopwatch, peak_memory_mb, reset_peak_memory

CPU = torch.device("cpu")


class Work:
    def outer(self):
        time.sleep(0.02)
        self.inner()

    def inner(self):
        time.sleep(0.03)


def test_a_call_inside_a_timed_one_is_counted_once():
    work = Work()
    with Stopwatch(CPU) as watch, watch.on(work, "outer", "a"), watch.on(Work, "inner", "b"):
        work.outer()
        work.inner()
    assert watch.seconds["a"] == pytest.approx(0.05, abs=0.04)
    assert watch.seconds["b"] == pytest.approx(0.03, abs=0.03)
    assert sum(watch.seconds.values()) <= watch.total


def test_timed_calls_are_put_back_even_after_an_error():
    original = Work.inner
    with pytest.raises(ZeroDivisionError), Stopwatch(CPU) as watch:
        with watch.on(Work, "inner", "b"):
            assert Work.inner is not original
            raise ZeroDivisionError
    assert Work.inner is original


def test_peak_memory_sees_a_large_block_that_is_gone():
    reset_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    # from the system, past the allocator, which may have kept as much from an earlier test
    with mmap.mmap(-1, 200_000_000) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
    assert peak_memory_mb(CPU) > before + 150
