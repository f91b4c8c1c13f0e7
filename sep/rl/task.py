"""Fine-tuning the separator by PPO on sampled masks: one rollout and its updates a step."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from sep.data.bank import MixtureSampler, QueryBank
from sep.errors import OptionError
from sep.model import QueryNet
from sep.policy import BetaPolicy
from sep.rl.advantage import EmaBaseline, batch_advantage, group_advantage, spread_windows
from sep.rl.explore import Exploration, ReadingExploration
from sep.rl.options import PolicyOptions
from sep.rl.ppo import clipped_surrogate
from sep.rl.replay import Memory, ReplayBuffer, Replayed
from sep.rl.reward import Rollout, Similarity, WeightedSum
from sep.rl.shaping import active_frames, temporal_weights
from sep.train import distributed
from sep.train.batch import Batch, draw_batch
from sep.train.losses import bin_weight, ideal_masks, separation_loss
from sep.train.supervised import learning_rate
from sep.train.term import Term, Update
from sep.train.validation import Validation

_APART = 1_000_000_000  # first step of the mixtures that no rollout draws
RATIO_CAP = 2.0  # largest ratio of masks that another policy drew


class PolicyTask:
    """Rollouts from a frozen snapshot of the policy, rewards, advantages and clipped updates.

    Every step: the snapshot proposes (its forward pass is shared by all G masks and by the first
    update), masks are sampled without gradient, turned into audio and rewarded; then
    `inner_epochs` updates follow. BatchNorm keeps its running statistics throughout.

    Args:
        model: the supervised separator, on its device.
        sampler, queries, validation: as in supervised training.
        explore: what an action is.
        reward: total reward of a mask.
        windows: windowed similarity for windowed credit, or None.
        options: the numbers.
        teacher: frozen supervised separator, needed when `kl_teacher` is set.
        terms: what else is added to the loss of every update (`sep.train.term`).
        concentration: model, maps (B, K, H, T), queries (B, D), logits (B, H, T) and proposal
            (B, h, t) of a rollout to a kappa for each entry (B, h, t), in the place of
            `options.kappa`; it holds for all updates of the rollout, so densities stay exact.
    """

    def __init__(
        self,
        model: QueryNet,
        sampler: MixtureSampler,
        queries: QueryBank,
        validation: Validation,
        explore: Exploration,
        reward: WeightedSum,
        options: PolicyOptions,
        windows: Similarity | None = None,
        teacher: QueryNet | None = None,
        terms: Sequence[Term] = (),
        concentration: Callable[..., Tensor] | None = None,
    ):
        if bool(options.windowed) != (windows is not None):
            raise OptionError("windowed credit needs both its weight and a windowed similarity")
        if bool(options.kl_teacher) != (teacher is not None):
            raise OptionError("kl_teacher needs both its weight and a teacher")
        self.model, self.sampler, self.queries = model.eval(), sampler, queries
        self.validation, self.explore, self.reward = validation, explore, reward
        self.windows, self.teacher, self.options = windows, teacher, options
        if concentration is not None and (options.replay or options.kappa_end is not None):
            raise OptionError("a kappa for each entry goes neither with replay nor with kappa_end")
        if options.hint and isinstance(explore, ReadingExploration):
            raise OptionError("a hint is a better mask, which no reading is; set another explore")
        self.terms, self.concentration = terms, concentration
        self.policy = BetaPolicy(options.kappa)
        self.baseline = EmaBaseline(options.ema_decay)
        self.buffer = ReplayBuffer(options.replay_capacity, options.replay_age)
        learning = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, options.lr, weight_decay=options.weight_decay)

    def train_step(self, step: int, progress: float) -> dict[str, float]:
        """One rollout and `inner_epochs` clipped updates."""
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(options.lr, progress, options.warmup)
        if options.kappa_end is not None:
            self.policy.kappa = options.kappa + progress * (options.kappa_end - options.kappa)
        slot = step % options.replay_pool if options.replay else step
        batch = self._drawn(slot)
        query, weight = batch.query[:, 0], bin_weight(batch.mixture)
        maps = self.model.maps(batch.magnitude)  # (B, K, H, T), with gradient
        logits = self.model.combine(maps, batch.query)  # (B, S, H, T)
        old = logits[:, 0].detach()  # the first source is the policy's target
        with torch.no_grad():
            explore = self.explore.of(self.model, maps, query)
        old_proposal = explore.proposal(old, weight)
        torch.manual_seed(self.sampler.generator(step).initial_seed())
        if self.concentration is not None:
            with torch.no_grad():
                kappa = self.concentration(self.model, maps, query, old, old_proposal)
            self.policy = BetaPolicy(kappa)
        behaviour, hinted = old_proposal, 0.0
        if options.hint:
            behaviour, hinted = self._hinted(slot, old_proposal, batch, weight)
        action = masks = old_log_prob = advantage = replayed = None
        values: dict[str, Tensor] = {}
        if options.surrogate or any(getattr(term, "scored", False) for term in self.terms):
            action = explore.draw(self.policy, behaviour, options.group_size)
            with torch.no_grad():
                masks = explore.masks(old, self.policy.mean(old_proposal), action)
            reward, advantage, values = self.score(batch, masks)
            if options.replay:
                replayed = self.remember(step, slot, behaviour, old_proposal, action, reward)
                values["hinted"] = torch.tensor(hinted)
            if options.inner_epochs > 1 or options.hint:
                old_log_prob = self.policy.log_prob(behaviour, action)
        teacher = self._teacher(batch, query, weight)
        for epoch in range(options.inner_epochs):
            if epoch:
                maps = self.model.maps(batch.magnitude)
                logits = self.model.combine(maps, batch.query)
            loss, parts = self.loss(
                maps,
                logits,
                batch,
                weight,
                action,
                old_proposal,
                old_log_prob,
                advantage,
                teacher,
                replayed,
                masks,
            )
            norm = self._update(loss)
        parts |= values | {"gradient_norm": norm, "loss": loss.detach()}
        for k in range(options.anchor_steps):
            batch = self._drawn(_APART + step * options.anchor_steps + k)
            logits = self.model.logits(batch.magnitude, batch.query)
            self._update(self._supervised(logits, batch)[0])
        return {name: float(value) for name, value in parts.items()}

    def _drawn(self, step: int) -> Batch:
        """The mixtures and queries of a step."""
        options, grid = self.options, self.model.spectrogram
        return draw_batch(self.sampler, self.queries, grid, step, options.mixed, options.negative)

    def _supervised(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        options, grid = self.options, self.model.spectrogram
        return separation_loss(logits, batch, grid, options.target, options.si_sdr)

    def _update(self, loss: Tensor) -> Tensor:
        """One step of the optimiser; returns the norm of the gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.model)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.grad_clip)
        self.optimizer.step()
        return norm

    def listen(self, batch: Batch, masks: Tensor) -> Rollout:
        """Turn masks (B, G, H, T) into audio, for rewards; spectra are made for one G at a time."""
        grid, samples = self.model.spectrogram, batch.sources.shape[-1]
        waves = [
            grid.istft(batch.spectrum * grid.unwarp(each), samples) for each in masks.unbind(1)
        ]
        return Rollout(
            estimates=torch.stack(waves, 1),
            mixture=batch.sources.sum(1) + batch.noise,
            target=batch.sources[:, 0],
            query=batch.query[:, 0],
            other=batch.query[:, 1],
            sample_rate=grid.sample_rate,
            masks=masks,
            ideal=ideal_masks(batch)[:, 0],
            weight=bin_weight(batch.mixture),
            label=batch.label[:, 0],
        )

    @torch.no_grad()
    def score(self, batch: Batch, masks: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Turn masks (B, G, H, T) into audio, rewards (B, G) and advantages.

        Advantages are (B, G), or (B, G, t) by action frame. Also returns the means of all reward
        parts and the spread of the advantages.
        """
        options, grid = self.options, self.model.spectrogram
        rollout = self.listen(batch, masks)
        reward, parts = self.reward(rollout)
        values = {f"reward/{name}": value.mean() for name, value in parts.items()}
        values["reward"] = reward.mean()
        if options.choice:
            reward = (reward == reward.amax(1, keepdim=True)).to(reward)
        if options.group == "batch":
            mean = float(distributed.mean(reward.mean()))
            values["baseline"] = torch.tensor(self.baseline.update(mean))
            advantage = batch_advantage(reward, float(values["baseline"]), distributed.mean)
            values["reward_spread"] = reward.std(correction=0)
        else:
            advantage = group_advantage(reward)
            spread = reward.std(1, correction=0)
            values["reward_spread"] = spread.mean()
            values["dead_groups"] = (spread < 1e-4).float().mean()
        if self.windows is not None:
            by_window = self.windows(rollout)  # (B, G, J)
            frames = masks.shape[-1]
            window, hop = (
                round(s * grid.sample_rate / grid.hop)
                for s in (self.windows.window_s, self.windows.hop_s)
            )
            local = spread_windows(group_advantage(by_window), window, hop, frames)
            part = options.windowed
            advantage = (1 - part) * advantage[..., None] + part * local  # (B, G, T)
            values["reward/windows"] = by_window.mean()
        if options.tas != "off":
            shape = temporal_weights(
                options.tas,
                active_frames(batch.warped[:, 0]),
                options.tas_strength,
                options.tas_normalise,
            )
            by_frame = advantage if advantage.dim() == 3 else advantage[..., None]
            advantage = by_frame * shape[:, None]  # (B, G, T)
        if advantage.dim() == 3:
            columns = self.explore.pool(batch.mixture[:1]).shape[-1]
            advantage = torch.nn.functional.adaptive_avg_pool1d(advantage, columns)
        values["advantage_spread"] = advantage.std(correction=0)
        return reward, advantage, values

    @torch.no_grad()
    def remember(
        self,
        step: int,
        slot: int,
        behaviour: Tensor,
        proposal: Tensor,
        action: Tensor,
        reward: Tensor,
    ) -> Replayed | None:
        """Recall masks of these mixtures that were scored before, then keep the fresh ones.

        A mixture for which fewer than two are near enough gets none.

        Args:
            step: of the run; slot: which batch of the pool this is.
            behaviour: (B, h, t) what the actions were drawn from; proposal: (B, h, t) the policy's.
            action: (B, G, h, t); reward: (B, G), fresh.
        """
        options, rewards = self.options, reward.float().cpu()
        behaviour, proposal = behaviour.float().cpu(), proposal.float().cpu()
        keys = self._keys(slot, len(rewards))
        rows = []
        for key, fresh, now in zip(keys, rewards, proposal, strict=True):
            near = partial(self._near, now)
            found = self.buffer.recall(key, step, options.replay_masks, fresh, near)
            rows.append(found if len(found) > 1 else [])
        means = [self.buffer.mean(key) for key in keys]
        replayed = Replayed.stacked(rows, means, action) if any(rows) else None
        if replayed is not None and not replayed.valid.any():
            replayed = None
        for key, fresh, drew, own in zip(keys, rewards, behaviour, proposal, strict=True):
            if torch.equal(drew, own):  # what a hint earned says nothing of the policy
                self.buffer.note(key, fresh)
        parts = (behaviour.clone(), action.float().cpu().clone(), rewards, proposal.clone())
        drawn = zip(keys, *parts, strict=True)
        self.buffer.add([(key, Memory(step, self.policy.kappa, *rest)) for key, *rest in drawn])
        return replayed

    def _keys(self, slot: int, count: int) -> list[tuple[int, int, int]]:
        """Names of the mixtures of a batch of the pool; every process has its own."""
        return [(self.sampler.rank, slot, b) for b in range(count)]

    def _hinted(
        self, slot: int, proposal: Tensor, batch: Batch, weight: Tensor
    ) -> tuple[Tensor, float]:
        """The proposals (B, h, t) that masks are drawn from, and the share with a hint.

        The log-densities of what is drawn are those of these proposals, so ratios stay exact.
        """
        options, hard, rows = self.options, [], proposal.float().cpu()
        for key, now in zip(self._keys(slot, len(rows)), rows, strict=True):
            last = self.buffer.last(key)
            stuck = self.buffer.hard_visits.get(key, 0) >= 3 and last is not None
            hard.append(stuck and self._near(now, last))
        ideal = ideal_masks(batch)[:, 0]
        better = self.explore.pool(ideal * weight) / self.explore.pool(weight)
        mixed = (1 - options.hint) * proposal + options.hint * better
        chosen = torch.tensor(hard, device=proposal.device)
        return torch.where(chosen[:, None, None], mixed, proposal), sum(hard) / len(hard)

    def _near(self, proposal: Tensor, memory: Memory) -> bool:
        """Whether the policy of a memory has a mean KL of at most `replay_kl` nats an entry from
        that of a proposal (h, t)."""
        then = BetaPolicy(memory.kappa).distribution(memory.policy)
        drift = kl_divergence(then, self.policy.distribution(proposal)).mean()
        return float(drift) <= self.options.replay_kl

    def loss(
        self,
        maps: Any,
        logits: Tensor,
        batch: Batch,
        weight: Tensor,
        action: Tensor | None,
        old_proposal: Tensor,
        old_log_prob: Tensor | None,
        advantage: Tensor | None,
        teacher: Tensor | None,
        replayed: Replayed | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped surrogate - entropy + KL terms + supervised anchor, and diagnostics.

        `maps` are the network's; `logits` (B, S, H, T) has a mask for each source, of which the
        first is the policy's target. `action` is None where nothing was drawn, `old_log_prob` where
        the policy has not moved since.
        """
        options = self.options
        explore = self.explore.of(self.model, maps, batch.query[:, 0])
        proposal = explore.proposal(logits[:, 0], weight)
        loss, values = logits.new_zeros(()), {}
        if action is not None:
            log_prob = self.policy.log_prob(proposal, action)
            if old_log_prob is None:
                old_log_prob = log_prob.detach()
            if options.hint:  # what a better policy drew may be far from this one
                log_prob = log_prob.minimum(old_log_prob + math.log(RATIO_CAP))
            loss, values = clipped_surrogate(
                log_prob,
                old_log_prob,
                advantage,
                self.explore.pool(weight),
                options.clip,
                options.ratio,
            )
            values["surrogate"] = loss.detach()
        if replayed is not None:
            again, measured = replayed.surrogate(
                self.policy.log_prob(proposal, replayed.action),
                self.explore.pool(weight),
                options.clip,
                RATIO_CAP,
            )
            values |= measured
            loss = loss + options.replay * again
        entropy = self.policy.entropy(proposal).mean()
        kl = self.policy.kl(proposal, old_proposal).mean()
        values |= {"entropy": entropy.detach(), "kl_old": kl.detach()}
        spread = entropy
        if options.entropy_target is not None:
            spread = -(entropy - options.entropy_target).square()
        loss = options.surrogate * loss - options.entropy * spread + options.kl * kl
        if teacher is not None:
            drift = self.policy.kl(proposal, teacher).mean()
            values["kl_teacher"] = drift.detach()
            loss = loss + options.kl_teacher * drift
        if options.pathwise:
            action = self.policy.reparameterised(proposal)
            masks = explore.masks(logits[:, 0], self.policy.mean(proposal), action)
            reached = self.reward(self.listen(batch, masks))[0].mean()
            values["reward/pathwise"] = reached.detach()
            loss = loss - options.pathwise * reached
        if options.direct:
            reached = self.reward(self.listen(batch, torch.sigmoid(logits[:, :1])))[0].mean()
            values["reward/direct"] = reached.detach()
            loss = loss - options.direct * reached
        if options.anchor:
            anchor, supervised = self._supervised(logits, batch)
            values |= supervised
            loss = loss + options.anchor * anchor
        listen = partial(self.listen, batch)
        for term in self.terms:
            update = Update(self.model, batch, maps, logits, weight, masks, advantage, listen)
            part, measured = term(update)
            values |= measured
            loss = loss + part
        return loss, values

    @torch.no_grad()
    def _teacher(self, batch: Batch, query: Tensor, weight: Tensor) -> Tensor | None:
        if self.teacher is None:
            return None
        maps = self.teacher.maps(batch.magnitude)
        logits = self.teacher.combine(maps, query)
        return self.explore.of(self.teacher, maps, query).proposal(logits, weight)

    def validate(self) -> dict[str, float]:
        """Values on the fixed validation mixtures, the held-out judge among them."""
        return self.validation(self.model)

    def picture(self, path: Path) -> None:
        """Draw the first validation mixture."""
        self.validation.picture(self.model, path)

    def extra_state(self) -> dict[str, Any]:
        """Baseline, replay, place of the sampler; random draws are a function of seed and step."""
        return {
            "baseline": self.baseline.value,
            "replay": self.buffer.state(),
            "sampler": self.sampler.state(),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the running baseline, the replay and the place of the sampler."""
        self.baseline.value = state["baseline"]
        self.buffer.restore(state.get("replay", self.buffer.state()))
        self.sampler.restore(state.get("sampler", {}))
