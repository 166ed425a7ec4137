"""The HTTP API: thin routes over admission, the store and the live agents.

It knows requests, tokens and JSON. What a request means is decided in `farshore.admission`, what happens afterwards in
the loop; no route knows how anything is done.
"""
