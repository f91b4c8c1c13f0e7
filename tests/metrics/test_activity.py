"""Energy outside of the target's stretch, against numbers worked out by hand."""

import math

import pytest
import torch

from sep.metrics.activity import active_part, outside_db


def test_the_active_stretch_ends_with_the_last_loud_frame():
    target = torch.tensor([[0.0, 0.001, 1.0, 0.0, 0.5, 0.0, 0.0, 0.0]])  # .001 is 60 dB down
    assert active_part(target) == (2, 5, 3 / 8)
    assert active_part(torch.zeros(2, 4))[2] == 0


def test_energy_outside_of_a_hand_computed_estimate():
    estimate = torch.tensor([[1.0, 3.0, 0.0], [0.0, 4.0, 2.0]])  # energies 1, 25, 4
    assert outside_db(estimate, 1, 2) == pytest.approx(10 * math.log10(5 / 30))
    assert outside_db(estimate, 0, 3) == -math.inf
    assert math.isnan(outside_db(torch.zeros(2, 3), 1, 2))
