"""The history: what an event is, where events go (`writer`) and how they are asked back (`query`)."""
