"""The commands: everything that is run from a shell."""
