"""A training step and inference beside torchvision's RetinaNet, timed in one process."""
