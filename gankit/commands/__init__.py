"""The commands of `gankit`, a module each: `add` says its flags, `run` does the work."""
