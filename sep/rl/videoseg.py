"""VideoSEG-O3 (arXiv 2606.06819) for the mask policy: which of its mechanisms a run uses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sep.data.bank import ClipBank
from sep.errors import OptionError
from sep.model import QueryNet
from sep.networks.confidence import ConfidentNet
from sep.networks.trace import TraceNet
from sep.networks.turns import TurnNet
from sep.rl.calibration import ConfidenceLoss, ConfidentKappa, Emission
from sep.rl.episodes import TurnLoss
from sep.rl.heads import TraceLoss
from sep.rl.reward import WeightedSum
from sep.train.term import Term


def mechanisms(
    settings: dict[str, Any],
    model: QueryNet,
    bank: ClipBank,
    embed_text: Callable[[list[str]], Tensor],
    reward: WeightedSum | None = None,
) -> tuple[list[Term], ConfidentKappa | None]:
    """Terms of the loss, and kappa by confidence, that the settings ask for.

    Args:
        settings: `calibrate` ({emit: arguments of `Emission`, kappa: [low, high]}), `trace`
            (arguments of `TraceLoss`) and `turns` (of `TurnLoss`); None or absent: off.
        model: the network; one with a trace gets its classes from `bank` where it has none yet.
        bank: training clips.
        embed_text: texts to prototypes of the classes.
        reward: of final masks of `turns`; None takes their IoU with the ideal.

    Raises:
        OptionError: the network has no place for a mechanism, or lacks a class of the data.
    """
    calibrate = settings.get("calibrate") or {}
    emit, kappa = calibrate.get("emit"), calibrate.get("kappa")
    trace, turns = settings.get("trace"), settings.get("turns")
    needed = (("calibrate.kappa", kappa, ConfidentNet), ("trace", trace, TraceNet))
    for name, used, network in (*needed, ("turns", turns, TurnNet)):
        if used and not isinstance(model, network):
            raise OptionError(f"{name} needs a larger network; set network.kind={network.kind}")
    if isinstance(model, TraceNet):
        labels = model.config["labels"]
        if not labels:
            model.name_classes(
                bank.labels, embed_text([f"the sound of {name}" for name in bank.labels])
            )
        for name in bank.labels if trace else ():
            if name not in model.config["labels"]:
                raise OptionError(f"trace: the model does not know '{name}', which these data have")
    terms: list[Term] = []
    try:
        if emit:
            terms.append(Emission(**emit))
        if kappa:
            terms.append(ConfidenceLoss())
        if trace:
            known = model.config["labels"]
            classes = [known.index(name) for name in bank.labels]
            terms.append(TraceLoss(**trace, classes=classes))
        if turns:
            terms.append(TurnLoss(reward, **turns))
        return terms, ConfidentKappa(*kappa) if kappa else None
    except TypeError as error:  # an argument that there is not
        reason = str(error).split(".__init__() ")[-1]
        raise OptionError(f"calibrate, trace and turns: {reason}") from None
