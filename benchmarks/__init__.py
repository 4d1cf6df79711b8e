"""Benchmarks: each module is a command that prints one `name value unit` a line and takes `--json FILE`."""
