"""A running mean of the weights: a better model than the last step's while rates are high."""

import torch
from torch import Tensor, nn

from sep.errors import OptionError
from sep.train import distributed


class WeightAverage:
    """Exponential moving average of a model's weights and running statistics.

    The decay of update n, from 1, is min(`decay`, n / (n + 9)), so that the weights a run starts
    with are soon forgotten: the mean is over the last tenth of the run until `decay` is reached.
    After Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992.

    Args:
        model: whose weights are averaged, sharded or not.
        decay: above 0 and below 1; 0.999 is a mean over a thousand steps.

    Raises:
        OptionError: another decay.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise OptionError(f"ema={decay:g} must be above 0 and below 1, or 0 for no mean")
        self.decay = decay
        self.values = {name: value.clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Take in the weights after step `count`, from 1; counters are as they are."""
        decay = min(self.decay, count / (count + 9))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def restore(self, values: dict[str, Tensor]) -> None:
        """Take whole values, or of a sharded model this process's part of them."""
        for name, value in values.items():
            self.values[name].copy_(distributed.scattered(value, self.values[name]))
