"""Answers that are our own documents: written once as JSON, without a second validation on the way out."""

from typing import Generic, TypeVar

from fastapi.responses import Response
from pydantic import BaseModel

Shown = TypeVar("Shown")


class Listed(BaseModel, Generic[Shown]):
    """A page of a listing. `next` is what to ask for with `after`; null: that was all."""

    items: tuple[Shown, ...]
    next: str | None = None


def answered(document: BaseModel) -> Response:
    """Return a document as the answer."""
    return Response(document.model_dump_json(), media_type="application/json")
