"""A trace as plain data, JSON and picture."""

import json

import pytest
import torch

from sep import hub
from sep.model import QueryNet
from sep.trace import _stretches, draw_trace, explain, save_trace


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    base = QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8)
    base.amp = False
    larger = hub.extend(base.eval(), "turns")
    larger.name_classes(["dog", "rain"], torch.eye(2, 8))
    with torch.no_grad():
        larger.stop_head.bias.fill_(-1.0)  # goes on looking
        larger.interval_head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))  # as long as it can
    return larger


def test_stretches_are_runs_of_active_frames():
    active = torch.tensor([1, 0, 0, 1, 1, 0, 1]).bool()
    assert _stretches(active) == [(0, 1), (3, 5), (6, 7)]
    assert _stretches(torch.zeros(3).bool()) == []


def test_a_trace_says_when_where_what_and_which_looks(model, tmp_path):
    torch.manual_seed(1)
    wave, query = torch.randn(16_000), torch.eye(8)[1]
    record = explain(model, wave, query)
    assert len(record["when"]) == 63
    assert len(record["where"]) == len(record["row_hz"]) == 256
    assert record["row_hz"][-1] == 8_000
    assert sum(record["what"].values()) == pytest.approx(1, abs=1e-3)
    assert record["confidence"] == 0.5
    assert [look["interval_s"] is None for look in record["looks"]] == [True, False, False]
    assert record["looks"][1]["interval_s"] == pytest.approx([0, 63 * 0.016])
    assert record["looks"][0]["stop"] == pytest.approx(0.2689, abs=1e-4)  # sigmoid(-1)
    assert record["looks"][2]["stop"] is None
    save_trace(tmp_path / "trace.json", record)
    assert json.loads((tmp_path / "trace.json").read_text()) == record
    magnitude = model.spectrogram.warp(model.spectrogram.stft(wave).abs())
    draw_trace(tmp_path / "trace.png", record, magnitude, torch.rand_like(magnitude), "a bell")
    assert (tmp_path / "trace.png").stat().st_size > 10_000


def test_active_stretches_follow_when(model):
    wave, query = torch.randn(8_000), torch.eye(8)[0]
    with torch.no_grad():
        for bias, active in ((-50.0, []), (50.0, [[0.0, pytest.approx(32 * 0.016)]])):
            model.when_head[-1].bias.fill_(bias)
            assert explain(model, wave, query)["active_s"] == active


def test_a_network_without_looks_has_one_look():
    torch.manual_seed(0)
    model = hub.extend(QueryNet(width=2, levels=4, mask_channels=3, embed_dim=8).eval(), "trace")
    record = explain(model, torch.randn(8_000), torch.eye(8)[0])
    assert record["looks"] == [{"interval_s": None, "stop": None}]
    assert record["what"] == {}
