"""Where everything lives in the store: the one page that names every key.

========================================  ==================================================  =====================
key                                       value                                               written by
========================================  ==================================================  =====================
/sites/NAME                               SiteRecord                                          admission
/uses/NAME                                UsesRecord: how many pairs name the site            admission
/pairs/NAME/spec                          PairRecord: document, generation, incarnation,      admission
                                          owner, created
/pairs/NAME/role                          RoleRecord: the decision, absent before the first   loop (decide)
/pairs/NAME/operation                     OperationView, while it is open                     admission births it,
                                                                                              asks for its abort;
                                                                                              loop writes the rest
/pairs/NAME/servers                       ServersRecord: the servers its endpoints are        admission, loop
                                          bound to                                            (binding)
/pairs/NAME/status                        PairStatus, on change and coalesced; no lag         loop
/operations/NAME/ID                       OperationView, once it has ended                    loop
/servers/UUID                             ServerRecord: the one pair this server may serve    admission, loop
                                                                                              (binding)
/graves/NAME                              GraveRecord: highest incarnation and epoch ever     admission, loop
                                          used for a pair of this name                        (removal)
/handovers/NAME/SIDE                      HandoverRecord: an agent's durable record on its    sessions
                                          way to the side's next agent
/shards/NN                                OwnerRecord under a lease; its create revision is   supervisor
                                          the fencing token
/agents/SITE                              AgentRecord: the enrolled agent of a site           API
/enrolments/HASH                          EnrolmentRecord: a one-time code                    API
/tokens/HASH                              TokenRecord: a bearer token, hashed                 API
/settings/NAME                            small values of the service itself                  service
========================================  ==================================================  =====================

Names hold no slash (the schema's pattern), so a key never has two readings. All keys of one pair are neighbours: one
listing below /pairs/ yields whole pairs.
"""

from typing import Final

SITES: Final = "/sites/"
USES: Final = "/uses/"
PAIRS: Final = "/pairs/"
OPERATIONS: Final = "/operations/"
SERVERS: Final = "/servers/"
GRAVES: Final = "/graves/"
HANDOVERS: Final = "/handovers/"
SHARDS: Final = "/shards/"
AGENTS: Final = "/agents/"
ENROLMENTS: Final = "/enrolments/"
TOKENS: Final = "/tokens/"
SETTINGS: Final = "/settings/"

SHARD_COUNT: Final = 256  # fixed for ever: pairs are mapped to shards by a hash of their name


def site(name: str) -> str:
    """Return the key of a site."""
    return f"{SITES}{name}"


def uses(site_name: str) -> str:
    """Return the key that counts a site's pairs."""
    return f"{USES}{site_name}"


def pair(name: str) -> str:
    """Return the prefix of everything that is current of a pair."""
    return f"{PAIRS}{name}/"


def spec(name: str) -> str:
    """Return the key of a pair's declaration."""
    return f"{PAIRS}{name}/spec"


def role(name: str) -> str:
    """Return the key of a pair's role."""
    return f"{PAIRS}{name}/role"


def operation(name: str) -> str:
    """Return the key of a pair's open operation."""
    return f"{PAIRS}{name}/operation"


def pair_servers(name: str) -> str:
    """Return the key of the servers that a pair's endpoints are bound to."""
    return f"{PAIRS}{name}/servers"


def status(name: str) -> str:
    """Return the key of the loop's report on a pair."""
    return f"{PAIRS}{name}/status"


def pair_name(key: str) -> str | None:
    """Return the pair that a key below /pairs/ or /operations/ belongs to, None for any other key."""
    for prefix in (PAIRS, OPERATIONS):
        if key.startswith(prefix):
            return key[len(prefix) :].partition("/")[0]
    return None


def after_pair(name: str) -> str:
    """Return a key greater than all of the pair's and smaller than any later pair's, to go on a listing from."""
    return f"{PAIRS}{name}/\U0010fffe"


def operations(name: str) -> str:
    """Return the prefix of a pair's ended operations."""
    return f"{OPERATIONS}{name}/"


def ended_operation(name: str, operation_id: str) -> str:
    """Return the key of an ended operation."""
    return f"{OPERATIONS}{name}/{operation_id}"


def server(uuid: str) -> str:
    """Return the key that binds a server to its one pair."""
    return f"{SERVERS}{uuid}"


def grave(name: str) -> str:
    """Return the key that outlives a pair."""
    return f"{GRAVES}{name}"


def handover(name: str, side: str) -> str:
    """Return the key of a record on its way to a side's next agent."""
    return f"{HANDOVERS}{name}/{side}"


def shard(number: int) -> str:
    """Return the key of a shard's owner."""
    return f"{SHARDS}{number:02x}"


def agent(site_name: str) -> str:
    """Return the key of a site's enrolled agent."""
    return f"{AGENTS}{site_name}"


def enrolment(code_hash: str) -> str:
    """Return the key of a one-time code."""
    return f"{ENROLMENTS}{code_hash}"


def token(token_hash: str) -> str:
    """Return the key of a bearer token."""
    return f"{TOKENS}{token_hash}"
