"""Declare disaster recovery in a Pulumi program; the reconciler makes it true.

import pulumi_farshore as farshore
tokyo, osaka = farshore.Site("tokyo"), farshore.Site("osaka")
farshore.MySQLPair("orders", site_a={...}, site_b={...}, primary_site="tokyo")
"""

from pulumi_farshore.resources import Credential, JournalSettings, MySQLEndpoint, MySQLPair, Site, Tls, load

__all__ = ["Credential", "JournalSettings", "MySQLEndpoint", "MySQLPair", "Site", "Tls", "load"]
