"""The numbers of fine-tuning by policy gradient."""

from dataclasses import dataclass

from sep.errors import OptionError
from sep.rl.shaping import MODES


@dataclass
class PolicyOptions:
    """Settings of the policy gradient; `recipes/conf/rl/*.yaml` hold the named sets.

    Attributes:
        kappa: concentration of the Beta policy; kappa_end: where it gets to, linearly over the
            run (None: it stays).
        group_size: G, masks sampled for one mixture.
        group: `mixture`, advantages relative to the G masks of a mixture; `batch`, relative to
            an EMA baseline and the whole batch (MARS-Sep).
        ema_decay: of that baseline.
        choice: the reward only says which mask of a mixture is the best: 1 for that, 0 for the
            others. No gradient goes through a choice.
        inner_epochs: updates a rollout.
        clip: eps of the clipped surrogate; surrogate: its weight.
        ratio: `bin`, `frame` or `mean`.
        entropy: weight of the entropy bonus, or with `entropy_target` (nats an entry) of the
            squared distance of the mean entropy from it; kl: of KL(new || old); kl_teacher: of
            KL(new || supervised teacher).
        pathwise: weight of the reward's own gradient through one reparameterised mask a mixture,
            for rewards that are differentiable. With bins it estimates the policy gradient with
            far less variance; with tiles and cells of a prior it goes through the logits beneath
            as well and comes near `direct`, with noise.
        direct: weight of the reward's gradient through the proposal itself, without sampling: no
            policy, the peer to beat (with an anchor) and the example of reward hacking (without).
        windowed: part of the advantage that comes from windowed credit.
        replay: weight of replayed masks in the surrogate (`sep.rl.replay`), 0 for none.
        replay_pool: batches of mixtures that come again and again, so that keys recur.
        replay_masks: most of them for a mixture; replay_kl: mean KL in nats an entry from the
            policy that drew them to the present one, beyond which they are not used;
            replay_age: in steps; replay_capacity: rollouts of a mixture that are kept.
        hint: eta; a mixture that was hard on its last three visits, while the policy hardly moved,
            draws its masks from (1 - eta) P + eta times the ideal ratio mask; needs `replay`.
        tas, tas_strength, tas_normalise: temporal advantage shaping (`sep.rl.shaping`).
        anchor: weight of the supervised loss on all sources of the same mixtures.
        anchor_steps: updates by that loss alone, on mixtures of their own, after each rollout: they
            cost a fraction of a rollout and see that many more mixtures.
        lr, weight_decay, warmup, grad_clip: of AdamW.
        target, si_sdr: of the supervised loss; mixed, negative: of the queries; all as in
            `SupervisedTask`.
    """

    kappa: float = 9.0
    kappa_end: float | None = None
    group_size: int = 1
    group: str = "batch"
    ema_decay: float = 0.92
    choice: bool = False
    inner_epochs: int = 1
    clip: float = 0.2
    surrogate: float = 1.0
    ratio: str = "bin"
    entropy: float = 0.1
    entropy_target: float | None = None
    kl: float = 0.01
    kl_teacher: float = 0.0
    pathwise: float = 0.0
    direct: float = 0.0
    windowed: float = 0.0
    replay: float = 0.0
    replay_pool: int = 64
    replay_masks: int = 4
    replay_kl: float = 0.01
    replay_age: int = 500
    replay_capacity: int = 10_000
    hint: float = 0.0
    tas: str = "off"
    tas_strength: float = 0.3
    tas_normalise: bool = False
    anchor: float = 0.0
    anchor_steps: int = 0
    lr: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.05
    grad_clip: float = 1.0
    target: str = "ratio"
    si_sdr: float = 0.0
    mixed: float = 0.5
    negative: float = 0.0

    def __post_init__(self):
        if self.group not in ("mixture", "batch"):
            raise OptionError(f"group '{self.group}' is unknown; use mixture or batch")
        if self.group == "mixture" and self.group_size < 2:
            raise OptionError("group=mixture needs group_size of at least 2")
        if self.choice and (self.group_size < 2 or self.pathwise or self.direct):
            raise OptionError(
                "a choice is made between masks and has no gradient; "
                "set group_size=2 or more, pathwise=0 and direct=0"
            )
        if self.tas not in MODES:
            raise OptionError(f"tas '{self.tas}' is unknown; use {', '.join(MODES)}")
        if self.replay and not self.surrogate:
            raise OptionError("replay needs the surrogate, which it is a part of")
        if self.replay and self.replay_pool > self.replay_age:
            raise OptionError(
                "replay_pool above replay_age: a mixture is forgotten before it returns"
            )
        if self.hint and not self.replay:
            raise OptionError("hint needs replay, which knows how hard a mixture was before")
        if self.windowed and self.group != "mixture":
            raise OptionError("windowed credit needs group=mixture")
