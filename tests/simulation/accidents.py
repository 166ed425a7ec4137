"""What can break in the small world, and how it comes back: databases, agents, appliers and whole sites."""

from farshore_schema.roles import SIDES
from tests.simulation.physics import died
from tests.simulation.world import Site

Both = tuple[Site, Site]


def accidents(sites: Both, *, one_agent: bool) -> list[tuple[str, Both]]:
    """Return every single fault that can happen to the sites now."""
    out: list[tuple[str, Both]] = []
    a, b = sites
    if all(site.agent and site.alive for site in sites):
        dead = (died(a), died(b))
        if one_agent:
            out.append(("the agent dies", dead))
        out.append(("all agents die, the database of a restarts", (restarted(dead[0]), dead[1])))
        out.append(("all agents die, the database of b restarts", (dead[0], restarted(dead[1]))))
    for side, site in zip(SIDES, sites, strict=True):
        changes: dict[str, Site] = {}
        if site.alive and site.agent and not one_agent:
            changes[f"the agent of {side} dies"] = died(site)
        if site.alive and site.up:
            changes[f"the database of {side} dies"] = site._replace(up=False, pending=None)
        if all(each.alive for each in sites):
            changes[f"site {side} dies"] = site._replace(alive=False, pending=None, drain=None)
        if site.alive and site.up and site.receiving and not site.stopped:
            changes[f"the applier of {side} stops"] = site._replace(stopped="applier_stopped")
        out += [(label, put(sites, changed)) for label, changed in changes.items()]
    return out


def mends(sites: Both, *, one_agent: bool) -> list[tuple[str, Both]]:
    """Return how what died can come back: as it was on disk, for nothing, and maybe never."""
    out: list[tuple[str, Both]] = []
    for side, site in zip(SIDES, sites, strict=True):
        if not site.alive:
            # A site that lost power comes back with its database started again.
            out.append((f"site {side} returns", put(sites, restarted(site._replace(alive=True)))))
        elif not site.up:
            out.append((f"the database of {side} restarts", put(sites, restarted(site))))
        if site.alive and not site.agent and not one_agent:
            out.append((f"the agent of {side} returns", put(sites, site._replace(agent=True))))
    if one_agent and not all(site.agent for site in sites):
        a, b = sites
        out.append(("the agent returns", (a._replace(agent=True), b._replace(agent=True))))
    return out


def put(sites: Both, site: Site) -> Both:
    """Return both sites with one of them replaced."""
    return (site, sites[1]) if site.side == "a" else (sites[0], site)


def restarted(site: Site) -> Site:
    """Return the site with its database started again: it is what was made to last, no more and no less (R13)."""
    return site._replace(up=True, writable=site.lasting, pending=None)
