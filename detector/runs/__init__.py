"""A run on disk, and many of them: folders, checkpoints, going on, starting."""
