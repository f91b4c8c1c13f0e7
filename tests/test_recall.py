"""The memory of known queries."""

import math

import pytest
import torch

from sep import hub
from sep.export import export
from sep.model import QueryNet
from sep.recall import Recall

OPTIONS = {"width": 2, "levels": 5, "mask_channels": 3, "embed_dim": 4}


def remembering(**options) -> QueryNet:
    torch.manual_seed(0)
    model = QueryNet(**OPTIONS | options, recall={"count": 3, "beta": 7.0})
    model.recall.known.copy_(torch.randn(3, 4))
    model.amp = False
    return model.eval()


def test_half_of_a_query_becomes_the_weighted_mean_of_what_is_known():
    recall = Recall(count=2, dim=2, beta=math.log(3) / 0.2).eval()
    recall.known.copy_(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))  # of any length
    # exp(beta * .8) is three times exp(beta * .6), and (3, 1) has the length sqrt(10)
    query = torch.tensor([0.8, 0.6])
    wanted = query + torch.tensor([3.0, 1.0]) / math.sqrt(10)
    torch.testing.assert_close(recall(query), wanted / wanted.norm())
    known = torch.tensor([1.0, 0.0])  # recalls little else: exp(beta) is 3 ** 5 = 243 to 1
    wanted = known + torch.tensor([243.0, 1.0]) / math.hypot(243, 1)
    torch.testing.assert_close(recall(known), wanted / wanted.norm())


def test_many_queries_at_once_and_one_that_is_near_to_none():
    recall = Recall(count=3, dim=4, beta=7.0).eval()
    recall.known.copy_(torch.eye(3, 4))
    query = torch.nn.functional.normalize(torch.randn(5, 2, 4), dim=-1)
    recalled = recall(query)
    assert recalled.shape == query.shape
    torch.testing.assert_close(recalled.norm(dim=-1), torch.ones(5, 2))
    torch.testing.assert_close(recalled[3, 1], recall(query[3, 1]))
    stranger = recall(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # stays half itself, asks a little of all
    wanted = torch.tensor([1.0, 1.0, 1.0, math.sqrt(3)]) / math.sqrt(6)
    torch.testing.assert_close(stranger, wanted)


def test_in_training_queries_pass_as_they_are():
    recall, query = Recall(count=3, dim=4, beta=7.0), torch.randn(5, 4)
    recall.known.copy_(torch.eye(3, 4))
    assert torch.equal(recall.train()(query), query)
    assert not torch.equal(recall.eval()(query), query)


@torch.no_grad()
def test_the_network_asks_by_what_was_recalled():
    model, plain = remembering(), QueryNet(**OPTIONS).eval()
    state = model.state_dict()
    assert state.pop("recall.known").shape == (3, 4)
    plain.load_state_dict(state)  # nothing else is added
    plain.amp = False
    magnitude, query = torch.rand(1, 513, 32), torch.randn(1, 2, 4)
    query = torch.nn.functional.normalize(query, dim=-1)
    torch.testing.assert_close(
        model.logits(magnitude, query), plain.logits(magnitude, model.recall(query))
    )
    assert not torch.allclose(model.logits(magnitude, query), plain.logits(magnitude, query))


@pytest.mark.parametrize("kind", ["query", "prior", "reflect", "trace", "turns", "confident"])
@torch.no_grad()
def test_larger_networks_and_model_folders_keep_the_memory(kind, tmp_path):
    model = remembering()
    larger = hub.extend(model, kind).eval()
    hub.save_pretrained(larger, tmp_path / "model")
    loaded = hub.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.recall.known, model.recall.known)
    assert loaded.config["recall"] == {"count": 3, "beta": 7.0}
    query = torch.randn(2, 4)
    assert torch.equal(loaded.prompt(query), model.prompt(query))


@torch.no_grad()
def test_a_prior_is_asked_by_what_was_recalled():
    larger = hub.extend(remembering(), "prior").eval()
    magnitude, known = torch.rand(1, 513, 64), larger.recall.known
    query = torch.nn.functional.normalize(torch.randn(1, 2, 4), dim=-1)
    before = larger.heatmap(magnitude, query)
    known.copy_(known.flip(1))
    assert not torch.allclose(larger.heatmap(magnitude, query), before)


def test_it_is_exported(tmp_path):
    assert export(remembering(), tmp_path / "net", "torchscript") < 1e-3
