"""The Beta mask policy."""

import math

import pytest
import torch
from scipy import special
from torch.distributions import kl_divergence

from sep.policy import BetaPolicy


def test_log_density_of_a_hand_computed_case():
    # kappa 2, P 0.5: Beta(2, 2) has density 6 x (1 - x), at 0.25 that is 1.125
    policy = BetaPolicy(2.0)
    value = policy.log_prob(torch.tensor([[0.5]]), torch.tensor([[[0.25]]]))
    assert value.item() == pytest.approx(math.log(1.125), abs=1e-6)


def test_density_agrees_with_torch():
    generator = torch.Generator().manual_seed(0)
    proposal = torch.rand(2, 5, generator=generator)
    action = torch.rand(2, 3, 5, generator=generator).clamp(0.01, 0.99)
    policy = BetaPolicy(9.0)
    expected = torch.distributions.Beta(1 + 9 * proposal, 1 + 9 * (1 - proposal))
    torch.testing.assert_close(
        policy.log_prob(proposal, action),
        expected.log_prob(action.transpose(0, 1)).transpose(0, 1),
        atol=1e-5,
        rtol=1e-5,
    )


def test_the_mode_is_the_proposal():
    policy, proposal = BetaPolicy(9.0), torch.tensor([[0.3]])
    grid = torch.linspace(0.001, 0.999, 999)
    density = policy.log_prob(proposal.expand(1, 1), grid[None, :, None])
    assert grid[density.argmax()].item() == pytest.approx(0.3, abs=1e-3)
    assert torch.equal(policy.mode(proposal), proposal)


def test_samples_have_the_mean_of_the_beta_distribution():
    torch.manual_seed(0)
    drawn = BetaPolicy(9.0).sample(torch.tensor([[0.0, 0.5, 1.0]]), 20_000)
    assert drawn.shape == (1, 20_000, 3)
    # mean (1 + 9 P) / 11
    torch.testing.assert_close(
        drawn.mean((0, 1)), torch.tensor([1 / 11, 0.5, 10 / 11]), atol=3e-3, rtol=0
    )


@pytest.mark.parametrize("kappa", [2.0, 9.0, 40.0])
def test_tabulated_quantiles_are_those_of_the_beta_distribution(kappa):
    generator = torch.Generator().manual_seed(0)
    proposal = torch.rand(1, 2_000, generator=generator)
    proposal[0, :3] = torch.tensor([0.0, 1.0, 0.5])
    normal = torch.randn(1, 2, 2_000, generator=generator)
    action = BetaPolicy(kappa).quantile(proposal, normal)
    a, b = 1 + kappa * proposal[:, None].numpy(), 1 + kappa * (1 - proposal[:, None].numpy())
    expected = special.betaincinv(a, b, special.ndtr(normal.numpy()))
    assert abs(action.numpy() - expected).max() < 2e-3
    assert action[0, 0, 2] == pytest.approx(expected[0, 0, 2], abs=1e-4)


def test_a_reparameterised_action_has_the_gradient_of_its_mean():
    torch.manual_seed(0)
    proposal = torch.full((20_000,), 0.4, requires_grad=True)
    action = BetaPolicy(9.0).reparameterised(proposal)
    assert action.shape == (20_000, 1)
    action.mean().backward()
    # the mean (1 + 9 P) / 11 has slope 9 / 11
    assert proposal.grad.sum().item() == pytest.approx(9 / 11, abs=0.02)


