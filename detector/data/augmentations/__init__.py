"""The augmentations that a config can name: those of the files here, and that of one image."""

from detector.data import transforms as transforms  # registers what needs no other image
