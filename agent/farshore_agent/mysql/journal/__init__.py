"""The MySQL journal: a durable copy of one server's binary log, in real binlog file layout, and a server of it.

`client` is what the agent calls; `receiver` and `server` are the two data-path processes; `store` and its neighbours
are the files on disk. The format on disk and the promises are in docs/journal.md. This package must not know the agent,
the reconciler or the schema: it imports only the standard library, PyMySQL and cryptography.
"""
