"""Protect the MySQL server of `orders` between Tokyo and Osaka.

Move it with one word: `pulumi config set primary_site osaka && pulumi up` is a planned switchover that loses nothing.
"""

import pulumi

import pulumi_farshore as farshore

config = pulumi.Config()


def endpoint(site: farshore.Site, place: str) -> farshore.MySQLEndpoint:
    """Describe one site's server; passwords are references that only that site's gateway resolves."""
    return {
        "site": site.name,
        "host": config.get(f"{place}_host") or "127.0.0.1",
        "port": config.require_int(f"{place}_port"),
        "admin": {"user": f"farshore_{place}", "password": f"env:{place.upper()}_ADMIN"},
        "replication": {"user": f"farshore_{place}_repl", "password": f"env:{place.upper()}_REPLICATION"},
    }


tokyo = farshore.Site("tokyo", description="where customers are")
osaka = farshore.Site("osaka", description="500 km away")

orders = farshore.MySQLPair(
    "orders",
    site_a=endpoint(tokyo, "tokyo"),
    site_b=endpoint(osaka, "osaka"),
    primary_site=config.get("primary_site") or "tokyo",
)

pulumi.export("active_site", orders.active_site)
pulumi.export("role_epoch", orders.role_epoch)
