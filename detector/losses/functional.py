"""The losses as functions of plain tensors: element by element, not reduced, of any shape.

They serve outside detection as they are; each is what the class of its file computes, in the dtype
of the logits, finite with finite gradients for any finite logit of any precision. Half precision
has few digits: turn it into float32 first. Focusing, alpha and the like have no defaults here, as
public implementations disagree on them (alpha is 0.25 in torchvision and off in fvcore). What is
to be left out goes with `torch.where`, and the caller sums and divides.

    sigmoid_cross_entropy, soft_cross_entropy    yes or no; a probability
    sigmoid_focal, sigmoid_focal_star            easy ones fade; asymmetric and Poly-1 by options
    sample_dependent_gamma                       a gamma for `sigmoid_focal`: FLSD-53
    sigmoid_equalized_focal                      a gamma for each class
    sigmoid_quality_focal, sigmoid_varifocal     the target is a quality in [0, 1]
    sigmoid_mal                                  the same, where poor boxes are not spared
    softmax_cross_entropy, softmax_focal         one of C classes, which come last
    alpha_balanced                               two weights on any loss of yes or no

A map of 2 x 2 pixels to segment, one image with one logit for each pixel. The network is sure of
the upper row and undecided below; the upper right pixel was not annotated:

>>> import torch
>>> from detector.losses.functional import sigmoid_focal, softmax_focal
>>> logits = torch.tensor([[[[-6.0, 6.0], [0.0, 0.0]]]])  # (N, 1, H, W)
>>> mask = torch.tensor([[[[False, False], [False, True]]]])
>>> annotated = torch.tensor([[[[True, False], [True, True]]]])
>>> loss = sigmoid_focal(logits, mask, alpha=0.25, gamma=2.0)
>>> loss = torch.where(annotated, loss, 0)
>>> [[round(value, 4) for value in row] for row in loss[0, 0].tolist()]
[[0.0, 0.0], [0.13, 0.0433]]

The pixels below cost alpha_t x 1/2^2 x log 2. A focal loss is divided by what there is to find, not
by all pixels, most of which it has silenced:

>>> round((loss.sum() / mask.sum().clamp(min=1)).item(), 4)
0.1733

With a map of C classes, here the same pixels against a background of logit 0, the classes are moved
to the end and the labels are the usual ones:

>>> logits = torch.cat([torch.zeros_like(logits), logits], 1)  # (N, C, H, W)
>>> labels = mask[:, 0].long()  # (N, H, W) in [0, C)
>>> loss = softmax_focal(logits.movedim(1, -1), labels, alpha=0.25, gamma=2.0)
>>> loss = torch.where(annotated[:, 0], loss, 0)
>>> [[round(value, 4) for value in row] for row in loss[0].tolist()]
[[0.0, 0.0], [0.13, 0.0433]]
"""

from detector.losses.balanced_cross_entropy import alpha_balanced
from detector.losses.cross_entropy import sigmoid_cross_entropy
from detector.losses.equalized_focal import sigmoid_equalized_focal
from detector.losses.focal import sigmoid_focal
from detector.losses.focal_star import sigmoid_focal_star
from detector.losses.mal import sigmoid_mal
from detector.losses.quality_focal import sigmoid_quality_focal, soft_cross_entropy
from detector.losses.sample_dependent_focal import sample_dependent_gamma
from detector.losses.softmax_cross_entropy import softmax_cross_entropy
from detector.losses.softmax_focal import softmax_focal
from detector.losses.varifocal import sigmoid_varifocal

__all__ = [
    "alpha_balanced",
    "sample_dependent_gamma",
    "sigmoid_cross_entropy",
    "sigmoid_equalized_focal",
    "sigmoid_focal",
    "sigmoid_focal_star",
    "sigmoid_mal",
    "sigmoid_quality_focal",
    "sigmoid_varifocal",
    "soft_cross_entropy",
    "softmax_cross_entropy",
    "softmax_focal",
]
