"""The databases of A5: terminals, authentication keys, policies, identities, cipher keys, audit log."""

from locum.store.database import Store, make_data_directory, open_node_store
from locum.store.records import (
    Action,
    AuditEntry,
    AuthenticationKey,
    AuthenticationKeyKind,
    Channel,
    Identity,
    Outcome,
    Policy,
    Snapshot,
    Terminal,
)
from locum.store.sealing import NodeKey, load_node_key
from locum.store.trust import NewKey

__all__ = [
    "Action",
    "AuditEntry",
    "AuthenticationKey",
    "AuthenticationKeyKind",
    "Channel",
    "Identity",
    "NewKey",
    "NodeKey",
    "Outcome",
    "Policy",
    "Snapshot",
    "Store",
    "Terminal",
    "load_node_key",
    "make_data_directory",
    "open_node_store",
]
