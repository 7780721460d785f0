"""The pages for people; what they show is asked of the history, as everything else is."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
