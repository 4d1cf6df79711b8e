"""What a batch remembers of what it has read: keys and values, in tensors with room for all tokens to come.

On a GPU the whole room is read at each step, so that a recorded step serves for all (`static_cache`). On a CPU a step reads what
is filled (`RoomyCache`): transformers' own growing cache copies everything for each new token, and its rows cannot be read apart.
"""

from typing import Any

import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, StaticLayer, StaticSlidingWindowLayer


def static_cache(model: Any, slots: int) -> Any:
    """A cache of so many slots in every layer. Layers that attend to a window count in Python what they hold, which a recorded
    step would not repeat; they keep everything here, and the mask holds to the window."""
    cache = StaticCache(config=model.config, max_cache_len=slots)
    if any(isinstance(layer, StaticSlidingWindowLayer) for layer in cache.layers):
        cache.layers = [StaticLayer(max_cache_len=slots) for _ in cache.layers]
    return cache


class RoomyCache(DynamicCache):  # type: ignore[misc]
    """transformers' growing cache with room for what will come; layers that attend to a window keep everything, as above.

    `divisible`: whether rows can be read apart, which needs every layer to be one of ours.
    """

    layers: list[Any]

    def __init__(self, model: Any, rows: int, slots: int) -> None:
        super().__init__(config=model.config)
        known = (DynamicLayer, DynamicSlidingWindowLayer)
        self.layers = [_RoomyLayer(rows, slots) if type(layer) in known else layer for layer in self.layers]
        self.divisible = bool(self.layers) and all(isinstance(layer, _RoomyLayer) for layer in self.layers)

    def turn_to(self, rows: int, length: int) -> None:
        """What is read next belongs to the first `rows` rows, which hold `length` slots."""
        for layer in self.layers:
            layer.rows, layer.length = rows, length

    def repeat_first(self, tokens: int, starts: list[int]) -> None:
        """Copies the first slots of the first row into every row, from where the row starts."""
        for layer in self.layers:
            layer.repeat_first(tokens, starts)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values (rows, key heads, slots, d) of one layer; the first `rows` rows and `length` slots are in use."""

    def __init__(self, rows: int, slots: int) -> None:
        super().__init__()
        self.rows, self.length = rows, 0
        self._all_rows, self._slots = rows, slots
        self._rooms: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends the states of new tokens; all that are there."""
        new = (key_states, value_states)
        if not self._rooms:
            # Zeros: what is masked is multiplied by zero, which garbage may survive.
            self._rooms = [states.new_zeros(self._all_rows, states.shape[1], self._slots, states.shape[3]) for states in new]
            self.is_initialized = True
        end = self.length + key_states.shape[2]
        for room, states in zip(self._rooms, new, strict=True):
            room[: self.rows, :, self.length : end] = states
        self.length = end
        self.keys, self.values = (room[: self.rows, :, :end] for room in self._rooms)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Slots in use."""
        return self.length

    def repeat_first(self, tokens: int, starts: list[int]) -> None:
        for room in self._rooms:
            first = room[0, :, :tokens].clone()
            for row, start in enumerate(starts):
                room[row, :, start : start + tokens] = first

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Goes on with these rows alone."""
        self._rooms = [room.index_select(0, beam_idx) for room in self._rooms]
        self.rows = self._all_rows = len(beam_idx)

    def reset(self) -> None:
        """Forgets everything; the room stays."""
        self.length = 0
