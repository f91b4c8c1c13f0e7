"""Replay of masks that were scored before (AVATAR, arXiv 2508.03100).

Scoring a mask costs an inverse STFT and a pass of the reward encoder; using it again costs a
log-density. Masks are kept by key, a mixture with its query, and join the fresh ones when that key
comes again, chosen so that the rewards spread: a group whose rewards are all alike teaches nothing.

Shapes: G masks of a rollout, (h, t) grid of the action.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from sep.policy import BetaPolicy

TIERS = ("hard", "medium", "easy")


@dataclass
class Memory:
    """Masks of one rollout: the policy that drew them, and what they earned.

    Attributes:
        step: of the rollout.
        kappa: of the policy; proposal: (h, t) what the masks were drawn from. Both give the exact
            log-density.
        action: (G, h, t); reward: (G,).
        policy: (h, t) the policy's own proposal, without a hint.
    """

    step: int
    kappa: float
    proposal: Tensor
    action: Tensor
    reward: Tensor
    policy: Tensor


class ReplayBuffer:
    """Memories by key, with a running mean reward a key and tiers of difficulty.

    A key is hard, medium or easy by the quantile of its running mean reward among all keys. Each
    tier has its share of the capacity; the oldest memory of a full tier gives way.

    Args:
        capacity: memories in all.
        age: steps after which a memory is forgotten.
        window: rewards of a key that its running mean covers: of the policy's own, fresh masks.
        shares: of the capacity, for hard, medium and easy keys.
        quantiles: of the mean reward, up to which a key is hard, and up to which medium.
    """

    def __init__(
        self,
        capacity: int = 10_000,
        age: int = 500,
        window: int = 20,
        shares: tuple[float, float, float] = (0.40, 0.35, 0.25),
        quantiles: tuple[float, float] = (0.40, 0.75),
    ):
        self.capacity, self.age, self.window = capacity, age, window
        self.shares, self.quantiles = dict(zip(TIERS, shares, strict=True)), quantiles
        self.memories: deque[tuple[Hashable, Memory]] = deque()  # oldest first
        self.rewards: dict[Hashable, deque[float]] = {}
        self.hard_visits: dict[Hashable, int] = {}  # in a row

    def __len__(self) -> int:
        return len(self.memories)

    def note(self, key: Hashable, reward: Tensor) -> None:
        """Take fresh rewards (G,) into the running mean of a key."""
        recent = self.rewards.setdefault(key, deque(maxlen=self.window))
        recent.extend(reward.tolist())

    def mean(self, key: Hashable) -> float | None:
        """Running mean of a key's fresh rewards; None for a new key."""
        recent = self.rewards.get(key)
        return sum(recent) / len(recent) if recent else None

    def tiers(self) -> dict[Hashable, str]:
        """Difficulty of every key that has been noted."""
        means = {key: self.mean(key) for key in self.rewards}
        values = torch.tensor(list(means.values()), dtype=torch.float64)
        low, high = torch.quantile(values, values.new_tensor(self.quantiles)).tolist()
        name = {True: "hard", False: "easy"}
        return {k: "medium" if low < m <= high else name[m <= low] for k, m in means.items()}

    def add(self, found: list[tuple[Hashable, Memory]]) -> None:
        """Keep memories of keys that have been noted, and count visits to hard ones."""
        self.memories.extend(found)
        tiers = self.tiers()
        for key, _ in found:
            hard = tiers[key] == "hard"
            self.hard_visits[key] = self.hard_visits.get(key, 0) + 1 if hard else 0
        held = Counter(tiers[key] for key, _ in self.memories)
        for tier, share in self.shares.items():
            over = held[tier] - max(1, int(self.capacity * share))
            if over > 0:
                oldest = [i for i, (k, _) in enumerate(self.memories) if tiers[k] == tier][:over]
                for i in reversed(oldest):
                    del self.memories[i]

    def last(self, key: Hashable) -> Memory | None:
        """The newest memory of a key."""
        return next((m for k, m in reversed(self.memories) if k == key), None)

    def recall(
        self,
        key: Hashable,
        step: int,
        count: int,
        fresh: Tensor,
        near: Callable[[Memory], bool] = lambda memory: True,
    ) -> list[tuple[Memory, int]]:
        """Up to `count` stored masks of a key whose rewards spread most beside the fresh ones.

        Greedily: of all that is stored, the mask that lies farthest from the mean of what has been
        taken, fresh rewards (G,) first, among the memories that are `near`. Those that are too old
        are forgotten.

        Returns:
            pairs of a memory and the index of the mask in it.
        """
        while self.memories and step - self.memories[0][1].step > self.age:
            self.memories.popleft()
        found = [m for k, m in self.memories if k == key and near(m)]
        stored = [(m, g) for m in found for g in range(len(m.reward))]
        taken, chosen = fresh.tolist(), []
        while stored and len(chosen) < count:
            mean = sum(taken) / len(taken)
            best = max(stored, key=lambda pair: abs(float(pair[0].reward[pair[1]]) - mean))
            stored.remove(best)
            chosen.append(best)
            taken.append(float(best[0].reward[best[1]]))
        return chosen

    def state(self) -> dict[str, Any]:
        """Everything, as tensors, lists and numbers."""
        return {
            "memories": [(key, vars(memory)) for key, memory in self.memories],
            "rewards": [(key, list(recent)) for key, recent in self.rewards.items()],
            "hard_visits": list(self.hard_visits.items()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave."""
        self.memories = deque((key, Memory(**memory)) for key, memory in state["memories"])
        self.rewards = {k: deque(recent, maxlen=self.window) for k, recent in state["rewards"]}
        self.hard_visits = dict(state["hard_visits"])


@dataclass
class Replayed:
    """Recalled masks of a batch; mixtures with fewer are padded.

    Attributes:
        action: (B, R, h, t); log_prob: (B, R, h, t) under the policies that drew them.
        advantage: (B, R); valid: (B, R) bool.
    """

    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    valid: Tensor

    @classmethod
    def stacked(
        cls, rows: list[list[tuple[Memory, int]]], means: list[float | None], like: Tensor
    ) -> Self:
        """Put recalled masks together, on the device of the actions `like` (B, G, h, t).

        The advantage of a mask is its reward less the running mean of its key, over the spread of
        the rewards recalled with it (AVATAR's VCRS), kept within +-5.
        """
        most = max(len(row) for row in rows)
        shape = (len(rows), most, *like.shape[2:])
        action, log_prob = torch.full(shape, 0.5), torch.zeros(shape)
        advantage, valid = torch.zeros(shape[:2]), torch.zeros(shape[:2], dtype=torch.bool)
        for b, (row, mean) in enumerate(zip(rows, means, strict=True)):
            if not row:
                continue
            reward = torch.stack([memory.reward[g] for memory, g in row])
            spread = reward.std(correction=0)
            if spread < 1e-4:  # equal rewards teach nothing
                continue
            advantage[b, : len(row)] = ((reward - mean) / spread).clamp(-5, 5)
            valid[b, : len(row)] = True
            for r, (memory, g) in enumerate(row):
                drawn = memory.action[None, g, None]  # (1, 1, h, t)
                action[b, r] = memory.action[g]
                policy = BetaPolicy(memory.kappa)
                log_prob[b, r] = policy.log_prob(memory.proposal[None], drawn)[0, 0]
        return cls(*(part.to(like.device) for part in (action, log_prob, advantage, valid)))

    def surrogate(
        self, log_prob: Tensor, weight: Tensor, clip: float, cap: float = 2.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped loss of the recalled masks, entry by entry, ratios at most `cap`.

        Args:
            log_prob: (B, R, h, t) of the actions now.
            weight: (B, h, t) importance of the entries.
            clip: eps.

        Returns:
            The loss, and detached replay/masks (a mixture), replay/ess (effective sample size:
            (sum r)^2 / (n sum r^2), 1 at best) and replay/clip_fraction.
        """
        weight = (weight / weight.mean((-2, -1), keepdim=True))[:, None]
        ratio = (log_prob - self.log_prob).exp().clamp(max=cap)
        advantage = self.advantage[..., None, None]
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        loss = -(weight * gain).mean((-2, -1))[self.valid].mean()
        with torch.no_grad():
            r = ratio[self.valid]
            measured = {
                "replay/masks": self.valid.float().sum(1).mean(),
                "replay/ess": r.sum().square() / (r.numel() * r.square().sum()).clamp(min=1e-12),
                "replay/clip_fraction": ((r - 1).abs() > clip).float().mean(),
            }
        return loss, measured
