"""What else could be there: the classes that a separator remembers, as rivals of what is asked.

A network judges every query by itself, and where it is not sure it lets little through. But what
is not asked for is likely something that it knows, too (`sep.recall`). So all that it knows is
asked for, what answers where the query does not is found at every moment, and a part of that answer
is taken away. It costs no further pass of the network, only sums of its maps. The rule is our own;
what it is worth and what else was tried is in egs/open_sounds/RESULTS.md.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from sep.unet import sums

# Chosen on 200 validation mixtures with the model that ships.
SHARE = 0.25  # how much a rival counts
SHARPNESS = 100.0  # how much more the class counts that contradicts the query best
HEARD = (0.15, 0.4)  # mean of the mask from where rivals begin to count, and count in full
FRAMES = 127  # that are listened to around a moment: a Hann window of 2 s
ROWS = 4  # from one row that is listened to to the next


def against(logits: Tensor, maps: Tensor, known: Tensor, bias: Tensor) -> Tensor:
    """Mask logits of queries, less those of their rivals.

    The agreement a_c(t) of a query's logits l and those r_c of class c is the mean of tanh(l / 2)
    tanh(r_c / 2), the product of their masks on a scale from -1 to 1, over every fourth row of a
    frame and over the frames around it. The rival is r(t) = sum_c w_c(t) r_c, where w(t) is the
    softmax of -SHARPNESS a(t), and the result (1 - s) l - s r. In a mixture of two whose masks add
    up to 1, r is -l and the result l. s(t) is `SHARE` where the query is heard, and 0 where its
    mask is all but empty (`HEARD`): what is not there has nothing but rivals.

    Args:
        logits: (B, Q, H, T) of the queries.
        maps: (B, K, H, T) of the network.
        known: (L, K) weights of the maps for the classes; bias: (1,) of their logits.

    Returns:
        (B, Q, H, T).
    """
    asked = torch.tanh(logits[:, :, ::ROWS] / 2)[:, :, None]
    answers = sums(maps[:, :, ::ROWS], known.expand(len(maps), -1, -1))
    answers = answers.add_(bias).div_(2).tanh_()[:, None]  # (B, 1, L, rows, T), in place: large
    agreement = _around((asked * answers).mean(3))
    weight = torch.softmax(-SHARPNESS * agreement, 2)  # (B, Q, L, T)
    rival = torch.einsum("bqkt,bkht->bqht", torch.einsum("bqlt,lk->bqkt", weight, known), maps)
    low, high = HEARD
    heard = _around(torch.sigmoid(logits).mean(2))  # (B, Q, T)
    share = SHARE * ((heard - low) / (high - low)).clamp(0, 1)[:, :, None]
    return (1 - share) * logits - share * (rival + bias)


def _around(values: Tensor) -> Tensor:
    """Mean of values (..., T) over the `FRAMES` around each, of those that there are."""
    window = torch.hann_window(FRAMES + 2, periodic=False, device=values.device)[1:-1]
    flat = values.reshape(-1, 1, values.shape[-1])
    total = conv1d(flat, window[None, None], padding=FRAMES // 2)
    count = conv1d(torch.ones_like(flat[:1]), window[None, None], padding=FRAMES // 2)
    return (total / count).reshape(values.shape)
