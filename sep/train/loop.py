"""The loop that every training stage shares: steps, validation, checkpoints, exact resume."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sep import hub
from sep.errors import TrainingError
from sep.train import distributed
from sep.train.average import WeightAverage
from sep.train.checkpoint import read_state, write_state
from sep.train.log import RunLog


class Task(Protocol):
    """What a training stage supplies.

    `train_step` must be a function of the step, the progress and the state alone: all its random
    draws come from generators seeded by the step. That is what makes a resumed run repeat the
    losses of an uninterrupted one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def train_step(self, step: int, progress: float) -> dict[str, float]:
        """One update; progress in [0, 1] is the part of the run that is done."""
        ...

    def validate(self) -> dict[str, float]: ...

    def picture(self, path: Path) -> None:
        """Draw mixture, target, mask and estimate of a validation example."""
        ...

    def extra_state(self) -> dict[str, Any]:
        """State beside model and optimiser, plain data only; every process calls it."""
        ...

    def load_extra_state(self, state: dict[str, Any]) -> None: ...


def run(
    task: Task,
    folder: str | Path,
    *,
    steps: int = 0,
    seconds: float = 0.0,
    valid_every: int,
    best_by: str | None,
    blend: float = 1.0,
    ema: float = 0.0,
    watch: Callable[[dict[str, float], dict[str, float]], str | None] | None = None,
    encoder: str | Path | None = None,
    provenance: dict[str, Any] | None = None,
    whole: nn.Module | None = None,
    say=print,
) -> dict[str, float]:
    """Train until `steps` steps or `seconds` of training time are done (whichever is set).

    Writes `best/` and `last/` model folders, `state.pt` (read on the next start, so that a killed
    run goes on where it was), `log.csv`, `tb/` and `pictures/` into `folder`. Time counts train
    steps only, over all starts.

    Args:
        task: model, optimiser and step.
        folder: of the run.
        steps: stop after so many, or 0.
        seconds: stop after so long, or 0.
        valid_every: steps between validations; each also writes the checkpoints.
        best_by: validation value whose maximum names the best checkpoint; None takes the last.
        blend: how far from the weights at the start to those of the step the validated and saved
            model is; below 1 it keeps more of what a fine-tuned model could do on other data
            (WiSE-FT, arXiv 2109.01903). Training goes on from the step's own weights.
        ema: above 0: what is validated and saved is the mean of the weights over steps, with this
            decay (`sep.train.average`), in place of the step's own.
        watch: given the first and the present validation values, says why training must stop, or
            None; `best/` then stays what it was at the validation before.
        encoder: query encoder folder copied into the model folders.
        provenance: kept in the model folders' config.
        whole: where the task's model is sharded, another one like it that is not: gets its weights
            to be validated and saved.
        say: prints a line.

    Returns:
        The last validation values and `train_seconds`.

    Raises:
        TrainingError: a loss is not finite; names step, and the last good checkpoint.
        OptionError: an `ema` that is no decay.
    """
    if (steps > 0) == (seconds > 0):
        raise TrainingError("set either steps or seconds (the other to 0)")
    folder, main = Path(folder), distributed.rank() == 0
    step, spent, best, values, first, reason = 0, 0.0, -math.inf, {}, {}, None
    start = _copy(task.model) if blend != 1 else {}
    average = WeightAverage(task.model, ema) if ema else None
    if (folder / "state.pt").exists():
        state = read_state(folder / "state.pt")
        _restore(task, state)
        task.load_extra_state(state["extra"])
        if average:
            average.restore(state.get("average") or state["model"])
        step, spent, best, values = (state[k] for k in ("step", "spent", "best", "values"))
        first = state.get("first", {})
        reason = watch(first, values) if watch and first else None
        say(f"resumed at step {step}")
    log = RunLog(folder, step) if main else None

    def done() -> bool:
        enough = step >= steps if steps else spent >= seconds
        return distributed.agree(enough or reason is not None)

    def checkpoint() -> None:
        nonlocal best, values, first, reason
        trained = _copy(task.model)
        averaged = distributed.gathered(average.values) if average else {}
        optimizer = distributed.gathered(task.optimizer.state_dict())
        extra = task.extra_state()
        if not main:
            return
        model, task.model = task.model, whole or task.model
        task.model.load_state_dict(_between(start, averaged or trained, blend))
        values = task.validate()
        first = first or values
        reason = watch(first, values) if watch else None
        log.write(step, {f"valid/{k}": v for k, v in values.items()})
        task.picture(folder / "pictures" / f"{step:06d}.png")
        kept = {**(provenance or {}), "step": step, "train_seconds": round(spent, 1), **values}
        hub.save_pretrained(task.model, folder / "last", encoder, kept)
        if reason is None and (best_by is None or values[best_by] > best):
            best = values[best_by] if best_by else best
            hub.save_pretrained(task.model, folder / "best", encoder, kept)
        log.flush()
        task.model.load_state_dict(trained)
        task.model = model
        write_state(
            folder / "state.pt",
            {
                "model": trained,
                "average": averaged,
                "optimizer": optimizer,
                "extra": extra,
                "step": step,
                "spent": spent,
                "best": best,
                "values": values,
                "first": first,
            },
        )
        shown = "  ".join(f"{k} {v:.3f}" for k, v in values.items())
        say(f"step {step}: {shown}" + (f"  (best {best_by} {best:.3f})" if best_by else ""))
        if reason:
            say(f"stopped at step {step}: {reason}; {folder / 'best'} is from before")

    try:
        if step == 0:
            checkpoint()
        shown = time.monotonic()
        while not done():
            begun = time.monotonic()
            progress = step / steps if steps else min(1.0, distributed.first(spent) / seconds)
            losses = task.train_step(step, progress)
            step += 1
            if average:
                average.update(task.model, step)
            spent += time.monotonic() - begun
            bad = [k for k, v in losses.items() if not math.isfinite(v)]
            if bad:
                raise TrainingError(
                    f"{bad[0]} is not finite at step {step}; the last good checkpoint is "
                    f"{folder / 'last'}: lower the learning rate and start again from it"
                )
            if main:
                log.write(step, {f"train/{k}": v for k, v in losses.items()})
                log.write(step, {"time/steps_per_s": 1 / max(time.monotonic() - begun, 1e-9)})
            if main and time.monotonic() - shown > 5:
                shown = time.monotonic()
                part = step / steps if steps else spent / seconds
                left = spent / max(part, 1e-9) - spent
                some = "  ".join(f"{k} {v:.3f}" for k, v in list(losses.items())[:4])
                say(f"step {step}  {100 * min(part, 1):.0f} %  {some}  {left:.0f} s left")
            if step % valid_every == 0 or done():
                checkpoint()
    finally:
        if log:
            log.close()
    return {**values, "train_seconds": spent, "steps": step}


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return distributed.gathered(dict(model.state_dict()))


def _restore(task: Task, state: dict[str, Any]) -> None:
    """Give model and optimiser their saved state, or this process's part of it."""
    like = task.model.state_dict()
    own = {name: distributed.scattered(v, like.get(name)) for name, v in state["model"].items()}
    task.model.load_state_dict(own)
    parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
    for index, values in state["optimizer"]["state"].items():
        for name, value in values.items():
            values[name] = distributed.scattered(value, parameters[index])
    task.optimizer.load_state_dict(state["optimizer"])


def _between(start: dict[str, Tensor], end: dict[str, Tensor], part: float) -> dict[str, Tensor]:
    """Weights `part` of the way from `start` to `end`; counters as at the end."""
    return {
        name: torch.lerp(start[name], value, part) if start and value.is_floating_point() else value
        for name, value in end.items()
    }
