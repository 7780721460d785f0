"""What people do with messages, and what is checked for them."""
