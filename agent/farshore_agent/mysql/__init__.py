"""The MySQL engine: one whole MySQL server protected between two sites through a journal at the standby's site.

`engine` is what the agent calls; `journal` and `seed` are packages of their own that know nothing of it.
"""
