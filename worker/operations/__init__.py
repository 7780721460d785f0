"""The actions and checks of people: actions on messages, health, doctor, the registry of actors."""
