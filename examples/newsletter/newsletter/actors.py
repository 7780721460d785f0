"""The actor that runs the service in the background."""

from newsletter import services
from worker import actor


@actor(subject=("issue", "subscriber"))
async def send_newsletter(issue: str, subscriber: str) -> int:
    """Delivers an issue to a subscriber."""
    return await services.send_newsletter(issue, subscriber)
