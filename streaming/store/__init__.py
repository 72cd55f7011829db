"""What the daemon remembers: events, the outbox that delivers them, and scores at 1 Hz.

One thread writes, over one connection; everybody else reads over connections of their own. SQLite by default,
PostgreSQL by URL. Nothing else writes to the database: a second daemon on the same file is refused.
"""

from streaming.store.database import StoreError, StoreFullError
from streaming.store.history import History, Second
from streaming.store.outbox import Entry, Outbox
from streaming.store.retention import Pruned, Retention
from streaming.store.store import Store
from streaming.store.writer import Health, Limits

__all__ = [
    "Entry",
    "Health",
    "History",
    "Limits",
    "Outbox",
    "Pruned",
    "Retention",
    "Second",
    "Store",
    "StoreError",
    "StoreFullError",
]
