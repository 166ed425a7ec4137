"""Role probes: `GET /primary/{pair}` and `/standby/{pair}`, answered by a process that outlives the agent (R23).

    keeper    in the agent: starts, adopts, configures and replaces the process
    process   the process: listeners, control socket, answers
    control   what the two say to each other over the unix socket, listeners and passwords included
    answers   one side's answer: the durable record and the database's own word
    web       a small HTTP server that nobody can hang or fill

Routing of clients must not need the reconciler or the agent (I10): the process reads the durable records from disk and
asks the database itself.
"""
