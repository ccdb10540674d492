"""The databases of A5: terminals, all kinds of keys, policies, identities, shared secrets, audit log."""

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
    SharedSecret,
    SharedSecretKind,
    Snapshot,
    Terminal,
)
from locum.store.sealing import NodeKey, load_node_key
from locum.store.secrets import NewSecret
from locum.store.trust import NewKey

__all__ = [
    "Action",
    "AuditEntry",
    "AuthenticationKey",
    "AuthenticationKeyKind",
    "Channel",
    "Identity",
    "NewKey",
    "NewSecret",
    "NodeKey",
    "Outcome",
    "Policy",
    "SharedSecret",
    "SharedSecretKind",
    "Snapshot",
    "Store",
    "Terminal",
    "load_node_key",
    "make_data_directory",
    "open_node_store",
]
