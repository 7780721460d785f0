"""The actors for conversations, written in the explicit form, as examples to copy.

Each is short and sync: options, a status context, one call through the bridge. `worker.conversations` does the work.
"""

from __future__ import annotations

import dramatiq

from worker import ProcessingStatusContext, lease, run_async_in_new_loop
from worker.broker import enqueue_unique
from worker.conversations import merging, summarizing
from worker.errors import Unchanged


@dramatiq.actor(queue_name="cpu", subject=("conversation_id",))
def merge_conversation(conversation_id: str) -> None:
    """Merges a conversation's audio chunks into one MP3."""
    with ProcessingStatusContext("merge_conversation", conversation_id=conversation_id) as status:
        with lease(f"merge:{conversation_id}"):
            merged = run_async_in_new_loop(merging.merge_conversation(conversation_id, progress=status.progress))
        status.set_exit_message(merged.describe())


@dramatiq.actor(queue_name="network", subject=("conversation_id",))
def summarize_conversation(conversation_id: str, language: str | None = None) -> None:
    """Summarizes a conversation's transcript."""
    with ProcessingStatusContext("summarize_conversation", conversation_id=conversation_id) as status:
        with lease(f"summarize:{conversation_id}"):
            try:
                summary = run_async_in_new_loop(summarizing.summarize_conversation(conversation_id, language))
            except Unchanged:
                # The attempt that made the summary may have ended before it could enqueue this.
                _index(conversation_id)
                raise
        _index(conversation_id)
        status.set_exit_message(summary.describe())


@dramatiq.actor(queue_name="network", subject=("conversation_id",))
def process_conversation(conversation_id: str) -> None:
    """Enqueues the merge and the summary."""
    with ProcessingStatusContext("process_conversation", conversation_id=conversation_id) as status:
        messages = [
            enqueue_unique(merge_conversation.message(conversation_id), key=f"merge:{conversation_id}"),
            enqueue_unique(summarize_conversation.message(conversation_id), key=f"summarize:{conversation_id}"),
        ]
        status.set_exit_message("enqueued " + ", ".join(f"{m.actor_name} {m.message_id}" for m in messages))


def _index(conversation_id: str) -> None:
    """Enqueues the indexing of the conversation, if the extra for the search index is installed."""
    actor = dramatiq.get_broker().actors.get("index_conversation")
    if actor is not None:
        actor.send(conversation_id)
