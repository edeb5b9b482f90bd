"""The commands: each module has add_arguments, run and main."""
