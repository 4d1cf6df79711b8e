"""Trees of messages as OpenAssistant's data sets hold them: of each tree the conversation along the best-ranked replies.

    a row for each message (message_id, parent_id, rank), or a tree a row (prompt, replies) ─> trees ─> best path ─> messages
What stands beside the path is listed as rejected. A tree with several answers without a rank is refused: the best is not known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minilima.formats.broken import BrokenRowError
from minilima.formats.records import Rejected

LOWER = "lower_ranked"
"""Reason for rejecting a message beside the best path."""
DELETED = "deleted"
"""Reason for rejecting a message that was deleted, or that did not pass its review, with what follows it."""
_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class _Message:
    number: int
    values: Mapping[str, Any]
    replies: list["_Message"] = field(default_factory=list)

    @property
    def is_deleted(self) -> bool:
        return bool(self.values.get("deleted")) or self.values.get("review_result") is False

    def all(self) -> Iterator["_Message"]:
        """The message and all that follow it; without recursion, since a tree may be deep."""
        left = [self]
        while left:
            message = left.pop()
            yield message
            left += reversed(message.replies)

    def rejected(self, reason: str) -> Rejected:
        name = self.values.get("message_id")
        return Rejected(id=f"row{self.number}" + (f".{name}" if name else ""), text=str(self.values.get("text")), reason=reason)


def holds_trees(rows: Sequence[object]) -> bool:
    """Whether the rows are messages of trees, or trees."""
    return any(isinstance(row, dict) and (_is_message(row) or _is_tree(row)) for row in rows)


def conversations(rows: Sequence[object]) -> tuple[list[tuple[int, object]], list[Rejected]]:
    """(number, row) of each conversation as OpenAI messages, an error instead of a row that cannot be used; and the rest.

    The number of a conversation is that of its first message.
    """
    made: list[tuple[int, object]] = []
    rejected: list[Rejected] = []
    for number, root in _roots(rows):
        if not isinstance(root, _Message):
            made.append((number, root))
            continue
        try:
            path = _best_path(root)
        except BrokenRowError as error:
            made.append((number, error))
            continue
        on_path = {id(message) for message in path}
        deleted = {id(one) for message in root.all() if message.is_deleted for one in message.all()}
        beside = [message for message in root.all() if id(message) not in on_path]
        rejected += [message.rejected(DELETED if id(message) in deleted else LOWER) for message in beside]
        if path:
            made.append((number, {"messages": [_turn(message) for message in path]}))
    return made, rejected


def _is_message(row: Mapping[str, Any]) -> bool:
    return {"message_id", "parent_id", "role", "text"} <= row.keys()


def _is_tree(row: Mapping[str, Any]) -> bool:
    prompt = row.get("prompt")
    return isinstance(prompt, Mapping) and "text" in prompt and "replies" in prompt


def _roots(rows: Sequence[object]) -> list[tuple[int, object]]:
    """(number, first message of a tree) in the file's order; other rows as they are, or an error."""
    messages = {
        str(row["message_id"]): _Message(number=number, values=row)
        for number, row in enumerate(rows, start=1)
        if isinstance(row, dict) and _is_message(row)
    }
    roots: list[tuple[int, object]] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not (_is_message(row) or _is_tree(row)):
            roots.append((number, row))
        elif _is_tree(row):
            roots.append((number, _nested(number, row["prompt"])))
        elif messages[str(row["message_id"])].number != number:
            roots.append((number, BrokenRowError("has a message_id that occurs twice", f"It is {row['message_id']!r}.")))
        elif row["parent_id"] is None:
            roots.append((number, messages[str(row["message_id"])]))
        elif (parent := messages.get(str(row["parent_id"]))) is None:
            roots.append((number, BrokenRowError("answers a message that is not in the file", f"It is {row['parent_id']!r}.")))
        else:
            parent.replies.append(messages[str(row["message_id"])])
    return roots


def _nested(number: int, values: Mapping[str, Any]) -> _Message:
    root = _Message(number=number, values=values)
    left = [root]
    while left:
        message = left.pop()
        message.replies.extend(_Message(number=number, values=reply) for reply in message.values.get("replies") or ())
        left += message.replies
    return root


def _best_path(root: _Message) -> list[_Message]:
    """The messages from the first on, each the best reply to the one before; none where the first was deleted."""
    path: list[_Message] = []
    replies = [root]
    while replies := [message for message in replies if not message.is_deleted]:
        answers = [message for message in replies if message.values.get("role") == "assistant"]
        if len(answers) > 1 and any(message.values.get("rank") is None for message in answers):
            raise BrokenRowError(
                f"begins a tree with {len(answers)} answers to one message, not all of them ranked",
                "Which of them is the best is not known.",
            )
        # Prompts are seldom ranked: then the first that somebody answered.
        path.append(min(replies, key=lambda message: (_rank(message), not message.replies)))
        replies = path[-1].replies
    return path


def _rank(message: _Message) -> float:
    rank = message.values.get("rank")
    return float("inf") if rank is None else float(rank)


def _turn(message: _Message) -> dict[str, Any]:
    role = message.values.get("role")
    return {"role": _ROLES.get(str(role), role), "content": message.values.get("text")}
