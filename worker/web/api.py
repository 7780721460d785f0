"""The JSON API: below it questions, actions and the live tail, each in its own module."""

from __future__ import annotations

import importlib
from types import ModuleType

from fastapi import APIRouter

from worker.extras import is_installed
from worker.web import actions, questions, streaming
from worker.web.problems import PROBLEMS

recall: ModuleType | None = importlib.import_module("worker.web.recall") if is_installed("recall") else None
"""Questions to the search index, where that part is installed."""

router = APIRouter(responses=PROBLEMS)
router.include_router(questions.router)
router.include_router(actions.router)
router.include_router(streaming.router)
if recall is not None:
    router.include_router(recall.router)
