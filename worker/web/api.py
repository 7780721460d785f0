"""The JSON API: below it questions, actions and the live tail, each in its own module."""

from __future__ import annotations

from fastapi import APIRouter

from worker.web import actions, questions, streaming
from worker.web.problems import PROBLEMS

router = APIRouter(responses=PROBLEMS)
router.include_router(questions.router)
router.include_router(actions.router)
router.include_router(streaming.router)
