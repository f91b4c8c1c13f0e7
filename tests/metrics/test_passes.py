"""What the second pass changes, counted."""

import math

import pytest
import torch

from sep import hub
from sep.metrics.passes import compare, markdown, summarise
from sep.metrics.sisdr import si_sdr
from sep.rl.reward import ClassHit


def test_sets_and_shares_by_hand():
    values = {
        "hard": torch.tensor([True, True, False, False, False, False]),
        "first": torch.tensor([1.0, 2.0, 5.0, 5.0, 5.0, math.nan]).double(),
        "second": torch.tensor([3.0, 1.0, 5.4, 4.6, 4.0, math.nan]).double(),
        "first_class": torch.tensor([False, False, True, True, False, True]),
        "second_class": torch.tensor([True, False, True, True, True, True]),
    }
    found = summarise(values, harm_db=0.5)
    hard, easy = found["hard"], found["easy"]
    assert (hard["n"], easy["n"], found["all"]["n"]) == (2, 4, 6)
    assert hard["change_mean"] == pytest.approx(0.5) and hard["first_db"] == 1.5
    assert (hard["improved"], hard["harmed"]) == (0.5, 0.5)
    assert easy["improved"] == pytest.approx(1 / 3) and easy["harmed"] == pytest.approx(1 / 3)
    assert easy["change_mean"] == pytest.approx((0.4 - 0.4 - 1) / 3)
    assert (easy["first_class"], easy["second_class"]) == (0.75, 1.0)
    assert "| easy | 4 | 5.00 | -0.33 ± " in markdown(found, 0.5)


def test_both_passes_are_scored_as_the_network_separates(parts):
    model, _, _, validation = parts
    model = hub.extend(model.eval(), "reflect")
    torch.nn.init.normal_(model.delta_net.scale)
    sources, query = validation.sources, validation.query
    classes = ClassHit(lambda wave, rate: wave[:, :2] / wave[:, :2].norm(dim=1, keepdim=True),
                       torch.eye(2))  # fmt: skip
    label = torch.zeros(len(sources), dtype=torch.long)
    values = compare(model, sources, query, label, classes, batch=3)
    with torch.no_grad():
        for name, passes in (("first", 1), ("second", 2)):
            model.passes = passes
            expected = si_sdr(model.separate(sources.sum(1), query), sources[:, 0])
            torch.testing.assert_close(values[name], expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(values["first"], values["second"])
    assert values["hard"].dtype == torch.bool and len(values["hard"]) == len(sources)
