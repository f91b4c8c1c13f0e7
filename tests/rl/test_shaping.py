"""Temporal advantage shaping against weights worked out by hand."""

import pytest
import torch

from sep.rl.shaping import active_frames, temporal_weights

ACTIVE = torch.tensor([[0, 1, 1, 1, 0, 1, 0, 1, 1]], dtype=torch.bool)


def weights(mode, **options):
    return temporal_weights(mode, ACTIVE, 0.3, **options)[0].tolist()


def test_the_literal_form_is_a_parabola_over_the_clip():
    # 1 + .3 (2 k / 8 - 1)^2
    expected = [1.3, 1.16875, 1.075, 1.01875, 1.0, 1.01875, 1.075, 1.16875, 1.3]
    assert weights("u") == pytest.approx(expected)
    assert weights("inv") == pytest.approx([2.3 - value for value in expected])
    assert weights("const") == pytest.approx([1.1] * 9)
    assert weights("off") == [1.0] * 9


def test_events_are_shaped_each_by_itself_and_silence_is_left_alone():
    # three frames: 0, 1/2, 1; one frame: 0; two frames: 0, 1
    assert weights("event") == pytest.approx([1, 1.3, 1.0, 1.3, 1, 1.3, 1, 1.3, 1.3])


def test_normalised_weights_have_mean_one():
    for mode in ("u", "inv", "const", "event"):
        assert sum(weights(mode, normalise=True)) / 9 == pytest.approx(1.0, abs=1e-6)


def test_frames_are_active_down_to_40_db():
    magnitude = torch.tensor([[[1.0, 0.02, 0.005, 0.0]]])
    assert active_frames(magnitude).tolist() == [[True, True, False, False]]
    assert not active_frames(torch.zeros(1, 2, 3)).any()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="tas 'w' is unknown"):
        temporal_weights("w", ACTIVE)
