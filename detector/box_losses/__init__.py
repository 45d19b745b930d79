from detector.box_losses.base import BoxLoss

__all__ = ["BoxLoss"]
