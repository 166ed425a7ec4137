"""The documents, messages and errors that every part of Farshore agrees on.

This package knows no database, no transport and no other part of the product; importing it is cheap, because the
role-change core (`farshore_schema.roles`) must stay free of third-party code.
"""

__version__ = "0.1.0"
