"""The command line's front desk: one module a command, each with `add_arguments` and `main`."""
