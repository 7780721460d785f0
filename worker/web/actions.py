"""The actions, each as JSON; what they do belongs to `worker.broker.actions`, which also writes the audit log."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["actions"])
