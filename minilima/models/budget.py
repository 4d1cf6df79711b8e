"""What an endpoint may cost: worst cases are reserved before a request is sent, so that a cap is never passed.

    reserve (worst case) ─> send ─> settle (what was billed)
Reservations stand in the reply cache's database, which all runs share: two of one account keep its cap together. After a
kill, what was in flight counts as spent in full, because nobody knows whether the endpoint billed it.
"""

import datetime
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf

from minilima.config.groups import CONF
from minilima.config.schema import BudgetConfig, EndpointConfig
from minilima.errors import MinilimaError
from minilima.models.chat import Request
from minilima.models.database import Database, open_database, transaction

_OPENAI = "api.openai.com"
_BATCH_SHARE = 0.5
"""Batches cost half."""
_TOKENS_A_MESSAGE = 16
"""Tokens that a chat template adds around a message, at most."""
COUNTABLE = 2**53
"""No request takes so many tokens or USD; a larger number would not fit into the database either."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """USD for a million tokens; `as_of` is None where the user set it."""

    prompt: float
    completion: float
    as_of: str | None = None

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Requests sent, tokens in and out, and USD."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(requests=self.requests + other.requests, tokens=self.tokens + other.tokens, usd=self.usd + other.usd)


@cache
def _price_table() -> dict[str, Any]:
    table = OmegaConf.to_container(OmegaConf.load(CONF / "prices.yaml"))
    assert isinstance(table, dict)
    return {str(name): value for name, value in table.items()}


def price_of(model: str | None, endpoint: EndpointConfig) -> Price | None:
    """The price that is set, else the one in conf/prices.yaml for the endpoint's host, else None: it is never guessed.

    A dated name (gpt-4o-mini-2024-07-18) has the price of the longest name in the table that it begins with.
    """
    prompt, completion = endpoint.budget.usd_per_million_prompt_tokens, endpoint.budget.usd_per_million_completion_tokens
    if prompt is not None and completion is not None:
        return Price(prompt=prompt, completion=completion)
    if (row := _row(model, endpoint)) is None:
        return None
    share = _BATCH_SHARE if endpoint.batch else 1.0
    return Price(prompt=share * row["prompt"], completion=share * row["completion"], as_of=row["as_of"])


def shutdown_note(model: str | None, endpoint: EndpointConfig) -> str | None:
    """When the provider ends a model and what it names instead, by conf/prices.yaml; None where nothing is announced."""
    row = _row(model, endpoint)
    if row is None or "ends" not in row:
        return None
    instead = f"; it names {row['instead']} instead" if "instead" in row else ""
    today = datetime.date.today().isoformat()
    was = "was to be shut down" if row["ends"] <= today else "is announced to be shut down"
    return f"{model} {was} on {row['ends']}{instead}."


def _row(model: str | None, endpoint: EndpointConfig) -> dict[str, Any] | None:
    """What conf/prices.yaml says of a model at the endpoint's host."""
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
    table = _price_table().get((urlsplit(address).hostname or "") if address else _OPENAI)
    if model is None or table is None:
        return None
    names = [name for name in table["models"] if model == name or model.startswith(f"{name}-20")]
    return {"as_of": table["as_of"], **table["models"][max(names, key=len)]} if names else None


def worst_case(request: Request, price: Price | None) -> Spend:
    """The most that a request can take. A token is at least one byte of text, so bytes bound the prompt's tokens."""
    prompt = sum(len(message.content.encode()) + _TOKENS_A_MESSAGE for message in request.messages)
    usd = price.usd(prompt, request.sampling.max_tokens) if price else 0.0
    return Spend(requests=1, tokens=prompt + request.sampling.max_tokens, usd=usd)


