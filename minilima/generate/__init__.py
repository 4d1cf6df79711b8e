"""Stage 1: from seed tasks to an instruction data set, by Self-Instruct (Wang et al. 2023, arXiv 2212.10560)."""
