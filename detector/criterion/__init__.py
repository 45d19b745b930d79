"""What is minimised: `Criterion` and the weights, normalisers and ramps of its terms."""

from detector.criterion.criterion import Criterion, build_criterion, check_criterion

__all__ = ["Criterion", "build_criterion", "check_criterion"]
