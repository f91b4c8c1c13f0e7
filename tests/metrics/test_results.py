"""The results page: command, machine, stage times and the facts of the trained models."""

import torch

from sep import hub
from sep.metrics import results
from sep.model import QueryNet


def test_page_names_command_times_and_training(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "4.seconds").write_text("181\n")
    (tmp_path / "log" / "5.seconds").write_text("150\n")
    model = QueryNet(width=2, levels=5, mask_channels=4, embed_dim=8)
    facts = {"stage": "supervised", "seed": 7, "step": 900}
    hub.save_pretrained(model, tmp_path / "supervised" / "best", None, facts)
    page = results.page("| a table |", tmp_path, "run.sh --tag x")
    assert "Made by `run.sh --tag x`" in page and "| a table |" in page
    assert "| 4 train the separator | 181 |" in page and "| together | 331 |" in page
    assert 'supervised: {"stage": "supervised", "seed": 7, "step": 900}' in page
    assert torch.__version__ in page


def test_page_without_logs_has_no_time_table(tmp_path):
    assert "seconds" not in results.page("scores", tmp_path, "command")
