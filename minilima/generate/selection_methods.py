"""The methods of `dataset.select`: where each comes from, and what it asks of models.

A plan counts by it what a selection will cost. The orders themselves, functions of the same names, stand in selection.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from minilima.config.choices import Select


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method's source, and what it costs for each example: what of the following is not 0 or false."""

    source: str
    passes: int = 0
    """Forward passes of dataset.scorer."""
    gradients: bool = False
    """Whether dataset.scorer is trained a little, and passes back."""
    ratings: int = 0
    """Ratings by dataset.scorer, each a forward pass or, where it is served, a request."""
    replies: int = 0
    """Replies by the generator."""
    targets: bool = False
    """Whether it needs dataset.targets."""

    @property
    def scores(self) -> bool:
        """Whether dataset.scorer scores."""
        return bool(self.passes or self.ratings or self.gradients)


METHODS: Mapping[Select, Method] = {
    Select.random: Method(source="-"),
    Select.diverse: Method(source="Gonzalez 1985"),
    Select.stratified: Method(source="LIMA, section 2.1 (Zhou et al. 2023)"),
    Select.long: Method(source="Zhao et al. 2024, arXiv 2402.04833"),
    Select.quality: Method(source="AlpaGasus (Chen et al. 2023), arXiv 2307.08701", replies=1),
    Select.tags: Method(source="InsTag (Lu et al. 2023), arXiv 2308.07074", replies=1),
    Select.ifd: Method(source="Cherry LLM (Li et al. 2024), arXiv 2308.12032", passes=2),
    Select.superfiltering: Method(source="Li et al. 2024, arXiv 2402.00530", passes=2),
    Select.superfiltering_diverse: Method(source="Superfiltering.D (Li et al. 2024), arXiv 2402.00530", passes=2),
    Select.perplexity: Method(source="Marion et al. 2023, arXiv 2309.04564", passes=1),
    Select.deita: Method(source="Deita (Liu et al. 2024), arXiv 2312.15685", ratings=2),
    Select.rds: Method(source="RDS+ (Ivison et al. 2025), arXiv 2503.01807", passes=1, targets=True),
    Select.less: Method(source="LESS (Xia et al. 2024), arXiv 2402.04333", gradients=True, targets=True),
}
