"""How many requests may be in flight: as many as allowed, fewer while the endpoint is busy, more again as it answers.

Additive increase, multiplicative decrease, as in TCP (Chiu and Jain 1989). Time is passed in, so this is pure.
"""

_CUT = 0.5
_SECONDS_BETWEEN_CUTS = 1.0


class Throttle:
    """A limit between 1 and `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self._last_cut = float("-inf")

    def answered(self) -> None:
        """A reply came: one more request in flight after about `limit` of them."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)

    def busy(self, now: float) -> None:
        """The endpoint said that it is busy: half as many, once for all requests that were refused together."""
        if now - self._last_cut >= _SECONDS_BETWEEN_CUTS:
            self.limit = max(1.0, self.limit * _CUT)
            self._last_cut = now
