"""The commands. Each module parses its arguments and calls the library."""
