"""The databases: those of A5 (terminals, keys, policies, identities, secrets), the key server's, the audit log."""

from locum.store.certificates import NewCertificate
from locum.store.database import Store, make_data_directory, open_node_store
from locum.store.edges import Permissions
from locum.store.records import (
    Action,
    Allow,
    AuditEntry,
    AuthenticationKey,
    AuthenticationKeyKind,
    Channel,
    Edge,
    EdgeRole,
    Identity,
    KeyServerSnapshot,
    LinkAuthority,
    Outcome,
    Policy,
    ServedCertificate,
    SharedSecret,
    SharedSecretKind,
    Snapshot,
    StoredKey,
    Terminal,
)
from locum.store.sealing import NodeKey, load_node_key
from locum.store.secrets import NewSecret
from locum.store.trust import NewKey

__all__ = [
    "Action",
    "Allow",
    "AuditEntry",
    "AuthenticationKey",
    "AuthenticationKeyKind",
    "Channel",
    "Edge",
    "EdgeRole",
    "Identity",
    "KeyServerSnapshot",
    "LinkAuthority",
    "NewCertificate",
    "NewKey",
    "NewSecret",
    "NodeKey",
    "Outcome",
    "Permissions",
    "Policy",
    "ServedCertificate",
    "SharedSecret",
    "SharedSecretKind",
    "Snapshot",
    "Store",
    "StoredKey",
    "Terminal",
    "load_node_key",
    "make_data_directory",
    "open_node_store",
]
