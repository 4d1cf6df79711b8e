"""What is told about a run: its folder, its HTML report, and its view in W&B."""
