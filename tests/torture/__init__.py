"""What is done to this project on purpose: bad input, kills at every dangerous point, faults of the machine."""
