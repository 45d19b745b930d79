"""The command line: one file a command, each with its own options beside it."""
