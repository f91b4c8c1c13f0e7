"""The subcommands of `sep`: a file each, with `add` for its options and `run`."""
