"""Files of transitions: reading, checking, fetching and locking them."""
