"""How close an answer is to a reference answer: ROUGE-L for the words, a sentence embedding for the meaning.

Symmetric, deterministic, no network. It says whether answers became more like the references, and nothing about whether
people prefer them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minilima.models.embedder import Embedder
from minilima.rouge import RougeIndex


@dataclass(frozen=True, kw_only=True)
class Score:
    """Closeness of one answer, 0 to 1, and its two parts."""

    score: float
    rouge: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.score:.3f} (ROUGE-L {self.rouge:.2f}, embedding {self.cosine:.2f})"


class Closeness:
    """The measure; loads all-MiniLM-L6-v2 unless the embedding has no weight.

    Args:
        embedding_weight: share of the cosine, the rest is ROUGE-L F1; 0 to 1.
    """

    def __init__(self, embedding_weight: float) -> None:
        self.weight = embedding_weight
        if embedding_weight:
            self.embed = Embedder()

    def __call__(self, reference: str, answers: Sequence[str]) -> list[Score]:
        """The closeness of each answer to the reference."""
        cosines = self._cosines(reference, answers) if self.weight else [0.0] * len(answers)
        scores = []
        for answer, cosine in zip(answers, cosines, strict=True):
            index = RougeIndex()
            index.add("reference", reference)
            nearest = index.nearest(answer)
            rouge = nearest.rouge if nearest else 0.0
            score = self.weight * cosine + (1 - self.weight) * rouge
            scores.append(Score(score=score, rouge=rouge, cosine=cosine))
        return scores

    def _cosines(self, reference: str, answers: Sequence[str]) -> list[float]:
        vectors = self.embed([reference, *answers])
        return [max(0.0, float(cosine)) for cosine in vectors[1:] @ vectors[0]]
