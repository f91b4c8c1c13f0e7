"""When to stop: the reward goes up and what it stands for does not."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Watch:
    """Compares validation values with those of the start, and says when they part.

    Reward hacking is a rise of the reward's own similarity beside a fall of something that no
    reward sees: the held-out judge, the signal on mixtures of other recordings, or the level.

    Attributes:
        held_out: the judge's similarity may fall by so much.
        si_sdri: SI-SDR improvement may fall by so many dB.
        level_db: the level of the output may change by so many dB.
    """

    held_out: float = 0.005
    si_sdri: float = 0.5
    level_db: float = 3.0

    def __call__(self, first: dict[str, float], now: dict[str, float]) -> str | None:
        """Why to stop, or None; values as of `sep.train.validation.Validation`."""
        change = {name: now[name] - first[name] for name in now if name in first}
        if change["similarity"] <= 0:
            return None
        rose = f"the reward's similarity rose by {change['similarity']:.3f} while "
        if change["held_out"] < -self.held_out:
            return f"{rose}the held-out judge's fell by {-change['held_out']:.3f}"
        if change["si_sdri"] < -self.si_sdri:
            return f"{rose}SI-SDR improvement fell by {-change['si_sdri']:.2f} dB"
        if abs(change["level_db"]) > self.level_db:
            return f"{rose}the output's level changed by {change['level_db']:+.1f} dB"
        return None