class Budget:
    """The account of one stage. `scope` names it; all of its processes, also after a kill, share one sum."""

    def __init__(self, database: Path, scope: str, caps: BudgetConfig, price: Price | None) -> None:
        if caps.usd is not None and price is None:
            raise MinilimaError(
                "The cap in USD cannot be kept: the price of this model is not known.",
                "conf/prices.yaml does not list it, and prices are never guessed.",
                "Set budget.usd_per_million_prompt_tokens and …_completion_tokens beside the cap, or cap budget.tokens instead.",
            )
        self.caps, self.price, self._scope = caps, price, scope
        self.in_flight = 0
        self.database: Database = open_database(database)
        _make_tables(self.database)
        self.database.execute("INSERT OR IGNORE INTO accounts SELECT ?, 0, 0, 0.0", (scope,))

    @property
    def spent(self) -> Spend:
        """Everything settled or reserved so far, by every process that shares the account."""
        row = self.database.execute("SELECT requests, tokens, usd FROM accounts WHERE scope = ?", (self._scope,)).fetchone()
        return Spend(requests=row[0], tokens=row[1], usd=row[2])

    @property
    def is_capped(self) -> bool:
        return any(cap is not None for cap in (self.caps.usd, self.caps.tokens, self.caps.requests))

    def reserve(self, worst: Spend) -> int | None:
        """A ticket for a request that takes at most `worst`; None where a cap could be passed."""
        tickets = self.reserve_all([worst])
        return None if tickets is None else tickets[0]

    def reserve_all(
        self, worst: Sequence[Spend], note: Callable[[Sequence[int]], None] = lambda tickets: None
    ) -> list[int] | None:
        """A ticket for each request; None, and nothing is reserved, where a cap could be passed by all of them together.

        The look at the account and the booking are one transaction, so two runs never share the last of a cap.
        `note` belongs to it too.
        """
        with transaction(self.database):
            if not covers(self.caps, sum(worst, self.spent)):
                return None
            tickets = [self._book(item) for item in worst]
            note(tickets)
        self.in_flight += len(tickets)
        return tickets

    def _book(self, worst: Spend) -> int:
        row = (self._scope, worst.requests, worst.tokens, worst.usd)
        cursor = self.database.execute("INSERT INTO spent (scope, requests, tokens, usd) VALUES (?, ?, ?, ?)", row)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def settle(self, ticket: int, worst: Spend, actual: Spend) -> None:
        """Replaces a reservation by what was billed, unless what the endpoint says of it is no amount (negative, 10^30)."""
        known = all(0 <= amount < COUNTABLE for amount in (actual.tokens, actual.usd))
        billed = actual if known else worst
        row = (billed.requests, billed.tokens, billed.usd, ticket)
        self.database.execute("UPDATE spent SET requests = ?, tokens = ?, usd = ?, settled = 1 WHERE ticket = ?", row)
        self.in_flight -= 1

    def exhausted(self) -> MinilimaError:
        """What to say when not even one more request fits."""
        caps = {"USD": self.caps.usd, "tokens": self.caps.tokens, "requests": self.caps.requests}
        shown = ", ".join(f"{cap:,} {unit}" for unit, cap in caps.items() if cap is not None)
        spent = self.spent
        usd = f", {spent.usd:,.4f} USD" if self.price else ""
        return MinilimaError(
            f"The budget is used up ({shown}).",
            f"Spent: {spent.requests:,} requests, {spent.tokens:,} tokens{usd}; the next one might pass the cap.",
            "Raise the cap (endpoint.budget.…) and run the same command: every reply is kept and not paid again.",
        )


_TRIGGERS = (
    """CREATE TRIGGER reserved AFTER INSERT ON spent BEGIN
        INSERT OR IGNORE INTO accounts VALUES (new.scope, 0, 0, 0.0);
        UPDATE accounts SET requests = requests + new.requests, tokens = tokens + new.tokens, usd = usd + new.usd
            WHERE scope = new.scope;
    END""",
    """CREATE TRIGGER settled AFTER UPDATE ON spent BEGIN
        UPDATE accounts SET requests = requests + new.requests - old.requests, tokens = tokens + new.tokens - old.tokens,
            usd = usd + new.usd - old.usd WHERE scope = new.scope;
    END""",
)
"""They keep the sums of each account: to add up its reservations for each request would take long."""


def _make_tables(database: sqlite3.Connection) -> None:
    """Reservations, and their sums for each account."""
    with transaction(database):
        database.execute(
            "CREATE TABLE IF NOT EXISTS spent (ticket INTEGER PRIMARY KEY, scope TEXT, requests INT, tokens INT, usd REAL)"
        )
        if "settled" not in {row[1] for row in database.execute("PRAGMA table_info(spent)")}:  # as accounts were first kept
            database.execute("ALTER TABLE spent ADD COLUMN settled INT NOT NULL DEFAULT 0")
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'accounts'").fetchone():
            return
        database.execute("CREATE TABLE accounts (scope TEXT PRIMARY KEY, requests INT, tokens INT, usd REAL)")
        database.execute("INSERT INTO accounts SELECT scope, sum(requests), sum(tokens), sum(usd) FROM spent GROUP BY scope")
        for trigger in _TRIGGERS:
            database.execute(trigger)


def spent_usd(database: Path, scope: str) -> float | None:
    """What the stage `scope` has cost so far, without the requests in flight; None where nothing has a price."""
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            sums = connection.execute("SELECT sum(usd) FROM spent WHERE settled AND scope = ?", (scope,))
            total: float | None = sums.fetchone()[0]
    except sqlite3.Error:  # no account has been opened, or the file is being written: it is only for a display
        return None
    return total or None


def covers(caps: BudgetConfig, spent: Spend) -> bool:
    """Whether `spent` stays within the caps."""
    limits = ((spent.requests, caps.requests), (spent.tokens, caps.tokens), (spent.usd, caps.usd))
    return all(cap is None or amount <= cap for amount, cap in limits)


def key_problem(endpoint: EndpointConfig) -> str | None:
    """What is wrong with the form of the key, in words that do not show it; None where it can be sent."""
    key = os.environ.get(endpoint.api_key_env, "")
    if key != key.strip():
        return "it begins or ends with a space or a line break"
    if key[:1] in "\"'“”„‘’«»" and key:
        return "it begins with a quotation mark"
    if not key.isascii() or any(not character.isprintable() or character == " " for character in key):
        return "it holds a character that no key has: a space, a typographic quotation mark, or one that cannot be seen"
    return None


_KEYED = re.compile(
    r"(^|\.)(api\.openai\.com|api\.anthropic\.com|generativelanguage\.googleapis\.com|api\.mistral\.ai|api\.deepseek\.com"
    r"|openrouter\.ai|azure\.com)$"
)
"""Hosts that answer nobody without a key; a server of one's own may."""


def missing_key(endpoint: EndpointConfig) -> bool:
    """True where the endpoint needs a key, as the public ones do, and the named variable is empty."""
    address = endpoint.base_url or os.environ.get("OPENAI_BASE_URL")
    needs = not address or _KEYED.search(urlsplit(address).hostname or "") is not None
    return needs and not os.environ.get(endpoint.api_key_env)
