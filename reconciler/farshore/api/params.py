"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Path, Query

from farshore_schema.documents import Name

PairName = Annotated[Name, Path(description="Name of the pair.", examples=["orders"])]
SiteName = Annotated[Name, Path(description="Name of the site.", examples=["tokyo"])]
OperationId = Annotated[str, Path(pattern=r"^op-[0-9a-z]{1,24}-[0-9a-f]{4}$", description="Id of the operation.")]
Incarnation = Annotated[
    int | None, Query(ge=1, le=2**31, description="Do nothing when a newer incarnation was declared meanwhile (R24).")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Entries on a page.")]
After = Annotated[Name | None, Query(description="Go on after this entry: `next` of the page before.")]
