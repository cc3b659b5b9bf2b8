"""What the commands of `sglc` do: one module a command, each with `run(options) -> exit code`."""
