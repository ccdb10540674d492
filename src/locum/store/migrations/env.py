"""Runs the migrations on the connection, and in the transaction, that `store.engine` hands over.

Never connects by itself: whoever opens a store holds the lock that keeps two from migrating at once.
"""

from alembic import context

from locum.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