def test_entropy_has_the_known_values_and_peaks_in_the_middle():
    entropy = BetaPolicy(9.0).entropy(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(entropy, torch.tensor([-1.40, -0.52, -1.40]), atol=0.01, rtol=0)


def test_kl_is_zero_only_at_the_same_proposal():
    policy = BetaPolicy(9.0)
    same, other = torch.tensor([0.4]), torch.tensor([0.6])
    assert policy.kl(same, same).item() == pytest.approx(0, abs=1e-6)
    assert policy.kl(same, other).item() > 0.05


@pytest.mark.parametrize("kappa", [9.0, torch.linspace(4, 30, 50)[None]])
def test_entropy_and_kl_have_the_values_and_gradients_of_torch(kappa):
    policy, other = BetaPolicy(kappa), torch.linspace(0.9, 0.2, 50)[None]
    proposal = torch.linspace(0.0, 1.0, 50)[None].requires_grad_()
    beta = policy.distribution(proposal)
    pairs = (
        (policy.entropy(proposal), beta.entropy()),
        (policy.kl(proposal, other), kl_divergence(beta, policy.distribution(other))),
    )
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
        slopes = [
            torch.autograd.grad(v.sum(), proposal, retain_graph=True) for v in (found, expected)
        ]
        torch.testing.assert_close(*slopes, atol=1e-4, rtol=1e-4)


def test_the_mean_is_nearer_to_one_half_than_the_mode():
    mean = BetaPolicy(9.0).mean(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(mean, torch.tensor([1 / 11, 0.5, 10 / 11]))


@pytest.mark.parametrize("kappa", [0.0, torch.tensor([[9.0, 0.0]])])
def test_kappa_must_be_positive(kappa):
    with pytest.raises(ValueError, match="kappa 0 must"):
        BetaPolicy(kappa)


def test_each_entry_may_have_a_kappa_of_its_own():
    generator = torch.Generator().manual_seed(0)
    proposal = torch.rand(2, 3, generator=generator)
    other = torch.rand(2, 3, generator=generator)
    action = torch.rand(2, 4, 3, generator=generator).clamp(0.01, 0.99)
    kappa = torch.tensor([[4.0, 9.0, 30.0]]).repeat(2, 1)
    policy = BetaPolicy(kappa)
    drawn = policy.quantile(proposal, torch.randn(2, 4, 3, generator=generator))
    assert drawn.shape == policy.sample(proposal, 4).shape == action.shape
    assert policy.reparameterised(proposal).shape == (2, 1, 3)
    for k, value in enumerate((4.0, 9.0, 30.0)):
        alone, at = BetaPolicy(value), (slice(None), slice(k, k + 1))
        expected = alone.log_prob(proposal[at], action[..., k : k + 1])
        torch.testing.assert_close(policy.log_prob(proposal, action)[..., k : k + 1], expected)
        for name in ("entropy", "mean"):
            found = getattr(policy, name)(proposal)[at]
            torch.testing.assert_close(found, getattr(alone, name)(proposal[at]))
        found = policy.kl(proposal, other)[at]
        torch.testing.assert_close(found, alone.kl(proposal[at], other[at]))


def test_densities_with_a_kappa_an_entry_integrate_to_one():
    policy = BetaPolicy(torch.tensor([[4.0, 17.3, 30.0]]))
    points = (torch.arange(20_000) + 0.5) / 20_000
    density = policy.log_prob(torch.tensor([[0.1, 0.5, 0.9]]), points[None, :, None]).exp()
    torch.testing.assert_close(density.mean(1), torch.ones(1, 3), atol=1e-3, rtol=0)


def test_tabulated_quantiles_hold_between_the_tabulated_kappas():
    generator = torch.Generator().manual_seed(0)
    proposal = torch.rand(1, 2_000, generator=generator)
    kappa = 4 + 26 * torch.rand(1, 2_000, generator=generator)
    kappa[0, :2] = torch.tensor([4.0, 30.0])
    normal = torch.randn(1, 2, 2_000, generator=generator)
    action = BetaPolicy(kappa).quantile(proposal, normal)
    a, b = (1 + kappa * proposal)[:, None].numpy(), (1 + kappa * (1 - proposal))[:, None].numpy()
    assert abs(action.numpy() - special.betaincinv(a, b, special.ndtr(normal.numpy()))).max() < 2e-3
    equal = BetaPolicy(torch.full((1, 2_000), 9.0)).quantile(proposal, normal)
    torch.testing.assert_close(equal, BetaPolicy(9.0).quantile(proposal, normal), atol=2e-3, rtol=0)
