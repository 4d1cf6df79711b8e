"""How a run is shown: its folder, its HTML report, and its view in W&B."""
