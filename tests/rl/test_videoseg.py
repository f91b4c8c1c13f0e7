"""Which mechanisms of VideoSEG-O3 a run uses."""

import copy

import pytest
import torch

from sep import hub
from sep.rl.explore import TileExploration
from sep.rl.options import PolicyOptions
from sep.rl.reward import SiSdrGain, WeightedSum
from sep.rl.task import PolicyTask
from sep.rl.videoseg import mechanisms
from sep.train.batch import draw_batch
from sep.train.supervised import SupervisedTask
from sep.train.term import Update

SETTINGS = {
    "calibrate": {"emit": {"weight": 1.0}, "kappa": [4.0, 30.0]},
    "trace": {"when": 1.0},
    "turns": {"group": 2},
}


def embed_text(texts):
    torch.manual_seed(5)
    return torch.nn.functional.normalize(torch.randn(len(texts), 16), dim=-1)


@pytest.mark.parametrize(("name", "kind"), [("trace", "trace"), ("turns", "turns")])
def test_a_network_too_small_for_a_mechanism_is_refused(parts, name, kind):
    with pytest.raises(ValueError, match=f"{name} needs .*kind={kind}"):
        mechanisms({name: SETTINGS[name]}, parts[0], parts[1].bank, embed_text)
    with pytest.raises(ValueError, match="kind=confident"):
        mechanisms({"calibrate": {"kappa": [4, 30]}}, parts[0], parts[1].bank, embed_text)


@pytest.mark.parametrize(
    ("calibrate", "reason"), [({"emit": {"wait": 1}}, "wait"), ({"kappa": [30, 4]}, "rise")]
)
def test_settings_that_there_are_not_are_refused(parts, calibrate, reason):
    model = hub.extend(parts[0], "confident")
    with pytest.raises(ValueError, match=reason):
        mechanisms({"calibrate": calibrate}, model, parts[1].bank, embed_text)


def test_classes_are_those_of_the_data(parts):
    model, bank = hub.extend(parts[0], "trace"), parts[1].bank
    assert mechanisms({}, parts[0], bank, embed_text) == ([], None)
    mechanisms(SETTINGS | {"calibrate": None, "turns": None}, model, bank, embed_text)
    assert model.config["labels"] == bank.labels
    assert torch.equal(model.prototypes, embed_text(bank.labels))
    model.config["labels"] = ["another"]
    with pytest.raises(ValueError, match=f"does not know '{bank.labels[0]}'"):
        mechanisms({"trace": SETTINGS["trace"]}, model, bank, embed_text)


def test_a_network_that_knows_more_classes_finds_those_of_the_data_by_name(parts):
    model, bank = hub.extend(parts[0], "trace"), parts[1].bank
    known = [*reversed(bank.labels), "another"]
    model.name_classes(known, embed_text(known))
    terms, _ = mechanisms({"trace": SETTINGS["trace"]}, model, bank, embed_text)
    assert [known[k] for k in terms[0].classes] == bank.labels
    batch = draw_batch(*parts[1:3], model.spectrogram, 0, mixed=0.0)
    maps = model.maps(batch.magnitude)
    update = Update(model, batch, maps, model.combine(maps, batch.query), batch.mixture)
    _, values = terms[0](update)
    what = model.trace(maps, batch.query).what
    index = torch.tensor([[known.index(bank.labels[k]) for k in row] for row in batch.label])
    wanted = -what.gather(-1, index[..., None]).clamp(min=1e-8).log().mean()
    torch.testing.assert_close(values["trace/what"], wanted.detach())


def test_everything_together_trains_and_the_first_rollout_is_the_same_without(parts):
    reward = WeightedSum({"si_sdr": (1.0, SiSdrGain())})
    options = PolicyOptions(
        group="mixture", group_size=2, entropy=0.0, inner_epochs=2, anchor=1.0, lr=1e-3
    )

    def rows(parts, settings):
        torch.manual_seed(0)
        model, sampler, queries, validation = copy.deepcopy(parts)
        terms, kappa = mechanisms(settings, model, sampler.bank, embed_text, reward)
        data = (sampler, queries, validation)
        task = PolicyTask(
            model, *data, TileExploration((8, 4)), reward, options, terms=terms, concentration=kappa
        )
        return [task.train_step(step, 0.5) for step in range(2)], task

    torch.manual_seed(1)
    larger = [hub.extend(parts[0], "turns").eval(), *parts[1:]]
    on, task = rows(larger, SETTINGS)
    assert set(on[0]) >= {"emission", "confidence_error", "trace/when", "turns/reward"}
    assert 4 <= task.policy.kappa.min() <= task.policy.kappa.max() <= 30
    plain, _ = rows(parts, {})
    off, _ = rows(larger, {})
    # the larger network starts with the masks of the smaller one: the first rollout is the same
    assert off[0]["reward"] == pytest.approx(plain[0]["reward"], abs=1e-6)


def test_supervised_training_teaches_the_new_parts_too(parts):
    torch.manual_seed(1)
    model = hub.extend(parts[0], "turns")
    settings = {"trace": SETTINGS["trace"], "turns": SETTINGS["turns"]}
    terms, _ = mechanisms(settings, model, parts[1].bank, embed_text)
    task = SupervisedTask(model, *parts[1:], terms=terms)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    values = [task.train_step(step, 0.5) for step in range(2)][-1]
    assert {"trace/where", "turns/final"} <= set(values)
    after = model.state_dict()
    for part in ("when_head", "where_head", "what_head", "interval_head", "stop_head", "refiner"):
        assert any(not torch.equal(after[k], before[k]) for k in after if k.startswith(part))
