# %% [markdown]
# # Runs in a data frame
#
# This notebook reads finished runs and draws two figures. It uses the committed results of the study
# `experiments/own_examples`. For runs of your own, take the line with `results` instead.
# It is built from `docs/notebooks/runs.py` by `python docs/notebooks/build.py`.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

from minilima import to_frame

repository = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "experiments").is_dir())
study = json.loads((repository / "experiments" / "own_examples" / "results.json").read_text(encoding="utf-8"))
runs = to_frame(study["points"])
# For runs of your own:
#   from minilima import results
#   runs = to_frame(results("outputs/runs"))
runs[["point", "data.kind", "sft.learning_rate", "seed", "win_rate", "win_rate_low", "win_rate_high"]].head()

# %% [markdown]
# The mean win rate of both seeds, in percent, by kind of data and learning rate:

# %%
runs.groupby(["data.kind", "sft.learning_rate"])["win_rate"].agg(["mean", "count"]).round(1)

# %% [markdown]
# Each run with its 95 % interval over prompts, the lowest win rate first. At 50 % the tuned model is as good as its base.

# %%
ordered = runs.sort_values("win_rate")
figure, axes = plt.subplots(figsize=(7, 5))
below, above = ordered.win_rate - ordered.win_rate_low, ordered.win_rate_high - ordered.win_rate
axes.errorbar(ordered.win_rate, range(len(ordered)), xerr=[below, above], fmt="o", capsize=3)
axes.axvline(50, linestyle="--", color="grey")
axes.set_yticks(range(len(ordered)), [f"{row['data.kind']}, rate {row['sft.learning_rate']:g}" for _, row in ordered.iterrows()])
axes.set_xlabel("win rate, %")
figure.tight_layout()

# %% [markdown]
# The change in loss on the reference answers needs no judge. Does it go along with the win rate?

# %%
figure, axes = plt.subplots(figsize=(6, 4))
for kind, group in runs.groupby("data.kind"):
    axes.scatter(group.loss_change, group.win_rate, label=kind)
axes.set_xlabel("change in loss, nats per token")
axes.set_ylabel("win rate, %")
axes.legend()
figure.tight_layout()
