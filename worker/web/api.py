"""The JSON API: below it questions, actions and the live tail, each in its own module."""

from __future__ import annotations

import importlib
from types import ModuleType

from fastapi import APIRouter

from worker.ground.extras import is_installed
from worker.web import actions, questions, streaming
from worker.web.problems import PROBLEMS


def _with_recall(module: str) -> ModuleType | None:
    return importlib.import_module(module) if is_installed("recall") else None


recall = _with_recall("worker.web.recall")
"""The router for questions to the search index, or None if its extra is not installed."""

repositories = _with_recall("worker.web.repositories")
"""The router for repositories in the search index, or None if its extra is not installed."""

router = APIRouter(responses=PROBLEMS)
router.include_router(questions.router)
router.include_router(actions.router)
router.include_router(streaming.router)
for part in (recall, repositories):
    if part is not None:
        router.include_router(part.router)
